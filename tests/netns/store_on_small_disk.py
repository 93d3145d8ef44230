"""What happens to the store on a disk that is full or read-only; run in a mount namespace of its own.

    python -m tests.netns.store_on_small_disk SCENARIO DIRECTORY

DIRECTORY is empty; a small tmpfs is mounted in it, which nobody else sees.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipam.errors import IpamError, PoolExhausted, StoreUnavailable
from tests.unit.ipam.node import (
    ANY,
    Node,
    attachment,
    confirm,
    counts,
    held,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.ipam import Ipam

POOL = range(5, 45)


class Disk:
    def __init__(self, directory: Path, size: str) -> None:
        self.directory = directory
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory))

    def again(self, options: str) -> None:
        mount("-o", f"remount,{options}", str(self.directory))

    def fill(self) -> Path:
        path = self.directory / "filler"
        with suppress(OSError), path.open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        return path

    def unmount(self) -> None:
        # A connection that was not closed is part of a cycle with its statements.
        gc.collect()
        subprocess.run(["umount", str(self.directory)], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def node_on(disk: Disk, beside: Path) -> Node:
    """The boot id lies beside the small disk, the store on it."""
    beside.mkdir(exist_ok=True)
    node = Node(beside)
    node.run_dir = disk.directory / "run"
    node.says = listing_of(*ips(*POOL))
    return node


def nothing_aside(node: Node) -> None:
    assert list(node.run_dir.glob("*corrupt*")) == []


def full_before_the_first_start(directory: Path, beside: Path) -> None:
    disk = Disk(directory, "512k")
    node = node_on(disk, beside)
    filler = disk.fill()
    with pytest.raises(StoreUnavailable, match="is full") as refused:
        node.ready()
    assert "df" in refused.value.remedy
    filler.unlink()
    ipam = node.ready()
    assert reserve(ipam, attachment("pod"), owner(), ANY).ip == ips(5)[0]
    nothing_aside(node)


def full_while_in_use(directory: Path, beside: Path) -> None:
    disk = Disk(directory, "1m")
    node = node_on(disk, beside)
    ipam = node.ready()
    before = [confirm(ipam, reserve(ipam, attachment(f"old-{i}"), owner(), ANY)) for i in range(10)]
    filler = disk.fill()
    refusals = 0
    for number in range(400):
        refusals += churn(ipam if number % 2 else node.process(), f"new-{number}")
    assert not refusals, "what the store has of the disk serves for ever, however long it stays full"
    filler.unlink()
    again = node.process()
    assert {each.ip for each in again.reservations()} >= {each.ip for each in before}
    for each in before:
        assert held(again, each.attachment) == each
    nothing_aside(node)


def churn(ipam: Ipam, name: str) -> int:
    try:
        reserve(ipam, attachment(name), owner(), ANY)
        release(ipam, attachment(name))
    except StoreUnavailable:
        return 1
    except PoolExhausted:
        # Adds that could be written and releases that could not.
        return 0
    return 0


def sizes(directory: Path) -> Iterator[Disk]:
    for kib in (*range(4, 260, 12), 400, 700, 2000):
        disk = Disk(directory, f"{kib}k")
        yield disk
        disk.unmount()


def too_small_by_any_amount(directory: Path, beside: Path) -> None:
    """Wherever the disk ends: what was said to be done is done, what was refused is not."""
    succeeded = 0
    for disk in sizes(directory):
        node = node_on(disk, beside)
        done: dict[str, object] = {}
        ipam: Ipam | None = None
        with suppress(StoreUnavailable):
            ipam = node.ready()
            for number in range(30):
                name = f"pod-{number}"
                made = reserve(ipam, attachment(name), owner("x" * 200), ANY)
                done[name] = made.ip
                if number % 3 == 0:
                    release(ipam, attachment(name))
                    del done[name]
        disk.again("size=4m")
        after = node.process()
        known = {each.attachment.container_id: each.ip for each in after.reservations()}
        assert {name: known.get(name) for name in done} == done
        # The release that could not be written any more is the only thing that may be left over.
        assert len(known) - len(done) <= 1
        after.adopt(())
        refresh(after)
        assert counts(after).total == len(POOL)
        nothing_aside(node)
        succeeded += len(done) == 20
        del after, ipam
    assert succeeded, "no disk was large enough"


def read_only(directory: Path, beside: Path) -> None:
    disk = Disk(directory, "1m")
    node = node_on(disk, beside)
    ipam = node.ready()
    held = confirm(ipam, reserve(ipam, attachment("pod"), owner(), ANY))
    ipam.close()
    disk.again("ro")
    for process in (ipam, node.process()):
        with pytest.raises(StoreUnavailable, match="read-only") as refused:
            reserve(process, attachment("new"), owner(), ANY)
        assert "read-write" in refused.value.remedy
        with pytest.raises(StoreUnavailable, match="read-only"):
            release(process, attachment("pod"))
    disk.again("rw")
    assert node.process().reservations() == (held,)
    nothing_aside(node)


def damaged_on_a_full_disk(directory: Path, beside: Path) -> None:
    disk = Disk(directory, "512k")
    node = node_on(disk, beside)
    node.ready().close()
    (node.run_dir / "azvnet.db").write_bytes(b"noise" * 1000)
    filler = disk.fill()
    with pytest.raises(StoreUnavailable, match="is full"):
        counts(node.process())
    filler.unlink()
    assert node.process().needs_adoption()
    assert len(list(node.run_dir.glob("*corrupt*"))) == 1


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        full_before_the_first_start,
        full_while_in_use,
        too_small_by_any_amount,
        read_only,
        damaged_on_a_full_disk,
    )
}

if __name__ == "__main__":
    try:
        SCENARIOS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    except IpamError as error:
        sys.exit(f"{type(error).__name__}: {error}")
