"""The log of calls: one JSON line for each, in a file of bounded size.

Owns the format, the levels and the rotation, which is safe with any number of writing processes. It must
not know what a verb does. A log that can't be written never fails a call: a full disk is no reason to
leave a pod without a network.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LEVELS = {"off": 0, "error": 1, "warning": 2, "info": 3, "debug": 4}
MAX_BYTES = 5 * 1024 * 1024
TOLERATED, MOMENT_SECONDS = 1.05, 0.001
KEPT = 4
"""Files beside the current one: together at most 25 MiB."""


_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str).encode


def write(path: Path, level: str, threshold: str, **fields: Any) -> None:
    """Append one record; ``threshold`` is the level that is still written. Never raises."""
    append(path, line(level, threshold, **fields))


def line(level: str, threshold: str, **fields: Any) -> bytes:
    """One record as it is written; empty when ``threshold`` leaves it out."""
    if not LEVELS[level] <= LEVELS.get(threshold, LEVELS["info"]):
        return b""
    record = {"time": _now(), "level": level, "pid": os.getpid(), **fields}
    return _encode(record).encode() + b"\n"


def append(path: Path, record: bytes) -> None:
    """Append one record that ``line`` made. Never raises."""
    if not record:
        return
    try:
        _append(path, record)
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return


def traceback_of(error: BaseException) -> str:
    """The traceback of an error that is nobody's but ours; the log is the only place it goes to."""
    import traceback

    return "".join(traceback.format_exception(error))


def _append(path: Path, line: bytes) -> None:
    """One write to a file opened for appending: lines of several processes never mix (write(2))."""
    with _opened(path) as fd:
        if os.fstat(fd).st_size + len(line) <= MAX_BYTES:
            os.write(fd, line)
            return
        _rotate(path, fd, len(line))
    with _opened(path) as fd:
        os.write(fd, line)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Not blocking: what stands at the path may be a pipe that nobody reads."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o640)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o640)
    try:
        yield fd
    finally:
        os.close(fd)


def _rotate(path: Path, fd: int, needed: int) -> None:
    """Move the files up, unless another process does so: nobody waits for it, it may have been stopped. Where
    the file has grown far beyond its bound meanwhile, it is left a moment.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.path.samestat(os.fstat(fd), path.stat())
    except (BlockingIOError, FileNotFoundError):
        if os.fstat(fd).st_size > MAX_BYTES * TOLERATED:
            time.sleep(MOMENT_SECONDS)
        return
    if same and os.fstat(fd).st_size + needed > MAX_BYTES:
        for number in range(KEPT - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))


def _now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"
