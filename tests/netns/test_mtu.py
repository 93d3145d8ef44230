"""Packets larger than the way out carries, and an uplink whose MTU or name changes while pods live."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration.fabric import syscalls as sc
from ipam.model import SourceConfig
from tests.netns.node import ADDRESS, FABRIC, GATEWAY, OUTSIDE, Node, ping
from tests.netns.sandbox import NETNS_DIR, Pod
from tests.netns.test_ipv6 import ADDRESS_V6, OUTSIDE_V6, with_both
from tests.netns.test_nics import NEIGHBOUR, UPLINK_UNCLEAR
from tests.netns.test_nics_v6 import NEIGHBOUR_V6, list_second_v6, plug_v6, second

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.netns.conftest import NewNode

JUMBO, USUAL = 9000, 1500
FAR, FAR_V6 = "198.51.100.7", "2001:db8:99::7"
"""A host beyond a link that carries no jumbo frames."""
INSIDE, INSIDE_V6 = "10.200.0.7", "fd00:200::7"
"""The same host under addresses that pods are not masqueraded to."""
PORT = 5301
BYTES = 1 << 20


def narrow(node: Node) -> None:
    """Beyond the node's network another one of jumbo frames, and between them a link with the usual MTU. Its
    ends say so to whoever sends more.
    """
    node.sandbox.new_pods(["mid", "far"])
    # Nobody is asked for a neighbour from an address that is still tentative.
    settings = (
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv6.conf.default.accept_dad=0",
    )
    for namespace in (FABRIC, "mid", "far"):
        node.sandbox.run("ip", "netns", "exec", namespace, "sysctl", "-qw", *settings)
    node.sandbox.batch(
        f"link add narrow mtu {USUAL} type veth peer name narrow mtu {USUAL} netns mid",
        "link set narrow up",
        "address add 198.18.0.1/30 dev narrow",
        *(f"route add {each} via 198.18.0.2" for each in (FAR, INSIDE)),
        "address add fd00:18::1/64 dev narrow nodad",
        *(f"route add {each} via fd00:18::2" for each in (FAR_V6, INSIDE_V6)),
        namespace=FABRIC,
    )
    node.sandbox.batch(
        "link set narrow up",
        f"link add wide mtu {JUMBO} type veth peer name eth0 mtu {JUMBO} netns far",
        "link set wide up",
        "address add 198.18.0.2/30 dev narrow",
        "address add 198.18.1.1/30 dev wide",
        "route add default via 198.18.0.1",
        *(f"route add {each} dev wide" for each in (FAR, INSIDE)),
        "address add fd00:18::2/64 dev narrow nodad",
        "address add fd00:18:1::1/64 dev wide nodad",
        "route add default via fd00:18::1",
        *(f"route add {each} via fd00:18:1::2" for each in (FAR_V6, INSIDE_V6)),
        namespace="mid",
    )
    node.sandbox.batch(
        "link set lo up",
        "link set eth0 up",
        "address add 198.18.1.2/30 dev eth0",
        *(f"address add {each}/32 dev eth0" for each in (FAR, INSIDE)),
        "route add default via 198.18.1.1",
        "address add fd00:18:1::2/64 dev eth0 nodad",
        *(f"address add {each}/128 dev lo nodad" for each in (FAR_V6, INSIDE_V6)),
        "route add default via fd00:18:1::1",
        namespace="far",
    )


@pytest.fixture
def jumbo(new_node: NewNode) -> Node:
    """A node on a network of jumbo frames, and beyond it one that has none."""
    node = with_both(new_node(mtu=JUMBO))
    narrow(node)
    return node


def learnt(pod: Pod, target: str) -> int:
    """The MTU of the way to a target, as the pod knows it; 0: that of its link."""
    (route,) = pod.ip("route", "get", target)
    found = [each.get("mtu", 0) for each in route.get("metrics", [])]
    return int(max(found, default=0))


def entered(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    sc.setns(fd, sc.CLONE_NEWNET)
    os.close(fd)


@contextmanager
def sink(node: Node, namespace: str, address: str) -> Iterator[None]:
    """At an address: takes what comes by each connection, and sends as much back."""
    ready, tell = os.pipe()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def serve() -> None:
        entered(f"{NETNS_DIR}/{namespace}")
        with socket.create_server((address, PORT), family=family) as server:
            os.write(tell, b".")
            while True:
                connection, _ = server.accept()
                threading.Thread(target=_echo, args=(connection,), daemon=True).start()

    process = node.sandbox.fork(serve)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"."
        yield
    finally:
        os.close(ready)
        process.kill()


def _echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def exchanged(pod: Pod, address: str, between: Callable[[], object] = str) -> int:
    """Bytes that come back of what a pod sends by one connection; ``between`` happens in the middle of it."""
    told, tell = os.pipe()
    go, let_go = os.pipe()

    def work() -> None:
        entered(pod.netns)
        with socket.create_connection((address, PORT), 30) as connection:
            got = _round(connection)
            os.write(tell, b".")
            os.read(go, 1)
            os.write(tell, str(got + _round(connection)).encode())

    asking = pod.sandbox.fork(work)
    os.close(tell)
    os.close(go)
    try:
        assert os.read(told, 1) == b".", "half of it came back"
        between()
        os.write(let_go, b".")
        return int(os.read(told, 20) or b"0")
    finally:
        os.close(told)
        os.close(let_go)
        asking.kill()


def _round(connection: socket.socket) -> int:
    sending = threading.Thread(target=connection.sendall, args=(b"x" * BYTES,))
    sending.start()
    got = 0
    while got < BYTES and (data := connection.recv(1 << 16)):
        got += len(data)
    sending.join()
    return got


@pytest.mark.parametrize(
    "target",
    [FAR, INSIDE, FAR_V6, INSIDE_V6],
    ids=["masqueraded", "inside", "masqueraded IPv6", "inside IPv6"],
)
def test_a_pod_with_jumbo_frames_learns_that_the_way_out_has_none(jumbo: Node, target: str) -> None:
    """The router's ICMP is about a packet of the node; connection tracking brings it to the pod."""
    pod = jumbo.sandbox.pod("c1")
    made = jumbo.add(pod).done().result
    assert [each["mtu"] for each in made["interfaces"]] == [JUMBO, JUMBO]
    with sink(jumbo, "far", target):
        assert exchanged(pod, target) == 2 * BYTES
    assert learnt(pod, target) == USUAL
    too_large = ("-M", "do", "-s", str(USUAL))
    assert not ping(pod, target, *too_large)
    assert ping(pod, target, "-M", "do", "-s", str(USUAL - 48))


def set_mtu(node: Node, link: str, wire: str, mtu: int) -> None:
    """Both ends of a NIC's cable."""
    node.sandbox.batch(f"link set {link} mtu {mtu}")
    node.sandbox.batch(f"link set {wire} mtu {mtu}", namespace=FABRIC)


@pytest.mark.parametrize("target", [FAR, INSIDE, FAR_V6, INSIDE_V6])
def test_an_uplink_that_carries_less_from_now_on_breaks_no_connection(jumbo: Node, target: str) -> None:
    """A pod keeps the MTU that it was made with; its node, which forwards, says what fits."""
    node, small = jumbo, USUAL - 100
    pod = node.sandbox.pod("c1")
    added = node.add(pod).done()
    with sink(node, "far", target):
        assert exchanged(pod, target, lambda: set_mtu(node, "eth0", "wire", small)) == 2 * BYTES
    assert learnt(pod, target) == small
    node.check(pod, added).done()
    made = node.add(node.sandbox.pod("later")).done().result
    assert [each["mtu"] for each in made["interfaces"]] == [small] * 2


@pytest.fixture
def two_nics(busy_node: Node) -> Node:
    node = with_both(busy_node)
    plug_v6(node)
    list_second_v6(node)
    node.pool(lambda pool: pool.refresh(SourceConfig("file"), deadline=5, force=True))
    return node


@pytest.mark.parametrize(("near", "outside"), [(NEIGHBOUR, OUTSIDE), (NEIGHBOUR_V6, OUTSIDE_V6)])
def test_a_second_nic_that_carries_less_breaks_no_connection_and_the_first_nics_pods_go_on(
    two_nics: Node, near: str, outside: str
) -> None:
    node, small = two_nics, USUAL - 100
    usual, other = node.sandbox.pods("c1", "c2")
    node.add(usual).done()
    node.add(other, conf=second(node)).done()
    for target in (near, outside):
        with sink(node, FABRIC, target):
            assert exchanged(other, target, lambda: set_mtu(node, "eth1", "wire1", small)) == 2 * BYTES
            assert exchanged(usual, target) == 2 * BYTES
        assert learnt(other, target) == small
        set_mtu(node, "eth1", "wire1", USUAL)
    assert ping(usual, outside, "-M", "do", "-s", str(USUAL - 48))


def test_an_uplink_that_gets_another_name_keeps_its_pods_and_gets_new_ones(jumbo: Node) -> None:
    """As udev gives one, some time after the node was booted. The kernel keeps addresses and routes."""
    node = jumbo
    pod = node.sandbox.pod("c1")
    added = node.add(pod).done()
    rename = partial(node.sandbox.batch, "link set eth0 name enP1s1")
    with sink(node, "far", FAR):
        assert exchanged(pod, FAR, rename) == 2 * BYTES
    later = node.sandbox.pod("c2")
    node.add(later).done()
    everywhere = (GATEWAY, FAR, FAR_V6, ADDRESS, ADDRESS_V6)
    for each in (pod, later):
        assert [target for target in everywhere if not ping(each, target)] == []
    node.check(pod, added).done()
    node.status().done()
    for each in (pod, later):
        node.delete(each).done()
    assert not node.residue()


def test_a_second_nic_that_gets_another_name_keeps_its_pods_and_the_new_name_gets_new_ones(
    two_nics: Node,
) -> None:
    """Its table and rules are those of its index; a network that names it has to say the new name."""
    node = two_nics
    pod = node.sandbox.pod("c1")
    node.add(pod, conf=second(node)).done()
    everywhere = (NEIGHBOUR, NEIGHBOUR_V6, OUTSIDE, OUTSIDE_V6)
    with sink(node, FABRIC, NEIGHBOUR):
        rename = partial(node.sandbox.batch, "link set eth1 name enP2s2")
        assert exchanged(pod, NEIGHBOUR, rename) == 2 * BYTES
    assert [target for target in everywhere if not ping(pod, target)] == []
    later = node.sandbox.pod("c2")
    failed = node.add(later, conf=second(node))
    assert (failed.code, "eth1" in failed.msg) == (UPLINK_UNCLEAR, True)
    node.add(later, conf={**second(node), "master": "enP2s2"}).done()
    assert [target for target in everywhere if not ping(later, target)] == []
