"""What an ADD and a DEL ask the store stays flat up to thousands of addresses: indexes, never a scan."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from ipam import reclaim
from ipam.pool import order_of_choice
from ipam.store import database, records
from tests.unit.ipam.node import ANY, Node, attachment, ips, owner

if TYPE_CHECKING:
    from collections.abc import Iterator

STATEMENTS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "facts of the node": (database._NODE, ()),
    "candidates": (records.CANDIDATES, (4,)),
    "by attachment": (records.BY_ATTACHMENT, ("c", "eth0")),
    "by address": (records.BY_IP, (b"\x0a\x00\x00\x05",)),
    "by pod": (records.BY_POD, ("ns", "pod", "c", "eth0")),
    "hold": (records.HOLD, (*["x"] * 11, 1.0, 1, 1)),
    "confirm": (records.CONFIRM, (1,)),
    "confirm exactly": (records.CONFIRM_EXACTLY, ("c", "eth0", b"\x0a\x00\x00\x05", 1.0, "id")),
    "let go": (records.LET_GO, (1.0, 1)),
    "mark missing": (reclaim._MARK, (1.0, "c", "eth0")),
    "miss": (records.MISS, (b"\x0a\x00\x00\x05",)),
    "remove": (records.REMOVE, (b"\x0a\x00\x00\x05",)),
    "forget strangers": (records.FORGET_STRANGERS, (2,)),
    "unlisted": ("SELECT 1 FROM address WHERE listed = 0", ()),
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
        assert "SCAN address" not in step, plan
        assert "TEMP B-TREE" not in step, plan


def test_the_index_gives_the_order_of_choice(node: Node) -> None:
    ipam = node.ready(*range(250, 270))
    for number in (3, 1, 2):
        ipam.reserve(attachment(f"p{number}"), owner(), ANY)
    for number in (2, 3, 1):
        ipam.release(attachment(f"p{number}"))
        node.clock.advance(1)
    found = ipam._store.read(lambda tx: list(records.candidates(tx, 4)))
    assert found == sorted(found, key=order_of_choice)
    assert [candidate.ip for candidate in found[-3:]] == list(ips(252, 250, 251))
