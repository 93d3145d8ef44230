"""Making sure that a pod's packets leave by the NIC that owns its address, even if the node's own do not.

Owns when a NIC needs routes of its own for that, for each address family, and when it no longer does. It
must not reserve anything, nor know how routes are made (``host.nic_routes``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv6Network, ip_network
from typing import TYPE_CHECKING

from cni_plugin.addresses import uplink, way_out
from cni_plugin.cni.errors import CniError, TryAgainLater, UplinkUnclear
from cni_plugin.host import nic_routes, nics
from cni_plugin.host.nics import NicOfPods
from cni_plugin.host.traffic import SUBNET_V6, by_family, collapsed
from cni_plugin.kernel import encode
from cni_plugin.kernel.family import IPV4, IPV6, family_of
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
    from cni_plugin.kernel.family import Family
    from cni_plugin.node import Node
    from ipam.model import AddressStatus, IPAddress, IPNetwork, ListedNic, Reservation

LOCK_SECONDS = 10.0
OWN_WAY = True, True
"""What ``_ways`` returns if everything leaves by the NIC that it should leave by."""
BEYOND: Mapping[int, IPAddress] = {4: way_out.BEYOND, 6: way_out.BEYOND_V6}

Listed = Mapping[str, frozenset["IPNetwork"]]
"""The subnets of one family of every NIC that the node's sources list, by MAC."""


def ensure(reservation: Reservation, out: WayOut | None, netconf: NetConf, node: Node) -> None:
    """Make sure that what a pod sends from a reserved address leaves by its NIC, whatever the destination. If
    it does, this takes one lookup, and one for each other subnet. For nodes with several NICs.

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
    family, beyond = family_of(reservation.ip), BEYOND[reservation.ip.version]
    if family is IPV6 and node.host.one_route(encode.get_route(beyond)) is None:
        return  # no IPv6 leaves the node; ``review`` acts when a router appears
    with _alone(node):
        listed = _listed(node, family)
        others = _others(reservation.nic_mac, listed)
        if _ways(reservation.ip, link, others, node) == OWN_WAY:
            return
        _require_usable(link, family, node)
        nic_routes.carry_out(_wanted(listed, family, node), family, node)
        if not way_out.leaves_by(link, reservation.ip, beyond, node):
            option = "" if family is IPV4 else "-6 "
            raise UplinkUnclear(
                f"what a pod sends from {reservation.ip} does not leave by {link.name}, its NIC",
                f"Look at `ip {option}rule`: one in front of {NIC_PRIORITY} sends it elsewhere.",
            )


def require_usable(mac: str, netconf: NetConf, node: Node) -> None:
    """Make sure that pods' packets could leave by the NIC that a network names, on a node with several.

    Raises:
        way_out.NicUnusable: they could not, and those of its present pods don't either.
        UplinkUnclear: it is not clear which link that is.
    """
    if netconf.names_nic and len(_listed(node, IPV4)) > 1:
        link = way_out.any_uplink(mac, netconf, node)
        for version in sorted(netconf.our_ipam.versions):
            family = IPV4 if version == IPV4.version else IPV6
            if family is IPV4 or node.host.one_route(encode.get_route(BEYOND[version])) is not None:
                _require_usable(link, family, node)


def _require_usable(link: Link, family: Family, node: Node) -> None:
    """The link has to be up and have an address, with which packets leave the virtual network; for IPv6 it
    needs a router as well.
    """
    remedy = "Configure it as Azure's DHCP answers say: pods' packets to the Internet leave with its address."
    if not link.up:
        raise way_out.NicUnusable(f"{link.name}, the NIC of pods' addresses, is down", remedy)
    every = node.host.addresses(encode.dump_addresses(family.number))
    own = (each for each in every if each.index == link.index)
    if all(family is IPV6 and each.ip.is_link_local for each in own):
        raise way_out.NicUnusable(
            f"{link.name}, the NIC of pods' addresses, has no IPv{family.version} address", remedy
        )
    if family is IPV6 and way_out.router_of(link, node) is None:
        raise way_out.NicUnusable(
            f"{link.name}, the NIC of pods' addresses, has no IPv6 default route: no router is known",
            f"Azure announces it there: see net.ipv6.conf.{link.name}.accept_ra, or systemd-networkd's "
            f"IPv6AcceptRA, and `ip -6 route show default dev {link.name}`.",
        )


def review(node: Node) -> list[str]:
    """React to changes on the node: of NICs, their addresses, routes, attached pods. Returns what failed, in
    words.
    """
    try:
        for family in (IPV4, IPV6):
            listed = _listed(node, family)
            if len(listed) > 1 or nics.read_nics(node.run_dir, family):
                with _alone(node):
                    _follow(listed, family, node)
    except (CniError, IpamError, OSError) as error:
        return [f"cannot ensure that pods' packets leave by their NIC: {error}"]
    return []


def drop_unused(node: Node) -> list[str]:
    """Remove the routes of NICs whose addresses no pod has any more. Returns what failed, in words: it must
    not keep a pod from being deleted.
    """
    decided = [nic for family in (IPV4, IPV6) for nic in nics.read_nics(node.run_dir, family)]
    if not decided:
        return []
    try:
        every = node.ipam.addresses()
        if all(any(_is_pods(each) and _is_in(each, nic.sources) for each in every) for nic in decided):
            return []
    except IpamError:
        return []  # the agent, or the next DEL, tries again
    return review(node)


def _follow(listed: Listed, family: Family, node: Node) -> None:
    if node.ipam.needs_adoption():
        return  # the store does not know which pods are alive
    wanted = _wanted(listed, family, node)
    if wanted != nics.read_nics(node.run_dir, family):
        nic_routes.carry_out(wanted, family, node)


def _listed(node: Node, family: Family) -> Listed:
    found: dict[str, frozenset[IPNetwork]] = {}
    for config in node.ipam.sources_in_use():
        for nic in node.ipam.nics(config):
            found[nic.mac] = found.get(nic.mac, frozenset()) | _subnets(nic, family)
    return found


def _subnets(nic: ListedNic, family: Family) -> frozenset[IPNetwork]:
    """The subnets of a NIC. Most sources name no IPv6 subnet; Azure's are /64, whatever a document says."""
    of_4, of_6 = by_family(nic.subnets)
    if family is IPV4:
        return frozenset(of_4)
    listed = [*nic.own_addresses, *([nic.example] if nic.example is not None else [])]
    known = [*(each.network_address for each in of_6), *(each for each in listed if each.version == 6)]
    return frozenset(_subnet_v6(each) for each in known)


def _subnet_v6(ip: IPAddress) -> IPNetwork:
    return IPv6Network((int(ip), SUBNET_V6), strict=False)


def _others(mac: str, listed: Listed) -> tuple[IPNetwork, ...]:
    """The subnets of the other NICs."""
    found = {each for other, subnets in listed.items() if other != mac for each in subnets}
    return tuple(sorted(found, key=lambda each: (int(each.network_address), each.prefixlen)))


def _ways(source: IPAddress, link: Link, others: Sequence[IPNetwork], node: Node) -> tuple[bool, bool]:
    """Whether what comes from an address leaves by ``link``: to the rest of the world, to the subnets of the
    other NICs.
    """
    inside = (gateway_of(each) for each in others)
    return (
        _leaves(source, link, node),
        all(way_out.leaves_by(link, source, target, node) for target in inside),
    )


def _leaves(source: IPAddress, link: Link, node: Node) -> bool:
    """Whether packets to the rest of the world leave by ``link``; for IPv6 permanently, to its router."""
    found = way_out.route_by(link, source, BEYOND[source.version], node)
    if found is None or source.version == IPV4.version:
        return found is not None
    if found.table == encode.RT_TABLE_MAIN:
        return not way_out.routers_elsewhere(link, node)
    router = way_out.router_of(link, node) if found.protocol == encode.RTPROT_AZVNET else None
    return router in {None, found.gateway}


def _wanted(listed: Listed, family: Family, node: Node) -> tuple[NicOfPods, ...]:
    """The NICs with pods whose packets would not leave by them, and those with routes already."""
    before = {each.mac: each for each in nics.read_nics(node.run_dir, family)}
    every = tuple(each for each in node.ipam.addresses() if each.address.version == family.version)
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
    sources = collapsed(ip_network(ip) for ip in ours)
    kept = replace(before, sources=sources) if before is not None else None
    link = None
    with suppress(UplinkUnclear):
        link = uplink.select(links, (mac,))
    given = next((each for each in held if each.nic_mac == mac), None)
    if link is None or not link.up or given is None or mac not in listed:
        return kept
    ip, others = given.address.ip, _others(mac, listed)
    gateway = given.gateway if ip.version == IPV4.version else way_out.router_of(link, node)
    if gateway is None:
        return kept
    beyond, inside = _ways(ip, link, others, node)
    if before is None and beyond and inside:
        return None
    subnet = given.address.network if ip.version == IPV4.version else _subnet_v6(ip)
    everything = not beyond or (before is not None and before.everything)
    return NicOfPods(mac, subnet, gateway, sources, others, everything)


def _is_pods(each: AddressStatus) -> bool:
    return each.reservation is not None and each.reservation.owner.holder is Holder.ENDPOINT


def _is_in(each: AddressStatus, sources: Sequence[IPNetwork]) -> bool:
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
