"""The cgroup hierarchies of this machine, version 1 or 2, as a node needs them.

Owns mounting them where a fresh sysfs hides them, and emptying and removing one group in all of
them. Must not know containerd. Version 1 has one hierarchy for each set of controllers, version 2
exactly one (kernel: admin-guide/cgroup-v1, admin-guide/cgroup-v2).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.containerd.place import Place

ROOT = "/sys/fs/cgroup"
_MAGIC = {"cgroup": "27e0eb", "cgroup2": "63677270"}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy."""

    mountpoint: str
    fstype: str
    options: str
    """For version 1 its controllers, or ``none,name=…``."""


def hierarchies() -> list[Hierarchy]:
    """What is mounted below /sys/fs/cgroup on this machine, in the order of mounting."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mountpoint = before.split()[4]
        fstype, _, super_options = after.split(" ", 2)
        if fstype in _MAGIC and PurePosixPath(mountpoint).is_relative_to(ROOT):
            wanted = [option for option in super_options.split(",") if option not in ("rw", "ro")]
            found.append(Hierarchy(mountpoint, fstype, _mount_options(fstype, wanted)))
    return found


def _mount_options(fstype: str, options: list[str]) -> str:
    if fstype == "cgroup2":
        return ""
    named = [option for option in options if option.startswith("name=")]
    return "none," + named[0] if named else ",".join(o for o in options if "=" not in o and o != "xattr")


def ensure_mounted(place: Place) -> None:
    """Mount in a node's mount namespace what its own sysfs hides. Raises CalledProcessError."""
    wanted = hierarchies()
    hidden = [h for h in wanted if not _visible(place, h)]
    if not hidden:
        return
    if all(h.mountpoint != ROOT for h in wanted):
        place.run(["mount", "-t", "tmpfs", "-o", "mode=755", "cgroup", ROOT])
        hidden = wanted
    for hierarchy in hidden:
        options = ["-o", hierarchy.options] if hierarchy.options else []
        place.run(["mkdir", "-p", hierarchy.mountpoint])
        place.run(["mount", "-t", hierarchy.fstype, *options, hierarchy.fstype, hierarchy.mountpoint])


def _visible(place: Place, hierarchy: Hierarchy) -> bool:
    seen = place.run(["stat", "-f", "-c", "%t", hierarchy.mountpoint], check=False)
    return seen.stdout.strip() == _MAGIC[hierarchy.fstype]


def remove(group: str, *, patience: float = 10.0) -> None:
    """End every process in ``group`` and below, in every hierarchy, and remove the groups.

    Raises TimeoutError when a process does not go within ``patience`` seconds.
    """
    if not group.strip("/"):
        raise ValueError("the root group is not ours to remove")
    deadline = time.monotonic() + patience
    while True:
        for pid in processes(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in _folders(group):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if not any(True for _ in _folders(group)):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroup {group} still holds processes {sorted(processes(group))}")
        time.sleep(0.05)


def processes(group: str) -> set[int]:
    """The processes of a group and of those below it."""
    found: set[int] = set()
    for folder in _folders(group):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
    return found


def _folders(group: str) -> Iterator[Path]:
    """The group's folder in every hierarchy with all below it, deepest first."""
    for hierarchy in hierarchies():
        top = Path(hierarchy.mountpoint) / group.strip("/")
        for folder, _, _ in os.walk(top, topdown=False):
            yield Path(folder)
