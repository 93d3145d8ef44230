"""The cgroup hierarchies of this machine, version 1 or 2.

Owns emptying and removing one group in all of them. Must not know containerd. Version 1 has one
hierarchy for each set of controllers, version 2 exactly one (kernel: admin-guide/cgroup-v1,
admin-guide/cgroup-v2).
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = "/sys/fs/cgroup"


def hierarchies() -> list[Path]:
    """The mount points below /sys/fs/cgroup on this machine: one for version 2, several for version 1."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mountpoint = Path(before.split()[4])
        if after.split()[0] in ("cgroup", "cgroup2") and mountpoint.is_relative_to(ROOT):
            found.append(mountpoint)
    return found


def remove(group: str, *, patience: float = 10.0) -> None:
    """End every process in ``group`` and below, in every hierarchy, and remove the groups.

    Raises TimeoutError when a process does not go within ``patience`` seconds.
    """
    if not group.strip("/"):
        raise ValueError("the root group is not ours to remove")

    def removed() -> bool:
        for pid in processes(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in _folders(group):
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(True for _ in _folders(group))

    if not found_within(patience, removed):
        raise TimeoutError(f"cgroup {group} still holds processes {sorted(processes(group))}")


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
        top = hierarchy / group.strip("/")
        for folder, _, _ in os.walk(top, topdown=False):
            yield Path(folder)
