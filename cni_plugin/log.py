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
import traceback
from pathlib import Path
from typing import Any

LEVELS = {"off": 0, "error": 1, "warning": 2, "info": 3, "debug": 4}
MAX_BYTES = 5 * 1024 * 1024
KEPT = 4
"""Files beside the current one: together at most 25 MiB."""


def write(path: Path, level: str, threshold: str, **fields: Any) -> None:
    """Append one record; ``threshold`` is the level that is still written. Never raises."""
    append(path, line(level, threshold, **fields))


def line(level: str, threshold: str, **fields: Any) -> bytes:
    """One record as it is written; empty when ``threshold`` leaves it out."""
    if not LEVELS[level] <= LEVELS.get(threshold, LEVELS["info"]):
        return b""
    record = {"time": _now(), "level": level, "pid": os.getpid(), **fields}
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"), default=str).encode() + b"\n"


def append(path: Path, record: bytes) -> None:
    """Append one record that ``line`` made. Never raises."""
    if not record:
        return
    try:
        _append(path, record)
    except OSError:
        return


def traceback_of(error: BaseException) -> str:
    """The traceback of an error that is nobody's but ours; the log is the only place it goes to."""
    return "".join(traceback.format_exception(error))


def _append(path: Path, line: bytes) -> None:
    """One write to a file opened for appending: lines of several processes never mix (write(2))."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        if os.fstat(fd).st_size + len(line) > MAX_BYTES:
            fd = _rotated(path, fd, len(line))
        os.write(fd, line)
    finally:
        os.close(fd)


def _rotated(path: Path, fd: int, needed: int) -> int:
    """Move the files up, unless another process has done so; returns the descriptor to write to."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        same = os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        same = False
    if same and os.fstat(fd).st_size + needed > MAX_BYTES:
        for number in range(KEPT - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
    os.close(fd)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)


def _now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"
