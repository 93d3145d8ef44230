"""What comes in from the NICs at the emulated host network, before its filter.

Owns a packet socket in that namespace and reading headers. It must not know who sent what.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.fabric import namespaces as ns
from integration.traffic.ends import Kind
from integration.traffic.family import IPV4, Family

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Self

PACKET_HOST = 0
PROTOCOLS = {6: Kind.TCP, 17: Kind.UDP}
SYN_ONLY, SYN_ACK = 0x02, 0x12


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet: the first of a TCP connection, a datagram, or an echo request."""

    port: str
    """The link of the host network by which it came in."""
    kind: Kind
    source: str
    target: str
    identity: int
    """Its source port, or the identifier of the echo."""


class Wire:
    """A context manager: what is seen from entering on."""

    def __init__(self, netns: int, family: Family = IPV4) -> None:
        self._family = family
        protocol = socket.htons(family.ethertype)
        self._socket = ns.in_network(
            netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def take(self) -> Iterator[Seen]:
        """What has come in since the last time."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, (port, _, direction, *_) = self._socket.recvfrom(128)
                if direction == PACKET_HOST and (seen := _read(self._family, port, data)):
                    yield seen

    def source_of(self, ports: Collection[str], kind: Kind, identity: int, targets: Collection[str]) -> str:
        """The source of what came in by these ports since the last time with that identity or, where a source
        port was translated, one of these targets. Empty: nothing came.
        """
        seen = [each for each in self.take() if each.port in ports and each.kind is kind]
        return next((each.source for each in seen if each.identity == identity or each.target in targets), "")


def _read(family: Family, port: str, data: bytes) -> Seen | None:
    protocol, start = family.protocol_of(data)
    kind = Kind.ICMP if protocol == family.icmp else PROTOCOLS.get(protocol)
    source, target = family.ends_of(data)
    if kind is Kind.ICMP and data[start] == family.echo_request:
        return Seen(port, kind, source, target, struct.unpack_from("!H", data, start + 4)[0])
    first = kind is Kind.UDP or (kind is Kind.TCP and data[start + 13] & SYN_ACK == SYN_ONLY)
    if kind is None or not first:
        return None
    return Seen(port, kind, source, target, struct.unpack_from("!H", data, start)[0])
