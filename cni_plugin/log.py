"""The log of calls: one JSON line for each, in a file of bounded size.

Owns the format, the levels and the rotation, which is safe with any number of writing processes, and which
files are logs: they are written and renamed as root, so never a link, never somebody else's file. It must not
know what a verb does. A log that can't be written never fails a call: a full disk must not leave a
pod without a network.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

LEVELS = {"off": 0, "error": 1, "warning": 2, "info": 3, "debug": 4}
MAX_BYTES = 5 * 1024 * 1024
MOST_CHARACTERS, MOST_ITEMS = 4096, 16
"""Limits of one value of a record, and of one list."""
TOLERATED, MOMENT_SECONDS = 1.05, 0.001
MOST_OPEN = 4
KEPT = 4
"""Files beside the current one: together at most 25 MiB."""
DIRECTORY = "/var/log/azvnet"
_NAME = re.compile(re.escape(DIRECTORY) + r"/[a-zA-Z0-9][a-zA-Z0-9_.\-]*\.log")
_START = b'{"time":"'
"""How every record begins, and so every log."""


class NotALog(OSError):
    """The file is not a log of ours and is left alone."""


def is_allowed(path: str) -> bool:
    """Whether a network configuration may name this file: a ``.log`` file in ``DIRECTORY``."""
    return len(path) <= 200 and _NAME.fullmatch(path) is not None


_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str).encode


def write_record(path: Path, level: str, threshold: str, **fields: Any) -> None:
    """Append one record; ``threshold`` is the least important level that is still written. Never raises."""
    append(path, line(level, threshold, **fields))


def line(level: str, threshold: str, **fields: Any) -> bytes:
    """One record as it is written; empty when ``threshold`` leaves it out."""
    if not LEVELS[level] <= LEVELS.get(threshold, LEVELS["info"]):
        return b""
    record = {"time": _now(), "level": level, "pid": os.getpid()}
    record |= {name: _bounded(value) for name, value in fields.items()}
    return _encode(record).encode() + b"\n"


def _bounded(value: Any) -> Any:
    """A value as recorded: no configuration can fill the log. The end of a traceback matters most."""
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        return f"({len(value)} characters) ...{value[-MOST_CHARACTERS:]}"
    if isinstance(value, list):
        more = [f"and {len(value) - MOST_ITEMS} more"] if len(value) > MOST_ITEMS else []
        return [*map(_bounded, value[:MOST_ITEMS]), *more]
    return value


def append(path: Path, record: bytes) -> None:
    """Append one record that ``line`` made. Never raises."""
    if not record:
        return
    try:
        _append(path, record)
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return


def traceback_of(error: BaseException) -> str:
    """The traceback of an internal error; it goes to the log only."""
    import traceback

    return "".join(traceback.format_exception(error))


def _append(path: Path, line: bytes) -> None:
    """One write to a file opened for appending: lines of several processes never mix (write(2))."""
    with _open_lock:
        if (known := _open_log(path, len(line))) is not None:
            os.write(known, line)
            return
    with _opened(path) as fd:
        if os.fstat(fd).st_size + len(line) <= MAX_BYTES:
            os.write(fd, line)
            _leave_open(path, fd)
            return
        _rotate(path, fd, len(line))
    with _opened(path) as fd:
        os.write(fd, line)


_open_logs: dict[Path, tuple[int, os.stat_result] | None] = {}
"""Logs that stay open, from the second record on, and how they were found: opening one for every call, and
making sure that it is ours, takes as long as the rest of a record."""
_open_lock = threading.Lock()


def _open_log(path: Path, needed: int) -> int | None:
    """The descriptor of a log that has stayed open, if it is still at its path, ours, and has room."""
    if (known := _open_logs.get(path)) is None:
        return None
    fd, before = known
    with suppress(OSError):
        now = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - twice as fast
        same = os.path.samestat(now, before) and (now.st_uid, now.st_nlink) == (before.st_uid, 1)
        if same and now.st_size + needed <= MAX_BYTES:
            return fd
    os.close(fd)
    del _open_logs[path]
    return None


def _leave_open(path: Path, fd: int) -> None:
    with _open_lock:
        if path not in _open_logs:
            if len(_open_logs) < MOST_OPEN:
                _open_logs[path] = None
        elif _open_logs[path] is None:
            _open_logs[path] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0), os.fstat(fd)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Not blocking: what is at the path may be a pipe that nobody reads.

    Raises:
        NotALog: it is not a log of ours.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    try:
        fd = os.open(path, flags | _CAREFULLY, 0o640)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(path, flags | _CAREFULLY, 0o640)
    try:
        _require_ours(fd, path)
        yield fd
    finally:
        os.close(fd)


_CAREFULLY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def _require_ours(fd: int, path: Path) -> None:
    found = os.fstat(fd)
    ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
    if not ours or not _START.startswith(os.pread(fd, len(_START), 0)):
        raise NotALog(f"{path} is not a log of azvnet")


def _rotate(path: Path, fd: int, needed: int) -> None:
    """Rotate the files, unless another process does so: don't wait for it, it may be stopped. If the file has
    grown far beyond its limit meanwhile, wait a moment.

    Raises:
        NotALog: one of the names is taken by something else.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        if os.fstat(fd).st_size > MAX_BYTES * TOLERATED:
            time.sleep(MOMENT_SECONDS)
        return
    if same and os.fstat(fd).st_size + needed > MAX_BYTES:
        numbered = [path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1)]
        there = [each for each in numbered if _exists_and_is_ours(each)]
        for older, next_older in reversed(list(pairwise(numbered))):
            if older in there:
                older.replace(next_older)
        path.replace(numbered[0])


def _exists_and_is_ours(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | _CAREFULLY)
    except FileNotFoundError:
        return False
    try:
        _require_ours(fd, path)
    finally:
        os.close(fd)
    return True


def _now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"
