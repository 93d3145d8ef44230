"""The plan of an endpoint, and what differs from it: pure functions.

Owns the derived names, the addresses of the link-local gateway, and the comparison of what an endpoint
should be with what was found. It must not do I/O: ``datapath`` carries a plan out and finds things.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_network

from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress, Neighbour
from cni_plugin.kernel.digest import digest
from cni_plugin.kernel.encode import RTN_LOCAL
from ipam.model import Attachment, IPAddress, IPInterface, IPNetwork
from ipam.value import Value

GATEWAY = IPv4Address("169.254.1.1")
"""What every pod sends to. It exists on no link: a permanent neighbour entry maps it to the host veth."""
DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")
ROUTES: tuple[tuple[IPNetwork, IPAddress | None], ...] = (
    (IPv4Network("169.254.1.1/32"), None),
    (DEFAULT_ROUTE, GATEWAY),
)
"""The pod's routes, in the order in which they can be added: destination and gateway."""
HOST_MAC = "aa:aa:aa:aa:aa:aa"
"""Every host veth has it: no two are on one segment, and pods can be told it before their veth exists."""
HOST_PREFIX = "azv"
ALIAS_TAG = "azvnet1"
ALIAS_MAX_BYTES = 255
"""IFALIASZ of the kernel less the closing NUL."""
NUD_PERMANENT = 0x80

FIRST_INDEX, INDEX_PAIRS = 100_000, 450_000
"""Where chosen interface indexes lie: above what the kernel counts up to by itself, six digits for people."""


class Endpoint(Value):
    """One attachment's veth pair as it should be."""

    attachment: Attachment
    network: str
    addresses: tuple[IPInterface, ...]
    mtu: int
    pod_mac: str
    in_host: bool = False
    """Its namespace is the host's own (CNI_NETNS_OVERRIDE), whose default route must stay the one in use."""

    @property
    def host_ifname(self) -> str:
        """Name of the host end."""
        return host_ifname(self.attachment)

    @property
    def alias(self) -> str:
        """Alias of the host end: it names the attachment, for when the store can't."""
        return alias(self.attachment, self.network)


class Expected(Value):
    """What CHECK holds against the kernel."""

    host_ifname: str
    ifname: str
    addresses: tuple[IPInterface, ...]
    routes: tuple[tuple[IPNetwork, IPAddress | None], ...]
    pod_mac: str = ""
    """As prevResult says, since a later plugin may have changed it; empty where it does not say."""
    mtu: int = 0
    """As prevResult says (1.1.0); 0 where it does not say, since a later plugin may have lowered it."""
    routed: tuple[IPInterface, ...] = ()
    """Those of ``addresses`` that the host routes to the pod: ours, not what a later plugin added."""
    given_mac: str = ""
    """The MAC that ADD gave. The kernel forgets a link's neighbours when its MAC is changed, also permanent
    ones, so after a later plugin has done that the gateway's is learned (the host veth answers for it)."""


class Found(Value):
    """What the kernel has."""

    host_link: Link | None
    pod_link: Link | None
    host_routes: tuple[KernelRoute | None, ...] = ()
    """The host's best route to each routed address."""
    pod_addresses: tuple[LinkAddress, ...] = ()
    pod_routes: tuple[KernelRoute, ...] = ()
    pod_neighbours: tuple[Neighbour, ...] = ()


def host_ifname(attachment: Attachment) -> str:
    """Name of an attachment's host veth: DEL derives it, and needs nothing that ADD wrote."""
    return HOST_PREFIX + digest(attachment).hex()[:11]


def default_pod_mac(attachment: Attachment) -> str:
    """A MAC for the pod's end, derived: unicast, locally administered (IEEE 802, bits 0 and 1 of byte 0)."""
    octets = bytearray(digest(attachment)[6:12])
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def index_pairs(attachment: Attachment) -> Iterator[tuple[int, int]]:
    """Interface indexes to try for host and pod end, the derived ones first.

    Choosing them saves asking for them. The two differ, because tools take a link whose index equals its
    peer's for a physical one.
    """
    first = int.from_bytes(digest(attachment)[12:16], "big")
    for attempt in range(INDEX_PAIRS):
        index = FIRST_INDEX + 2 * ((first + attempt) % INDEX_PAIRS)
        yield index, index + 1


def alias(attachment: Attachment, network: str) -> str:
    """The alias of a host veth; the network's name is left out where it does not fit."""
    short = f"{ALIAS_TAG} {attachment.container_id} {attachment.ifname}"
    whole = f"{short} {network}"
    return whole if len(whole.encode()) <= ALIAS_MAX_BYTES else short


def read_alias(text: str) -> tuple[Attachment, str] | None:
    """The attachment and network of an alias; None when it is not one of ours."""
    words = text.split(" ")
    if words[0] != ALIAS_TAG or len(words) not in (3, 4):
        return None
    return Attachment(words[1], words[2]), words[3] if len(words) > 3 else ""


def is_finished(link: Link | None, attachment: Attachment) -> bool:
    """Whether a host veth belongs to an ADD that came to its end: the alias is the last thing it sets."""
    named = read_alias(link.alias) if link else None
    return named is not None and named[0] == attachment


def damage(expected: Expected, found: Found) -> list[str]:
    """What is not as it should be, in words, the causes before their consequences."""
    if found.pod_link is None:
        return [f"interface {expected.ifname} is missing in the pod"]
    if found.host_link is None:
        return [f"host veth {expected.host_ifname} is missing"]
    return [
        *_link_damage(expected, found.host_link, found.pod_link),
        *_address_damage(expected, found, found.pod_link),
        *_route_damage(expected, found, found.pod_link),
        *_host_route_damage(expected, found, found.host_link, found.pod_link),
    ]


def _link_damage(expected: Expected, host: Link, pod: Link) -> Iterator[str]:
    if not pod.up:
        yield f"interface {expected.ifname} is down"
    if not host.up:
        yield f"host veth {expected.host_ifname} is down"
    if expected.pod_mac and pod.mac != expected.pod_mac.lower():
        yield f"interface {expected.ifname} has MAC {pod.mac} instead of {expected.pod_mac}"
    if host.mac != HOST_MAC:
        yield f"host veth {expected.host_ifname} has MAC {host.mac} instead of {HOST_MAC}"
    if expected.mtu and pod.mtu != expected.mtu:
        yield f"interface {expected.ifname} has MTU {pod.mtu} instead of {expected.mtu}"
    if host.mtu < pod.mtu:
        yield f"host veth {expected.host_ifname} has MTU {host.mtu}, less than the pod's {pod.mtu}"


def _address_damage(expected: Expected, found: Found, pod: Link) -> Iterator[str]:
    there = {(each.ip, each.prefixlen) for each in found.pod_addresses if each.index == pod.index}
    for address in expected.addresses:
        if (address.ip, address.network.prefixlen) not in there:
            has = ", ".join(f"{ip}/{length}" for ip, length in sorted(there, key=str)) or "none"
            yield f"address {address} is missing on {expected.ifname} (it has {has})"


def _route_damage(expected: Expected, found: Found, pod: Link) -> Iterator[str]:
    own = {(each.dst, each.gateway) for each in found.pod_routes if each.index == pod.index}
    every = {(each.dst, each.gateway) for each in found.pod_routes}
    for dst, gateway in ROUTES:  # what a pod can do nothing without
        if (dst, gateway) not in own:
            yield f"{_route_text(dst, gateway)} over {expected.ifname} is missing in the pod"
    for dst, gateway in expected.routes:
        if (dst, gateway) not in every and (dst, gateway) not in ROUTES:
            yield f"{_route_text(dst, gateway)} is missing in the pod"
    if expected.pod_mac.lower() not in ("", expected.given_mac):
        return
    neighbour = next(
        (each for each in found.pod_neighbours if each.index == pod.index and each.ip == GATEWAY), None
    )
    if neighbour is None or not neighbour.state & NUD_PERMANENT or neighbour.mac != HOST_MAC:
        has = f"it is {neighbour.mac or 'unresolved'}" if neighbour else "there is none"
        yield f"permanent neighbour {GATEWAY} with MAC {HOST_MAC} is missing in the pod ({has})"


def _host_route_damage(expected: Expected, found: Found, host: Link, pod: Link) -> Iterator[str]:
    for address, route in zip(expected.routed, found.host_routes, strict=True):
        if route is not None and (route.kind, route.index) == (RTN_LOCAL, pod.index):
            continue  # in the host's own namespace: the address is the host's
        if route is None or route.dst != ip_network(address.ip) or route.index != host.index:
            leads = (
                f"the best route is {route.dst} over link {route.index}" if route else "no route leads there"
            )
            yield f"host route to {address.ip} over {expected.host_ifname} is missing ({leads})"


def _route_text(dst: IPNetwork, gateway: IPAddress | None) -> str:
    return f"route to {dst} via {gateway}" if gateway else f"route to {dst}"
