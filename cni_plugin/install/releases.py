"""The versions below a prefix: ``versions/<version>-<digest>/``, and ``current``, a link to one of them.

A directory gets its name when it is complete and never changes afterwards. Its modification time says when
another version replaced it as current; 0: it never was. Owns adding, switching and removing. It must
not know how a runtime finds them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cni_plugin import atomic
from cni_plugin.install.bundle import DIGITS, MANIFEST, Bundle
from cni_plugin.install.place import NAMES, Refused
from ipam.state_file import sync

REST = 60.0
"""Seconds that a version stays after it was current: a call that found it may only now be opening its files.
Where processes of the node can't be seen (a container with its own), it is all that protects them; a call
takes less (the launcher's deadline is 25 s)."""
ROOT = 0
"""Owner and group of everything."""


@dataclass(frozen=True, slots=True)
class Version:
    """One directory below ``versions``."""

    directory: Path

    @property
    def name(self) -> str:
        """``0.1.0-3f2a...``."""
        return self.directory.name

    @property
    def left_at(self) -> float:
        """When another version replaced it as current, seconds since the epoch; 0: never."""
        return self.directory.stat().st_mtime

    def is_whole(self) -> bool:
        """Whether every file is as its manifest says."""
        try:
            return not any(Bundle.read(self.directory).differences(owner=ROOT))
        except Refused:
            return False

    def has(self, bundle: Bundle) -> bool:
        """Whether it is of this bundle; completeness is not checked."""
        try:
            return (self.directory / MANIFEST).read_bytes() == bundle.manifest
        except OSError:
            return False


class Versions:
    """Those below one prefix. The caller holds the lock to change them."""

    def __init__(self, prefix: Path) -> None:
        self._link = prefix / "current"
        self.directory = prefix / "versions"

    def all(self) -> Iterator[Version]:
        """Every version, by name."""
        if self.directory.is_dir():
            for each in sorted(self.directory.iterdir()):
                if each.is_dir() and not each.is_symlink() and not each.name.startswith("."):
                    yield Version(each)

    def current(self) -> Version | None:
        """The one that calls use; None: there is none, or the link leads elsewhere."""
        try:
            target = self._link.readlink()
        except OSError:
            return None
        directory = self.directory / target.name
        return Version(directory) if target.parent == Path("versions") and directory.is_dir() else None

    def find(self, bundle: Bundle) -> Version | None:
        """An intact version of this bundle, preferably the current one."""
        now = self.current()
        for each in ([now] if now else []) + list(self.all()):
            if each.has(bundle) and each.is_whole():
                return each
        return None

    def add(self, stage: Path, bundle: Bundle, version: str) -> Version:
        """Give a complete copy its name. A name that a damaged copy has is left alone."""
        name = f"{version}-{bundle.digest[:DIGITS]}"
        number = 1
        while (directory := self.directory / (name if number == 1 else f"{name}.{number}")).exists():
            number += 1
        os.utime(stage, (0, 0))
        stage.rename(directory)
        sync(self.directory)
        return Version(directory)

    def switch(self, to: Version) -> None:
        """Make it current, by one rename."""
        now = self.current()
        if now is not None and now != to:
            os.utime(now.directory)
        atomic.put_link(self._link, f"versions/{to.name}")

    def previous(self) -> Version | None:
        """The intact version that was current last."""
        now = self.current()
        left = [each for each in self.all() if each != now and each.left_at]
        whole = (
            each for each in sorted(left, key=lambda each: each.left_at, reverse=True) if each.is_whole()
        )
        return next(whole, None)

    def prune(self, keep: int) -> list[Version]:
        """Remove versions except the last ``keep``, those in use, and those just replaced."""
        now = self.current()
        others = sorted(
            (each for each in self.all() if each != now), key=lambda each: each.left_at, reverse=True
        )
        running = in_use(others)
        taken = []
        for place, each in enumerate(others, start=1):
            wanted = place < keep and each.left_at
            resting = abs(time.time() - each.left_at) < REST
            if not wanted and not resting and each not in running:
                atomic.remove_tree(each.directory)
                taken.append(each)
        return taken

    def clear_left_overs(self) -> None:
        """Remove what killed installers left."""
        for directory in (self.directory, self.directory.parent):
            for path in directory.iterdir() if directory.is_dir() else ():
                if atomic.is_left_over(path):
                    if path.is_dir() and not path.is_symlink():
                        atomic.remove_tree(path)
                    else:
                        path.unlink()


def in_use(versions: list[Version], but: int = 0) -> set[Version]:
    """Those of which a process other than ``but`` executes something: compared by inode, whatever path the
    process has for it.
    """
    owners: dict[tuple[int, int], Version] = {}
    for each in versions:
        for name in (*NAMES, "azvnet-python"):
            try:
                found = (each.directory / name).stat()
            except OSError:
                continue
            owners[found.st_dev, found.st_ino] = each
    running = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != but:
            try:
                found = (process / "exe").stat()
            except OSError:  # a thread of the kernel, or it has ended
                continue
            if found_in := owners.get((found.st_dev, found.st_ino)):
                running.add(found_in)
    return running
