"""What a fabric leaves on disk while it runs, and removing what a dead one left.

A fabric needs no clean-up in the kernel: every process of it ends when its owner ends. What stays is
its folder, and cgroups that a container runtime made in its nodes. Must not know namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_ROOT = "/run/azvnet-fabric"
_RECORD = "fabric.json"
_PATIENCE = 10.0
"""Seconds for processes that were told to end."""


class FabricExists(RuntimeError):
    """A fabric of that name is running."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is told from a later one with the same pid."""

    pid: int
    started: int
    """Start time in clock ticks since boot (proc(5), stat, field 22)."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now. Raises FileNotFoundError."""
        return cls(pid, _start_time(pid))

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        try:
            return _start_time(self.pid) == self.started and _state(self.pid) != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False


@dataclass(frozen=True, slots=True)
class Record:
    """Who a fabric is."""

    name: str
    owner: Process
    detached: bool = False
    """Whether the owner does nothing else than to be this fabric, so that it may be ended."""
    holders: tuple[Process, ...] = ()


def root() -> Path:
    """The folder of all fabrics; AZVNET_FABRIC_DIR overrides the default."""
    return Path(os.environ.get("AZVNET_FABRIC_DIR", DEFAULT_ROOT))


def claim(name: str) -> Path:
    """Make the folder of a new fabric; what dead fabrics left is removed first.

    Raises:
        FabricExists: a fabric of that name is running.
    """
    folder = root() / name
    root().mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone():
        for other in names():
            record = read(other)
            if record is None or not record.owner.alive():
                remove(other)
            elif other == name:
                raise FabricExists(
                    f"a fabric named {name} is running (pid {record.owner.pid}); "
                    f"take it down (python -m integration.fabric --name {name} down) or choose another name"
                )
        folder.mkdir(mode=0o700)
        write(Record(name, Process.of(os.getpid())))
    return folder


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let nobody else claim a name or sweep meanwhile; a folder without a record is a leftover then."""
    with (root() / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(record: Record) -> None:
    """Store the record, whole or not at all."""
    path = root() / record.name / _RECORD
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")
    temporary.replace(path)


def read(name: str) -> Record | None:
    """The record of a fabric; None when there is none or it is unreadable."""
    try:
        raw = json.loads((root() / name / _RECORD).read_text(encoding="utf-8"))
        holders = tuple(Process(**holder) for holder in raw["holders"])
        return Record(raw["name"], Process(**raw["owner"]), bool(raw["detached"]), holders)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def names() -> list[str]:
    """The fabrics that have a folder, running or not."""
    try:
        return sorted(entry.name for entry in root().iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def remove(name: str) -> None:
    """End what a dead fabric left running, and remove its cgroups and its folder.

    Raises:
        TimeoutError: a process does not end.
    """
    record = read(name)
    for holder in record.holders if record is not None else ():
        _end(holder)
    remove_cgroups(name)
    shutil.rmtree(root() / name, ignore_errors=True)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of a fabric's nodes, ``/<fabric>-<node>`` in every hierarchy; their processes
    have ended with the node.
    """
    for pattern in (f"{name}-node*", f"*/{name}-node*"):
        for top in Path("/sys/fs/cgroup").glob(pattern):
            folders = [Path(path) for path, _, _ in os.walk(top, topdown=False)]
            for folder in folders:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _end(process: Process) -> None:
    if process.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    if not found_within(_PATIENCE, lambda: not process.alive(), pause=0.01):
        raise TimeoutError(f"process {process.pid} of a dead fabric does not end")


def _stat(pid: int) -> list[str]:
    # The name stands in parentheses and may contain anything, so count from the last one.
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def _start_time(pid: int) -> int:
    return int(_stat(pid)[19])


def _state(pid: int) -> str:
    return _stat(pid)[0]
