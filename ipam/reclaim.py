"""What lives and what does not: adoption after a lost store, and freeing what nobody uses any more.

It decides by what it is told and by two looks apart in time, never by one. It must not look at the
kernel itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.store import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.model import Attachment, Reservation
    from ipam.store.transaction import Row, Transaction

GRACE = 60.0
"""Seconds between two looks that both have to find nothing."""

_MARK = """
    UPDATE address SET missing_since = ? WHERE container_id = ? AND ifname = ? AND missing_since IS NULL
"""
_UNMARK = """
    UPDATE address SET missing_since = NULL
    WHERE container_id = ? AND ifname = ? AND missing_since IS NOT NULL
"""


def adopt(tx: Transaction, alive: Iterable[Reservation]) -> tuple[Reservation, ...]:
    """Write what is alive and mark the store as complete; those that contradict it."""
    conflicting: list[Reservation] = []
    for reservation in alive:
        held = records.reservation_of(tx, reservation.attachment)
        row = records.row_of(tx, reservation.ip)
        if held is not None:
            if row is None or row["id"] != held["id"]:
                conflicting.append(reservation)
        elif row is not None and row["container_id"] is not None:
            conflicting.append(reservation)
        else:
            write_again(tx, reservation, row)
    if not tx.adopted:
        tx.change_one("UPDATE node SET adopted = 1")
    return tuple(conflicting)


def write_again(tx: Transaction, reservation: Reservation, row: Row | None) -> Row:
    """Write a reservation that an earlier store had; ``row`` is the address's, which nobody holds.

    What the source lists of the address (prefix, gateway, NIC) is kept; an address that no source has
    listed yet is written as the reservation says it.
    """
    key = records.insert_adopted(tx, reservation) if row is None else row["id"]
    return records.hold(
        tx,
        key,
        reservation.attachment,
        reservation.owner,
        created_at=reservation.created_at,
        confirmed=True,
    )


def note_missing(tx: Transaction, missing: Iterable[Attachment], grace: float) -> tuple[Reservation, ...]:
    """Mark those that are not marked; those that were marked ``grace`` seconds ago or earlier."""
    free: list[Reservation] = []
    for attachment in missing:
        row = records.reservation_of(tx, attachment)
        if row is None:
            continue
        if row["missing_since"] is None:
            tx.change(_MARK, tx.now, attachment.container_id, attachment.ifname)
        elif tx.now - row["missing_since"] >= grace:
            free.append(records.reservation_from(row, tx.generation))
    return tuple(free)


def note_present(tx: Transaction, present: Iterable[Attachment]) -> None:
    """Take the marks away."""
    tx.change_each(_UNMARK, ((a.container_id, a.ifname) for a in present))


def sweep(
    tx: Transaction, missing: Iterable[Attachment], present: Iterable[Attachment], grace: float
) -> tuple[Reservation, ...]:
    """Mark, unmark and release within one transaction, so that no new holder can be hit."""
    note_present(tx, present)
    freed = note_missing(tx, missing, grace)
    for reservation in freed:
        row = records.reservation_of(tx, reservation.attachment)
        if row is not None:
            records.let_go(tx, row, tx.now)
    tx.count("reclaimed", len(freed))
    return freed
