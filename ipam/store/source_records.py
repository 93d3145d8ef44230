"""Rows about sources: when each was read, which NICs it listed and which addresses it offers.

Every function takes an open ``Transaction``. It must not know when a source is read (``refresh``).
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from ipam.model import ListedNic, SourceConfig, SourceState
from ipam.pool import Known
from ipam.store.records import pool_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.model import IPAddress, Listing
    from ipam.pool import Changes
    from ipam.store.transaction import Row, Transaction

FORGOTTEN_AFTER = 86400.0
"""Seconds: a source that no network has used for so long leaves the store with what it offered."""
HISTORY_SECONDS = 86400.0
"""How long the release of an address that no source offers any more is remembered: longer than any cooldown
is useful."""
LEAVING_SECONDS = 3600.0
"""How long an address that is being removed from the NIC is kept from pods if its mark is not renewed,
because the process that removes it was stopped or switched off: far longer than any write takes.
"""
USE_NOTED_EVERY = 60.0
"""Seconds between two notes that a source is used: most calls write none."""

BY_KEY = "SELECT * FROM source WHERE key = ?"
OFFERING = """
    SELECT id, name, success_at, coalesce(used_at, -1e9) < ? AS use_is_due,
        EXISTS (SELECT 1 FROM nic WHERE nic.source = source.id AND mac IN (?, '*')) AS lists_nic,
        (SELECT count(*) FROM nic WHERE nic.source = source.id) > 1 AS several_nics
    FROM source WHERE key = ?
"""
OFFERED = "SELECT interface, gateway, nic_mac, misses FROM offer WHERE source = ?"
EXAMPLE = """
    SELECT o.interface, o.gateway, o.nic_mac FROM offer AS o JOIN address AS a ON a.id = o.address
    WHERE o.source = ? AND o.nic_mac = ? AND a.container_id IS NULL LIMIT 1
"""
MISSED = "SELECT 1 FROM offer WHERE source = ? AND misses > 0"
NOTE_USE = "UPDATE source SET used_at = :now WHERE key = :key AND coalesce(used_at, -1e9) < :now - :every"
LIST = "INSERT INTO address (ip, family) VALUES (?, ?) ON CONFLICT DO NOTHING"
OFFER = """
    INSERT INTO offer (address, source, interface, gateway, nic_mac)
    SELECT id, ?, ?, ?, ? FROM address WHERE ip = ?
    ON CONFLICT DO UPDATE SET interface = excluded.interface, gateway = excluded.gateway,
        nic_mac = excluded.nic_mac, misses = 0
"""
MISS = """
    UPDATE offer SET misses = misses + 1
    WHERE address = (SELECT id FROM address WHERE ip = ?) AND source = ?
"""
WITHDRAW = "DELETE FROM offer WHERE address = (SELECT id FROM address WHERE ip = ?) AND source = ?"
DESCRIBE_ADOPTED = """
    UPDATE address SET adopted_at = NULL, (interface, gateway, nic_mac, source) = (
        SELECT o.interface, o.gateway, o.nic_mac, s.name FROM offer AS o JOIN source AS s ON s.id = o.source
        WHERE o.address = address.id AND o.source = :source)
    WHERE adopted_at IS NOT NULL
        AND EXISTS (SELECT 1 FROM offer AS o WHERE o.address = address.id AND o.source = :source)
"""
FORGET_HISTORIES = """
    DELETE FROM address
    WHERE container_id IS NULL AND quarantined_until IS NULL AND leaving_since IS NULL
        AND coalesce(released_at, -1e9) < ?
        AND NOT EXISTS (SELECT 1 FROM offer WHERE offer.address = address.id)
"""
STAY = "UPDATE address SET leaving_since = NULL WHERE leaving_since < ?"
UNUSED = """
    SELECT id FROM source
    WHERE id != :source AND (max(coalesce(used_at, 0), coalesce(attempt_at, 0)) < :now - :age
        OR used_at IS NULL AND EXISTS (SELECT 1 FROM source WHERE used_at IS NOT NULL))
"""
"""Sources that no network uses any more, or that none ever has while some use another: the agent reads one by
default before the first call comes."""


def row_of_source(tx: Transaction, key: str) -> Row | None:
    """The row of one source; None: it was never asked."""
    return tx.one(BY_KEY, key)


def make_row(tx: Transaction, config: SourceConfig) -> None:
    """Create the row of a source unless there is one."""
    tx.change(
        "INSERT INTO source (key, environment, file) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        config.key,
        config.environment,
        config.file,
    )


def offering(tx: Transaction, key: str, nic_mac: str) -> Row | None:
    """What an ADD needs of one source, and whether it lists the NIC; None: it was never asked."""
    row: Row | None = tx.connection.execute(OFFERING, (tx.now - USE_NOTED_EVERY, nic_mac, key)).fetchone()
    return row


def note_use(tx: Transaction, key: str) -> None:
    """Note that a network uses this source."""
    tx.change_named(NOTE_USE, now=tx.now, key=key, every=USE_NOTED_EVERY)


def move_use(tx: Transaction, before: str, config: SourceConfig) -> None:
    """Note that the network which used the source ``before`` uses this one now; by keys."""
    tx.change("UPDATE source SET used_at = NULL WHERE key = ?", before)
    make_row(tx, config)
    note_use(tx, config.key)


def states(tx: Transaction, *, in_use: bool = False) -> tuple[SourceState, ...]:
    """Every source, in the order in which they were first asked; ``in_use``: only those that calls needed."""
    which = "SELECT * FROM source WHERE used_at IS NOT NULL OR NOT ? ORDER BY id"
    return tuple(state_from(row, tx.now) for row in tx.rows(which, in_use))


def state_from(row: Row, now: float) -> SourceState:
    """What is remembered of a source."""
    return SourceState(
        source=row["name"] or row["environment"] if row["attempt_wall"] is not None else row["name"],
        last_attempt_at=row["attempt_wall"],
        last_success_at=row["success_wall"],
        success_age=None if row["success_at"] is None else max(0.0, now - row["success_at"]),
        attempt_age=None if row["attempt_at"] is None else max(0.0, now - row["attempt_at"]),
        error=row["error"],
        listed=row["listed"],
        remedy=row["remedy"],
        failures=row["failures"],
        retry_in=max(0.0, (row["retry_at"] or 0.0) - now),
        config=SourceConfig(environment=row["environment"], file=row["file"]),
    )


def nics(tx: Transaction, source: int) -> tuple[ListedNic, ...]:
    """The NICs of a source's last listing, by MAC."""
    return tuple(
        ListedNic(
            mac=row["mac"],
            primary=None if row["is_primary"] is None else bool(row["is_primary"]),
            own_addresses=tuple(map(ip_address, row["own_addresses"].split())),
            subnets=tuple(map(ip_network, row["subnets"].split())),
            example=_example(tx, source, row["mac"]),
        )
        for row in tx.rows("SELECT * FROM nic WHERE source = ? ORDER BY mac", source)
    )


def _example(tx: Transaction, source: int, mac: str) -> IPAddress | None:
    row = tx.one(EXAMPLE, source, mac)
    return None if row is None else pool_address(row["interface"], row["gateway"], row["nic_mac"]).ip


def known_offers(rows: Iterable[Row]) -> dict[IPAddress, Known]:
    """The rows of ``OFFERED`` as ``pool.merge`` needs them."""
    addresses = ((pool_address(row["interface"], row["gateway"], row["nic_mac"]), row) for row in rows)
    return {address.ip: Known(address, row["misses"]) for address, row in addresses}


def apply(tx: Transaction, source: int, listing: Listing, changes: Changes) -> None:
    """Write what a listing changes. A held address stays as its holder was given it."""
    tx.change_each(LIST, ((a.ip.packed, a.ip.version) for a in changes.listed))
    tx.change_each(
        OFFER, ((source, str(a.address), str(a.gateway), a.nic_mac, a.ip.packed) for a in changes.listed)
    )
    tx.change_each(MISS, ((ip.packed, source) for ip in changes.missed))
    tx.change_each(WITHDRAW, ((ip.packed, source) for ip in changes.removed))
    tx.change("DELETE FROM nic WHERE source = ?", source)
    tx.change_each(
        "INSERT INTO nic VALUES (?, ?, ?, ?, ?)",
        (
            (
                source,
                nic.mac,
                None if nic.primary is None else int(nic.primary),
                " ".join(map(str, nic.own_addresses)),
                " ".join(map(str, nic.subnets)),
            )
            for nic in listing.nics
        ),
    )


def settle(tx: Transaction, source: int) -> None:
    """Follow what was read of ``source``: adopted addresses that it offers get their prefix, and what
    nobody uses or offers any more goes.
    """
    tx.change_named(DESCRIBE_ADOPTED, source=source)
    for row in tx.rows_named(UNUSED, source=source, now=tx.now, age=FORGOTTEN_AFTER):
        tx.change("DELETE FROM offer WHERE source = ?", row["id"])
        tx.change("DELETE FROM nic WHERE source = ?", row["id"])
        tx.change("DELETE FROM source WHERE id = ?", row["id"])
    tx.change(FORGET_HISTORIES, tx.now - HISTORY_SECONDS)
    tx.change(STAY, tx.now - LEAVING_SECONDS)
