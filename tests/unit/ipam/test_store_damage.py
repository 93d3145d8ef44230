"""Whatever happens to the store's files, they are moved aside and live pods keep their addresses."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from ipam.errors import AdoptionNeeded, NoAddressesKnown, ReservationLost
from ipam.model import PoolCounts
from ipam.store import records
from ipam.store.transaction import StoreDamaged
from tests.unit.ipam.node import (
    ANY,
    CONFIG,
    Node,
    attachment,
    confirm,
    counts,
    find,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipam.ipam import Ipam
    from ipam.model import IPAddress, Listing, Reservation

PAGE = 4096


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Reservation]]:
    """A store of 60 addresses with 25 pods, closed, so that everything is in its one file."""
    node = Node(tmp_path_factory.mktemp("filled"))
    ipam = node.ready(*range(5, 65))
    held = [confirm(ipam, reserve(ipam, attachment(f"pod-{i}"), owner(f"web-{i}"), ANY)) for i in range(25)]
    ipam.close()
    assert [path.name for path in node.run_dir.glob("azvnet.db*")] == ["azvnet.db"]
    return node.run_dir / "azvnet.db", held


def aside(node: Node) -> list[str]:
    """Names of the stores moved aside, without their logs."""
    found = (path.name for path in node.run_dir.glob("azvnet.db.corrupt-*"))
    return sorted(name for name in found if not name.endswith(("-wal", "-shm")))


def no_live_address_is_given_out(node: Node, ipam: Ipam, held: list[Reservation]) -> None:
    """What an ADD does after the damage: adopt if asked to, then reserve; never what a pod carries."""
    live = {reservation.ip for reservation in held}
    try:
        given = reserve(ipam, attachment("new"), owner(), ANY)
    except AdoptionNeeded:
        ipam.adopt(held)
        refresh(ipam)
        given = reserve(ipam, attachment("new"), owner(), ANY)
    assert given.ip not in live
    assert counts(ipam).total == 60
    assert counts(ipam).assigned == len(held) + 1
    assert {each.ip for each in ipam.reservations()} == live | {given.ip}


def damage(node: Node, source: Path, harm: Callable[[Path], object]) -> Ipam:
    node.says = listing60()
    node.run_dir.mkdir(exist_ok=True)
    target = node.run_dir / "azvnet.db"
    shutil.copy(source, target)
    harm(target)
    return node.process()


def listing60() -> Listing:
    return listing_of(*ips(*range(5, 65)))


OFFSETS = [0, 1, 15, 16, 99, 100, 512, 1000, *range(PAGE - 1, 13 * PAGE, PAGE // 2 + 1), -PAGE, -512, -1]


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_store_cut_off_at_any_place(
    node: Node, filled: tuple[Path, list[Reservation]], offset: int
) -> None:
    source, held = filled
    left = offset % source.stat().st_size
    ipam = damage(node, source, lambda path: os.truncate(path, left))
    no_live_address_is_given_out(node, ipam, held)
    (kept,) = aside(node)
    assert (node.run_dir / kept).stat().st_size == left


@pytest.mark.parametrize("page", range(17))
def test_a_page_of_zeros_anywhere(node: Node, filled: tuple[Path, list[Reservation]], page: int) -> None:
    source, held = filled

    def zero(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(min(page * PAGE, path.stat().st_size - PAGE))
            file.write(bytes(PAGE))

    ipam = damage(node, source, zero)
    no_live_address_is_given_out(node, ipam, held)
    assert len(aside(node)) == 1


@pytest.mark.parametrize("part", range(0, 13 * PAGE, 1536))
def test_zeros_within_a_page(node: Node, filled: tuple[Path, list[Reservation]], part: int) -> None:
    """It may go unnoticed where it hits nothing that decides, never where it does."""
    source, held = filled

    def zero(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(part)
            file.write(bytes(200))

    ipam = damage(node, source, zero)
    no_live_address_is_given_out(node, ipam, held)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: path.write_bytes(b'{"IPAM": {"Version": ""}}'),
        lambda path: path.write_bytes(os.urandom(5 * PAGE)),
        lambda path: (path.unlink(), path.mkdir(), (path / "file").write_text("x")),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
        lambda path: (path.unlink(), subprocess.run(["mkfifo", path], check=True)),
        lambda path: path.with_name("azvnet.db-wal").mkdir(),
        lambda path: path.with_name("azvnet.db-shm").mkdir(),
    ],
    ids=[
        "empty",
        "zeros",
        "json",
        "noise",
        "directory",
        "dangling-link",
        "pipe",
        "wal-is-directory",
        "shm-is-directory",
    ],
)
def test_what_is_no_store_is_moved_aside(
    node: Node, filled: tuple[Path, list[Reservation]], harm: Callable[[Path], object]
) -> None:
    source, held = filled
    ipam = damage(node, source, harm)
    assert ipam.needs_adoption()
    no_live_address_is_given_out(node, ipam, held)
    assert any("corrupt" in name for name in aside(node))


def test_a_database_of_another_program_is_moved_aside(
    node: Node, filled: tuple[Path, list[Reservation]]
) -> None:
    source, held = filled

    def foreign(path: Path) -> None:
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE address (ip TEXT)")
        other.close()

    ipam = damage(node, source, foreign)
    no_live_address_is_given_out(node, ipam, held)
    kept = sqlite3.connect(node.run_dir / aside(node)[0])
    assert kept.execute("SELECT count(*) FROM address").fetchone() == (0,)
    kept.close()


@pytest.mark.parametrize("table", ["node", "address", "source", "counter"])
def test_a_table_that_is_gone_is_damage(
    node: Node, filled: tuple[Path, list[Reservation]], table: str
) -> None:
    source, held = filled
    ipam = damage(node, source, lambda path: edit(path, f"DROP TABLE {table}"))
    ipam.source_state(CONFIG)
    if table == "counter":
        ipam.quarantine(ips(64)[0], "touches the counters", 1)
        node.clock.advance(1)
    no_live_address_is_given_out(node, ipam, held)
    assert len(aside(node)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM node",
        "UPDATE address SET interface = 'nonsense' WHERE container_id IS NOT NULL",
        "UPDATE offer SET interface = 'nonsense'",
        "UPDATE offer SET interface = '10.0.0.5/16'",
        "UPDATE address SET holder = 'nonsense' WHERE container_id IS NOT NULL",
        "UPDATE address SET ip = CAST(x'0102' || ip AS BLOB)",
    ],
)
def test_content_that_no_store_ever_says_is_damage(
    node: Node, filled: tuple[Path, list[Reservation]], statement: str
) -> None:
    source, held = filled
    ipam = damage(node, source, lambda path: edit(path, statement))
    ipam.reservations()
    ipam.addresses()
    no_live_address_is_given_out(node, ipam, held)
    assert len(aside(node)) == 1


def edit(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_damage_under_a_running_process_is_noticed(node: Node) -> None:
    ipam = node.ready(5, 6)
    held = confirm(ipam, reserve(ipam, attachment("pod"), owner(), ANY))
    ipam.close()
    other = node.process()
    counts(other)
    # The running process has the file open; its pages are read again after somebody else wrote.
    with (node.run_dir / "azvnet.db").open("r+b") as file:
        file.truncate(PAGE)
    third = node.process()
    assert third.needs_adoption()
    third.adopt([held])
    assert [each.ip for each in other.reservations()] == [held.ip]


def test_at_most_three_damaged_stores_are_kept(node: Node) -> None:
    for _ in range(5):
        node.run_dir.mkdir(exist_ok=True)
        (node.run_dir / "azvnet.db").write_bytes(b"noise" * 1000)
        ipam = node.process()
        assert ipam.needs_adoption()
        ipam.close()
    assert len(aside(node)) == 3


class TestRemoved:
    """Somebody deletes files of a store that is in use."""

    def test_the_whole_directory(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        held = confirm(ipam, reserve(ipam, attachment("pod"), owner(), ANY))
        shutil.rmtree(node.run_dir)
        with pytest.raises(AdoptionNeeded):
            reserve(ipam, attachment("new"), owner(), ANY)
        ipam.adopt([held])
        assert ipam.reservations()[0].ip == held.ip

    @pytest.mark.parametrize("name", ["azvnet.db-wal", "azvnet.db-shm"])
    def test_a_side_file_alone(self, node: Node, name: str) -> None:
        ipam = node.ready(5, 6)
        held = confirm(ipam, reserve(ipam, attachment("pod"), owner(), ANY))
        (node.run_dir / name).unlink()
        with pytest.raises(AdoptionNeeded):
            reserve(ipam, attachment("new"), owner(), ANY)
        ipam.adopt([held])
        refresh(ipam)
        assert counts(ipam) == PoolCounts(free=1, assigned=1, cooling=0, quarantined=0)

    def test_a_log_of_a_store_that_is_gone_is_not_replayed(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, attachment("pod"), owner(), ANY)
        wal = (node.run_dir / "azvnet.db-wal").read_bytes()
        shutil.rmtree(node.run_dir)
        node.run_dir.mkdir()
        (node.run_dir / "azvnet.db-wal").write_bytes(wal)
        assert node.process().reservations() == ()

    def test_moved_back_in_place_is_used_again(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        held = confirm(ipam, reserve(ipam, attachment("pod"), owner(), ANY))
        ipam.close()
        saved = node.run_dir.rename(node.directory / "saved")
        assert node.process().needs_adoption()
        shutil.rmtree(node.run_dir)
        saved.rename(node.run_dir)
        assert node.process().reservations() == (held,)


class PodsUnderLoad:
    """Threads that add and delete pods. ``routes`` stands for the kernel: an address has one route."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.routes: dict[IPAddress, Reservation] = {}
        self.truth = threading.Lock()
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self.done = self.collisions = 0

    def pods(self, number: int) -> None:
        ipam = self.node.process()
        turn = 0
        while not self.stop.is_set():
            turn += 1
            try:
                self.add_and_del(ipam, f"pod-{number}-{turn}")
            except (AdoptionNeeded, NoAddressesKnown):
                continue
            except BaseException as error:  # noqa: BLE001 - shown by the test
                self.failures.append(error)
                return
        ipam.close()

    def wait_for_progress(self) -> None:
        """On a machine so busy that every store is lost before it is used, nothing is shown."""
        before = self.done + self.collisions
        eventually(lambda: self.done + self.collisions > before or self.failures, "an ADD comes to its end")

    def add_and_del(self, ipam: Ipam, name: str) -> None:
        with self.truth:
            if ipam.needs_adoption():
                ipam.adopt(self.routes.values())
                refresh(ipam)
        made = reserve(ipam, attachment(name), owner(name, call_id=name), ANY)
        with self.truth:
            if made.ip in self.routes:
                self.collisions += 1
                ipam.quarantine(made.ip, "there is a route to it", 0)
                ipam.abandon(made)
                return
            self.routes[made.ip] = made
        try:
            self.carry(ipam, made)
        finally:
            with self.truth:
                del self.routes[made.ip]
            release(ipam, made.attachment)

    def carry(self, ipam: Ipam, made: Reservation) -> None:
        try:
            confirmed = confirm(ipam, made)
        except ReservationLost:
            # Two losses within one ADD: another one got the address in between.
            self.collisions += 1
            return
        assert confirmed.ip == made.ip
        holder = find(ipam, made.ip)
        # None: the store was lost again just now.
        assert holder is None or holder.attachment == made.attachment, "given to two pods"
        self.done += 1


def test_no_address_is_given_twice_while_the_store_is_deleted_under_load(node: Node) -> None:
    node.ready(*range(5, 65))
    load = PodsUnderLoad(node)
    threads = [threading.Thread(target=load.pods, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    rounds = 0
    while (rounds < 20 or load.done < 40) and not load.failures:
        rounds += 1
        load.stop.wait(0.03)
        load.wait_for_progress()
        # As `rm azvnet.db*` does: the names first, then one after the other.
        for path in sorted(node.run_dir.glob("azvnet.db*")):
            path.unlink(missing_ok=True)
    load.stop.set()
    for thread in threads:
        thread.join()
    assert load.failures == []
    assert load.done >= 40
    assert load.collisions <= rounds * 4, "more than those under way when the store was lost"
    last = node.process()
    last.adopt(())
    refresh(last)
    assert counts(last).total == 60
    assert counts(last).assigned == 0


@pytest.mark.parametrize("ip", ["10.0.0.5", "fd00::5"])
def test_an_address_is_what_its_bytes_say_and_other_bytes_are_damage(ip: str) -> None:
    packed = ip_address(ip).packed
    assert records.unpacked(packed) == ip_address(ip)
    for wrong in (packed[1:], packed + b"x"):
        with pytest.raises(StoreDamaged, match=f"an address of {len(wrong)} bytes"):
            records.unpacked(wrong)
