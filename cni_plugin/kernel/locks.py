"""The lock of an attachment: calls for one attachment are handled one at a time.

One file serves every attachment: each has a byte of its own, at an offset that is a hash of it, locked
with an open-file-description lock (fcntl(2) F_OFD_SETLK). The kernel drops it with the last descriptor,
so a killed process leaves none behind and there is nothing to clean up. Threads exclude each other too, as
every holder has its own open file description.

Such a lock has no queue: any waiter may get it next. So calls within one process, the agent, first queue
in order of arrival. It must not know what a call does.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cni_plugin.cni.errors import TEMPORARY, StateUnavailable

LOCK_FILE = "attachments.lock"
FLOCK = struct.Struct("=hhiqqii")
"""struct flock of 64-bit Linux: l_type, l_whence, padding, l_start, l_len, l_pid, padding."""
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.02


@contextmanager
def locked(run_dir: Path, offset: int, timeout: float) -> Iterator[bool]:
    """Hold the lock of an attachment, by its ``Names.lock_offset``; yields whether it was acquired within
    ``timeout`` seconds.

    The state directory is created if need be, readable by root alone.

    Raises:
        StateUnavailable: the state directory can't be written.
        OSError: out of descriptors or memory at the moment.
    """
    deadline, key = time.monotonic() + timeout, (str(run_dir), offset)
    mine = _queue_up(key)
    try:
        is_next = mine.acquire(blocking=False) or _wait_for(mine, deadline)
        fd = _open(run_dir)
        try:
            yield is_next and _acquire(fd, offset, deadline)
        finally:
            os.close(fd)
    finally:
        _leave(key, mine)


def ensure_directory(run_dir: Path) -> None:
    """Create the state directory, readable by root alone.

    Raises:
        StateUnavailable: it can't be created.
    """
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateUnavailable(
            f"the state directory {run_dir} can't be created: {error.strerror}",
            "It has to be writable for root; see `df` and `mount` for its file system.",
        ) from error


def _open(run_dir: Path) -> int:
    path = f"{run_dir}/{LOCK_FILE}"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            ensure_directory(run_dir)
            return os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in TEMPORARY:
            raise
        raise StateUnavailable(
            f"the lock file {path} can't be opened: {error.strerror}",
            "The state directory has to be writable for root; see `df` and `mount` for its file system.",
        ) from error


_queues: dict[tuple[str, int], deque[threading.Lock]] = {}
"""Calls that hold or wait for the lock of an attachment, in order of arrival. Each has a lock of its own that
is released when it is next."""
_queues_lock = threading.Lock()


def _queue_up(key: tuple[str, int]) -> threading.Lock:
    """Queue behind all earlier calls; returns a lock that is released when they have finished."""
    mine = threading.Lock()
    mine.acquire()
    with _queues_lock:
        queue = _queues.setdefault(key, deque())
        queue.append(mine)
        if queue[0] is mine:
            mine.release()
    return mine


def _leave(key: tuple[str, int], mine: threading.Lock) -> None:
    with _queues_lock:
        queue = _queues[key]
        was_first = queue[0] is mine
        queue.remove(mine)
        if not queue:
            del _queues[key]
        elif was_first:
            queue[0].release()


def _wait_for(lock: threading.Lock, deadline: float) -> bool:
    return lock.acquire(timeout=max(0.0, deadline - time.monotonic()))


def _acquire(fd: int, offset: int, deadline: float) -> bool:
    request = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, offset, 1, 0, 0)
    pause = FIRST_PAUSE
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: held by another (fcntl(2))
            if time.monotonic() >= deadline:
                return False
        else:
            return True
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 2, LONGEST_PAUSE)
