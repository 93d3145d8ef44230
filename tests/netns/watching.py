"""What happens to a file or in a folder, as the kernel tells it (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

IN_CREATE, IN_MOVED_TO, IN_DELETE, IN_MODIFY, IN_OPEN = 0x100, 0x80, 0x200, 0x2, 0x20
CHANGES = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MODIFY


@contextmanager
def watching(path: Path, mask: int = CHANGES) -> Iterator[Callable[[], list[tuple[str, int]]]]:
    """Names and kinds of what happens from now on; the name is empty where it happens to ``path`` itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert libc.inotify_add_watch(fd, os.fsencode(path), mask) >= 0, os.strerror(ctypes.get_errno())

    def happened() -> list[tuple[str, int]]:
        events = []
        while select.select([fd], [], [], 0)[0]:
            data = os.read(fd, 1 << 16)
            while data:
                _, kind, _, length = struct.unpack_from("iIII", data)
                events.append((data[16 : 16 + length].rstrip(b"\0").decode(), kind))
                data = data[16 + length :]
        return events

    try:
        yield happened
    finally:
        os.close(fd)
