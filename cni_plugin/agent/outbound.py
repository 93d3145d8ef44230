"""Which source address pods' packets get: decided from the settings, ip-masq-agent's files and the cloud.

Owns the decision and when it changes. It must not know how the kernel is configured for it, nor how a
source is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv6Network, ip_network
from typing import TYPE_CHECKING

from cni_plugin.agent.ip_masq_files import IpMasq, IpMasqError, read_ip_masq
from cni_plugin.host import traffic
from cni_plugin.host.traffic import RFC_1918, Traffic, collapsed
from ipam.value import replace

if TYPE_CHECKING:
    from pathlib import Path

    from cni_plugin.agent.settings import OutboundSettings
    from ipam.model import IPAddress, Listing


class Outbound:
    """The decision of this process.

    Args:
        run_dir: the state directory, where calls without the agent find it.
        listings: what the sources listed last.
    """

    def __init__(self, run_dir: Path, listings: Callable[[], Iterable[Listing]]) -> None:
        self._run_dir = run_dir
        self._listings = listings
        self._seen: tuple[Listing, ...] = ()
        self._uplinks: tuple[int, ...] = ()

    def decide(self, settings: OutboundSettings, *, thorough: bool = True) -> list[str]:
        """Decide again; returns in words why something stays as it was.

        Which links the NICs are is asked again when it is ``thorough`` or a source lists something else.

        Raises:
            OSError: the decision can't be written.
        """
        try:
            files = read_ip_masq(settings.file)
        except IpMasqError as error:
            return [str(error)]
        listings = tuple(self._listings())
        before = traffic.read_decision(self._run_dir)
        doubtful: tuple[IPAddress, ...] = ()
        if listings:
            decided = self._by_listings(listings, settings, files, thorough=thorough)
            doubtful = _not_told(before.public if before else (), listings)
            decided = replace(decided, public=_in_order({*decided.public, *doubtful}))
        else:  # what the process before this one decided holds until a source was read
            decided = before or traffic.default_decision()
        flags = replace(
            decided,
            link_local=settings.link_local or files.link_local,
            link_local_v6=files.link_local_v6,
            random_fully=settings.random_fully,
            imds=settings.imds,
            wireserver=settings.wireserver,
        )
        traffic.write_decision(flags, self._run_dir)
        if not doubtful:
            return []
        named = ", ".join(map(str, doubtful))
        return [f"whether {named} still has a public address is not known: it is not masqueraded, as before"]

    def _by_listings(
        self, listings: tuple[Listing, ...], settings: OutboundSettings, files: IpMasq, *, thorough: bool
    ) -> Traffic:
        """What is inside, which addresses are public, and which there are."""
        nics = [nic for each in listings for nic in each.nics]
        usual = [network for each in listings for network in each.inside]
        v6 = [
            ip
            for nic in nics
            for ip in (*nic.own_addresses, *(a.ip for a in nic.addresses))
            if ip.version == 6
        ]
        if not usual and files.networks is None:
            usual += RFC_1918
            usual += [traffic.UNIQUE_LOCAL] if v6 else []
        subnets = [network for nic in nics for network in nic.subnets]
        subnets += [IPv6Network((int(ip), traffic.SUBNET_V6), strict=False) for ip in v6]
        inside = [*usual, *subnets, *(files.networks or ()), *settings.non_masquerade]
        public = {ip for nic in nics for ip in nic.public or ()}
        if thorough or listings != self._seen:
            self._uplinks = traffic.links_with({ip for nic in nics for ip in nic.own_addresses})
            self._seen = listings
        pool = collapsed(ip_network(each.ip) for nic in nics for each in nic.addresses)
        return Traffic(collapsed(inside), public=_in_order(public), pool=pool, uplinks=self._uplinks)


def _not_told(before: Iterable[IPAddress], listings: Iterable[Listing]) -> tuple[IPAddress, ...]:
    """Those that had a public address, are still listed, and of which no source says whether they have one.

    Masquerading them would show the pod under another address, and only because a service did not answer.
    """
    nics = [nic for each in listings for nic in each.nics]
    told = {each.ip for nic in nics if nic.public is not None for each in nic.addresses}
    untold = {each.ip for nic in nics if nic.public is None for each in nic.addresses} - told
    return _in_order(untold.intersection(before))


def _in_order(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    return tuple(sorted(addresses, key=lambda ip: (ip.version, int(ip))))
