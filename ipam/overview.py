"""The pool, its counters and its sources in one snapshot.

It must not know who uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam import reservations
from ipam.model import Overview
from ipam.store import source_records

if TYPE_CHECKING:
    from ipam.store.transaction import Transaction

COUNTERS = (
    *map(reservations.exhausted, (4, 6)),
    "cooldown_shortened",
    "quarantined",
    "reclaimed",
    "adopted",
)
"""What ``Overview.counters`` counts since the store was created, besides ``source_reads KEY`` and
``source_errors KEY`` of each source."""


def _counters(tx: Transaction) -> dict[str, int]:
    rows = tx.rows("SELECT name, value FROM counter")
    found = dict.fromkeys(COUNTERS, 0) | {row["name"]: row["value"] for row in rows}
    # A store from before families were counted separately: almost every pod had asked for IPv4.
    found[reservations.exhausted(4)] += found.pop("exhausted", 0)
    return found


def overview(tx: Transaction, cooldown: float) -> Overview:
    """Everything within one transaction."""
    (addresses,) = tx.rows(
        "SELECT count(*) AS known FROM address"
        " WHERE container_id IS NOT NULL OR id IN (SELECT address FROM offer)"
    )
    return Overview(
        counts=reservations.counts(tx, cooldown),
        known=addresses["known"],
        counters=_counters(tx),
        sources=source_records.states(tx),
        adopted=tx.adopted,
        same_boot=tx.same_boot,
    )
