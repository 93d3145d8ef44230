"""The SQLite file of the node: making, checking, repairing and locking it. ``sqlite3`` is loaded when the
store is first used: it costs 3 to 5 ms.

It owns transactions, not what is done in them (``records``, ``reservations``). It must not know netlink,
HTTP or CNI. One connection for the whole process, under a mutex: a transaction is shorter than the
1 ms that SQLite's busy handler sleeps at least when two connections meet.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ipam.errors import StoreUnavailable
from ipam.filelock import file_lock
from ipam.store import schema
from ipam.store.connections import migrate, open_database, version_of
from ipam.store.files import CORRUPT, NEWER, PAGE_SIZE, Identity, StoreFiles, open_identities, why_unwritable
from ipam.store.identity import NodeIdentity, is_ours
from ipam.store.sqlite_codes import NOMEM, code_of, is_damage, is_full, is_locked, is_passing
from ipam.store.transaction import StoreDamaged, Transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds in which an operation is retried because files were replaced or removed under it."""
_REPAIRS = 3
"""Repairs within one operation; more than one if something keeps removing files meanwhile."""
_PAUSE = 0.005
_READ_WRITE = "mode=rw"
_NODE = """
    SELECT generation, boot_id, machine_id, adopted,
        (SELECT min(quarantined_until) FROM address WHERE quarantined_until IS NOT NULL) AS quarantine_ends
    FROM node
"""


class _Moved(Exception):
    """The path leads to another file than the one that is open."""


class _OtherBoot(Exception):
    """The store was last written by another start, or another machine, and this transaction may not write."""


class _Newer(StoreDamaged):
    """A later version wrote the store. It is moved aside and rebuilt from what is alive on the node: an
    azvnet that was rolled back must not keep every pod from starting.
    """


class Store:
    """One node's store. Cheap to create: nothing is opened before the first transaction.

    Safe for many processes and threads at once, and against ``kill -9`` at any point. Files that are
    not a store are moved aside and a new, not adopted store is made in their place.
    """

    def __init__(
        self,
        directory: Path,
        *,
        identity: NodeIdentity,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        busy_timeout: float,
    ) -> None:
        self._files = StoreFiles(directory)
        self._identity = identity
        self._boot_id = self._machine_id = ""
        self._clock = clock
        self._wall_clock = wall_clock
        self._busy_timeout = busy_timeout
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identities: tuple[Identity | None, ...] = ()

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction that no other writer overlaps, and keep what it wrote.

        ``work`` may be run again from the start when the file turns out to be gone or damaged. If it
        raises, nothing is kept.

        Raises:
            StoreUnavailable: locked for longer than the timeout (twice that at worst), disk full,
                read-only, or written by a newer version.
        """
        return self._in_mutex("BEGIN IMMEDIATE", work)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work``, which only reads, on one consistent state. Raises as ``write`` does."""
        return self._in_mutex("BEGIN", work)

    def close(self) -> None:
        """Close the file; the next transaction opens it again."""
        with self._mutex:
            self._disconnect()

    def _in_mutex(self, begin: str, work: Callable[[Transaction], T]) -> T:
        deadline = time.monotonic() + self._busy_timeout
        if not self._mutex.acquire(timeout=self._busy_timeout):
            raise self._locked()
        try:
            return self._run(begin, work, deadline)
        except OSError as error:
            raise self._unavailable(str(error)) from error
        finally:
            self._mutex.release()

    def _run(self, begin: str, work: Callable[[Transaction], T], deadline: float) -> T:
        """Open if needed, transact, and repair what is damaged, until the deadline."""
        import sqlite3

        repairs = 0
        made_room = False
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            try:
                connection = self._connection or self._connect(deadline)
                return self._transact(connection, begin, work)
            except (_Moved, FileNotFoundError):
                self._disconnect()
            except _OtherBoot:
                begin = "BEGIN IMMEDIATE"
            except (StoreDamaged, sqlite3.Error) as error:
                if is_full(error) and self._connection is not None and not made_room:
                    made_room = self._reuse_log(self._connection)
                    continue
                repairs += is_damage(error)
                if repairs > _REPAIRS or not (is_damage(error) or self._may_pass(error)):
                    raise self._translated(error) from error
                if is_damage(error):
                    self._set_aside(deadline, NEWER if isinstance(error, _Newer) else CORRUPT)
                else:
                    self._disconnect()
                    time.sleep(_PAUSE)
        raise self._unavailable("another process keeps replacing it")

    def _transact(self, connection: sqlite3.Connection, begin: str, work: Callable[[Transaction], T]) -> T:
        connection.execute(begin)
        try:
            outcome = work(self._begun(connection, may_write=begin != "BEGIN"))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
        return outcome

    def _begun(self, connection: sqlite3.Connection, *, may_write: bool) -> Transaction:
        """The state that every transaction starts from; the holders of another boot are cleared here."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        node = connection.execute(_NODE).fetchone()
        now = self._files.identities()
        if now != self._identities:
            if now[0] == self._identities[0]:
                message = "its -wal or -shm was removed while it was in use"
                raise StoreDamaged(message)
            raise _Moved
        if node is None:
            message = "the row of the node is missing"
            raise StoreDamaged(message)
        adopted = bool(node["adopted"])
        if version != len(schema.MIGRATIONS):
            raise _Moved  # another version of azvnet changed it: opening it again decides what to do
        written_by = node["boot_id"], node["machine_id"]
        ids = self._boot_id, self._machine_id
        if written_by != ids and not is_ours(written_by, *ids):
            if not may_write:
                raise _OtherBoot
            for statement in schema.FORGET_HOLDERS:
                connection.execute(statement)
            connection.execute("UPDATE node SET boot_id = ?, machine_id = ?, adopted = 0", ids)
            adopted = False
        elif may_write and self._machine_id and not node["machine_id"]:
            connection.execute("UPDATE node SET machine_id = ?", (self._machine_id,))
        clock, quarantine_ends = self._clock(), node["quarantine_ends"]
        if may_write and quarantine_ends is not None and quarantine_ends <= clock:
            connection.execute(schema.END_QUARANTINES, (clock,))
        return Transaction(connection, node["generation"], adopted, clock, self._wall_clock())

    # Opening

    def _connect(self, deadline: float) -> sqlite3.Connection:
        """Open the store, making it when there is none."""
        self._boot_id = self._boot_id or self._identity.boot_id()
        self._machine_id = self._machine_id or self._identity.machine_id()
        flaw = None
        while flaw is None:
            try:
                flaw = self._files.flaw()
            except FileNotFoundError:
                self._make(deadline)
        before = self._files.identities()[0]
        self._identities = (before, None, None)
        if flaw:
            raise StoreDamaged(flaw)
        connection = open_database(self._files.database, _READ_WRITE, self._busy_timeout)
        try:
            self._prepare(connection)
            self._identities = self._opened(before)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _opened(self, before: Identity | None) -> tuple[Identity | None, ...]:
        """What the three paths lead to, which has to be what SQLite has open."""
        identities = self._files.identities()
        opened = open_identities()
        if identities[0] != before or None in identities or (opened and not opened.issuperset(identities)):
            raise _Moved
        return identities

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check what was opened, bring an older store up to date, and touch the log once."""
        # The directory is memory (/run): there is no disk whose cache could be lost before the
        # process that wrote it, and a reboot takes everything anyway.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        version = version_of(connection)
        if version > len(schema.MIGRATIONS):
            message = f"was written by a newer azvnet (store version {version})"
            raise _Newer(message)
        if version < len(schema.MIGRATIONS):
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection)
            connection.execute("COMMIT")
        # Not quick_check: only this one holds the indexes against the table, which is how zeros in the
        # middle of a page are found. 0.4 ms with 256 addresses, once in a process.
        problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
        if problems != ["ok"]:
            raise StoreDamaged("; ".join(problems))

    def _make(self, deadline: float) -> None:
        """Build a new store beside its path and put it in place with one rename."""
        self._files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_lock(self._files.lock, deadline):
            if self._files.identities()[0] is not None:
                return
            fresh = self._files.clear_for_new()
            os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            connection = open_database(fresh, _READ_WRITE, self._busy_timeout)
            try:
                connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("PRAGMA journal_mode = MEMORY")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                migrate(connection)
                connection.execute(
                    "INSERT INTO node VALUES (1, ?, ?, 0, ?)",
                    (os.urandom(8).hex(), self._boot_id, self._machine_id),
                )
                connection.execute("COMMIT")
                # Only now: what is in a log is moved to the file when it is closed, and that fails
                # without a word on a full disk.
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            fresh.rename(self._files.database)

    def _set_aside(self, deadline: float, why: str) -> None:
        bad = self._identities[0]
        # Closed after the rename: SQLite then leaves the log alone, while closing first would write a
        # damaged log into the file that is kept for inspection.
        with suppress(FileNotFoundError), file_lock(self._files.lock, deadline):
            self._files.move_aside(bad, why)
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # Errors

    def _locked(self) -> StoreUnavailable:
        message = f"{self._files.database} was locked for more than {self._busy_timeout:g} s"
        return StoreUnavailable(
            message,
            f"Find who holds it: `fuser -v {self._files.database}`; a stopped process never releases it.",
        )

    def _unavailable(self, detail: str) -> StoreUnavailable:
        why, remedy = why_unwritable(self._files.directory)
        message = f"the store {self._files.database} can't be used: {detail}"
        if why and why not in detail:
            message += f" ({why})"
        return StoreUnavailable(message, remedy or "Look at the kernel's log for errors of the file system.")

    def _may_pass(self, error: Exception) -> bool:
        """Whether an error looks like files that were removed at the wrong moment."""
        return is_passing(error) and not why_unwritable(self._files.directory)[0]

    def _reuse_log(self, connection: sqlite3.Connection) -> bool:
        """Move what is in the log to the file, so that the next writes have the log's room on a full disk
        (https://www.sqlite.org/pragma.html#pragma_wal_checkpoint). True: it was tried.
        """
        import sqlite3

        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        return True

    def _translated(self, error: Exception) -> Exception:
        import sqlite3

        if is_damage(error):
            return self._unavailable(f"a newly created store can't be read either: {error}")
        if is_locked(error):
            return self._locked()
        name = getattr(error, "sqlite_errorname", "")
        if isinstance(error, sqlite3.OperationalError) or code_of(error) == NOMEM:
            return self._unavailable(f"{error} ({name})")
        return error
