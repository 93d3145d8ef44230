"""Rows of the store as values, and the statements that read and change them.

Every function takes an open ``Transaction``. It must not know how transactions are made, nor decide
anything: what to choose is ``pool``'s, when to do what is ``allocator``'s.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import TYPE_CHECKING

from ipam.model import AddressState, AddressStatus, Attachment, Holder, Owner, PoolAddress, Reservation
from ipam.pool import READS_UNTIL_GONE, Candidate, Known, cooling_left, is_of, state_of
from ipam.store.transaction import StoreDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ipam.model import AddressRequest, IPAddress, Listing
    from ipam.pool import Changes
    from ipam.store.transaction import Row, Transaction

CANDIDATES = """
    SELECT id, ip, released_at, nic_mac FROM address
    WHERE family = ? AND container_id IS NULL AND listed = 1 AND quarantined_until IS NULL
    ORDER BY family, released_at, ip
"""
BY_ATTACHMENT = "SELECT * FROM address WHERE container_id = ? AND ifname = ?"
BY_IP = "SELECT * FROM address WHERE ip = ?"
BY_POD = """
    SELECT * FROM address
    WHERE pod_namespace = ? AND pod_name = ? AND container_id IS NOT NULL AND container_id != ? AND ifname = ?
"""
HOLD = """
    UPDATE address SET container_id = ?, ifname = ?, network = ?, holder = ?, pod_namespace = ?,
        pod_name = ?, pod_uid = ?, netns = ?, netns_id = ?, host_ifname = ?, call_id = ?,
        created_wall = ?, confirmed = ?
    WHERE id = ? AND container_id IS NULL
    RETURNING *
"""
CONFIRM_EXACTLY = """
    UPDATE address SET confirmed = 1, missing_since = NULL
    WHERE container_id = ? AND ifname = ? AND ip = ? AND created_wall = ? AND call_id = ?
"""
CONFIRM = "UPDATE address SET confirmed = 1, missing_since = NULL WHERE id = ? RETURNING *"
LET_GO = """
    UPDATE address SET container_id = NULL, ifname = NULL, network = NULL, holder = NULL,
        pod_namespace = NULL, pod_name = NULL, pod_uid = NULL, netns = NULL, netns_id = NULL,
        host_ifname = NULL, call_id = NULL, created_wall = NULL, confirmed = NULL, missing_since = NULL,
        released_at = ?
    WHERE id = ?
"""
POOL = """
    SELECT address, gateway, nic_mac, source, listed, misses, container_id IS NOT NULL AS held FROM address
"""
LIST = """
    INSERT INTO address (ip, family, address, gateway, nic_mac, source, listed)
    VALUES (?, ?, ?, ?, ?, ?, 1)
    ON CONFLICT (ip) DO UPDATE SET listed = 1, misses = 0
"""
DESCRIBE = """
    UPDATE address SET address = ?, gateway = ?, nic_mac = ?, source = ?
    WHERE ip = ? AND (container_id IS NULL OR source = '')
"""
MISS = "UPDATE address SET listed = 0, misses = misses + 1 WHERE ip = ?"
FORGET_STRANGERS = """
    DELETE FROM address WHERE listed = 0 AND source = '' AND holder = 'delegated' AND misses >= ?
"""
REMOVE = "DELETE FROM address WHERE ip = ? AND container_id IS NULL"
COUNTS = """
    SELECT CASE WHEN container_id IS NOT NULL THEN 'assigned'
                WHEN quarantined_until > :now OR NOT listed THEN 'quarantined'
                WHEN released_at > :now - :cooldown AND :cooldown > 0 THEN 'cooling'
                ELSE 'free' END AS state, count(*) AS addresses
    FROM address WHERE family = :family GROUP BY state
"""


def reservation_of(tx: Transaction, attachment: Attachment) -> Row | None:
    """The row that ``attachment`` holds."""
    return tx.one(BY_ATTACHMENT, attachment.container_id, attachment.ifname)


def row_of(tx: Transaction, ip: IPAddress) -> Row | None:
    """The row of one address, held or not."""
    return tx.one(BY_IP, ip.packed)


def candidates(tx: Transaction, family: int) -> Iterator[Candidate]:
    """What could be given out, in the order of choice; read from an index as it is asked for."""
    for row in tx.each(CANDIDATES, family):
        yield Candidate(row["id"], _unpacked(row["ip"]), row["released_at"], row["nic_mac"])


def hold(
    tx: Transaction, key: int, attachment: Attachment, owner: Owner, *, created_at: float, confirmed: bool
) -> Row:
    """Write the holder of a row that has none; the row as it is now."""
    return tx.change_into(
        HOLD,
        attachment.container_id,
        attachment.ifname,
        owner.network,
        owner.holder.value,
        owner.pod_namespace,
        owner.pod_name,
        owner.pod_uid,
        owner.netns,
        owner.netns_id,
        owner.host_ifname,
        owner.call_id,
        created_at,
        int(confirmed),
        key,
    )


def confirm_exactly(tx: Transaction, reservation: Reservation) -> bool:
    """Confirm what is held, if it is that very reservation of this store."""
    attachment, call_id = reservation.attachment, reservation.owner.call_id
    key = (attachment.container_id, attachment.ifname, reservation.ip.packed)
    return tx.change(CONFIRM_EXACTLY, *key, reservation.created_at, call_id) == 1


def confirmed(reservation: Reservation) -> Reservation:
    """The same reservation, confirmed."""
    return Reservation(
        reservation.attachment,
        reservation.owner,
        reservation.address,
        reservation.gateway,
        reservation.source,
        reservation.created_at,
        confirmed=True,
        generation=reservation.generation,
        nic_mac=reservation.nic_mac,
    )


def let_go(tx: Transaction, row: Row, released_at: float | None) -> None:
    """Take the holder out of a row; one that the source lists no more leaves the pool with it."""
    if not row["listed"] and row["misses"] >= READS_UNTIL_GONE:
        tx.change_one("DELETE FROM address WHERE id = ?", row["id"])
    else:
        tx.change_one(LET_GO, released_at, row["id"])


def insert_adopted(tx: Transaction, reservation: Reservation) -> int:
    """Make a row for an address that no source has listed yet but a living endpoint carries; its key."""
    interface = reservation.address
    tx.change_one(
        "INSERT INTO address (ip, family, address, gateway, nic_mac, source, listed)"
        " VALUES (?, ?, ?, ?, ?, '', 0)",
        interface.ip.packed,
        interface.version,
        str(interface),
        str(reservation.gateway),
        reservation.nic_mac,
    )
    row = row_of(tx, interface.ip)
    if row is None:
        message = f"{interface.ip} was written and is not there"
        raise StoreDamaged(message)
    key: int = row["id"]
    return key


def known_addresses(rows: Iterable[Row]) -> dict[IPAddress, Known]:
    """The rows of ``POOL`` as ``pool.merge`` wants them."""
    known: dict[IPAddress, Known] = {}
    for row in rows:
        address = _pool_address(row["address"], row["gateway"], row["nic_mac"])
        known[address.ip] = Known(
            address, bool(row["listed"]), row["misses"], held=bool(row["held"]), adopted=not row["source"]
        )
    return known


def apply(tx: Transaction, changes: Changes, source: str) -> None:
    """Write what a listing changes.

    ``changes`` may have been found a moment ago: an address that got a holder since then is neither
    removed nor described anew.
    """
    listed = (*changes.added, *changes.changed)
    tx.change_each(
        LIST,
        ((a.ip.packed, a.ip.version, str(a.address), str(a.gateway), a.nic_mac, source) for a in listed),
    )
    tx.change_each(
        DESCRIBE,
        ((str(a.address), str(a.gateway), a.nic_mac, source, a.ip.packed) for a in changes.changed),
    )
    tx.change_each(MISS, ((ip.packed,) for ip in (*changes.missed, *changes.removed)))
    tx.change_each(REMOVE, ((ip.packed,) for ip in changes.removed))
    # What was adopted because some namespace carries it, and is none of this NIC's after all.
    tx.change(FORGET_STRANGERS, READS_UNTIL_GONE)


def name_configurations(tx: Transaction, listing: Listing) -> None:
    """Write the names of the IP configurations that a source listed, instead of those it listed before."""
    tx.change("DELETE FROM ip_configuration WHERE source = ?", listing.source)
    named = {ip: name for nic in listing.nics for ip, name in nic.configurations}
    tx.change_each(
        "INSERT INTO ip_configuration (source, ip, name) VALUES (?, ?, ?)",
        ((listing.source, ip.packed, name) for ip, name in named.items()),
    )


def configuration_of(tx: Transaction, ip: IPAddress) -> str:
    """The name of the IP configuration of an address; empty: no source has said it."""
    row = tx.one("SELECT name FROM ip_configuration WHERE ip = ?", ip.packed)
    return "" if row is None else str(row["name"])


def reservation_from(row: Row, generation: str) -> Reservation:
    """A held row as a value.

    Raises:
        StoreDamaged: a column holds what was never written to it.
    """
    known = _pool_address(row["address"], row["gateway"], row["nic_mac"])
    try:
        return Reservation(
            Attachment(row["container_id"], row["ifname"]),
            Owner(
                network=row["network"],
                holder=Holder(row["holder"]),
                pod_namespace=row["pod_namespace"],
                pod_name=row["pod_name"],
                pod_uid=row["pod_uid"],
                netns=row["netns"],
                netns_id=row["netns_id"],
                host_ifname=row["host_ifname"],
                call_id=row["call_id"],
            ),
            known.address,
            known.gateway,
            row["source"],
            row["created_wall"],
            bool(row["confirmed"]),
            generation,
            nic_mac=known.nic_mac,
        )
    except ValueError as error:
        message = f"unreadable row: {error}"
        raise StoreDamaged(message) from error


def status_from(row: Row, generation: str, cooldown: float, now: float) -> AddressStatus:
    """Any row as a value."""
    held = row["container_id"] is not None
    quarantine_left = max(0.0, (row["quarantined_until"] or 0.0) - now)
    state = state_of(
        held=held,
        listed=bool(row["listed"]),
        quarantined=quarantine_left > 0,
        released_at=row["released_at"],
        cooldown=cooldown,
        now=now,
    )
    known = _pool_address(row["address"], row["gateway"], row["nic_mac"])
    return AddressStatus(
        address=known.address,
        gateway=known.gateway,
        nic_mac=known.nic_mac,
        source=row["source"],
        state=state,
        listed=bool(row["listed"]),
        reservation=reservation_from(row, generation) if held else None,
        cooling_left=cooling_left(row["released_at"], cooldown, now) if state is AddressState.COOLING else 0,
        quarantine_left=quarantine_left,
        reason=_quarantine_reason(row, quarantine_left),
    )


def unusable_because(row: Row, request: AddressRequest, now: float) -> str:
    """Why an address that nobody holds can't be given out; empty: it can."""
    if _unpacked(row["ip"]) in request.excluded:
        return "the node itself carries it"
    if not is_of(row["nic_mac"], request):
        return f"it is one of NIC {row['nic_mac']}, not of {request.nic_mac}"
    return _quarantine_reason(row, (row["quarantined_until"] or 0.0) - now)


def _quarantine_reason(row: Row, quarantine_left: float) -> str:
    if quarantine_left > 0:
        return str(row["quarantine_reason"])
    return "" if row["listed"] else "its source does not list it any more"


@lru_cache(maxsize=8192)
def _pool_address(address: str, gateway: str, nic_mac: str) -> PoolAddress:
    # Parsing costs 10 us, and a large pool is read again with every listing.
    try:
        return PoolAddress(ip_interface(address), ip_address(gateway), nic_mac)
    except ValueError as error:
        message = f"unreadable row: {error}"
        raise StoreDamaged(message) from error


def _unpacked(packed: bytes) -> IPAddress:
    if len(packed) == 4:
        return IPv4Address(packed)
    if len(packed) == 16:
        return IPv6Address(packed)
    message = f"an address of {len(packed)} bytes"
    raise StoreDamaged(message)
