"""A Unix socket at a well-known path, held by one process after another.

Owns that some process always answers there while one agent replaces another, and which one that is. It must
not know the protocol.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

LEFT_OVER_SECONDS = 60.0
"""A temporary socket older than this was left by a killed agent."""


class SocketOwner(Enum):
    """Who answers at the path."""

    OURS = "ours"
    ANOTHER = "another"
    NOBODY = "nobody"


class UnixSocket:
    """A listening socket, renamed into place: a caller finds either the previous process or this one, never
    nothing, and the mode, for root alone, is set before it is visible.

    Raises:
        OSError: it can't be created there.
    """

    def __init__(self, path: Path, backlog: int) -> None:
        self._path = path
        # Not the pid: two agents in containers are both number 1.
        beside = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self.socket.bind(str(beside))
            beside.chmod(0o600)
            self.socket.listen(backlog)
            # Nobody else can get this number as long as the socket is open.
            self._inode = beside.stat().st_ino
            beside.replace(path)
        except BaseException:
            self.socket.close()
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        _clear_left_overs(path)

    def owner(self) -> SocketOwner:
        """Who answers at the path now. A file left by a killed process counts as nobody's."""
        try:
            if self._path.stat().st_ino == self._inode:
                return SocketOwner.OURS
        except OSError:
            return SocketOwner.NOBODY
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self._path))
            except BlockingIOError:  # its backlog is full: it lives
                return SocketOwner.ANOTHER
            except OSError:
                return SocketOwner.NOBODY
        return SocketOwner.ANOTHER

    def withdraw(self) -> None:
        """Remove the path, unless it leads to another process by now."""
        if self.owner() is SocketOwner.OURS:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def refuse_more(self) -> Iterator[socket.socket]:
        """Accept no more, and wake every thread in accept(); yields the queued connections, to be closed.

        Without that they would wait for as long as the socket is open, which is until the last thread that
        used it has finished what it does.
        """
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        while True:
            try:
                connection, _ = self.socket.accept()  # what is in the queue, then EINVAL
            except OSError:
                return
            with connection:
                yield connection

    def close(self) -> None:
        """Close it, once no thread uses its number any more."""
        self.socket.close()


def _clear_left_overs(path: Path) -> None:
    for left in path.parent.glob(f"{path.name}.*"):
        with contextlib.suppress(OSError):
            if left.is_socket() and time.time() - left.stat().st_mtime > LEFT_OVER_SECONDS:
                left.unlink()
