"""Forgetting the connections to an address: all of them, no others, and not one by one."""

from __future__ import annotations

import struct
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest

from cni_plugin.kernel import conntrack
from cni_plugin.kernel.encode import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST
from cni_plugin.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni_plugin.kernel.templates import Request
from ipam.model import IPAddress
from tests.netns.sandbox import Sandbox

pytestmark = pytest.mark.alone("about parts that both ways have in common")

GONE, KEPT = ip_address("10.10.0.5"), ip_address("10.10.0.6")
GONE_V6, KEPT_V6 = ip_address("fd00::5"), ip_address("fd00::6")
CT_NEW, NLM_F_CREATE, UDP = 0x100, 0x400, 17
TUPLE_PROTO, TIMEOUT = 2, 7
SECONDS = 600


def connection(number: int, answered_by: IPAddress, zone: int = 0, more: bytes = b"") -> Request:
    """One that a sender outside has to a host port of a pod; ``more``: attributes."""
    four = answered_by.version == 4
    sender = ip_address("198.18.0.0" if four else "2001:db8::") + (number >> 8)
    node = ip_address("10.10.0.4" if four else "fd00::4")
    port = 1000 + (number & 255)
    body = struct.pack("=BBH", 2 if four else 10, 0, 0)
    body += _tuple(conntrack.TUPLE_ORIG, sender, node, port, 53)
    body += _tuple(conntrack.TUPLE_REPLY, answered_by, sender, 53, port)
    body += conntrack._attribute(TIMEOUT, struct.pack("!I", SECONDS))
    body += more
    if zone:
        body += conntrack._attribute(conntrack.ZONE, struct.pack("!H", zone))
    return conntrack._request(CT_NEW, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, body, "remember a connection")


def _tuple(kind: int, source: IPAddress, target: IPAddress, sport: int, dport: int) -> bytes:
    first = conntrack.V4_SRC if source.version == 4 else conntrack.V6_SRC
    second = first + 1
    ends = conntrack._attribute(first, source.packed) + conntrack._attribute(second, target.packed)
    ports = conntrack._attribute(1, bytes([UDP]))
    ports += conntrack._attribute(2, struct.pack("!H", sport)) + conntrack._attribute(
        3, struct.pack("!H", dport)
    )
    nested = conntrack.NESTED
    inner = conntrack._attribute(1 | nested, ends) + conntrack._attribute(TUPLE_PROTO | nested, ports)
    return conntrack._attribute(kind | nested, inner)


def remember(netlink: Netlink, count: int, answered_by: IPAddress, *, first: int = 0, zone: int = 0) -> None:
    for start in range(first, first + count, 500):
        numbers = range(start, min(start + 500, first + count))
        netlink.change([connection(number, answered_by, zone) for number in numbers])


def remembered() -> int:
    return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())


def by_address(netlink: Netlink) -> dict[str, int]:
    """How many connections are answered from each address."""
    body = struct.pack("=BBH", 0, 0, 0)
    request = conntrack._request(conntrack.CT_GET, NLM_F_REQUEST | NLM_F_DUMP, body, "list all")
    return dict(Counter(str(ip_address(conntrack._source(each))) for each in netlink.dump(request)))


def as_before_6_8(address: IPAddress) -> Request:
    """What a kernel that knows no filter for deletions sees: an incomplete tuple."""
    source = conntrack._attribute(conntrack.TUPLE_IP | conntrack.NESTED, conntrack._ip_source(address))
    body = conntrack._header(address) + conntrack._attribute(conntrack.TUPLE_REPLY | conntrack.NESTED, source)
    return conntrack._request(conntrack.CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, body, "forget connections")


def forget_counting(address: IPAddress, monkeypatch: pytest.MonkeyPatch, *, old: bool) -> int:
    """How many times something was sent to the kernel."""
    sends: list[int] = []
    real = Netlink.send

    def counted(netlink: Netlink, batch: bytearray) -> None:
        sends.append(len(batch))
        real(netlink, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Netlink, "send", counted)
        if old:
            patched.setattr(conntrack, "_filtered_delete", as_before_6_8)
        conntrack.forget(address)
    return len(sends)


@pytest.mark.parametrize("old", [False, True], ids=["as this kernel does", "as older kernels do"])
def test_thousands_of_connections_are_forgotten_with_few_requests(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    many = 20_000

    def work() -> tuple[int, int, int]:
        with Netlink(protocol=NETLINK_NETFILTER) as netlink:
            remember(netlink, many, GONE)
            remember(netlink, 50, GONE, first=1 << 20, zone=7)
            remember(netlink, 100, KEPT, first=1 << 21)
        before = remembered()
        return before, forget_counting(GONE, monkeypatch, old=old), remembered()

    before, sends, after = sandbox.ask(work)
    assert (before, after) == (many + 150, 100)
    assert sends <= 3 + many // conntrack.BATCH + 1


@pytest.mark.parametrize("old", [False, True], ids=["as this kernel does", "as older kernels do"])
def test_each_family_has_its_own(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    def work() -> list[dict[str, int]]:
        left = []
        with Netlink(protocol=NETLINK_NETFILTER) as netlink:
            for number, address in enumerate((GONE, KEPT, GONE_V6, KEPT_V6)):
                remember(netlink, 10, address, first=number << 20)
            for address in (GONE_V6, GONE):
                forget_counting(address, monkeypatch, old=old)
                left.append(by_address(netlink))
        return left

    everyone = dict.fromkeys(map(str, (GONE, KEPT, GONE_V6, KEPT_V6)), 10)
    without_v6 = {address: count for address, count in everyone.items() if address != str(GONE_V6)}
    without = {address: count for address, count in without_v6.items() if address != str(GONE)}
    assert sandbox.ask(work) == [without_v6, without]


def test_one_that_came_to_its_end_meanwhile_hides_no_other(sandbox: Sandbox) -> None:
    def work() -> int:
        with Netlink(protocol=NETLINK_NETFILTER) as netlink:
            remember(netlink, 10, GONE)
            listed = netlink.dump(conntrack._list(GONE))
            requests = [conntrack._forget(body, GONE) for body in listed]
            netlink.change(requests[:1])
            conntrack._delete(netlink, requests)
            return remembered()

    assert sandbox.ask(work) == 0


def test_nothing_is_asked_where_nothing_is_tracked(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox.ask(lambda: forget_counting(GONE, monkeypatch, old=False)) == 0
