"""Packets as a node puts them on its wire: pods by hand, ARP requests, spoofed sources."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

_ETH_P_ARP = 0x0806


@contextlib.contextmanager
def pod(node: Machine, name: str, address: IPv4Address) -> Iterator[None]:
    """A namespace inside the node that carries the address, routed by hand as a plugin would do."""
    veth = f"v{name}"[:15]
    steps = f"""
        ip netns add {name}
        ip link add {veth} type veth peer name eth0 netns {name}
        ip link set {veth} up
        ip route add {address}/32 dev {veth}
        ip -n {name} link set lo up
        ip -n {name} link set eth0 up
        ip -n {name} address add {address}/32 dev eth0
        ip -n {name} route add 169.254.1.1 dev eth0
        ip -n {name} route add default via 169.254.1.1
        mac=$(cat /sys/class/net/{veth}/address)
        ip -n {name} neighbour add 169.254.1.1 lladdr $mac dev eth0 nud permanent
        sysctl -qw net.ipv4.ip_forward=1
    """
    node.run(["sh", "-e"], input=steps)
    try:
        yield
    finally:
        node.run(["ip", "netns", "delete", name])
        node.run(["ip", "link", "delete", veth], check=False)


def reaches(machine: Machine, target: object, *, netns: str = "", source: str = "", wait: str = "1") -> bool:
    """Whether one echo request is answered."""
    prefix = ["ip", "netns", "exec", netns] if netns else []
    options = ["-I", source] if source else []
    done = machine.run([*prefix, "ping", "-n", "-c1", "-W", wait, *options, str(target)], check=False)
    return done.returncode == 0


def arp(machine: Machine, target: IPv4Address, *, link: str = "eth0", wait: float = 2.0) -> str:
    """Broadcast one ARP request; the MAC that answers. Raises TimeoutError when nobody does."""
    mac = bytes.fromhex(machine.uplink_mac.replace(":", ""))
    question = (
        b"\xff" * 6
        + mac
        + struct.pack("!HHHBBH", _ETH_P_ARP, 1, 0x0800, 6, 4, 1)
        + mac
        + machine.primary_ip.packed
        + b"\0" * 6
        + target.packed
    )

    def body() -> str:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP)) as wire:
            wire.bind((link, _ETH_P_ARP))
            wire.send(question)
            deadline = time.monotonic() + wait
            while (rest := deadline - time.monotonic()) > 0:
                wire.settimeout(rest)
                answer = wire.recv(64)
                if answer[20:22] == b"\0\x02" and answer[28:32] == target.packed:
                    return answer[22:28].hex(":")
        raise TimeoutError(f"nobody answers ARP for {target}")

    return machine.in_network(body)


def send_udp(machine: Machine, target: str, *, source: str = "", port: int = 9, source_port: int = 0) -> None:
    """Send one datagram, from an address that the machine may not have."""

    def body() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if source:
                sender.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT: any source may be bound
            sender.bind((source, source_port))
            sender.sendto(b"x", (target, port))

    machine.in_network(body)
