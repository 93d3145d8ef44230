"""How an endpoint differs from what it should be: a pure comparison, the only one.

CHECK, the agent's repair and ``azvnet status`` share it. Owns what is compared and how a difference is
worded. It must not do I/O, nor decide what is done about a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

from cni_plugin.datapath.names import HOST_MAC, Names, names_for
from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress, Neighbour
from cni_plugin.kernel.encode import HOST_LINK_GROUP, NUD_PERMANENT, RTN_LOCAL
from cni_plugin.kernel.family import IPV4, Family, Routes, family_of
from cni_plugin.kernel.messages import HOST_SETTINGS
from cni_plugin.kernel.sysctl import HOST_IPV6 as HOST_IPV6_SETTINGS
from ipam.model import IPAddress, IPInterface, IPNetwork, Reservation
from ipam.value import Value

HOST_MISSING, HOST_DOWN, HOST_MAC_CHANGED, HOST_MTU = "host_missing", "host_down", "host_mac", "host_mtu"
HOST_MARK, HOST_GROUP, HOST_ROUTE = "host_mark", "host_group", "host_route"
HOST_SETTINGS_CHANGED, HOST_IPV6 = "host_settings", "host_ipv6"
POD_MISSING, POD_DOWN, POD_MAC, POD_MTU = "pod_missing", "pod_down", "pod_mac", "pod_mtu"
POD_ADDRESS, POD_ROUTE, POD_NEIGHBOUR = "pod_address", "pod_route", "pod_neighbour"
PUT_BACK = (HOST_ROUTE, HOST_MAC_CHANGED, HOST_DOWN, HOST_MARK, HOST_GROUP, HOST_SETTINGS_CHANGED, HOST_IPV6)
"""What repair puts back: all that ``of_host`` finds, except a link that is gone."""


class Difference(Value):
    """One difference."""

    kind: str
    text: str
    """For people."""
    ip: IPAddress | None = None
    """The address concerned, if any."""


class Expected(Value):
    """What an endpoint should be."""

    names: Names
    ifname: str
    addresses: tuple[IPInterface, ...]
    routes: Routes = ()
    """Including those that later plugins of the chain added."""
    pod_mac: str = ""
    """As prevResult says, since a later plugin may have changed it; empty where it does not say."""
    mtu: int = 0
    """As prevResult says (1.1.0); 0 where it does not say, since a later plugin may have lowered it."""
    routed: tuple[IPInterface, ...] = ()
    """Those of ``addresses`` that the host routes to the pod: ours, not what a later plugin added."""
    former: tuple[IPInterface, ...] = ()
    """The same as in pods that an earlier version made: with the prefix length of the subnet."""
    given_mac: str = ""
    """The MAC that ADD set. The kernel flushes a link's neighbours when its MAC is changed, permanent ones
    too, so after a later plugin did so the gateway's entry is learned (the host veth answers ARP for it)."""


def expected_of(*held: Reservation) -> Expected:
    """What the endpoint of the attachment that holds these should be, as far as the store knows."""
    attachment, former = held[0].attachment, tuple([each.address for each in held])
    addresses = tuple([ip_interface(each.ip) for each in held])
    names = names_for(attachment, held[0].owner)
    return Expected(names, attachment.ifname, addresses, routed=addresses, former=former)


class FoundHost(Value):
    """What the kernel has on the host's side."""

    link: Link | None
    routes: tuple[KernelRoute | None, ...] = ()
    """The host's best route to each routed address."""


class Found(Value):
    """What the kernel has on both sides."""

    host: FoundHost
    pod_link: Link | None
    pod_addresses: tuple[LinkAddress, ...] = ()
    pod_routes: tuple[KernelRoute, ...] = ()
    pod_neighbours: tuple[Neighbour, ...] = ()


def differences(expected: Expected, found: Found) -> list[Difference]:
    """All differences, causes before consequences."""
    if found.pod_link is None:
        return [Difference(POD_MISSING, f"interface {expected.ifname} is missing in the pod")]
    host = list(of_host(expected, found.host, found.pod_link.index))
    if found.host.link is None:
        return host
    return [*_of_links(expected, found.host.link, found.pod_link), *of_pod(expected, found), *host]


def of_host(expected: Expected, found: FoundHost, pod_index: int = 0) -> Iterator[Difference]:
    """Differences on the host, where everything compared is ours alone.

    Args:
        expected: what should be.
        found: what is.
        pod_index: the pod's end, where it is in the host's own namespace and its address is the host's.
    """
    name, link = expected.names.host_ifname, found.link
    if link is None:
        yield Difference(HOST_MISSING, f"host veth {name} is missing")
        return
    name = link.name
    if not link.up:
        yield Difference(HOST_DOWN, f"host veth {name} is down")
    if link.mac != HOST_MAC:
        yield Difference(HOST_MAC_CHANGED, f"host veth {name} has MAC {link.mac} instead of {HOST_MAC}")
    if expected.names.mark not in link.alt_names:
        yield Difference(HOST_MARK, f"host veth {name} lacks its alternative name {expected.names.mark}")
    if link.group != HOST_LINK_GROUP:
        text = f"host veth {name} is in group {link.group} instead of {HOST_LINK_GROUP}"
        yield Difference(HOST_GROUP, text)
    wrong = [
        f"net.ipv4.conf.{name}.{key.lower()} is not {value}"
        for key, number, value in HOST_SETTINGS
        if link.ipv4_settings[number - 1 : number] != (value,)
    ]
    if wrong:
        yield Difference(HOST_SETTINGS_CHANGED, ", ".join(wrong))
    yield from _of_ipv6(link, expected)
    for address, route in zip(expected.routed, found.routes, strict=True):
        if route is not None and pod_index and (route.kind, route.index) == (RTN_LOCAL, pod_index):
            continue
        if route is None or route.index != link.index or not _leads_to(route, address.ip):
            over = (
                f"the best route is {route.dst} over link {route.index}" if route else "no route leads there"
            )
            yield Difference(
                HOST_ROUTE, f"host route to {address.ip} over {name} is missing ({over})", address.ip
            )


def _of_ipv6(link: Link, expected: Expected) -> Iterator[Difference]:
    if all(address.version == 4 for address in expected.routed):
        if link.has_ipv6:
            yield Difference(HOST_IPV6, f"IPv6 is not disabled on host veth {link.name}, whose pod has none")
        return
    wrong = [
        f"net.ipv6.conf.{link.name}.{key} is not {value}"
        for key, number, value in HOST_IPV6_SETTINGS
        if number >= 0 and link.ipv6_setting(number) not in {int(value), None}
    ]
    if wrong or not link.has_ipv6:
        yield Difference(HOST_IPV6, ", ".join(wrong) or f"host veth {link.name} has no IPv6")


def _leads_to(route: KernelRoute, ip: IPAddress) -> bool:
    """Not ``route.dst == ip_network(ip)``: that takes longer than the rest of a check of a full node."""
    return route.dst.network_address == ip and route.dst.prefixlen == route.dst.max_prefixlen


def of_pod(expected: Expected, found: Found) -> Iterator[Difference]:
    """Differences inside the pod. They may be intended: reported, never repaired."""
    pod = found.pod_link
    if pod is None:
        yield Difference(POD_MISSING, f"interface {expected.ifname} is missing in the pod")
        return
    yield from _of_addresses(expected, found, pod)
    yield from _of_routes(expected, found, pod)
    if expected.pod_mac.lower() in ("", expected.given_mac):
        for family in _families(expected):
            yield from _of_neighbour(family, found, pod)


def _of_links(expected: Expected, host: Link, pod: Link) -> Iterator[Difference]:
    name = expected.ifname
    if not pod.up:
        yield Difference(POD_DOWN, f"interface {name} is down")
    if expected.pod_mac and pod.mac != expected.pod_mac.lower():
        yield Difference(POD_MAC, f"interface {name} has MAC {pod.mac} instead of {expected.pod_mac}")
    if expected.mtu and pod.mtu != expected.mtu:
        yield Difference(POD_MTU, f"interface {name} has MTU {pod.mtu} instead of {expected.mtu}")
    if host.mtu < pod.mtu:
        text = f"host veth {host.name} has MTU {host.mtu}, less than the pod's {pod.mtu}"
        yield Difference(HOST_MTU, text)


def _of_addresses(expected: Expected, found: Found, pod: Link) -> Iterator[Difference]:
    there = {(each.ip, each.prefixlen) for each in found.pod_addresses if each.index == pod.index}
    former = {each.ip for each in expected.former if (each.ip, each.network.prefixlen) in there}
    for address in expected.addresses:
        if (address.ip, address.network.prefixlen) not in there and address.ip not in former:
            has = ", ".join(f"{ip}/{length}" for ip, length in sorted(there, key=str)) or "none"
            text = f"address {address} is missing on {expected.ifname} (it has {has})"
            yield Difference(POD_ADDRESS, text, address.ip)


def _of_routes(expected: Expected, found: Found, pod: Link) -> Iterator[Difference]:
    # Lists: there are few, and hashing a network takes longer than comparing two.
    own = [(each.dst, each.gateway) for each in found.pod_routes if each.index == pod.index]
    every = [(each.dst, each.gateway) for each in found.pod_routes]
    needed = [route for family in _families(expected) for route in family.routes]
    for dst, gateway in needed:  # without it the pod has no network
        if (dst, gateway) not in own:
            text = f"{_route_text(dst, gateway)} over {expected.ifname} is missing in the pod"
            yield Difference(POD_ROUTE, text)
    for dst, gateway in expected.routes:
        if (dst, gateway) not in needed and (dst, gateway) not in every:
            yield Difference(POD_ROUTE, f"{_route_text(dst, gateway)} is missing in the pod")


def _of_neighbour(family: Family, found: Found, pod: Link) -> Iterator[Difference]:
    gateway = family.gateway
    known = [each for each in found.pod_neighbours if each.index == pod.index and each.ip == gateway]
    if not any(each.state & NUD_PERMANENT and each.mac == HOST_MAC for each in known):
        has = f"it is {known[0].mac or 'unresolved'}" if known else "there is none"
        text = f"permanent neighbour {gateway} with MAC {HOST_MAC} is missing in the pod ({has})"
        yield Difference(POD_NEIGHBOUR, text)


def _families(expected: Expected) -> tuple[Family, ...]:
    """Those of the addresses; IPv4 where prevResult names none."""
    return tuple(dict.fromkeys(family_of(each.ip) for each in expected.addresses)) or (IPV4,)


def _route_text(dst: IPNetwork, gateway: IPAddress | None) -> str:
    return f"route to {dst} via {gateway}" if gateway else f"route to {dst}"
