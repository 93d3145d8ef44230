"""One call to the agent over its socket, without an executable. Written from docs/architecture.md alone."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

HEADER = struct.Struct("<4sHHIIB7x")
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent replied."""

    kind: int
    """0: handled; 1: not taken."""
    code: int
    stdout: bytes


def send(sock: socket.socket, environ: Mapping[str, str], stdin: bytes, netns_fd: int | None = None) -> None:
    """Send a request on a connection."""
    env = "".join(f"{name}={value}\0" for name, value in environ.items()).encode()
    header = struct.pack("<4sHHII8x", b"AZVN", 1, 0 if netns_fd is None else 2, len(env), len(stdin))
    socket.send_fds(sock, [header], [] if netns_fd is None else [netns_fd])
    with suppress(BrokenPipeError, ConnectionResetError):  # it may have refused the length already
        sock.sendall(env + stdin)


def receive(sock: socket.socket) -> Answer:
    """Read the reply to its end; raises EOFError when it is not complete."""
    data = b""
    with suppress(ConnectionResetError):  # the agent has not read everything
        while chunk := sock.recv(1 << 16):
            data += chunk
    if len(data) < HEADER.size:
        raise EOFError(f"the agent closed after {len(data)} bytes")
    magic, _version, kind, out, err, code = HEADER.unpack(data[: HEADER.size])
    assert (magic, len(data)) == (b"AZVR", HEADER.size + out + err)
    return Answer(kind, code, data[HEADER.size : HEADER.size + out])


def ask(path: str, environ: Mapping[str, str], stdin: bytes, netns_fd: int | None = None) -> Answer:
    """One call."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(path)
        send(sock, environ, stdin, netns_fd)
        return receive(sock)
