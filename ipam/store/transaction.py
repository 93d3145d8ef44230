"""One transaction on the store, as the code that reads and writes rows sees it.

It must not know how the store is opened, repaired or locked, nor load ``sqlite3``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipam.value import Value

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    Row = sqlite3.Row
    """A row whose columns are found by name."""


class StoreDamaged(Exception):
    """The file is not a store, or holds what a store never holds. Handled inside the package: the file is
    moved aside and a new store made.
    """


class Transaction(Value):
    """An open transaction and the facts that were read when it began."""

    connection: sqlite3.Connection
    generation: str
    """Random id of this store file."""
    adopted: bool
    """``adopt`` was called: the store knows what is alive."""
    now: float
    """CLOCK_BOOTTIME, seconds, read after the lock was won."""
    wall: float
    """Seconds since the epoch, for people."""
    same_boot: bool = True
    """The store was written since the node was started; only a read-only store can find otherwise."""

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first row, or None."""
        row: Row | None = self.connection.execute(sql, parameters).fetchone()
        return row

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        """All rows."""
        return self.connection.execute(sql, parameters).fetchall()

    def rows_named(self, sql: str, **parameters: Any) -> list[Row]:
        """All rows of a statement whose parameters have names."""
        return self.connection.execute(sql, parameters).fetchall()

    def change(self, sql: str, *parameters: Any) -> int:
        """Run a statement that writes; how many rows it changed."""
        return self.connection.execute(sql, parameters).rowcount

    def change_named(self, sql: str, **parameters: Any) -> int:
        """Run a statement that writes, whose parameters have names; how many rows it changed."""
        return self.connection.execute(sql, parameters).rowcount

    def change_each(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Run a statement that writes once for each set of parameters."""
        self.connection.executemany(sql, parameters)

    def change_one(self, sql: str, *parameters: Any) -> None:
        """Run a statement that has to write exactly one row.

        Raises:
            StoreDamaged: it did not, so index and table disagree.
        """
        changed = self.change(sql, *parameters)
        if changed != 1:
            message = f"a statement that changes one row changed {changed}"
            raise StoreDamaged(message)

    def change_into(self, sql: str, *parameters: Any) -> Row:
        """Run a statement that writes exactly one row and returns it as it is then.

        Raises:
            StoreDamaged: it wrote none, so index and table disagree.
        """
        written: list[Row] = self.connection.execute(sql, parameters).fetchall()
        if len(written) != 1:
            message = f"a statement that changes one row changed {len(written)}"
            raise StoreDamaged(message)
        return written[0]

    def count(self, counter: str, by: int = 1) -> None:
        """Add to a counter that survives the process."""
        if by:
            self.change(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
                counter,
                by,
                by,
            )
