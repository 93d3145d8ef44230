"""One installer at a time: a lock on a file of the prefix, dropped by the kernel when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cni_plugin.install.place import Refused

LOCK = ".lock"
PATIENCE = 120.0
"""Seconds; an installation takes a few."""


@contextlib.contextmanager
def alone(prefix: Path) -> Iterator[None]:
    """Hold the lock of a prefix that exists.

    Raises:
        Refused: another process holds it for too long.
        OSError: its file can't be created.
    """
    deadline = time.monotonic() + PATIENCE
    while (fd := _try(prefix / LOCK)) is None:
        if time.monotonic() > deadline:
            reason = f"another azvnet install or uninstall holds {prefix / LOCK}"
            raise Refused(reason, "Wait for it, or end it: `fuser` shows its process.")
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(fd)


def _try(path: Path) -> int | None:
    """The descriptor that holds the lock; None when another process does, or when the file was removed."""
    path.parent.mkdir(parents=True, exist_ok=True)  # an earlier uninstall removed it
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now = path.stat()
        mine = os.fstat(fd)
    except (BlockingIOError, FileNotFoundError):
        os.close(fd)
        return None
    if (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino):
        os.close(fd)
        return None
    return fd
