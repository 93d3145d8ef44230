"""What is done about an error of SQLite depends on what it means."""

from __future__ import annotations

import sqlite3

import pytest

from ipam.store import sqlite_codes
from ipam.store.transaction import StoreDamaged

MEANINGS = {
    "damage": sqlite_codes.is_damage,
    "locked": sqlite_codes.is_locked,
    "full": sqlite_codes.is_full,
    "passing": sqlite_codes.is_passing,
}


def error(code: int, words: str = "") -> sqlite3.Error:
    made = sqlite3.OperationalError(words)
    made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("code", "means"),
    [
        (sqlite3.SQLITE_CORRUPT, {"damage"}),
        (sqlite3.SQLITE_CORRUPT_INDEX, {"damage"}),
        (sqlite3.SQLITE_NOTADB, {"damage"}),
        (sqlite3.SQLITE_FORMAT, {"damage"}),
        (sqlite3.SQLITE_IOERR_SHORT_READ, {"damage", "passing"}),
        (sqlite3.SQLITE_BUSY, {"locked"}),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, {"locked"}),
        (sqlite3.SQLITE_LOCKED, {"locked"}),
        (sqlite3.SQLITE_PROTOCOL, {"locked"}),
        (sqlite3.SQLITE_FULL, {"full"}),
        (sqlite3.SQLITE_IOERR, {"passing"}),
        (sqlite3.SQLITE_IOERR_READ, {"passing"}),
        (sqlite3.SQLITE_CANTOPEN, {"passing"}),
        (sqlite3.SQLITE_READONLY, {"passing"}),
        (sqlite3.SQLITE_NOMEM, set()),
        (sqlite3.SQLITE_ERROR, set()),
    ],
)
def test_a_code_means(code: int, means: set[str]) -> None:
    assert {name for name, is_so in MEANINGS.items() if is_so(error(code))} == means


@pytest.mark.parametrize(
    "found",
    [
        StoreDamaged("x"),
        error(sqlite3.SQLITE_ERROR, "no such table: address"),
        error(0, "Could not decode to UTF-8"),
    ],
)
def test_what_a_store_never_holds_or_always_has_is_damage(found: Exception) -> None:
    assert [name for name, is_so in MEANINGS.items() if is_so(found)] == ["damage"]


def test_an_error_of_something_else_means_nothing() -> None:
    assert sqlite_codes.code_of(ValueError("x")) == 0
    assert not any(is_so(ValueError("x")) for is_so in MEANINGS.values())
