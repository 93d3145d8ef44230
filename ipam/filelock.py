"""A lock on a file that the kernel drops when its holder dies (``flock(2)``).

It must not know what it protects. The file's content means nothing.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIRST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.02


@contextmanager
def file_lock(path: Path, deadline: float) -> Iterator[None]:
    """Hold the lock of ``path``, which is created if it does not exist.

    ``deadline`` is in seconds of ``time.monotonic``. A stopped holder (SIGSTOP) never lets go, which is
    why waiting has an end. Two threads of one process exclude each other as two processes do.

    Raises:
        TimeoutError: somebody else held it until the deadline.
        OSError: the file can't be opened.
    """
    pause = _FIRST_PAUSE
    while (descriptor := _try(path)) is None:
        if time.monotonic() >= deadline:
            message = f"{path} is locked by another process"
            raise TimeoutError(message)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    try:
        yield
    finally:
        os.close(descriptor)


def _try(path: Path) -> int | None:
    """The descriptor that holds the lock; None: another one does, or the file was removed meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    os.close(descriptor)
    return None
