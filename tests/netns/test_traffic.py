"""Packets: who reaches whom, with which source address, and how large they may be."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

import pytest

from integration.fabric import syscalls as sc
from tests.netns.conftest import NewNode
from tests.netns.node import ADDRESS, FABRIC, GATEWAY, OUTSIDE, Node, ping, pod_addresses
from tests.netns.sandbox import NETNS_DIR, Pod, Sandbox

IP_AND_ICMP_BYTES = 28


@pytest.fixture
def pods(busy_node: Node) -> list[Pod]:
    made = busy_node.sandbox.pods("c1", "c2")
    for each in made:
        busy_node.add(each).done()
    return made


def _address(pod: Pod, ifname: str = "eth0") -> str:
    return pod_addresses(pod, ifname)[0].split("/")[0]


def _host_pings(sandbox: Sandbox, target: str, *options: str) -> bool:
    return sandbox.run("ping", "-n", "-c1", "-W1", *options, target, check=False).returncode == 0


def test_everybody_reaches_everybody(busy_node: Node, pods: list[Pod]) -> None:
    first, second = pods
    assert ping(first, _address(second)), "pod to pod"
    assert ping(second, _address(first)), "and back"
    assert ping(first, _address(first)), "a pod itself"
    assert ping(first, ADDRESS), "pod to its node"
    assert _host_pings(busy_node.sandbox, _address(first)), "node to pod"
    assert ping(first, GATEWAY), "pod to the subnet's gateway"
    assert ping(first, OUTSIDE), "pod to a host beyond"
    fabric = Pod("fabric", f"{NETNS_DIR}/{FABRIC}", busy_node.sandbox)
    assert ping(fabric, _address(second), "-I", OUTSIDE), "and back from there"


def test_nobody_answers_for_an_address_that_no_pod_has(busy_node: Node, pods: list[Pod]) -> None:
    assert not ping(pods[0], "10.10.0.12")
    busy_node.delete(pods[1]).done()
    assert not ping(pods[0], "10.10.0.6")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("target", ["pod", "outside"])
def test_another_pod_sees_the_pods_own_address_and_the_outside_the_nodes(
    busy_node: Node, pods: list[Pod], kind: socket.SocketKind, target: str
) -> None:
    """What stays inside is not translated."""
    first, second = pods
    where = second.netns if target == "pod" else f"{NETNS_DIR}/{FABRIC}"
    address = _address(second) if target == "pod" else OUTSIDE
    listening, tell = os.pipe()

    def serve() -> None:
        _enter(where)
        with socket.socket(socket.AF_INET, kind) as server:
            server.bind((address, 7777))
            if kind == socket.SOCK_STREAM:
                server.listen()
                os.write(tell, b".")
                connection, peer = server.accept()
                connection.sendall(peer[0].encode())
                connection.close()
            else:
                os.write(tell, b".")
                _, peer = server.recvfrom(100)
                server.sendto(peer[0].encode(), peer)

    def ask() -> str:
        _enter(first.netns)
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(5)
            client.connect((address, 7777))
            client.send(b"who am I?")
            return client.recv(100).decode()

    server = busy_node.sandbox.fork(serve)
    os.close(tell)
    assert select.select([listening], [], [], 5)[0]
    os.close(listening)
    assert busy_node.sandbox.ask(ask) == (_address(first) if target == "pod" else ADDRESS)
    server.kill()


def _enter(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    sc.setns(fd, sc.CLONE_NEWNET)
    os.close(fd)


def test_each_of_a_pods_interfaces_is_reached_at_its_own_address(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    busy_node.add(pod).done()
    busy_node.add(pod, ifname="net1").done()
    for ifname in ("eth0", "net1"):
        assert _host_pings(busy_node.sandbox, _address(pod, ifname))
        assert ping(pod, OUTSIDE, "-I", ifname)
    busy_node.delete(pod).done()
    assert ping(pod, OUTSIDE)
    assert _host_pings(busy_node.sandbox, _address(pod, "net1"))


# Size


@pytest.mark.parametrize("mtu", [1400, 1500, 3900, 9000])
def test_packets_are_as_large_as_the_uplink_carries_and_no_larger(new_node: NewNode, mtu: int) -> None:
    """Row 31, with packets that must not be fragmented on the way."""
    node = new_node(many=True, mtu=mtu)
    first, second = node.sandbox.pods("c1", "c2")
    for each in (first, second):
        made = node.add(each).result
        assert [interface["mtu"] for interface in made["interfaces"]] == [mtu, mtu]
        assert each.ip("link", "show", "dev", "eth0")[0]["mtu"] == mtu
    assert {link["mtu"] for link in node.veths().values()} == {mtu}
    fits, too_large = (("-M", "do", "-s", str(mtu - IP_AND_ICMP_BYTES + more)) for more in (0, 1))
    for target in (_address(second), ADDRESS, OUTSIDE):
        assert ping(first, target, *fits), target
        assert not ping(first, target, *too_large), target
    fabric = Pod("fabric", f"{NETNS_DIR}/{FABRIC}", node.sandbox)
    assert ping(fabric, _address(first), *fits)
    assert _host_pings(node.sandbox, _address(first), *fits)


def test_the_next_pod_follows_the_uplink_and_the_uplink_is_never_written(busy_node: Node) -> None:
    node = busy_node
    first, second = node.sandbox.pods("c1", "c2")
    added = node.add(first)
    node.sandbox.batch("link set eth0 mtu 1400")
    node.check(first, added).done()
    node.add(second).done()
    assert (
        first.ip("link", "show", "dev", "eth0")[0]["mtu"],
        second.ip("link", "show", "dev", "eth0")[0]["mtu"],
    ) == (
        1500,
        1400,
    )
    node.delete(first).done()
    assert node.sandbox.ip("link", "show", "dev", "eth0")[0]["mtu"] == 1400
    again = node.add(first)
    assert again.result["interfaces"][1]["mtu"] == 1400
    node.check(first, again).done()


@pytest.mark.parametrize("mtu", [1280, 68, 65535])
def test_a_configured_mtu_wins_over_the_uplinks(busy_node: Node, mtu: int) -> None:
    pod = busy_node.sandbox.pod("c1")
    conf = busy_node.conf(mtu=mtu)
    added = busy_node.add(pod, conf=conf)
    assert [interface["mtu"] for interface in added.result["interfaces"]] == [mtu, mtu]
    assert pod.ip("link", "show", "dev", "eth0")[0]["mtu"] == mtu
    busy_node.check(pod, added, conf=conf).done()


def test_an_mtu_that_no_link_can_have_is_refused_and_leaves_nothing(busy_node: Node) -> None:
    failed = busy_node.add(busy_node.sandbox.pod("c1"), conf=busy_node.conf(mtu=20))
    assert failed.code in (7, 106)
    assert not busy_node.residue()


# Reverse path filters


@pytest.mark.parametrize("strictness", ["0", "1", "2"])
def test_no_reverse_path_filter_of_the_host_is_in_the_way(busy_node: Node, strictness: str) -> None:
    """Row 33, with one NIC: every packet comes in where the answer goes out."""
    sandbox = busy_node.sandbox
    conf = Path("/proc/sys/net/ipv4/conf")
    sandbox.do(
        *(
            (lambda each=each: (conf / each / "rp_filter").write_text(strictness))
            for each in ("all", "default")
        )
    )
    pods = sandbox.pods("c1", "c2")
    for each in pods:
        busy_node.add(each).done()
    assert ping(pods[0], _address(pods[1]))
    assert ping(pods[0], ADDRESS)
    assert ping(pods[0], OUTSIDE)
    assert _host_pings(sandbox, _address(pods[1]))
