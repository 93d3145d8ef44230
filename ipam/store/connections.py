"""Connecting to a database, and bringing it to the current format.

It must not know which file it is, nor what is done about one that can't be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.store import schema
from ipam.store.transaction import StoreDamaged

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


def open_database(path: Path, how: str, busy_timeout: float) -> sqlite3.Connection:
    """Connect to a database that exists, for use by any thread; ``how``: parameters of its URI."""
    import sqlite3

    uri = f"{path.absolute().as_uri()}?{how}"
    connection = sqlite3.connect(
        uri, timeout=busy_timeout, isolation_level=None, check_same_thread=False, uri=True
    )
    connection.row_factory = sqlite3.Row
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """The version of a store's format. Raises StoreDamaged: it is a database of another program."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        message = "is a database of another program"
        raise StoreDamaged(message)
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a store of an older version up to date, within the transaction that is open."""
    version = version_of(connection)
    if version < len(schema.MIGRATIONS):
        for statement in schema.MIGRATIONS[version]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")
