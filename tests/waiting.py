"""Waiting for what others do in their own time: an agent, a process, the kernel."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 30.0
"""Generous, for a machine that has much else to do; below the minute after which an agent finds by itself
what a call has left behind.
"""


def eventually(
    condition: Callable[[], Found],
    what: str | Callable[[], str],
    *,
    patience: float = PATIENCE,
    pause: float = 0.02,
) -> Found:
    """Wait until something is so, and return what was found then.

    Args:
        condition: finds something true when it is so.
        what: what is waited for, or a function that says what is there instead.
        patience: seconds after which the test fails.
        pause: seconds between two looks.
    """
    until = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {patience:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
    return found


class Syscall(IntEnum):
    """Numbers of system calls on x86_64, which the product is built for."""

    READ = 0
    WRITE = 1
    POLL = 7
    SELECT = 23
    CONNECT = 42
    FCNTL = 72
    FLOCK = 73
    PSELECT6 = 270
    ACCEPT4 = 288


def waits_in(task: int, *calls: Syscall) -> list[int]:
    """One of these system calls and its arguments, if a thread or process waits in it; else empty.

    Source: proc(5), /proc/PID/syscall.
    """
    with suppress(OSError):  # it has ended
        words = Path(f"/proc/{task}/syscall").read_text().split()
        if words[0] in {str(call.value) for call in calls}:
            return [int(word, 0) for word in words]
    return []


def unread(descriptor: socket.socket | int, request: int = termios.FIONREAD) -> int:
    """Bytes in a pipe or socket that nobody has read yet."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, request, bytes(4)))[0])


def send_byte_by_byte(connection: socket.socket, data: bytes) -> None:
    """Send each byte when the other side has read the one before, so that it reads them one by one."""
    for byte in data:
        connection.sendall(bytes([byte]))
        # unix(7) has no word on it, but the kernel counts for TIOCOUTQ what the receiver still holds.
        eventually(lambda: not unread(connection, termios.TIOCOUTQ), "the byte was read", pause=0.001)


def descriptors_of(*paths: Path) -> int:
    """How many descriptors, of any process, lead to some files."""
    wanted = {(found.st_dev, found.st_ino) for found in map(Path.stat, paths)}
    number = 0
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # closed, or its process has ended
            found = descriptor.stat()
            number += (found.st_dev, found.st_ino) in wanted
    return number


def exclusive_locks(*paths: Path) -> int:
    """How many locks on some files, held by any process, keep all others out.

    Source: proc_locks(5).
    """
    found = [path.stat() for path in paths if path.exists()]
    wanted = {f"{os.major(each.st_dev):02x}:{os.minor(each.st_dev):02x}:{each.st_ino}" for each in found}
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
    return sum(kind == "WRITE" and file in wanted for _, _, _, kind, _, file, *_ in held)


def has_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped.

    Until the one that the kernel has chosen for SIGSTOP gets a processor, all of them go on.
    Source: proc(5), /proc/PID/task/TID/stat.
    """
    states = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            states.append((task / "stat").read_text().rpartition(") ")[2][0])
    return set(states) == {"T"}


def is_idle(pid: int) -> bool:
    """Whether every thread of a process waits, and none ran while that was found out.

    Source: proc(5), /proc/PID/task/TID/status.
    """

    def threads() -> list[str]:
        states = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # it has ended
                lines = (task / "status").read_text().splitlines()
                states += [line for line in lines if line.startswith(("Pid:", "State:", "volun", "nonvol"))]
        return states

    before = threads()
    waiting = all("S (sleeping)" in line for line in before if line.startswith("State:"))
    return waiting and before == threads()
