"""Agents as the tests script them, on real sockets. Written from the document alone, not with our code."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

HEADER = 24


@dataclass(frozen=True)
class Heard:
    """One request, taken apart."""

    header: bytes
    env: bytes
    stdin: bytes
    descriptors: list[tuple[int, int]] = field(default_factory=list)
    """Device and inode of what was attached."""

    @property
    def flags(self) -> int:
        """Bit 0: as azvnet-ipam. Bit 1: a descriptor is attached."""
        return int.from_bytes(self.header[6:8], "little")

    @property
    def entries(self) -> list[bytes]:
        """The environment's entries."""
        return self.env.split(b"\0")[:-1]

    @property
    def call_id(self) -> bytes:
        """The name of the call, which is the last entry when the launcher made it."""
        [found] = [entry[15:] for entry in self.entries if entry.startswith(b"AZVNET_CALL_ID=")]
        return found


def reply(
    stdout: bytes = b"",
    stderr: bytes = b"",
    code: int = 0,
    *,
    magic: bytes = b"AZVR",
    version: int = 1,
    kind: int = 0,
    lengths: tuple[int, int] | None = None,
) -> bytes:
    """The bytes of a reply, true or lying."""
    out, err = lengths or (len(stdout), len(stderr))
    return struct.pack("<4sHHIIB7x", magic, version, kind, out, err, code) + stdout + stderr


def hear(connection: socket.socket) -> Heard:
    """Read a request to its end; the descriptors are looked at and closed."""
    descriptors: list[tuple[int, int]] = []
    header = _exactly(connection, HEADER, descriptors)
    magic, version, _flags, env_len, stdin_len, reserved = struct.unpack("<4sHHII8s", header)
    assert (magic, version, reserved) == (b"AZVN", 1, bytes(8)), header
    env = _exactly(connection, env_len, descriptors)
    return Heard(header, env, _exactly(connection, stdin_len, descriptors), descriptors)


def _exactly(connection: socket.socket, size: int, descriptors: list[tuple[int, int]]) -> bytes:
    """That many bytes, and what is attached to any of them."""
    parts = []
    while size:
        part, attached, _flags, _address = socket.recv_fds(connection, min(size, 1 << 18), 8)
        for fd in attached:
            descriptors.append((os.fstat(fd).st_dev, os.fstat(fd).st_ino))
            os.close(fd)
        assert part, f"the caller closed, {size} bytes too early"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


Behaviour = Callable[[socket.socket, "Agent"], None]


def answer(data: bytes) -> Behaviour:
    """Hear a request, answer these bytes, close."""

    def behave(connection: socket.socket, agent: Agent) -> None:
        agent.heard.append(hear(connection))
        with suppress(BrokenPipeError, ConnectionResetError):  # the caller may have heard enough
            connection.sendall(data)

    return behave


class Agent:
    """A listener whose every connection is treated by ``behaviour``, then closed."""

    def __init__(self, path: Path, behaviour: Behaviour, backlog: int = 16) -> None:
        self.heard: list[Heard] = []
        self.connected = threading.Event()
        self.done = threading.Event()
        """Set by the test when a behaviour that waits is to end."""
        self._behaviour = behaviour
        self._errors: list[BaseException] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(backlog)
        self._thread = threading.Thread(target=self._serve, name="agent")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join(30)
        self._listener.close()
        if self._errors and error is None:
            raise self._errors[0]

    def only(self) -> Heard:
        """The one request that came."""
        [heard] = self.heard
        return heard

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return  # shut down
            self.connected.set()
            with connection:
                connection.settimeout(30)
                try:
                    self._behaviour(connection, self)
                except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
                    self._errors.append(error)


class AgentProcess:
    """An agent in a process of its own, for what a thread can't be: another user, stopped, killed."""

    _LISTEN = (
        "import os, signal, socket, sys\n"
        "os.setuid(int(sys.argv[2]))\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(16)\n"
        "print('listening', flush=True)\n"
    )
    WAIT = "signal.pause()\n"
    """Accepts nothing."""
    DIE_OVER_THE_REPLY = (
        "c, _ = s.accept(); c.recv(1 << 20); c.sendall(bytes.fromhex(sys.argv[3]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    """Sends what it is given, and is killed."""

    def __init__(self, path: Path, script: str, *, uid: int = 0, data: bytes = b"") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._LISTEN + script, path, str(uid), data.hex()],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"listening\n"

    def stop(self) -> None:
        """Stop it, as a debugger or a frozen cgroup does."""
        self.process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()
