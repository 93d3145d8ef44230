"""The two ends of a packet in network namespaces: servers that answer with the source they saw, and asking.

Owns sockets, all of this process: a socket stays in the namespace in which it was made. It must not know
what the places are, nor what is expected.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from integration.fabric import namespaces as ns
from integration.traffic.family import IPV4, Family
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

PORT = 8080
PATIENCE = 60.0
"""Seconds for an answer that has to come."""
LOOK = 0.3
"""Seconds without an answer until it is looked whether the packet was dropped."""
REFUSED, LOST = "refused", "lost"
ECHO = struct.Struct("!BBHHH")


class Kind(StrEnum):
    """What is sent."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


@dataclass(eq=False)
class Witness:
    """One thread that answers at far ends, over TCP and UDP with the source that it saw; the kernel answers
    ICMP echoes, and the thread remembers whose they were. A context manager.
    """

    family: Family = IPV4
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    _echoes: dict[int, str] = field(default_factory=dict)
    _stop: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)

    def __enter__(self) -> Self:
        self._selector.register(self._stop[0], selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="witness", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop[1].send(b".")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._stop[1].close()
        self._selector.close()

    def listen(self, netns: int) -> None:
        """Answer in a network namespace from now on."""
        for sock, serve in zip(
            ns.in_network(netns, lambda: _servers(self.family)),
            (_answer_stream, partial(_answer_datagram, self.family), self._note_echo),
            strict=True,
        ):
            self._selector.register(sock, selectors.EVENT_READ, serve)

    def source_of_echo(self, identifier: int) -> str:
        """The source of an echo request that was answered."""
        return found_within(PATIENCE, lambda: self._echoes.get(identifier, ""), pause=0.005)

    def _note_echo(self, sock: socket.socket) -> None:
        packet, (source, *_) = sock.recvfrom(1500)
        kind, _, _, identifier, _ = ECHO.unpack_from(self.family.echo_in(packet))
        if kind == self.family.echo_request:
            self._echoes[identifier] = source

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with contextlib.suppress(OSError):  # who asked has gone
                    key.data(key.fileobj)


def _servers(family: Family) -> tuple[socket.socket, socket.socket, socket.socket]:
    stream, datagram = (
        socket.socket(family.number, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    )
    for sock in (stream, datagram):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((family.anywhere, PORT))
        sock.setblocking(False)
    stream.listen(64)
    datagram.setsockopt(family.options, family.wants_info, 1)
    raw = socket.socket(family.number, socket.SOCK_RAW, family.icmp)
    raw.setblocking(False)
    return stream, datagram, raw


def _answer_stream(sock: socket.socket) -> None:
    connection, (source, *_) = sock.accept()
    with connection:
        connection.sendall(source.encode())


def _answer_datagram(family: Family, sock: socket.socket) -> None:
    """From the address that was asked: of several, the kernel would choose the one beside the peer."""
    _, [(_, _, info)], _, peer = sock.recvmsg(100, socket.CMSG_SPACE(family.info_layout.size))
    answer = [(family.options, family.info, family.answering_as(family.asked_of(info)))]
    sock.sendmsg([peer[0].encode()], answer, 0, peer)


@dataclass(frozen=True, slots=True)
class Packet:
    """What is sent, and to whom."""

    kind: Kind
    target: str
    port: int
    identity: int
    """Its source port, or the identifier of the echo."""
    question: bytes = b""
    """Sent to a server that is not ours, whatever it answers; empty: ours answers with the source it saw."""


def ask(netns: int, packet: Packet, witness: Witness, dropped: Callable[[], bool]) -> str:
    """Send it from a network namespace; the source that the far end saw, ``REFUSED``, or ``LOST``.

    Args:
        netns: of who asks.
        packet: what is sent.
        witness: who answers.
        dropped: whether somebody is known to have dropped it, so that no answer will come.

    Raises:
        TimeoutError: no answer came, and nobody is known to have dropped it.
    """
    family = witness.family
    with ns.in_network(netns, lambda: _socket(family, packet.kind)) as sock:
        sock.setblocking(False)
        if packet.kind is Kind.ICMP:
            sock.connect((packet.target, 0))
            again = partial(sock.send, _echo(family, packet.identity))
            again()
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                if not _ready(sock, dropped, selectors.EVENT_READ, again):
                    return LOST
                kind, _, _, identifier, _ = ECHO.unpack_from(family.echo_in(sock.recv(1500)))
                if (kind, identifier) == (family.echo_reply, packet.identity):
                    return witness.source_of_echo(packet.identity)
            raise TimeoutError
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((family.anywhere, packet.identity))
        return _converse(sock, packet, dropped)


def _converse(sock: socket.socket, packet: Packet, dropped: Callable[[], bool]) -> str:
    try:
        with contextlib.suppress(BlockingIOError):
            sock.connect((packet.target, packet.port))
        if not _ready(sock, dropped, selectors.EVENT_WRITE):
            return LOST
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connect")
        send = partial(sock.send, packet.question or b"?")
        if packet.question or packet.kind is Kind.UDP:
            send()
        again = send if packet.kind is Kind.UDP else None
        if not _ready(sock, dropped, selectors.EVENT_READ, again):
            return LOST
        answer = sock.recv(4096)
    except (ConnectionRefusedError, ConnectionResetError):
        return REFUSED
    if not answer:
        raise AssertionError(f"{packet} was not answered")
    return "" if packet.question else answer.decode()


def _socket(family: Family, kind: Kind) -> socket.socket:
    if kind is Kind.ICMP:
        return socket.socket(family.number, socket.SOCK_RAW, family.icmp)
    return socket.socket(family.number, socket.SOCK_STREAM if kind is Kind.TCP else socket.SOCK_DGRAM)


def _ready(
    sock: socket.socket, dropped: Callable[[], bool], event: int, again: Callable[[], int] | None = None
) -> bool:
    """Wait for the socket. False: the packet was dropped. Raises TimeoutError: neither.

    Args:
        sock: what is waited for.
        dropped: as in ``ask``.
        event: of ``selectors``.
        again: sends again what nobody else does: a queue of a busy kernel may have been full.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if selector.select(LOOK):
                return True
            if dropped():
                return False
            if again is not None:
                again()
    raise TimeoutError(f"nothing within {PATIENCE:.0f} s")


def _echo(family: Family, identifier: int) -> bytes:
    """The kernel fills in the checksum of IPv6."""
    total = (family.echo_request << 8) + identifier + 1
    total = (total & 0xFFFF) + (total >> 16)
    return ECHO.pack(family.echo_request, 0, ~total & 0xFFFF, identifier, 1)
