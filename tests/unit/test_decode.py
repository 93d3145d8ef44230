"""Messages of the kernel, laid out as rtnetlink(7) has them, are read as what they mean."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address, ip_network

import pytest

from cni_plugin.kernel import decode
from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress, Neighbour

AF_INET, AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)
MAC = bytes.fromhex("000d3ae51cc0")
NESTED = 0x8000


def attribute(kind: int, value: bytes) -> bytes:
    """Struct rtattr, its value, and padding to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def link(*attributes: bytes, flags: int = 0) -> Link:
    return decode.read_link(struct.pack("=BBHiII", 0, 0, 1, 7, flags, 0) + b"".join(attributes))


def route(family: int, length: int, *attributes: bytes) -> KernelRoute:
    header = struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, 155, 253, 1, 0)
    return decode.read_route(header + b"".join(attributes))


def settings_of_ipv6(*, disabled: int) -> bytes:
    conf = [100 + each for each in range(40)]
    conf[26] = disabled
    return attribute(AF_INET6, attribute(2, struct.pack("=40I", *conf)))


def test_a_link_with_everything() -> None:
    found = link(
        attribute(1, MAC),
        text(3, "eth0"),
        number(4, 1500),
        number(5, 9),
        number(10, 11),
        attribute(18 | NESTED, text(1, "veth") + attribute(2, b"data")),
        text(20, "for people"),
        attribute(
            26 | NESTED,
            attribute(AF_INET, attribute(1, struct.pack("=3I", 1, 0, 2))) + settings_of_ipv6(disabled=0),
        ),
        number(27, 155),
        number(37, 0),
        attribute(52 | NESTED, text(53, "azvnet-1") + text(53, "net0")),
        flags=0x11043,
    )
    assert found == Link(
        index=7,
        name="eth0",
        mac="00:0d:3a:e5:1c:c0",
        mtu=1500,
        flags=0x11043,
        alias="for people",
        kind="veth",
        master=11,
        lower=9,
        lower_elsewhere=True,
        alt_names=("azvnet-1", "net0"),
        ipv4_settings=(1, 0, 2),
        has_ipv6=True,
        ipv6_conf=found.ipv6_conf,
        group=155,
    )
    assert [found.ipv6_setting(each) for each in (0, 25, 26, 39, 40)] == [100, 125, 0, 139, None]


def test_a_link_with_nothing_but_its_header() -> None:
    assert link() == Link(index=7, name="", mac="", mtu=0, flags=0)
    assert link().ipv6_setting(0) is None


def test_a_link_whose_ipv6_is_disabled_has_none() -> None:
    assert link(attribute(26 | NESTED, settings_of_ipv6(disabled=0))).has_ipv6
    assert not link(attribute(26 | NESTED, settings_of_ipv6(disabled=1))).has_ipv6


def test_settings_may_be_negative() -> None:
    conf = attribute(AF_INET6, attribute(2, struct.pack("=27i", *([-1] * 26), 0)))
    assert link(attribute(26 | NESTED, conf)).ipv6_setting(3) == -1


@pytest.mark.parametrize(("flag", "what"), [(1, "up"), (8, "loopback"), (0x800, "slave")])
def test_each_flag_says_one_thing(flag: int, what: str) -> None:
    names = ("up", "loopback", "slave")
    assert [name for name in names if getattr(link(flags=flag), name)] == [what]
    assert [name for name in names if getattr(link(flags=~flag & 0xFFFF), name)] == [
        name for name in names if name != what
    ]


def test_a_name_ends_at_its_nul_and_need_not_be_text() -> None:
    assert link(attribute(3, b"eth0\0rest\0")).name == "eth0"
    assert link(attribute(20, b"\xff\0")).alias == "\N{REPLACEMENT CHARACTER}"


def test_a_large_number_has_no_sign() -> None:
    assert link(number(27, 0xFFFFFFFF)).group == 0xFFFFFFFF


def test_an_attribute_that_is_cut_off_or_has_no_length_ends_the_message() -> None:
    whole = text(3, "eth0")
    assert decode.read_attributes(whole + b"\x03\0\x14\0" + text(20, "x"), 0) == [(3, b"eth0\0")]
    assert decode.read_attributes(whole + b"\x08\0\x14", 0) == [(3, b"eth0\0")]
    assert decode.read_attributes(whole + attribute(20, b""), 0) == [(3, b"eth0\0"), (20, b"")]
    assert decode.read_attributes(b"head" + whole, 4) == [(3, b"eth0\0")]


def test_values_of_every_length_are_followed_by_the_next_attribute() -> None:
    for length in range(9):
        value = b"x" * length
        assert decode.read_attributes(attribute(1, value) + attribute(2, b"y"), 0) == [
            (1, value),
            (2, b"y"),
        ]


def test_an_address_is_the_local_one_where_there_is_a_peer() -> None:
    header = struct.pack("=BBBBI", AF_INET, 24, 0, 0, 7)
    mine, peer = ip_address("10.1.0.4"), ip_address("10.1.0.9")
    both = attribute(1, peer.packed) + attribute(2, mine.packed)
    assert decode.read_address(header + both) == LinkAddress(7, mine, 24)
    # Of IPv6 there is no IFA_LOCAL without a peer.
    of_6 = ip_address("fd00::4")
    header = struct.pack("=BBBBI", AF_INET6, 64, 0, 0, 7)
    assert decode.read_address(header + attribute(1, of_6.packed)) == LinkAddress(7, of_6, 64)


def test_a_route_to_one_address_over_a_link() -> None:
    target = ip_network("10.1.0.5/32")
    found = route(AF_INET, 32, attribute(1, target.network_address.packed), number(4, 7))
    assert found == KernelRoute(target, None, 7, 155, 253, 1, (7,), table=254)


@pytest.mark.parametrize(
    ("family", "default", "gateway"),
    [(AF_INET, "0.0.0.0/0", "10.1.0.1"), (AF_INET6, "::/0", "fe80::1")],
)
def test_a_default_route_has_no_destination(family: int, default: str, gateway: str) -> None:
    found = route(family, 0, attribute(5, ip_address(gateway).packed), number(4, 7))
    assert (found.dst, found.gateway) == (ip_network(default), ip_address(gateway))


def test_a_route_over_several_links_names_them_all() -> None:
    gateway = attribute(5, ip_address("10.1.0.1").packed)
    hops = b"".join(
        struct.pack("=HBBi", 8 + len(more), 0, 0, index) + more
        for index, more in ((7, gateway), (8, b""), (9, gateway))
    )
    found = route(AF_INET, 0, attribute(9, hops))
    assert (found.index, found.links) == (0, (7, 8, 9))


def test_a_hop_without_a_length_does_not_stop_the_reader() -> None:
    hops = struct.pack("=HBBi", 0, 0, 0, 7) + struct.pack("=HBBi", 6, 0, 0, 8) + b"rest"
    assert route(AF_INET, 0, attribute(9, hops)).links == (7, 8)


def test_a_neighbour_may_have_no_mac_yet() -> None:
    header = struct.pack("=BBHiHBB", AF_INET, 0, 0, 7, 0x80, 0, 0)
    ip = ip_address("169.254.1.1")
    known = decode.read_neighbour(header + attribute(1, ip.packed) + attribute(2, MAC))
    assert known == Neighbour(7, ip, "00:0d:3a:e5:1c:c0", 0x80)
    assert not decode.read_neighbour(header + attribute(1, ip.packed)).mac
