"""Objects of the kernel as values: links, addresses, routes, neighbours.

Owns reading the bodies of messages. It must not know how they arrive, nor what they are used for. Layouts:
rtnetlink(7), Documentation/netlink/specs/rt-*.yaml.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from cni_plugin.kernel.encode import AF_INET, AF_INET6
from ipam.model import IPAddress, IPNetwork
from ipam.value import Value

ATTRIBUTE = struct.Struct("=HH")
NLA_TYPE_MASK = 0x3FFF
DEVCONF_DISABLE_IPV6 = 26


class Link(Value):
    """One network interface."""

    index: int
    name: str
    mac: str
    mtu: int
    flags: int
    alias: str = ""
    kind: str = ""
    master: int = 0
    lower: int = 0
    """IFLA_LINK: the link below (vlan, macvlan) or the peer (veth)."""
    lower_elsewhere: bool = False
    """Whether ``lower`` is an index of another namespace."""
    alt_names: tuple[str, ...] = ()
    """IFLA_ALT_IFNAME: names beside the visible one."""
    ipv4_settings: tuple[int, ...] = ()
    """IFLA_INET_CONF, by IPV4_DEVCONF_* less 1."""
    has_ipv6: bool = False
    """Whether IPv6 is there and not disabled on the link (IFLA_INET6_CONF)."""
    ipv6_conf: bytes = b""
    """IFLA_INET6_CONF: numbers of four bytes, by DEVCONF_* (include/uapi/linux/ipv6.h)."""
    group: int = 0
    """IFLA_GROUP."""

    def ipv6_setting(self, number: int) -> int | None:
        """A setting of IPv6; None where the kernel has none of that number, or no IPv6."""
        value = self.ipv6_conf[4 * number : 4 * number + 4]
        return int.from_bytes(value, "little", signed=True) if value else None

    @property
    def up(self) -> bool:
        """IFF_UP."""
        return bool(self.flags & 1)

    @property
    def loopback(self) -> bool:
        """IFF_LOOPBACK."""
        return bool(self.flags & 0x8)

    @property
    def slave(self) -> bool:
        """IFF_SLAVE, as the VF of accelerated networking has it."""
        return bool(self.flags & 0x800)


class LinkAddress(Value):
    """One address of a link."""

    index: int
    ip: IPAddress
    prefixlen: int


class KernelRoute(Value):
    """One route."""

    dst: IPNetwork
    gateway: IPAddress | None
    index: int
    protocol: int
    scope: int
    kind: int
    links: tuple[int, ...] = ()
    """Every link that it leads over; several where the kernel spreads packets over them."""
    table: int = 0


class WayOut(Value):
    """How packets leave the node."""

    link: Link | None
    """The link; None: nothing leads out, or the kernel does not say."""
    by_sender: bool
    """Rules match the source address or the incoming link, so a pod's packets may leave by another link than
    the node's own."""


class Neighbour(Value):
    """One neighbour."""

    index: int
    ip: IPAddress
    mac: str
    state: int


def read_attributes(body: bytes, offset: int) -> list[tuple[int, bytes]]:
    """The attributes of a message, or of a nested one, from an offset on: kind and value."""
    found: list[tuple[int, bytes]] = []
    add, header, head, mask = found.append, ATTRIBUTE.unpack_from, ATTRIBUTE.size, NLA_TYPE_MASK
    last = len(body) - head
    while offset <= last:
        length, kind = header(body, offset)
        if length < head:
            break
        add((kind & mask, body[offset + head : offset + length]))
        offset += (length + 3) & ~3
    return found


def read_text(attributes: dict[int, bytes], kind: int) -> str:
    """An attribute that is text, up to its NUL; empty where it is left out."""
    return _text(attributes.get(kind, b""))


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode(errors="replace")


def read_number(attributes: dict[int, bytes], kind: int) -> int:
    """An attribute that is a number in the host's order; 0 where it is left out."""
    value = attributes.get(kind)
    return int.from_bytes(value, "little", signed=False) if value else 0


def _mac(value: bytes) -> str:
    return value.hex(":")


def read_link(body: bytes) -> Link:
    """Struct ifinfomsg and IFLA_* (include/uapi/linux/if_link.h)."""
    _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", body)
    attributes = dict(read_attributes(body, 16))
    info = dict(read_attributes(attributes.get(18, b""), 0))
    families = dict(read_attributes(attributes.get(26, b""), 0))
    ipv4 = dict(read_attributes(families.get(AF_INET, b""), 0)).get(1, b"")
    ipv6 = dict(read_attributes(families.get(AF_INET6, b""), 0)).get(2, b"")
    return Link(
        index=index,
        name=read_text(attributes, 3),
        mac=_mac(attributes.get(1, b"")),
        mtu=read_number(attributes, 4),
        flags=flags,
        alias=read_text(attributes, 20),
        kind=read_text(info, 1),
        master=read_number(attributes, 10),
        lower=read_number(attributes, 5),
        lower_elsewhere=37 in attributes,
        alt_names=tuple(_text(name) for _, name in read_attributes(attributes.get(52, b""), 0)),
        ipv4_settings=struct.unpack(f"={len(ipv4) // 4}I", ipv4),
        ipv6_conf=ipv6,
        has_ipv6=bool(ipv6) and not struct.unpack_from("=I", ipv6, 4 * DEVCONF_DISABLE_IPV6)[0],
        group=read_number(attributes, 27),
    )


def read_address(body: bytes) -> LinkAddress:
    """Struct ifaddrmsg and IFA_*: IFA_LOCAL is the address, IFA_ADDRESS that of a point-to-point peer."""
    _, prefixlen, _, _, index = struct.unpack_from("=BBBBI", body)
    attributes = dict(read_attributes(body, 8))
    return LinkAddress(index, ip_address(attributes.get(2) or attributes[1]), prefixlen)


def read_route(body: bytes) -> KernelRoute:
    """Struct rtmsg and RTA_*."""
    family, dst_len, _, _, table, protocol, scope, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
    attributes = dict(read_attributes(body, 12))
    zero = bytes(4 if family == AF_INET else 16)
    gateway = attributes.get(5)
    index = read_number(attributes, 4)
    return KernelRoute(
        dst=ip_network((attributes.get(1, zero), dst_len)),
        gateway=ip_address(gateway) if gateway else None,
        index=index,
        protocol=protocol,
        scope=scope,
        kind=kind,
        links=(index,) if index else tuple(_nexthops(attributes.get(9, b""))),
        table=read_number(attributes, 15) or table,
    )


def _nexthops(body: bytes) -> Iterator[int]:
    """The links of RTA_MULTIPATH: structs rtnexthop, each followed by its attributes."""
    offset = 0
    while offset + 8 <= len(body):
        length, _, _, index = struct.unpack_from("=HBBi", body, offset)
        yield index
        offset += max(8, (length + 3) & ~3)


def read_neighbour(body: bytes) -> Neighbour:
    """Struct ndmsg and NDA_*."""
    _, _, _, index, state, _, _ = struct.unpack_from("=BBHiHBB", body)
    attributes = dict(read_attributes(body, 12))
    return Neighbour(index, ip_address(attributes[1]), _mac(attributes.get(2, b"")), state)
