"""What an ADD and a DEL ask the store stays flat up to thousands of addresses: indexes, never a scan."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from ipam import leaving, reclaim
from ipam.store import database, records, source_records
from tests.unit.ipam.node import ANY, MAC, Node, attachment, ips, owner, release, reserve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.pool import Candidate

STATEMENTS: dict[str, tuple[str, Any]] = {
    "facts of the node": (database._NODE, ()),
    "candidates": (records.CANDIDATES, (1, 4, MAC)),
    "by attachment": (records.BY_ATTACHMENT, ("c", "eth0")),
    "by address": (records.BY_IP, (b"\x0a\x00\x00\x05",)),
    "by pod": (records.BY_POD, ("ns", "pod", "c", "eth0")),
    "hold": (records.HOLD, (*["x"] * 10, 1.0, 1, *["x"] * 4, None, 1)),
    "requested": (records.REQUESTED, (1, b"\x0a\x00\x00\x05")),
    "offers of an address": (records.OFFERS_OF, (1,)),
    "source": (source_records.BY_KEY, ("auto:x",)),
    "use of a source": (source_records.NOTE_USE, {"now": 1.0, "key": "auto:x", "every": 1.0}),
    "confirm": (records.CONFIRM, (1,)),
    "confirm exactly": (records.CONFIRM_EXACTLY, ("c", "eth0", 4, b"\x0a\x00\x00\x05", 1.0, "id")),
    "let go": (records.LET_GO, (1.0, 1)),
    "mark missing": (reclaim._MARK, (1.0, "c", "eth0")),
    "mark leaving": (leaving._MARK, (1.0, b"\x0a\x00\x00\x05", 1.0)),
    "mark what is gone": (leaving._GONE, (1.0, b"\x0a\x00\x00\x05")),
    "unmark leaving": (leaving._UNMARK, (b"\x0a\x00\x00\x05",)),
    "marked as leaving": (leaving._MARKED, ()),
    "no longer leaving": (source_records.STAY, (1.0,)),
    "offer": (source_records.OFFER, (1, "x", "x", "x", b"\x0a\x00\x00\x05")),
    "miss": (source_records.MISS, (b"\x0a\x00\x00\x05", 1)),
    "withdraw": (source_records.WITHDRAW, (b"\x0a\x00\x00\x05", 1)),
    "missed": (source_records.MISSED, (1,)),
    "adopted": (source_records.DESCRIBE_ADOPTED, {"source": 1}),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The store of a node with 4,000 addresses."""
    node = Node(tmp_path_factory.mktemp("large"))
    node.ready(*range(5, 4005)).close()
    connection = sqlite3.connect(node.run_dir / "azvnet.db")
    yield connection
    connection.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_of_an_add_or_del_scans_or_sorts(large: sqlite3.Connection, name: str) -> None:
    sql, parameters = STATEMENTS[name]
    plan = [row[3] for row in large.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert plan
    for step in plan:
        assert not re.match("SCAN (address|offer|a|o)( |$)", step), plan
        assert "TEMP B-TREE" not in step, plan


def by_release_then_number(candidate: Candidate) -> tuple[bool, float, int]:
    """Never used first, ascending; then by time of release, oldest first."""
    return candidate.released_at is not None, candidate.released_at or 0.0, int(candidate.address.ip)


def test_the_index_gives_the_order_of_choice(node: Node) -> None:
    ipam = node.ready(*range(250, 270))
    for number in (3, 1, 2):
        reserve(ipam, attachment(f"p{number}"), owner(), ANY)
    for number in (2, 3, 1):
        release(ipam, attachment(f"p{number}"))
        node.clock.advance(1)
    found = ipam._store.read(lambda tx: list(records.candidates(tx, records.Scope(1, "imds", MAC), 4)))
    assert found == sorted(found, key=by_release_then_number)
    assert [candidate.address.ip for candidate in found[-3:]] == list(ips(252, 250, 251))
