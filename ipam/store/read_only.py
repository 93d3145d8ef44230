"""The store opened read-only: nothing is created, repaired, moved aside or waited for.

For ``azvnet status`` run by hand, whatever state the node is in, and for metrics, which must not delay a
call. It must not write below the state directory; a test mounts it read-only.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from ipam.errors import StoreMissing, StoreUnavailable
from ipam.store import schema
from ipam.store.connections import migrate, open_database, version_of
from ipam.store.files import StoreFiles
from ipam.store.identity import is_ours
from ipam.store.sqlite_codes import CANTOPEN, code_of, is_damage
from ipam.store.transaction import StoreDamaged, Transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from ipam.store.identity import NodeIdentity

T = TypeVar("T")

_ATTEMPTS = 5
"""Attempts before a store counts as missing or damaged."""
_PATIENCE = 2.0
"""Seconds in which a read is retried because another process opened or closed the store meanwhile."""
_PAUSE = 0.01
_BUSY_SECONDS = 1.0
_LIVE = "mode=ro&readonly_shm=1"
"""Beside a log and its index: both are read, neither is written. Where nobody has the store open any more,
SQLite works the index out in memory (https://www.sqlite.org/wal.html, "Read-Only Databases")."""
_AT_REST = "immutable=1"
"""Without a log: everything is in the file, and SQLite would make a log just to look at it."""

_NODE = "SELECT generation, boot_id, machine_id, adopted FROM node"

_State = tuple[int, int, int, int] | None


class _Changed(Exception):
    """The file was replaced while it was read."""


class ReadOnlyStore:
    """Reads one node's store, with a connection of its own for each read."""

    def __init__(
        self,
        directory: Path,
        *,
        identity: NodeIdentity,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._files = StoreFiles(directory)
        self._identity = identity
        self._clock = clock
        self._wall_clock = wall_clock
        self._checked: _State = None

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` on one consistent state.

        A store of another boot, or of an older version, is shown as the next call would see it.

        Raises:
            StoreMissing: there is none.
            StoreUnavailable: it is damaged, of a newer version, or can't be read.
        """
        import sqlite3

        until = time.monotonic() + _PATIENCE
        attempts = 0
        while True:
            before = self._state()
            try:
                return self._look(work, before)
            except (_Changed, StoreDamaged, sqlite3.Error, OSError) as error:
                # A file that can't be opened was removed after it was found.
                attempts += not (isinstance(error, _Changed) or code_of(error) == CANTOPEN)
                if attempts >= _ATTEMPTS or time.monotonic() >= until:
                    raise self._unavailable(error) from error
            # Processes open and close the store all the time, and the last one takes log and index away.
            time.sleep(_PAUSE)

    def write(self, _: Callable[[Transaction], T]) -> T:
        """Refused."""
        raise StoreUnavailable("the store is open read-only", "This is a defect of azvnet.")

    def close(self) -> None:
        """Nothing stays open between two reads."""

    def _look(self, work: Callable[[Transaction], T], before: _State) -> T:
        at_rest = self._at_rest()
        connection = self._open(_AT_REST if at_rest else _LIVE)
        try:
            self._check(connection, before)
            connection.execute("BEGIN")
            if version_of(connection) < len(schema.MIGRATIONS):
                connection = _copied(connection)
                migrate(connection)
            node = connection.execute(_NODE).fetchone()
            if node is None:
                message = "the row of the node is missing"
                raise StoreDamaged(message)
            stored = (node["boot_id"], node["machine_id"])
            same_boot = is_ours(stored, self._identity.boot_id(), self._identity.machine_id())
            if not same_boot:
                connection = _copied(connection)
                for statement in schema.FORGET_HOLDERS:
                    connection.execute(statement)
            outcome = work(
                Transaction(
                    connection,
                    node["generation"],
                    same_boot and bool(node["adopted"]),
                    self._clock(),
                    self._wall_clock(),
                    same_boot=same_boot,
                )
            )
        finally:
            connection.close()
        after = self._state()
        if before is None or after is None or after[:2] != before[:2]:
            raise _Changed
        if at_rest and (after != before or not self._at_rest()):
            raise _Changed
        return outcome

    def _check(self, connection: sqlite3.Connection, state: _State) -> None:
        """Whether it is a store that can be read; its pages once for each state of the file."""
        if self._checked == state:
            return
        version = version_of(connection)
        if version > len(schema.MIGRATIONS):
            raise StoreUnavailable(
                f"{self._files.database} was written by a newer azvnet (store version {version})",
                f"Use that version; this one supports store version {len(schema.MIGRATIONS)}.",
            )
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        if problems != ["ok"]:
            raise StoreDamaged("; ".join(problems))
        self._checked = state

    def _open(self, how: str) -> sqlite3.Connection:
        flaw = self._files.flaw()
        if flaw:
            raise StoreDamaged(flaw)
        return open_database(self._files.database, how, _BUSY_SECONDS)

    def _at_rest(self) -> bool:
        """Whether everything is in the file: no log, or an empty one that is not in use."""
        try:
            logged = self._files.log.stat().st_size
        except FileNotFoundError:
            return True
        if self._files.index.exists():
            return False
        if logged:
            message = "its -shm was removed, and its -wal is not empty"
            raise StoreDamaged(message)
        return True

    def _state(self) -> _State:
        try:
            found = self._files.database.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        """Why there is nothing to be read, and what to do about it."""
        path = self._files.database
        if isinstance(error, FileNotFoundError):
            return StoreMissing(f"there is no store {path}", "The first call, or the agent, creates it.")
        if isinstance(error, _Changed):
            what, remedy = "is replaced again and again", "Try again."
        elif isinstance(error, OSError):
            what, remedy = f"can't be read: {error.strerror}", "Run it as root."
        elif is_damage(error):
            what = f"is damaged: {error}"
            remedy = "The next call, or the agent, moves it aside and rebuilds it from what is alive."
        else:
            what, remedy = (
                f"can't be read: {error}",
                "Look at the kernel's log for errors of the file system.",
            )
        return StoreUnavailable(f"the store {path} {what}", remedy)


def _copied(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A copy in memory, to become what the next call would find; closes the original."""
    import sqlite3

    copy = sqlite3.connect(":memory:", isolation_level=None)
    copy.row_factory = sqlite3.Row
    with closing(connection):
        connection.rollback()
        connection.backup(copy)
    return copy
