"""Adoption of what is alive after a lost store, and freeing of what nobody uses any more.

It decides by what is passed in, and frees only after two checks apart in time. It must not query the
kernel itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam import reservations
from ipam.store import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.model import Attachment, Reservation
    from ipam.store.transaction import Transaction

GRACE = 60.0
"""Seconds between two checks, both of which have to find nothing."""

_MARK = """
    UPDATE address SET missing_since = ? WHERE container_id = ? AND ifname = ? AND missing_since IS NULL
"""
_UNMARK = """
    UPDATE address SET missing_since = NULL
    WHERE container_id = ? AND ifname = ? AND missing_since IS NOT NULL
"""


def adopt(tx: Transaction, alive: Iterable[Reservation]) -> tuple[Reservation, ...]:
    """Write what is alive and mark the store as complete; returns those that contradict it."""
    conflicting: list[Reservation] = []
    written = 0
    for reservation in alive:
        row = records.row_of(tx, reservation.ip)
        family = reservation.ip.version
        held = [each for each in records.held_by(tx, reservation.attachment) if each["family"] == family]
        if held:
            if row is None or row["id"] != held[0]["id"]:
                conflicting.append(reservation)
        elif row is not None and row["container_id"] is not None:
            conflicting.append(reservation)
        else:
            reservations.write_again(tx, reservation)
            written += 1
    tx.count("adopted", written)
    if not tx.adopted:
        tx.change_one("UPDATE node SET adopted = 1")
    return tuple(conflicting)


def note_missing(tx: Transaction, missing: Iterable[Attachment], grace: float) -> tuple[Reservation, ...]:
    """Mark those that are not marked; returns those that were marked ``grace`` seconds ago or earlier."""
    free: list[Reservation] = []
    for attachment in missing:
        rows = records.held_by(tx, attachment)
        if any(row["missing_since"] is None for row in rows):
            tx.change(_MARK, tx.now, attachment.container_id, attachment.ifname)
        elif all(tx.now - row["missing_since"] >= grace for row in rows):
            free.extend(records.reservation_from(row, tx.generation) for row in rows)
    return tuple(free)


def note_present(tx: Transaction, present: Iterable[Attachment]) -> None:
    """Clear the marks."""
    tx.change_each(_UNMARK, ((a.container_id, a.ifname) for a in present))


def release_dead(tx: Transaction, dead: Reservation) -> bool:
    """Release what the attachment of ``dead`` holds; False when that is something else by now."""
    freed = reservations.release(tx, dead.attachment, dead)
    tx.count("reclaimed", len(freed))
    return bool(freed)
