"""That what a pod sends leaves by the NIC that owns its address, also where the node's own packets do not.

Owns when a NIC needs routes of its own for that, and when no longer. It must not reserve anything, nor know
how routes are made (``host.nic_routes``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, collapse_addresses
from typing import TYPE_CHECKING

from cni_plugin.addresses import uplink, way_out
from cni_plugin.cni.errors import CniError, TryAgainLater, UplinkUnclear
from cni_plugin.host import nic_routes, nics
from cni_plugin.host.nics import NicOfPods
from cni_plugin.kernel import encode
from cni_plugin.kernel.rules import NIC_PRIORITY
from ipam.errors import IpamError
from ipam.filelock import file_lock
from ipam.mac import ANY_NIC
from ipam.model import Holder
from ipam.subnet import gateway_of
from ipam.value import replace

if TYPE_CHECKING:
    from cni_plugin.cni.netconf import NetConf
    from cni_plugin.kernel.decode import Link, WayOut
    from cni_plugin.node import Node
    from ipam.model import AddressStatus, IPAddress, Reservation

LOCK_SECONDS = 10.0
OWN_WAY = True, True
"""Of ``_ways``: everything leaves by the NIC that it should leave by."""

Listed = Mapping[str, frozenset[IPv4Network]]
"""The subnets of every NIC that the node's sources list, by MAC."""


def ensure(reservation: Reservation, out: WayOut | None, netconf: NetConf, node: Node) -> None:
    """Have what a pod sends from a reserved address leave by its NIC, to wherever; one look-up, and one for
    each other subnet, where it does. It is for nodes with several NICs.

    Args:
        reservation: of the address.
        out: how packets leave the node, where that was asked.
        netconf: of the network.
        node: the node.

    Raises:
        UplinkUnclear: the NIC can't be used, or somebody else's rules lead the packets elsewhere.
        KernelRefused, TryAgainLater, OSError: the routes can't be made.
    """
    theirs = reservation.owner.holder is not Holder.ENDPOINT or reservation.nic_mac in {"", ANY_NIC}
    if theirs:
        return
    link = out.link if out is not None else None
    if link is None or link.mac != reservation.nic_mac:
        link = way_out.find_uplink(reservation, netconf, node)
    if reservation.ip.version == 6:
        _require_own_way_v6(reservation.ip, link, node)
        return
    with _alone(node):
        listed = _listed(node)
        others = _others(reservation.nic_mac, listed)
        if _ways(reservation.ip, link, others, node) == OWN_WAY:
            return
        _require_usable(link, node)
        nic_routes.carry_out(_wanted(listed, node), node)
        if not way_out.leaves_by(link, reservation.ip, way_out.BEYOND, node):
            raise UplinkUnclear(
                f"what a pod sends from {reservation.ip} does not leave by {link.name}, its NIC",
                f"Look at `ip rule`: one in front of {NIC_PRIORITY} leads it elsewhere.",
            )


def _require_own_way_v6(source: IPAddress, link: Link, node: Node) -> None:
    """Of IPv6 no routes are made: what the node has must lead there, as soon as it has any."""
    beyond = node.host.one_route(encode.get_route(way_out.BEYOND_V6))
    if beyond is not None and not way_out.leaves_by(link, source, way_out.BEYOND_V6, node):
        raise UplinkUnclear(
            f"what a pod sends from {source} does not leave by {link.name}, its NIC",
            "azvnet makes routes of a second NIC for IPv4 only: use the NIC of the default route of IPv6, or "
            f"add a rule and a table for {source} (`ip -6 rule`).",
        )


def require_usable(mac: str, netconf: NetConf, node: Node) -> None:
    """Make sure that pods' packets could leave by the NIC that a network names, on a node with several.

    Raises:
        UplinkUnclear: as ``ensure``.
    """
    if (netconf.master or netconf.our_ipam().subnet) and len(_listed(node)) > 1:
        _require_usable(way_out.any_uplink(mac, netconf, node), node)


def _require_usable(link: Link, node: Node) -> None:
    """Up, and with an address: what leaves the virtual network has that."""
    remedy = "Configure it as Azure's DHCP answers say: pods' packets to the Internet leave with its address."
    if not link.up:
        raise UplinkUnclear(f"{link.name}, the NIC of pods' addresses, is down", remedy)
    every = node.host.addresses(encode.dump_addresses(encode.AF_INET))
    if all(each.index != link.index for each in every):
        raise UplinkUnclear(f"{link.name}, the NIC of pods' addresses, has no IPv4 address", remedy)


def review(node: Node) -> list[str]:
    """Follow what has changed on the node: NICs, their addresses, its routes, who is attached. What failed,
    in words.
    """
    try:
        listed = _listed(node)
        if len(listed) > 1 or nics.read_nics(node.run_dir):
            with _alone(node):
                _follow(listed, node)
    except (CniError, IpamError, OSError) as error:
        return [f"whether pods' packets leave by their NIC can't be ensured: {error}"]
    return []


def drop_unused(node: Node) -> list[str]:
    """Remove the routes of NICs whose addresses no pod has any more. What failed, in words: it must not keep
    a pod from being deleted.
    """
    decided = nics.read_nics(node.run_dir)
    if not decided:
        return []
    try:
        every = node.ipam.addresses()
        if all(any(_is_pods(each) and _is_in(each, nic.sources) for each in every) for nic in decided):
            return []
    except IpamError:
        return []  # the agent, or the next DEL, can tell
    return review(node)


def _follow(listed: Listed, node: Node) -> None:
    if node.ipam.needs_adoption():
        return  # the store does not know who is alive
    wanted = _wanted(listed, node)
    if wanted != nics.read_nics(node.run_dir):
        nic_routes.carry_out(wanted, node)


def _listed(node: Node) -> Listed:
    found: dict[str, frozenset[IPv4Network]] = {}
    for config in node.ipam.sources_in_use():
        for nic in node.ipam.nics(config):
            subnets = frozenset(each for each in nic.subnets if isinstance(each, IPv4Network))
            found[nic.mac] = found.get(nic.mac, frozenset()) | subnets
    return found


def _others(mac: str, listed: Listed) -> tuple[IPv4Network, ...]:
    """The subnets of the other NICs."""
    return tuple(sorted({each for other, subnets in listed.items() if other != mac for each in subnets}))


def _ways(source: IPAddress, link: Link, others: Sequence[IPv4Network], node: Node) -> tuple[bool, bool]:
    """Whether what comes from an address leaves by ``link``: to the rest of the world, to the subnets of the
    other NICs.
    """
    inside = (gateway_of(each) for each in others)
    return (
        way_out.leaves_by(link, source, way_out.BEYOND, node),
        all(way_out.leaves_by(link, source, target, node) for target in inside),
    )


def _wanted(listed: Listed, node: Node) -> tuple[NicOfPods, ...]:
    """The NICs with pods whose packets would not leave by them, and those with routes already."""
    before = {each.mac: each for each in nics.read_nics(node.run_dir)}
    every = tuple(each for each in node.ipam.addresses() if each.address.version == 4)
    links = node.host.links(encode.dump_links())
    found = (_decided(mac, before.get(mac), every, links, listed, node) for mac in {**before, **listed})
    return tuple(sorted((each for each in found if each is not None), key=lambda each: each.mac))


def _decided(
    mac: str,
    before: NicOfPods | None,
    every: Sequence[AddressStatus],
    links: Sequence[Link],
    listed: Listed,
    node: Node,
) -> NicOfPods | None:
    earlier = before.sources if before is not None else ()
    of_nic = [each for each in every if each.nic_mac == mac or (_is_pods(each) and _is_in(each, earlier))]
    held = [each for each in of_nic if _is_pods(each)]
    if not held:
        return None
    # Not those that pods of other plugins have: their links may be in another group (``routing_rule``).
    ours = (each.address.ip for each in of_nic if each.reservation is None or _is_pods(each))
    sources = tuple(collapse_addresses(IPv4Network(ip) for ip in ours if isinstance(ip, IPv4Address)))
    kept = replace(before, sources=sources) if before is not None else None
    link = None
    with suppress(UplinkUnclear):
        link = uplink.select(links, (mac,))
    given = next((each for each in held if each.nic_mac == mac), None)
    if link is None or not link.up or given is None or mac not in listed:
        return kept
    address, gateway, others = given.address, given.gateway, _others(mac, listed)
    beyond, inside = _ways(address.ip, link, others, node)
    if before is None and beyond and inside:
        return None
    assert isinstance(address, IPv4Interface)
    assert isinstance(gateway, IPv4Address)
    everything = not beyond or (before is not None and before.everything)
    return NicOfPods(mac, address.network, gateway, sources, others, everything)


def _is_pods(each: AddressStatus) -> bool:
    return each.reservation is not None and each.reservation.owner.holder is Holder.ENDPOINT


def _is_in(each: AddressStatus, sources: Sequence[IPv4Network]) -> bool:
    return any(each.address.ip in source for source in sources)


@contextmanager
def _alone(node: Node) -> Iterator[None]:
    """One call at a time: a DEL of the last pod must not remove what an ADD has just found to be right."""
    path = node.run_dir / nics.LOCK
    try:
        with file_lock(path, time.monotonic() + LOCK_SECONDS):
            yield
    except TimeoutError as error:
        raise TryAgainLater(str(error), "The kubelet retries.") from error
