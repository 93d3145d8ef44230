"""Azure's DNS at the wireserver's address: names of machines and of the cloud's endpoints, over UDP.

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


@dataclass(eq=False)
class DnsServer:
    """One thread that answers at a bound datagram socket until `close`."""

    sock: socket.socket
    names: Callable[[], Mapping[str, IPv4Address]]
    """The names without their suffix or whole, in lower case."""
    fault: Callable[[IPv4Address], Now]
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(target=self._serve, name="dns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(5)
        self.sock.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                question, client = self.sock.recvfrom(4096)
            except OSError:
                return
            if self._closing.is_set():
                return
            fault = self.fault(IPv4Address(client[0])).fault
            if fault.hang or self._closing.wait(fault.delay):
                continue
            with contextlib.suppress(OSError):
                self.sock.sendto(answer(question, self.names()), client)


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
