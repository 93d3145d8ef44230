"""By which NIC the packets of pods leave the node. The kernel is asked, since only it knows its rules,
metrics, nexthop objects and tunnels.

Owns that question and what follows for the address a pod may have: the fabric drops packets whose source
address belongs to another NIC than they leave by. It must not reserve anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from cni_plugin.addresses import uplink
from cni_plugin.cni.errors import UplinkUnclear
from cni_plugin.cni.params import IFNAME_MAX_BYTES
from cni_plugin.kernel import encode
from cni_plugin.kernel.decode import WayOut
from ipam.mac import ANY_NIC

if TYPE_CHECKING:
    from cni_plugin.cni.netconf import NetConf
    from cni_plugin.kernel.decode import KernelRoute, Link
    from cni_plugin.node import Node
    from ipam.model import IPAddress, ListedNic, Reservation

BEYOND, BEYOND_V6 = IPv4Address("8.8.8.8"), IPv6Address("2001:4860:4860::8888")
"""Addresses outside the virtual network for route lookups: nothing is sent to them."""


class NicUnusable(UplinkUnclear):
    """The NIC is known, but carries no packets: neither the next pod's nor those of its present pods."""


def way_out(node: Node) -> WayOut:
    """How packets leave the node.

    Raises:
        UplinkUnclear: they are spread over several NICs.
    """
    if node.known_host is None:
        return _ask(node)
    return node.known_host.answer("way out", lambda: _ask(node))


def _ask(node: Node) -> WayOut:
    rules = node.routing_rules()
    route = None
    with suppress(OSError):  # a rule or route that prohibits
        route = node.host.one_route(encode.get_route(BEYOND))
    return WayOut(_link_of(route, node), any(rule.by_sender for rule in rules))


def _link_of(route: KernelRoute | None, node: Node) -> Link | None:
    """The link of a route; of several that are one NIC, the first."""
    indexes = route.links if route is not None else ()
    found = (node.host.one_link(encode.get_link(index=index)) for index in indexes)
    links = [link for link in found if link is not None]
    if len({link.mac for link in links}) > 1:
        named = ", ".join(f"{link.name} ({link.mac})" for link in links)
        raise UplinkUnclear(
            f"packets leave the node by several NICs: {named}",
            "A pod's address belongs to one of them, and Azure drops packets that leave by another. Use one "
            "default route, or name the NIC as `master` and add a rule for its addresses.",
        )
    return links[0] if links else None


def nic_of_pods(out: WayOut, listed: Callable[[], Sequence[ListedNic]], node: Node) -> str:
    """The MAC of the NIC whose addresses pods may have; empty where it is unknown.

    Args:
        out: how packets leave the node.
        listed: returns the NICs that the source lists, none before it was read. It is called only where it
            depends on a pod's address.
        node: the node.

    Raises:
        UplinkUnclear: pods' packets leave by something that is not a NIC, or it is not clear by which one.
    """
    if not out.by_sender:
        return _mac_of(out.link)
    nics = listed()
    if not any(nic.example for nic in nics):
        return ""
    own = [nic for nic in nics if nic.example is not None and _leaves_by_its_own(nic, out, node)]
    macs = [nic.mac for nic in own]
    usual = out.link.mac if out.link is not None else ""
    primary = [nic.mac for nic in own if nic.primary]
    for group in (macs, [mac for mac in macs if mac == usual], primary):
        if len(group) == 1:
            return usual if group[0] == ANY_NIC else group[0]
    raise UplinkUnclear(
        f"{'several' if macs else 'none'} of the NICs {', '.join(nic.mac for nic in nics)} would carry the "
        "packets of pods that have its addresses",
        "Look at `ip rule` and `ip route get 8.8.8.8 from ADDRESS iif LINK`, or name the NIC as `master`.",
    )


def _mac_of(link: Link | None) -> str:
    if link is not None and not link.mac:
        raise UplinkUnclear(
            f"the packets of pods leave by {link.name}, which is not a NIC",
            "Azure drops packets that leave by a NIC that does not own their source address. Route pods over "
            "that NIC (`ip rule`), or name it as `master`.",
        )
    return link.mac if link is not None else ""


def _leaves_by_its_own(nic: ListedNic, out: WayOut, node: Node) -> bool:
    assert nic.example is not None
    link = _forwarded(nic.example, nic.mac, out, node)
    return link is not None and nic.mac in {link.mac, ANY_NIC}


def require_own_nic(reservation: Reservation, out: WayOut, node: Node) -> None:
    """Make sure that what a pod sends from its address leaves by the NIC that owns it, where that depends on
    the address (``out.by_sender``).

    Raises:
        UplinkUnclear: it leaves by another one.
    """
    if out.link is None or reservation.ip.version != 4:
        return  # nothing leaves at all; or it is IPv6, and ``out`` is about IPv4
    link = _forwarded(reservation.ip, reservation.nic_mac, out, node)
    if link is None or reservation.nic_mac not in {link.mac, ANY_NIC, ""}:
        by = f"by {link.name} ({link.mac or 'no MAC'})" if link is not None else "by no link"
        raise UplinkUnclear(
            f"what a pod sends from {reservation.ip} leaves {by}, not by its NIC {reservation.nic_mac}",
            "Look at `ip rule`, or name the NIC as `master`.",
        )


def _forwarded(source: IPAddress, mac: str, out: WayOut, node: Node) -> Link | None:
    """The link by which the node would forward what comes from ``source``."""
    came_by = out.link
    if mac not in {ANY_NIC, ""} and (came_by is None or mac != came_by.mac):
        links = node.host.links(encode.dump_links())
        with suppress(UplinkUnclear):
            came_by = uplink.select(links, (mac,))
    return None if came_by is None else _link_of(_forwarding(source, BEYOND, came_by, node), node)


def _forwarding(source: IPAddress, target: IPAddress, came_by: Link, node: Node) -> KernelRoute | None:
    """The route by which the node would forward a packet; None: there is none, or a rule or route prohibits
    it.

    The lookup is for a packet that came in by the NIC itself: the kernel takes ``lo`` for the node's own
    packets and refuses it with a strict source check, and the pod has no link yet. That check refuses the
    NIC as well where the node reaches the source by another link: an attached pod, or a NIC in the same
    subnet whose route comes first. Then the lookup is for a packet that came in by that link.
    """
    with suppress(OSError):
        return node.host.one_route(encode.get_forwarded_route(target, source, came_by.index))
    with suppress(OSError):
        back = node.host.one_route(encode.get_route(source))
        if back is not None and back.kind == encode.RTN_UNICAST and back.index != came_by.index:
            return node.host.one_route(encode.get_forwarded_route(target, source, back.index))
    return None


def leaves_by(link: Link, source: IPAddress, target: IPAddress, node: Node) -> bool:
    """Whether the node would forward by ``link`` what comes from ``source``."""
    return route_by(link, source, target, node) is not None


def route_by(link: Link, source: IPAddress, target: IPAddress, node: Node) -> KernelRoute | None:
    """The route over ``link`` by which the node would forward what comes from ``source``; None: it would not,
    or by another link.
    """
    route = _forwarding(source, target, link, node)
    return route if route is not None and route.links == (link.index,) else None


def router_of(link: Link, node: Node) -> IPAddress | None:
    """The IPv6 router on a link, by the default route that it announced or that was configured; None: there
    is none. Nothing else names it: Azure announces the same on every link, beyond the subnet.
    """
    from cni_plugin.kernel import nic_table

    with suppress(OSError):
        route = node.host.one_route(nic_table.get_route_over(BEYOND_V6, link.index))
        return route.gateway if route is not None and route.links == (link.index,) else None
    return None


def routers_elsewhere(link: Link, node: Node) -> bool:
    """Whether IPv6 default routes lead over other links too. Which of them the kernel uses depends on the
    state of the routers (RFC 4861, section 6.3.6), so its present answer may not last.
    """
    found = node.host.default_routes(encode.AF_INET6)
    return any(
        index != link.index for route in found if route.kind == encode.RTN_UNICAST for index in route.links
    )


def named_link(name: str, node: Node) -> Link:
    """The link of the name that a netconf gives as ``master``.

    Raises:
        UplinkUnclear: there is none; or it is the VF of accelerated networking, which has neither address
            nor route, and is taken away while Azure works on the host.
    """
    fits = len(name.encode()) <= IFNAME_MAX_BYTES  # the kernel does not look for a longer one
    link = node.host.one_link(encode.get_link(name=name)) if fits else None
    if link is None:
        return uplink.select(node.host.links(encode.dump_links()), (), master=name)
    upper = node.host.one_link(encode.get_link(index=link.master)) if link.master else None
    if upper is not None and upper.mac == link.mac:  # that of a VRF has another one
        raise UplinkUnclear(
            f"master {name} is a lower link of {upper.name}, like the VF of accelerated networking",
            f"Name {upper.name} as `master`: it has the addresses and the routes, and stays when a VF goes.",
        )
    return link


def find_uplink(reservation: Reservation, netconf: NetConf, node: Node) -> Link:
    """The link of the NIC that owns an address.

    Asks for the route to the subnet's gateway first: it leads over the uplink on every ordinary node, and
    one answer does not grow with the number of pods. The list of all links is the last resort.
    """
    if netconf.master:
        return named_link(netconf.master, node)
    if reservation.gateway.is_link_local:  # the same on every link
        link = way_out(node).link
    else:
        route = node.host.one_route(encode.get_route(reservation.gateway))
        link = node.host.one_link(encode.get_link(index=route.index)) if route else None
    mac = "" if reservation.nic_mac == ANY_NIC else reservation.nic_mac
    if link is not None and (uplink.is_uplink(link, mac) or not mac):
        return link
    return any_uplink(mac, netconf, node)


def uplink_mtu(reservation: Reservation, netconf: NetConf, node: Node) -> int:
    """The MTU of the link of the NIC that owns an address.

    Raises:
        UplinkUnclear: there is no such link.
    """
    if node.known_host is None:
        return find_uplink(reservation, netconf, node).mtu
    key = (netconf.master, reservation.nic_mac, reservation.gateway)
    return node.known_host.answer(key, lambda: find_uplink(reservation, netconf, node).mtu)


def any_uplink(mac: str, netconf: NetConf, node: Node) -> Link:
    """The uplink among all links of the node."""
    links = node.host.links(encode.dump_links())
    drivers = drivers_of(each for each in links if each.mac == mac)
    return uplink.select(links, (mac,) if mac else (), master=netconf.master, drivers=drivers)


def drivers_of(links: Iterable[Link]) -> dict[str, str]:
    """Kernel drivers by link name, as sysfs has them (Documentation/ABI/testing/sysfs-class-net)."""
    drivers = {}
    for link in links:
        with suppress(OSError):
            drivers[link.name] = os.path.basename(os.readlink(f"/sys/class/net/{link.name}/device/driver"))  # noqa: PTH115, PTH119
    return drivers
