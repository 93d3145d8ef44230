"""A statement that has to change one row, and does not, is a sign of damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from ipam.store.transaction import StoreDamaged, Transaction


@pytest.fixture
def tx() -> Iterator[Transaction]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.executescript(
        "CREATE TABLE pair (name TEXT, value INTEGER);"
        "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER);"
        "INSERT INTO pair VALUES ('one', 1), ('two', 2), ('two', 3);"
    )
    yield Transaction(connection, "g", adopted=True, now=0.0, wall=0.0)
    connection.close()


def values(tx: Transaction) -> list[int]:
    return [row["value"] for row in tx.rows("SELECT value FROM pair ORDER BY rowid")]


def test_one_row_is_changed(tx: Transaction) -> None:
    tx.change_one("UPDATE pair SET value = 7 WHERE name = ?", "one")
    assert values(tx) == [7, 2, 3]
    row = tx.change_into("UPDATE pair SET value = 8 WHERE name = ? RETURNING *", "one")
    assert (row["name"], row["value"]) == ("one", 8)


@pytest.mark.parametrize(("name", "number"), [("none", 0), ("two", 2)])
def test_none_or_several_are_damage(tx: Transaction, name: str, number: int) -> None:
    with pytest.raises(StoreDamaged, match=f"changed {number}$"):
        tx.change_one("UPDATE pair SET value = 7 WHERE name = ?", name)
    with pytest.raises(StoreDamaged, match=f"changed {number}$"):
        tx.change_into("UPDATE pair SET value = 7 WHERE name = ? RETURNING *", name)


def test_nothing_is_counted_before_it_happens(tx: Transaction) -> None:
    for by in (0, 2, 1):
        tx.count("events", by)
    tx.count("another")
    tx.count("never", 0)
    assert {row["name"]: row["value"] for row in tx.rows("SELECT * FROM counter")} == {
        "events": 3,
        "another": 1,
    }
