"""Azure's DNS at the wireserver's address."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest

from integration.fabric.dns import answer

if TYPE_CHECKING:
    from integration.fabric import Fabric, Machine


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def asked(machine: Machine, name: str) -> tuple[int, str]:
    """Ask from inside: the response code, and the address at the end of the reply."""

    def body() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.sendto(query(name), ("168.63.129.16", 53))
            return sock.recv(512)

    reply = machine.in_network(body)
    count = struct.unpack_from("!H", reply, 6)[0]
    return reply[3] & 0xF, socket.inet_ntoa(reply[-4:]) if count else ""


def test_names_of_machines_and_endpoints(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    other = fabric.nodes["node2"]
    assert asked(node, "node2") == (0, str(other.primary_ip))
    assert asked(node, "Node2.fabric.internal.cloudapp.net") == (0, str(other.primary_ip))
    assert asked(node, "management.azure.com")[0] == 0
    assert asked(node, "example.org") == (3, "")


def test_it_answers_over_tcp_too(fabric: Fabric) -> None:
    def body() -> bytes:
        with socket.create_connection(("168.63.129.16", 53), timeout=30) as sock:
            sock.sendall(len(query("node2")).to_bytes(2, "big") + query("node2"))
            length = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
            return sock.recv(length, socket.MSG_WAITALL)

    reply = fabric.nodes["node1"].in_network(body)
    assert socket.inet_ntoa(reply[-4:]) == str(fabric.nodes["node2"].primary_ip)


def test_a_hanging_dns_does_not_answer(fabric: Fabric) -> None:
    fabric.fault("dns", hang=True, times=1)
    with pytest.raises(TimeoutError):
        asked(fabric.nodes["node1"], "node2")
    assert asked(fabric.nodes["node1"], "node2")[0] == 0


@pytest.mark.parametrize("raw", [b"", b"\1", b"\0" * 12, b"\0" * 12 + b"\5ab", query("x")[:-3], b"\xff" * 40])
def test_a_malformed_query_gets_a_short_error_and_breaks_nothing(raw: bytes) -> None:
    reply = answer(raw, {})
    assert len(reply) >= 12
    assert reply[3] & 0xF in (1, 3, 4)


def test_only_addresses_of_version_4_are_known(fabric: Fabric) -> None:
    names = {"node1": fabric.nodes["node1"].primary_ip}
    reply = answer(query("node1", kind=28), names)
    assert (reply[3] & 0xF, struct.unpack_from("!H", reply, 6)[0]) == (0, 0)
