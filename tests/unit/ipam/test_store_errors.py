"""A store that can't be used is a clear error with a remedy, and never taken for a damaged one."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from ipam.errors import StoreUnavailable
from ipam.store import schema
from tests.unit.ipam.node import ANY, attachment, confirm, counts, ips, owner, reserve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.ipam.node import Node

P1 = attachment("pod-1")


def untouched(node: Node) -> bool:
    return not list(node.run_dir.glob("azvnet.db.corrupt-*"))


class TestLocked:
    def test_waiting_for_a_writer_ends(self, node: Node) -> None:
        node.ready(5)
        writer = sqlite3.connect(node.run_dir / "azvnet.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"locked for more than 0\.3 s") as refused:
            reserve(node.process(busy_timeout=0.3), P1, owner(), ANY)
        assert "fuser" in refused.value.remedy
        writer.execute("ROLLBACK")
        writer.close()
        assert reserve(node.process(), P1, owner(), ANY).ip == ips(5)[0]
        assert untouched(node)

    def test_looking_waits_for_nobody(self, node: Node) -> None:
        node.ready(5)
        writer = sqlite3.connect(node.run_dir / "azvnet.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert counts(node.process(busy_timeout=0.3)).free == 1
        writer.close()

    def test_a_thread_that_hangs_in_a_transaction_stops_the_others_only_so_long(self, node: Node) -> None:
        node.ready(5)
        ipam = node.process(busy_timeout=0.3)
        entered, leave = threading.Event(), threading.Event()

        def hang() -> None:
            def wait(_: object) -> bool:
                entered.set()
                return leave.wait(20)

            ipam._store.write(wait)

        thread = threading.Thread(target=hang)
        thread.start()
        entered.wait(20)
        with pytest.raises(StoreUnavailable, match="locked for more than"):
            counts(ipam)
        leave.set()
        thread.join()
        assert counts(ipam).free == 1

    def test_a_process_killed_within_a_transaction_leaves_no_lock(self, node: Node) -> None:
        node.ready(5)
        with in_transaction(node.run_dir / "azvnet.db") as victim:
            victim.kill()
            victim.wait()
            assert reserve(node.process(), P1, owner(), ANY).ip == ips(5)[0]

    def test_a_process_stopped_within_a_transaction_is_waited_for_only_so_long(self, node: Node) -> None:
        node.ready(5)
        with in_transaction(node.run_dir / "azvnet.db") as victim:
            victim.send_signal(signal.SIGSTOP)
            with pytest.raises(StoreUnavailable, match="locked for more than"):
                reserve(node.process(busy_timeout=0.3), P1, owner(), ANY)
            victim.kill()
            victim.wait()
            assert reserve(node.process(), P1, owner(), ANY).ip == ips(5)[0]


class in_transaction:  # noqa: N801 - reads as a verb
    """A process that holds the write lock of the store, with a row changed."""

    PROGRAM = (
        "import signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); c.execute(\"UPDATE address SET family = 0\");"
        "print('in', flush=True); signal.pause()"
    )

    def __init__(self, database: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", self.PROGRAM, database], stdout=subprocess.PIPE
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"in\n"
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class TestVersions:
    def test_an_older_store_is_brought_up_to_date_with_everything_in_it(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ipam = node.ready(5, 6)
        held = confirm(ipam, reserve(ipam, P1, owner(), ANY))
        ipam.close()
        added = ("ALTER TABLE address ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'",)
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, added))
        threads_see: list[object] = []

        def look() -> None:
            threads_see.append(node.process().reservations())

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert threads_see == [(held,)] * 8
        store = sqlite3.connect(node.run_dir / "azvnet.db")
        assert store.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
        assert store.execute("SELECT DISTINCT colour FROM address").fetchall() == [("blue",)]
        store.close()

    def test_a_migration_that_fails_changes_nothing(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ipam = node.ready(5)
        ipam.close()
        broken = ("ALTER TABLE address ADD COLUMN colour TEXT", "SELECT syntax error here")
        with monkeypatch.context() as newer:
            newer.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
            with pytest.raises(StoreUnavailable):
                counts(node.process())
        assert counts(node.process()).free == 1
        assert untouched(node)


class TestPlace:
    def test_the_directory_is_made_for_root_alone(self, node: Node) -> None:
        node.run_dir = node.directory / "a" / "b"
        node.ready(5)
        assert node.run_dir.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in node.run_dir.iterdir()}
        assert modes == dict.fromkeys(modes, 0o600)
        assert {"azvnet.db", "azvnet.db-wal", "azvnet.db-shm"} <= set(modes)

    def test_a_file_in_place_of_the_directory(self, node: Node) -> None:
        node.run_dir.write_text("")
        with pytest.raises(StoreUnavailable) as refused:
            counts(node.process())
        assert str(node.run_dir) in str(refused.value)
        assert refused.value.remedy

    def test_a_path_with_odd_characters(self, node: Node) -> None:
        node.run_dir = node.directory / "a%20b?c#d é"
        assert counts(node.ready(5)).free == 1
        assert (node.run_dir / "azvnet.db").exists()

    def test_a_relative_path(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(node.directory)
        node.run_dir = node.run_dir.relative_to(node.directory)
        assert counts(node.ready(5)).free == 1

    def test_a_lock_file_that_is_a_directory(self, node: Node) -> None:
        (node.run_dir / "store.lock").mkdir(parents=True)
        with pytest.raises(StoreUnavailable, match=r"store\.lock"):
            counts(node.process())

    def test_an_unreadable_boot_id(self, node: Node) -> None:
        node.boot_id_file.unlink()
        with pytest.raises(StoreUnavailable, match="whether the node was restarted") as refused:
            counts(node.process())
        assert str(node.boot_id_file) in refused.value.remedy
        node.boot_id_file.write_text("\n")
        with pytest.raises(StoreUnavailable, match="is empty"):
            counts(node.process())

    def test_a_store_that_may_not_be_written(self, node: Node) -> None:
        """As another user than its maker: root may always write, so a child gives its rights up."""
        node.ready(5).close()
        node.run_dir.chmod(0o755)
        (node.run_dir / "azvnet.db").chmod(0o644)
        for folder in (node.directory, *node.directory.parents[:3]):
            if folder.stat().st_uid == os.geteuid() and str(folder).startswith("/tmp/"):
                folder.chmod(folder.stat().st_mode | 0o055)
        child = os.fork()
        if child == 0:
            os._exit(give_up_rights_and_try(node))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert untouched(node)


def give_up_rights_and_try(node: Node) -> int:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    else:
        node.run_dir.chmod(0o555)
    try:
        reserve(node.process(), P1, owner(), ANY)
    except StoreUnavailable as error:
        return 0 if "can't be written by uid" in str(error) and "root" in error.remedy else 2
    except BaseException:  # noqa: BLE001 - the exit code tells
        return 3
    return 1


def test_nothing_is_opened_before_it_is_used(node: Node) -> None:
    node.process()
    assert not node.run_dir.exists()


def test_sqlite_is_not_loaded_before_it_is_used() -> None:
    program = "import sys, ipam.ipam; sys.exit('sqlite3' in sys.modules or 'pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_closed_store_opens_again(node: Node) -> None:
    ipam = node.ready(5)
    ipam.close()
    ipam.close()
    assert counts(ipam).free == 1
