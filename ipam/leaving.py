"""Addresses that are being removed from the NIC: marked, so that no ADD gets one in the meantime.

Each function is what happens within one transaction; ``directory`` has the file that outlives the store.
It must not know how an address is removed from a NIC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam import leaving_file
from ipam.store import records

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ipam.model import IPAddress
    from ipam.store.transaction import Transaction

_MARK = """
    UPDATE address SET leaving_since = ?
    WHERE ip = ? AND container_id IS NULL AND coalesce(released_at, -1e9) <= ?
"""
_GONE = "UPDATE address SET leaving_since = ? WHERE ip = ?"
_UNMARK = "UPDATE address SET leaving_since = NULL WHERE ip = ?"
_MARKED = "SELECT ip FROM address WHERE leaving_since IS NOT NULL"

Group = tuple["IPAddress", ...]


def mark(tx: Transaction, directory: Path, groups: Iterable[Group], cooldown: float) -> tuple[Group, ...]:
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
            _unmark(tx, group)
    _keep(tx, directory)
    return tuple(marked)


def mark_gone(tx: Transaction, directory: Path, ips: Iterable[IPAddress]) -> None:
    """Mark these whoever holds them: no pod after that one is given them."""
    for ip in ips:
        records.key_of(tx, ip)
        tx.change(_GONE, tx.now, ip.packed)
    _keep(tx, directory)


def mark_again(tx: Transaction, directory: Path) -> None:
    """Mark in a new store what the one before it had marked."""
    mark_gone(tx, directory, leaving_file.kept_in(directory))


def unmark(tx: Transaction, directory: Path, ips: Iterable[IPAddress]) -> None:
    """Let these be given out again, if their source lists them."""
    _unmark(tx, ips)
    _keep(tx, directory)


def _unmark(tx: Transaction, ips: Iterable[IPAddress]) -> None:
    tx.change_each(_UNMARK, ((ip.packed,) for ip in ips))


def _keep(tx: Transaction, directory: Path) -> None:
    """Write the file before the transaction ends: it never lacks what the store has."""
    if tx.adopted:  # otherwise the store still has to be given what the file has
        leaving_file.keep_in(directory, marked_addresses(tx))


def marked_addresses(tx: Transaction) -> frozenset[IPAddress]:
    """Everything that is marked."""
    return frozenset(records.unpacked(row["ip"]) for row in tx.rows(_MARKED))
