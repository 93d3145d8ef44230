"""Looking at a store changes nothing, whatever state it is in, and shows what the next call would find."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from ipam.errors import NoAddressesKnown, PoolExhausted, StoreMissing, StoreUnavailable
from ipam.ipam import Ipam
from ipam.model import AddressState, PoolCounts
from ipam.overview import COUNTERS
from tests.unit.ipam.node import (
    ANY,
    CONFIG,
    Node,
    asking,
    attachment,
    confirm,
    counters,
    counts,
    ips,
    owner,
    refresh,
    release,
    reserve,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def view(node: Node) -> Ipam:
    return Ipam(
        node.run_dir, boot_id_file=node.boot_id_file, clock=node.clock, wall_clock=node.wall, read_only=True
    )


def files(node: Node) -> dict[str, tuple[int, int, bytes]]:
    """Every file of the state directory: inode, time of its last change, content."""
    found = sorted(node.run_dir.iterdir()) if node.run_dir.exists() else []
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.fixture
def untouched(node: Node) -> Iterator[Callable[[], None]]:
    """To be called when the state directory is as it has to stay."""
    before: list[dict[str, tuple[int, int, bytes]]] = []
    yield lambda: before.append(files(node))
    assert len(before) == 1
    assert files(node) == before[0]


def fill(ipam: Ipam) -> None:
    """Addresses .5 to .9: one held, one cooling, one in quarantine, two free."""
    confirm(ipam, reserve(ipam, attachment("a"), owner("web"), ANY))
    reserve(ipam, attachment("b"), owner("gone"), ANY)
    release(ipam, attachment("b"))
    ipam.quarantine(IPv4Address("10.0.0.9"), "somebody carries it", 60)


FILLED = PoolCounts(free=2, assigned=1, cooling=1, quarantined=1)


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[None]:
    """A process that has done ``work`` and lives until the end, when it is killed."""
    done, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(tell, b"done")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    with os.fdopen(done, "rb") as report:
        assert report.read(4) == b"done"
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_store_in_use_is_read_with_what_is_only_in_its_log(
    node: Node, untouched: Callable[[], None]
) -> None:
    with another_process(lambda: fill(node.ready(5, 6, 7, 8, 9))):
        assert (node.run_dir / "azvnet.db-wal").stat().st_size > 0
        untouched()
        look = view(node)
        seen = look.overview()
        assert seen.counts == FILLED
        assert seen.known == FILLED.total == 5
        assert seen.adopted
        assert seen.same_boot
        assert seen.source.source == "imds"
        assert set(seen.counters) == {*COUNTERS, f"source_reads {CONFIG.key}"}
        assert seen.counters["quarantined"] == 1
        assert [each.owner.pod_name for each in look.reservations()] == ["web"]
        assert {each.state for each in look.addresses()} == set(AddressState)


def test_a_store_at_rest_is_read(node: Node, untouched: Callable[[], None]) -> None:
    ipam = node.ready(5, 6, 7, 8, 9)
    fill(ipam)
    ipam.close()
    assert [path.name for path in node.run_dir.glob("azvnet.db*")] == ["azvnet.db"]
    untouched()
    assert view(node).overview().counts == FILLED


def test_a_store_whose_process_was_killed_is_read(node: Node, untouched: Callable[[], None]) -> None:
    with another_process(lambda: fill(node.ready(5, 6, 7, 8, 9))):
        pass
    assert (node.run_dir / "azvnet.db-wal").stat().st_size > 0
    untouched()
    assert view(node).overview().counts == FILLED


def test_a_look_sees_what_was_written_since_the_last_one(node: Node) -> None:
    ipam = node.ready(5, 6)
    look = view(node)
    assert counts(look).assigned == 0
    reserve(ipam, attachment("a"), owner(), ANY)
    assert counts(look).assigned == 1
    ipam.close()
    assert counts(look).assigned == 1
    release(ipam, attachment("a"))
    assert counts(look).assigned == 0


def test_a_look_does_not_wait_for_a_writer(node: Node) -> None:
    ipam = node.ready(5, 6)
    reserve(ipam, attachment("a"), owner(), ANY)
    writer = sqlite3.connect(node.run_dir / "azvnet.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE address SET container_id = NULL, ifname = NULL, created_wall = NULL")
    assert counts(view(node)).assigned == 1
    writer.execute("ROLLBACK")
    writer.close()


def test_no_store_is_said_and_none_is_made(node: Node) -> None:
    with pytest.raises(StoreMissing, match="there is no store"):
        view(node).overview()
    assert not node.run_dir.exists()


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"no store" * 1024), "not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[: 2 * 4096]), "malformed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is truncated"),
        (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
    ],
    ids=["emptied", "other-content", "cut", "cut-within-a-page", "directory"],
)
def test_a_damaged_store_is_said_and_left_where_it_is(
    node: Node, damage: Callable[[Path], object], word: str
) -> None:
    ipam = node.ready(*range(5, 65))
    ipam.close()
    damage(node.run_dir / "azvnet.db")
    names = sorted(path.name for path in node.run_dir.iterdir())
    with pytest.raises(StoreUnavailable, match=word) as raised:
        view(node).overview()
    assert "damaged" in str(raised.value)
    assert sorted(path.name for path in node.run_dir.iterdir()) == names


def test_another_programs_database_is_no_store(node: Node, untouched: Callable[[], None]) -> None:
    node.run_dir.mkdir()
    other = sqlite3.connect(node.run_dir / "azvnet.db")
    other.execute("CREATE TABLE node (a)")
    other.commit()
    other.close()
    untouched()
    with pytest.raises(StoreUnavailable, match="another program"):
        view(node).overview()


def test_a_newer_store_is_not_called_damaged(node: Node, untouched: Callable[[], None]) -> None:
    node.ready(5).close()
    newer = sqlite3.connect(node.run_dir / "azvnet.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    untouched()
    with pytest.raises(StoreUnavailable, match="newer azvnet") as raised:
        view(node).overview()
    assert "damaged" not in str(raised.value)


def test_a_log_without_its_index_is_damage(node: Node) -> None:
    ipam = node.ready(5, 6)
    (node.run_dir / "azvnet.db-shm").unlink()
    with pytest.raises(StoreUnavailable, match="-shm was removed"):
        view(node).overview()
    ipam.close()


def test_after_a_restart_of_the_node_nobody_holds_anything(node: Node, untouched: Callable[[], None]) -> None:
    ipam = node.ready(5, 6, 7, 8, 9)
    fill(ipam)
    ipam.close()
    node.start_anew("boot-2")
    untouched()
    seen = view(node).overview()
    assert not seen.same_boot
    assert not seen.adopted
    assert seen.counts == PoolCounts(free=5, assigned=0, cooling=0, quarantined=0)
    assert view(node).reservations() == ()


def test_nothing_can_be_changed_through_a_view(node: Node, untouched: Callable[[], None]) -> None:
    node.ready(5).close()
    untouched()
    look = view(node)
    with pytest.raises(StoreUnavailable, match="open read-only"):
        reserve(look, attachment("a"), owner(), ANY)
    with pytest.raises(StoreUnavailable, match="open read-only"):
        look.adopt(())


def test_looking_while_others_open_close_and_write_is_never_wrong(node: Node) -> None:
    """Every look is one state: two addresses, of which the writer holds none or both."""
    node.ready(5, 6).close()
    program = """
import sys
from contextlib import contextmanager
from pathlib import Path
from ipam.ipam import Ipam
from ipam.model import AddressRequest, Attachment, Owner
directory, boot = map(Path, sys.argv[1:])
for number in range(150):
    ipam = Ipam(directory, boot_id_file=boot)
    held = number % 2 == 0
    holder = "container_id = id, ifname = 'eth0', created_wall = 1"
    nobody = "container_id = NULL, ifname = NULL, created_wall = NULL"
    ipam._store.write(lambda tx: tx.change(f"UPDATE address SET {holder if held else nobody}"))
    ipam.close()
"""
    writer = subprocess.Popen([sys.executable, "-c", program, node.run_dir, node.boot_id_file])
    look = view(node)
    seen = set()
    try:
        while writer.poll() is None:
            seen.add(counts(look, 0).assigned)
    finally:
        writer.kill()
        code = writer.wait()
    assert code == 0
    assert seen == {0, 2}


def test_whether_an_address_could_be_given_is_told_as_an_add_would_tell_it(node: Node) -> None:
    empty = node.process()
    empty.adopt(())
    with pytest.raises(NoAddressesKnown, match="not been read yet"):
        empty.require_available(ANY)
    ipam = node.ready(5, 6)
    ipam.require_available(ANY)
    reserve(ipam, attachment("a"), owner("web"), ANY)
    ipam.require_available(ANY)
    with pytest.raises(PoolExhausted, match="carried by the node itself"):
        ipam.require_available(asking(excluded=frozenset(ips(6))))
    reserve(ipam, attachment("b"), owner("db"), ANY)
    with pytest.raises(PoolExhausted, match=r"2 held \(default/db, default/web\)"):
        ipam.require_available(ANY)
    assert counters(ipam)["exhausted ipv4"] == 0
    release(ipam, attachment("a"))
    ipam.require_available(ANY)
    assert counts(ipam) == PoolCounts(free=0, assigned=1, cooling=1, quarantined=0)
    refresh(ipam)
