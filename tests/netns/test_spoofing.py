"""A pod with NET_RAW sends as itself and as nobody else, on a node that checks no source by itself."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from integration.fabric import syscalls as sc
from tests.netns.conftest import NewAgent
from tests.netns.node import ADDRESS, FABRIC, GATEWAY, OUTSIDE, Node, ping
from tests.netns.sandbox import Pod
from tests.waiting import eventually

HOST_MAC = bytes.fromhex("aaaaaaaaaaaa")
PODS_GATEWAY = IPv4Address("169.254.1.1")
PORT = 7777
REFUSED = 106


@pytest.fixture
def pods(busy_node: Node) -> list[Pod]:
    """Two pods. rp_filter is 0, as Debian has it."""
    conf = Path("/proc/sys/net/ipv4/conf")
    for each in (conf / "all/rp_filter", conf / "default/rp_filter"):
        busy_node.sandbox.run("sh", "-c", f"echo 0 > {each}")
    made = busy_node.sandbox.pods("attacker", "neighbour")
    for pod in made:
        busy_node.add(pod).done()
    return made


def _send(pod: Pod, frames: Iterable[bytes]) -> None:
    frames = list(frames)

    def work() -> None:
        fd = os.open(pod.netns, os.O_RDONLY)
        sc.setns(fd, sc.CLONE_NEWNET)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind(("eth0", 0))
            for frame in frames:
                link.send(frame)

    pod.sandbox.do(work)


def _mac(pod: Pod) -> bytes:
    (link,) = pod.ip("link", "show", "dev", "eth0")
    return bytes.fromhex(link["address"].replace(":", ""))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    folded = (total & 0xFFFF) + (total >> 16)
    return ~(folded + (folded >> 16)) & 0xFFFF


def _udp(mac: bytes, source: str, to: str) -> bytes:
    payload = source.encode()
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0) + payload
    ends = IPv4Address(source).packed + IPv4Address(to).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0) + ends
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return HOST_MAC + mac + b"\x08\x00" + header + udp


def _arp(mac: bytes, source: IPv4Address) -> bytes:
    """A request for the gateway (RFC 826)."""
    ends = mac + source.packed + bytes(6) + PODS_GATEWAY.packed
    return b"\xff" * 6 + mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + ends


def _solicitation(mac: bytes, source: bytes, kind: int, to: bytes) -> bytes:
    """Of a neighbour (135) or a router (133), with its link-layer address (RFC 4861, 4.1, 4.3)."""
    target = to if kind == 135 else b""
    message = struct.pack("!BBHI", kind, 0, 0, 0) + target + b"\x01\x01" + mac
    words = source + to + struct.pack("!II", len(message), socket.IPPROTO_ICMPV6) + message
    message = message[:2] + struct.pack("!H", _checksum(words)) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255)
    return b"\x33\x33" + to[-4:] + mac + b"\x86\xdd" + header + source + to + message


def _sources(node: Node, pod: Pod, namespace: str, to: str, frames: list[bytes], last: str) -> list[str]:
    """Who sent what arrives at an address of a namespace, until ``last`` has."""

    def work() -> str:
        fd = os.open(f"/run/netns/{namespace}" if namespace else "/proc/self/ns/net", os.O_RDONLY)
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        sc.setns(fd, sc.CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
            listening.bind((to, PORT))
            listening.settimeout(20)
            sc.setns(home, sc.CLONE_NEWNET)
            _send(pod, frames)
            found: list[str] = []
            while last not in found:
                found.append(listening.recvfrom(100)[1][0])
            return " ".join(found)

    return node.sandbox.ask(work).split()


STOLEN = ["168.63.129.16", "8.8.8.8", "10.10.0.200", ADDRESS]


@pytest.mark.parametrize("every", ["0", "2"])
@pytest.mark.parametrize("goal", ["the network", "another pod", "the node"])
def test_no_packet_arrives_under_another_ones_address(
    busy_node: Node, pods: list[Pod], goal: str, every: str
) -> None:
    """Of ``conf.all`` and the link's own the larger one counts, and 2 is the loose check."""
    busy_node.sandbox.run("sh", "-c", f"echo {every} > /proc/sys/net/ipv4/conf/all/rp_filter")
    attacker, neighbour = pods
    own, other = (
        (pod.ip("-4", "address", "show", "dev", "eth0")[0]["addr_info"][0]["local"]) for pod in pods
    )
    namespace, to = {
        "the network": (FABRIC, GATEWAY),
        "another pod": (Path(neighbour.netns).name, other),
        "the node": ("", ADDRESS),
    }[goal]
    stolen = [each for each in (*STOLEN, other) if each != to]
    mac = _mac(attacker)
    frames = [_udp(mac, source, to) for source in (*stolen, own)]
    assert _sources(busy_node, attacker, namespace, to, frames, own) == [own]


@pytest.mark.parametrize("every", ["0", "2"])
def test_forged_arp_leaves_no_entry_in_the_hosts_table(busy_node: Node, pods: list[Pod], every: str) -> None:
    busy_node.sandbox.run("sh", "-c", f"echo {every} > /proc/sys/net/ipv4/conf/all/rp_filter")
    attacker = pods[0]
    mac = _mac(attacker)
    _send(attacker, [_arp(mac, IPv4Address("10.10.1.0") + number) for number in range(150)])
    assert ping(attacker, OUTSIDE), "what comes after it on the same link"
    (veth, own) = next((dev, dst) for dst, dev in busy_node.host_routes().items() if dst == "10.10.0.5")
    (entry,) = busy_node.sandbox.ip("neighbour", "show", "dev", veth)
    assert (entry["dst"], bytes.fromhex(entry["lladdr"].replace(":", ""))) == (own, mac)


@pytest.mark.parametrize("forwarding", ["0", "1"])
def test_solicitations_over_ipv6_leave_no_entry_in_the_hosts_table(
    busy_node: Node, pods: list[Pod], forwarding: str
) -> None:
    sandbox, attacker = busy_node.sandbox, pods[0]
    sandbox.do(lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(forwarding))
    mac = _mac(attacker)
    everybody = {
        kind: socket.inet_pton(socket.AF_INET6, to) for kind, to in ((133, "ff02::2"), (135, "ff02::1"))
    }
    sources = [socket.inet_pton(socket.AF_INET6, f"fe80::{number:x}") for number in range(1, 150)]
    _send(
        attacker, [_solicitation(mac, each, kind, to) for kind, to in everybody.items() for each in sources]
    )
    assert ping(attacker, OUTSIDE)
    for veth in busy_node.veths():
        assert not sandbox.ip("-6", "neighbour", "show", "dev", veth)
        assert not sandbox.ip("-6", "address", "show", "dev", veth)


def test_the_host_knows_the_pods_mac_before_it_sends_anything(busy_node: Node, pods: list[Pod]) -> None:
    """Unless it did, the first packet to a pod would wait for ARP."""
    for dst, dev in busy_node.host_routes().items():
        (entry,) = busy_node.sandbox.ip("neighbour", "show", "dev", dev)
        assert entry["dst"] == dst
        assert "extern_learn" in entry, "the kernel does not collect it"


def test_the_host_end_can_send_when_the_add_returns(busy_node: Node) -> None:
    for pod in busy_node.sandbox.pods(*(f"p{number}" for number in range(6))):
        busy_node.add(pod).done()
        states = {name: link["operstate"] for name, link in busy_node.veths().items()}
        assert set(states.values()) == {"UP"}, states


def test_a_node_whose_default_is_not_to_forward(busy_node: Node) -> None:
    """As CIS has it."""
    conf = Path("/proc/sys/net/ipv4/conf/default/forwarding")
    busy_node.sandbox.do(lambda: conf.write_text("0"))
    pod = busy_node.sandbox.pod("c1")
    busy_node.add(pod).done()
    assert ping(pod, OUTSIDE)


@pytest.mark.alone("an agent's mounts are its own")
def test_an_add_fails_where_ipv6_can_not_be_disabled_and_leaves_nothing(busy_node: Node) -> None:
    node, pod = busy_node, busy_node.sandbox.pod("c1")
    node.sandbox.run(
        "sh", "-ec", "echo 1 > /proc/sys/net/ipv4/ip_forward; mount --bind -o ro /proc/sys /proc/sys"
    )
    failed = node.add(pod)
    assert failed.code == REFUSED
    assert "disable_ipv6" in failed.msg
    assert not node.residue()


@pytest.mark.with_agent("it is the agent's own work")
@pytest.mark.parametrize(
    "setting", ["ipv4/conf/{}/rp_filter=0", "ipv4/conf/{}/forwarding=0", "ipv6/conf/{}/disable_ipv6=0"]
)
def test_a_setting_that_somebody_changed_is_made_again(
    busy_node: Node, pods: list[Pod], new_agent: NewAgent, setting: str
) -> None:
    veth = next(iter(busy_node.veths()))
    name, _, value = setting.format(veth).partition("=")
    path = Path("/proc/sys/net") / name
    before = busy_node.sandbox.run("cat", str(path)).stdout
    busy_node.sandbox.do(lambda: path.write_text(value))
    eventually(lambda: busy_node.sandbox.run("cat", str(path)).stdout == before, "it is as it was")
