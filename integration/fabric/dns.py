"""Azure's DNS at the wireserver's address: names of machines and of the cloud's endpoints, over UDP and TCP.

Knows A records only; a name that is not known does not exist (RFC 1035). It asks nobody else.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from integration.fabric.faults import Now

SUFFIX = "fabric.internal.cloudapp.net"
_HEADER = struct.Struct("!HHHHHH")
_TYPE_A = 1
_TTL = 10


_PATIENCE = 10.0
"""Seconds for a query over TCP; one connection is served after the other."""


@dataclass(eq=False)
class DnsServer:
    """Two threads that answer at a bound datagram socket and a listening one until `close`."""

    sock: socket.socket
    listener: socket.socket
    names: Callable[[], Mapping[str, IPv4Address]]
    """The names without their suffix or whole, in lower case."""
    fault: Callable[[IPv4Address], Now]
    _closing: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin to answer."""
        for serve in (self._serve, self._serve_streams):
            self._threads.append(threading.Thread(target=serve, name="dns", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Stop answering."""
        self._closing.set()
        for sock in (self.sock, self.listener):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self.sock.close()
        self.listener.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                question, client = self.sock.recvfrom(4096)
            except OSError:
                return
            if self._closing.is_set():
                return
            if self._answers(client[0]):
                with contextlib.suppress(OSError):
                    self.sock.sendto(answer(question, self.names()), client)

    def _serve_streams(self) -> None:
        """One query for each connection, each message behind its length (RFC 1035, 4.2.2)."""
        while not self._closing.is_set():
            try:
                connection, client = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_PATIENCE)
                length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
                question = connection.recv(length, socket.MSG_WAITALL)
                if self._answers(client[0]):
                    reply = answer(question, self.names())
                    connection.sendall(len(reply).to_bytes(2, "big") + reply)

    def _answers(self, client: str) -> bool:
        """Whether no fault is against it, once the fault's delay is over."""
        fault = self.fault(IPv4Address(client)).fault
        return not fault.hang and not self._closing.wait(fault.delay)


def answer(question: bytes, names: Mapping[str, IPv4Address]) -> bytes:
    """The reply to one query; a query that can't be read gets FORMERR."""
    try:
        identifier, flags, count = _HEADER.unpack_from(question)[:3]
        name, end = _name(question)
        kind = struct.unpack_from("!H", question, end)[0]
    except (struct.error, IndexError, UnicodeDecodeError):
        return question[:2].ljust(2, b"\0") + struct.pack("!HHHHH", 0x8001, 0, 0, 0, 0)
    if count != 1 or flags & 0x7800:
        return _HEADER.pack(identifier, 0x8004, 0, 0, 0, 0)
    address = names.get(name) or names.get(name.removesuffix("." + SUFFIX))
    record = b""
    if address is not None and kind == _TYPE_A:
        record = b"\xc0\x0c" + struct.pack("!HHIH", _TYPE_A, 1, _TTL, 4) + address.packed
    # QR, AA, RD as asked, RA; NXDOMAIN for what is not known.
    code = 0x8480 | (flags & 0x0100) | (0 if address is not None else 3)
    return _HEADER.pack(identifier, code, 1, 1 if record else 0, 0, 0) + question[12 : end + 4] + record


def _name(question: bytes) -> tuple[str, int]:
    labels, position = [], _HEADER.size
    while length := question[position]:
        labels.append(question[position + 1 : position + 1 + length].decode("ascii"))
        position += 1 + length
    return ".".join(labels).casefold(), position + 1
