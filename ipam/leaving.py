"""Addresses that are being taken from the NIC: marked, so that no ADD can be given one meanwhile.

Each function is what happens within one transaction. It must not know how an address is taken from a NIC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.store import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.model import IPAddress
    from ipam.store.transaction import Transaction

_MARK = """
    UPDATE address SET leaving_since = ?
    WHERE ip = ? AND container_id IS NULL AND coalesce(released_at, -1e9) <= ?
"""
_UNMARK = "UPDATE address SET leaving_since = NULL WHERE ip = ?"
_MARKED = "SELECT ip FROM address WHERE leaving_since IS NOT NULL"

Group = tuple["IPAddress", ...]


def mark(tx: Transaction, groups: Iterable[Group], cooldown: float) -> tuple[Group, ...]:
    """Mark the addresses of each group, or none of it; the groups that are marked now.

    A group in which somebody holds an address, or one has not cooled down, is left alone.
    """
    marked: list[Group] = []
    for group in groups:
        for ip in group:
            records.key_of(tx, ip)  # one that no source lists yet could be listed any moment
        changed = sum(tx.change(_MARK, tx.now, ip.packed, tx.now - cooldown) for ip in group)
        if changed == len(group):
            marked.append(group)
        else:
            unmark(tx, group)
    return tuple(marked)


def unmark(tx: Transaction, ips: Iterable[IPAddress]) -> None:
    """Let these be given out again, if their source lists them."""
    tx.change_each(_UNMARK, ((ip.packed,) for ip in ips))


def marked_addresses(tx: Transaction) -> frozenset[IPAddress]:
    """Everything that is marked."""
    return frozenset(records.unpacked(row["ip"]) for row in tx.rows(_MARKED))
