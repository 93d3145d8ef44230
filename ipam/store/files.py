"""The files of the store as files: which exist, moving them aside, removing leftovers.

It must not know what is in them. Everything that renames or removes is called with ``store.lock``
held. The store's own file is never opened here: closing any descriptor of it would drop the POSIX
locks that SQLite holds on it in this process (fcntl(2), "Advisory record locking").
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

STORE = "azvnet.db"
LOCK = "store.lock"
SIDE_FILES = ("-wal", "-shm")
PAGE_SIZE = 4096
"""Bytes; whole pages are all that is ever written to a database."""
CORRUPT, NEWER = "corrupt", "newer"
"""Why a store was moved aside, as part of its name."""
KEPT_ASIDE = 3
"""Unusable stores that are kept for inspection."""

Identity = tuple[int, int]
"""Device and inode: what a path leads to now."""


class StoreFiles:
    """The database, its write-ahead log and its shared index in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / STORE
        """The file that SQLite opens."""
        self.lock = directory / LOCK
        """Locked for making a store and for moving one aside, nothing else."""
        self.log = self._beside("-wal")
        """What was written and is not in the database yet."""
        self.index = self._beside("-shm")
        """The index of the log: shared memory of the processes that have the store open."""
        self._side_files = (self.log, self.index)
        # As text: every transaction looks at them.
        self._paths = tuple(map(str, (self.database, *self._side_files)))

    def identities(self) -> tuple[Identity | None, ...]:
        """What database, log and index lead to now; None where there is nothing."""
        return tuple(map(_identity, self._paths))

    def flaw(self) -> str:
        """Why the files can't be a store, as far as is seen without opening them; empty: they can.

        Raises:
            FileNotFoundError: there is no database.
        """
        found = os.lstat(self.database)
        if not stat.S_ISREG(found.st_mode):
            return "is not a regular file"
        if found.st_size == 0:
            # A store is put in place complete, so it never is empty unless somebody emptied it.
            return "is empty"
        if found.st_size % PAGE_SIZE:
            # SQLite itself would take what is missing of the last page for zeros.
            return "is truncated in the middle of a page"
        for path in self._side_files:
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    return f"has {path.name} next to it, which is not a regular file"
        return ""

    def move_aside(self, found_bad: Identity | None, why: str = CORRUPT) -> Path | None:
        """Rename the store that was found bad; None: another process did so meanwhile.

        The database goes first: were it left alone with its log gone, it would be read as an older
        store and look healthy.
        """
        if found_bad is None or _identity(self.database) != found_bad:
            return None
        target = self._free_name_aside(why)
        self.database.rename(target)
        for suffix in SIDE_FILES:
            with suppress(FileNotFoundError):
                self._beside(suffix).rename(target.with_name(target.name + suffix))
        self._forget_oldest()
        return target

    def clear_for_new(self) -> Path:
        """Remove what must not meet a new database; returns the path to create that at.

        SQLite would replay the log of a database that is gone into the new one.
        """
        fresh = self.directory / f"{STORE}.new"
        for path in (fresh, *(fresh.with_name(fresh.name + suffix) for suffix in SIDE_FILES)):
            self._discard(path)
        for path in self._side_files:
            self._discard(path)
        return fresh

    def _discard(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except (IsADirectoryError, PermissionError):
            # unlink(2) of a directory is EISDIR on Linux, EPERM elsewhere. Not ours to empty.
            path.rename(self._free_name_aside())

    def _beside(self, suffix: str) -> Path:
        return self.directory / (STORE + suffix)

    def _free_name_aside(self, why: str = CORRUPT) -> Path:
        now = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%SZ")
        name = self.directory / f"{STORE}.{why}-{now}"
        number = 1
        while os.path.lexists(name):
            name = self.directory / f"{STORE}.{why}-{now}.{number}"
            number += 1
        return name

    def _forget_oldest(self) -> None:
        aside = (path for why in (CORRUPT, NEWER) for path in self.directory.glob(f"{STORE}.{why}-*"))
        kept = [path for path in aside if not path.name.endswith(SIDE_FILES)]
        kept.sort(key=lambda path: (path.lstat().st_ctime_ns, path.name))
        for path in kept[:-KEPT_ASIDE]:
            for each in (path, *(path.with_name(path.name + suffix) for suffix in SIDE_FILES)):
                _remove(each)


def _identity(path: str | Path) -> Identity | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            from shutil import rmtree

            rmtree(path)
        else:
            path.unlink()


def open_identities() -> frozenset[Identity]:
    """What the descriptors of this process lead to; empty where ``/proc`` is not mounted."""
    found: set[Identity] = set()
    with suppress(FileNotFoundError):
        for descriptor in Path("/proc/self/fd").iterdir():
            # The descriptor of the listing itself, or one that another thread closed.
            with suppress(OSError):
                status = os.fstat(int(descriptor.name))
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def why_unwritable(directory: Path) -> tuple[str, str]:
    """What is wrong with the file system below ``directory``, and what to do; empty if nothing is seen."""
    try:
        system = os.statvfs(directory)
    except OSError as error:
        return f"{directory}: {error.strerror}", f"Make {directory} a directory that root can write."
    if system.f_flag & os.ST_RDONLY:
        return (
            f"{directory} is on a read-only file system",
            f"Mount {directory} read-write, or set AZVNET_RUN_DIR to a directory that can be written.",
        )
    if system.f_bavail == 0 or (system.f_files and system.f_favail == 0):
        return (
            f"the file system of {directory} is full",
            f"Free some space: `df -h {directory}; df -i {directory}` shows what is used.",
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"{directory} can't be written by uid {os.geteuid()}", "Run it as root."
    return "", ""
