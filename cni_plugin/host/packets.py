"""Table ``inet azvnet`` of nf_tables: masquerading, and what is not forwarded.

Owns writing it, and checking that the kernel has it as it should be; its rules are in ``packet_rules``. It
must not know how rules become bytes, nor who decides what is masqueraded.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cni_plugin.cni.errors import KernelRefused, StateUnavailable
from cni_plugin.datapath.names import owner_of
from cni_plugin.host import traffic
from cni_plugin.host.packet_rules import SOURCE_CHECK, WIRESERVER_PORTS, chains_of
from cni_plugin.host.traffic import PodNetwork, Traffic
from cni_plugin.kernel import encode, nftables
from cni_plugin.kernel.encode import HOST_LINK_GROUP
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.node import Node
    from ipam.model import IPAddress, IPNetwork

T = TypeVar("T")

KIND = "nftables"
SHARED = False
KEPT = "nf_tables table inet {} stays"
TABLE = "azvnet"
MASQUERADES_SINCE = (5, 7)
OTHERS_CHAIN = "IP-MASQ-AGENT"
"""The chain of ip-masq-agent and ip-masq-agent-v2; one made by iptables-legacy is not seen."""

_written: tuple[str, ...] = ()
"""The comments of the rules that this process has last seen in the kernel."""


def ensure(node: Node) -> str:
    """As ``HostState.ensure``; carrying out a new decision is not reported as a repair."""
    global _written
    run_dir = node.run_dir
    decided = traffic.read_decision(run_dir)
    try:
        if decided is None:
            decided = traffic.default_decision()
            _keep(partial(traffic.write_decision, decided, run_dir), run_dir)
        networks = traffic.read_networks(run_dir)
        excepted = _excepted(networks, node.host)
        ipv6 = traffic.has_ipv6(networks)
        if ipv6 and not any(each.version == 6 for each in decided.non_masquerade):
            decided = replace(decided, non_masquerade=(*decided.non_masquerade, *traffic.default_of_ipv6()))
        chains = chains_of(decided, masqueraded=_any(networks), excepted=excepted, ipv6=ipv6)
        wanted = tuple(rule.comment for chain in chains for rule in chain.rules)
        found = tuple(nftables.comments_of(TABLE))
        if found != wanted:
            nftables.replace_table(TABLE, chains)
    except OSError as error:
        _written = ()
        raise _refused(error) from error
    was, _written = _written, wanted
    if found == wanted or was != wanted:
        return ""
    how = "changed" if found else "gone"
    return f"nf_tables table inet {TABLE} was {how} and was written again"


def ensure_for(name: str, network: PodNetwork, node: Node) -> None:
    """As ``ensure``, for a pod of a network; does nothing if an agent keeps the table as it should be.

    Raises:
        KernelRefused: it is not there and can't be written.
        StateUnavailable: the state directory can't be written.
    """
    run_dir = node.run_dir
    known = _networks.get(run_dir) if node.background_reads else None
    if known is not None and known.get(name) == network:
        if not _written or (_any(known) and not network.masqueraded):
            ensure(node)
        return
    before = traffic.read_networks(run_dir).get(name)
    _networks[run_dir] = _keep(lambda: traffic.note_network(name, network, run_dir), run_dir)
    try:
        ensure(node)
    except KernelRefused:  # what only this network needs must not fail the pods of others
        with suppress(OSError):
            _networks[run_dir] = traffic.note_network(name, before, run_dir)
        raise


_networks: dict[Path, dict[str, PodNetwork]] = {}
"""What this process last read from ``traffic.NETWORKS``; for the agent, which handles all calls."""


def _keep(write: Callable[[], T], run_dir: Path) -> T:
    try:
        return write()
    except OSError as error:
        raise StateUnavailable(
            f"the settings for pods' packets can't be written to {run_dir}: {error.strerror}",
            f"Free some space: `df -h {run_dir}; df -i {run_dir}` shows what is used.",
        ) from error


def _refused(error: OSError) -> KernelRefused:
    return KernelRefused(
        f"the rules for pods' packets (nf_tables table inet {TABLE}) can't be written: {error.strerror}",
        "Without them pods reach nothing outside the virtual network, and read the node's secrets from the "
        "wireserver. The kernel needs nf_tables with nat, masq and reject, for pods with IPv6 also fib "
        "(`modprobe nf_tables`).",
    )


def _any(networks: Mapping[str, PodNetwork]) -> bool:
    """Whether any network is masqueraded; if none is known, yes."""
    return any(each.masqueraded for each in networks.values()) or not networks


def _excepted(networks: Mapping[str, PodNetwork], host: Netlink) -> tuple[int, ...]:
    """Host veths of networks that are not masqueraded, where others are."""
    off = {name for name, network in networks.items() if not network.masqueraded}
    if not off or not _any(networks):
        return ()
    links = [each for each in host.links(encode.dump_links()) if each.group == HOST_LINK_GROUP]
    return tuple(sorted(each.index for each in links if (named := owner_of(each)) and named[1] in off))


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``."""
    try:
        found = nftables.comments_of(TABLE)
    except OSError as error:
        if error.errno not in nftables.NO_TABLES:
            raise
        return ["this kernel has no nf_tables: pods reach nothing outside the virtual network"]
    if not found:
        missing = f"nf_tables table inet {TABLE} is missing: pods reach nothing outside the virtual network"
        return [missing] if in_use else []
    ends = {each.rpartition(" ")[2] for each in found}
    first = found[0].rpartition("[")[2].partition(" ")[0]
    if ends != {f"{number}/{len(found)}]" for number in range(1, len(found) + 1)} or any(
        f"[{first} " not in each for each in found
    ):
        return [f"nf_tables table inet {TABLE} was changed by something else"]
    return [*_too_old(), *_masqueraded_twice(node), *_untracked()]


def _too_old() -> list[str]:
    """Before Linux 5.7 a rule at postrouting does not know by which link a packet came in (nft_meta)."""
    release = os.uname().release
    major, minor, *_ = release.replace("-", ".").split(".")
    if (int(major), int(minor)) >= MASQUERADES_SINCE:
        return []
    since = ".".join(map(str, MASQUERADES_SINCE))
    return [f"Linux {release} does not masquerade pods' packets to the outside: {since} or newer is needed"]


def _untracked() -> list[str]:
    """The kernel drops the first packet of a connection that it has no entry for (nf_conntrack_in)."""
    from cni_plugin.kernel import conntrack

    try:
        tracked, most = conntrack.usage()
    except OSError:  # nothing is tracked
        return []
    if not most or tracked < most:
        return []
    limit = f"no more than {most} (net.netfilter.nf_conntrack_max)"
    return [f"the kernel tracks {tracked} connections, and {limit}: new connections of pods are dropped"]


def _masqueraded_twice(node: Node) -> list[str]:
    from cni_plugin.kernel import packet_filter  # loads ctypes, which an ADD does without

    networks = traffic.read_networks(node.run_dir)
    if not (networks and _any(networks) and packet_filter.has_chain(OTHERS_CHAIN)):
        return []
    text = (
        f"ip-masq-agent masquerades pods' packets as well (chain {OTHERS_CHAIN}), and the chain that the "
        "kernel calls first decides: remove ip-masq-agent (azvnet reads its files itself), or set ipMasq to "
        "false in the network's configuration"
    )
    return [text]


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``: there was no table before."""
    del node
    try:
        return {TABLE: "absent"} if nftables.comments_of(TABLE) else {}
    except OSError as error:
        if error.errno not in nftables.NO_TABLES:
            raise
        return {}


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``: delete the table."""
    del node, values, place
    nftables.delete_table(TABLE)
    return f"nf_tables table inet {TABLE} was removed"


def checks_sources() -> bool:
    """Whether the kernel has the rule that drops IPv6 packets with a source that is not the pod's.

    Raises:
        OSError: it does not list the rules.
    """
    return any(each.startswith(SOURCE_CHECK) for each in nftables.comments_of(TABLE))


def is_masqueraded(network: str, source: IPAddress, target: IPAddress, run_dir: Path) -> bool:
    """Whether what a pod of a network sends off the node leaves with the node's address.

    Raises:
        OSError: as ``traffic.default_decision``.
    """
    decided = _decided(run_dir)
    networks = traffic.read_networks(run_dir)
    known = networks.get(network)
    if not (known.masqueraded if known else _any(networks)):
        return False
    if source in decided.public and not _is_of_platform(target):
        return False
    kept = [] if decided.link_local else [traffic.LINK_LOCAL]
    kept_v6 = [] if decided.link_local_v6 else [traffic.LINK_LOCAL_V6]
    return not any(target in each for each in (*_inside(decided, target), *kept, *kept_v6))


def is_outside(source: IPAddress, target: IPAddress, run_dir: Path) -> bool:
    """Whether a target is, as far as is known, neither in the virtual network nor part of the platform, and
    the source has no public address of its own: then Azure returns no answer to the source.

    Raises:
        OSError: as ``traffic.default_decision``.
    """
    decided = _decided(run_dir)
    return source not in decided.public and _is_beyond(decided, target)


def leaves_publicly(source: IPAddress, target: IPAddress, run_dir: Path) -> bool:
    """Whether Azure sends a packet out with the public address of its source.

    Raises:
        OSError: as ``traffic.default_decision``.
    """
    decided = _decided(run_dir)
    return source in decided.public and _is_beyond(decided, target)


def _is_beyond(decided: Traffic, target: IPAddress) -> bool:
    """Whether it is outside the virtual network, and not part of the platform."""
    inside = _inside(decided, target)
    return not (target.is_link_local or _is_of_platform(target) or any(target in each for each in inside))


def _inside(decided: Traffic, target: IPAddress) -> tuple[IPNetwork, ...]:
    """What is inside, of the family of a target. Raises OSError, as above."""
    if target.version == 4 or any(each.version == 6 for each in decided.non_masquerade):
        return decided.non_masquerade
    return traffic.default_of_ipv6()


def _is_of_platform(target: IPAddress) -> bool:
    return any(target in each for each in (traffic.LINK_LOCAL, traffic.WIRESERVER))


def refused_to_pods(target: IPAddress, protocol: str, port: int, run_dir: Path) -> str:
    """Why what a pod sends is refused: a service of the platform that is closed. Empty: it is not refused.

    Raises:
        OSError: as ``is_masqueraded``.
    """
    decided = _decided(run_dir)
    if protocol == "tcp" and not decided.imds and target in traffic.IMDS:
        return "the metadata service is closed to pods (setting platform.imds)"
    secret = target in traffic.WIRESERVER and port in WIRESERVER_PORTS
    if protocol == "tcp" and not decided.wireserver and secret:
        return f"port {port} of the wireserver is closed to pods (setting platform.wireserver)"
    return ""


def is_without_pod(target: IPAddress, run_dir: Path) -> bool:
    """Whether it is an address of the pool: a packet from outside that would be routed back there was sent to
    an address that no pod has. Raises OSError, as above.
    """
    return any(target in each for each in _decided(run_dir).pool)


def _decided(run_dir: Path) -> Traffic:
    return traffic.read_decision(run_dir) or traffic.default_decision()
