"""Rows of the store as values, and the statements that read and change addresses.

Every function takes an open ``Transaction``. It must not know how transactions are made, nor decide
anything: what to choose is ``pool``'s, when to do what is ``reservations``'s and ``refresh``'s.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import TYPE_CHECKING

from ipam.mac import ANY_NIC
from ipam.model import AddressState, AddressStatus, Attachment, Holder, Owner, PoolAddress, Reservation
from ipam.pool import Candidate, cooling_left, state_of
from ipam.store.transaction import StoreDamaged
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.model import IPAddress, Listing
    from ipam.store.transaction import Row, Transaction

CANDIDATES = """
    SELECT a.id, a.ip, a.released_at, o.interface, o.gateway, o.nic_mac
    FROM address AS a CROSS JOIN offer AS o ON o.address = a.id AND o.source = ?
    WHERE a.family = ? AND a.container_id IS NULL AND a.quarantined_until IS NULL
        AND a.leaving_since IS NULL AND o.misses = 0 AND o.nic_mac IN (?, '*')
    ORDER BY a.family, a.released_at, a.ip
"""
BY_ATTACHMENT = "SELECT * FROM address WHERE container_id = ? AND ifname = ? ORDER BY family"
BY_IP = "SELECT * FROM address WHERE ip = ?"
BY_POD = """
    SELECT * FROM address
    WHERE pod_namespace = ? AND pod_name = ? AND container_id IS NOT NULL AND container_id != ? AND ifname = ?
"""
REQUESTED = """
    SELECT a.*, o.interface AS offered, o.gateway AS offered_gateway, o.nic_mac AS offered_mac, o.misses
    FROM address AS a LEFT JOIN offer AS o ON o.address = a.id AND o.source = ? WHERE a.ip = ?
"""
OFFERS_OF = "SELECT interface, gateway, nic_mac, source, misses FROM offer WHERE address = ?"
HOLD = """
    UPDATE address SET container_id = ?, ifname = ?, network = ?, holder = ?, pod_namespace = ?,
        pod_name = ?, pod_uid = ?, netns = ?, netns_id = ?, call_id = ?, created_wall = ?,
        confirmed = ?, interface = ?, gateway = ?, nic_mac = ?, source = ?, adopted_at = ?
    WHERE id = ? AND container_id IS NULL
"""
CONFIRM_EXACTLY = """
    UPDATE address SET confirmed = 1, missing_since = NULL
    WHERE container_id = ? AND ifname = ? AND family = ? AND ip = ? AND created_wall = ? AND call_id = ?
"""
CONFIRM = "UPDATE address SET confirmed = 1, missing_since = NULL WHERE id = ? RETURNING *"
LET_GO = """
    UPDATE address SET container_id = NULL, ifname = NULL, network = NULL, holder = NULL,
        pod_namespace = NULL, pod_name = NULL, pod_uid = NULL, netns = NULL, netns_id = NULL,
        call_id = NULL, created_wall = NULL, confirmed = NULL, missing_since = NULL, interface = NULL,
        gateway = NULL, nic_mac = NULL, source = NULL, adopted_at = NULL, released_at = ?
    WHERE id = ?
"""
POOL = """
    SELECT a.*, o.interface AS offered, o.gateway AS offered_gateway, o.nic_mac AS offered_mac, o.misses,
        s.name AS offered_by
    FROM address AS a
        LEFT JOIN offer AS o ON o.address = a.id
            AND o.source = (SELECT source FROM offer WHERE address = a.id ORDER BY misses, source LIMIT 1)
        LEFT JOIN source AS s ON s.id = o.source
    WHERE o.address IS NOT NULL
        OR a.container_id IS NOT NULL AND (a.adopted_at IS NULL OR a.holder != 'delegated')
    ORDER BY a.family, a.ip
"""
"""What is offered or held; an address that is neither has only a history. One that no source offers and that
a pod of another plugin was found to carry is held as well, but is not part of the pool.
"""
COUNTS = """
    SELECT CASE WHEN container_id IS NOT NULL THEN 'assigned'
                WHEN quarantined_until > :now OR misses > 0 OR leaving_since IS NOT NULL THEN 'quarantined'
                WHEN released_at > :now - :cooldown AND :cooldown > 0 THEN 'cooling'
                ELSE 'free' END AS state, count(*) AS addresses
    FROM (
        SELECT *, (SELECT min(misses) FROM offer WHERE offer.address = address.id) AS misses FROM address
    )
    WHERE misses IS NOT NULL OR container_id IS NOT NULL AND (adopted_at IS NULL OR holder != 'delegated')
    GROUP BY state
"""
IN_SCOPE = """
    SELECT a.*, o.misses
    FROM address AS a LEFT JOIN offer AS o
        ON o.address = a.id AND o.source = :source AND o.nic_mac IN (:nic_mac, '*')
    WHERE a.family = :family
        AND (o.address IS NOT NULL OR (a.container_id IS NOT NULL AND a.nic_mac IN (:nic_mac, '*', '')
            AND (a.adopted_at IS NULL OR a.holder != 'delegated')))
"""


class Scope(Value):
    """What a request can be given: the addresses of one NIC, as one source lists them."""

    source: int
    """The row of the source."""
    source_name: str
    nic_mac: str
    several_nics: bool = False
    """Whether the source lists more than that one."""


def held_by(tx: Transaction, attachment: Attachment) -> list[Row]:
    """The rows that ``attachment`` holds, one of each family at most."""
    key = (attachment.container_id, attachment.ifname)
    return tx.connection.execute(BY_ATTACHMENT, key).fetchall()


def row_of(tx: Transaction, ip: IPAddress) -> Row | None:
    """The row of one address, held or not."""
    return tx.one(BY_IP, ip.packed)


def requested(tx: Transaction, scope: Scope, ip: IPAddress) -> Row | None:
    """The row of one address with what the source of ``scope`` says of it."""
    return tx.one(REQUESTED, scope.source, ip.packed)


def candidates(tx: Transaction, scope: Scope, family: int) -> Iterator[Candidate]:
    """What could be given out, in the order of choice; read from an index one by one."""
    for row in tx.connection.execute(CANDIDATES, (scope.source, family, scope.nic_mac)):
        yield Candidate(row["id"], _described(row, "interface", "gateway", "nic_mac"), row["released_at"])


def hold(tx: Transaction, key: int, made: Reservation) -> Reservation:
    """Write the holder of a row that has none, and what it was given; returns ``made``.

    Without a source the address was adopted from the kernel and is in no listing.
    """
    owner = made.owner
    tx.change_one(
        HOLD,
        made.attachment.container_id,
        made.attachment.ifname,
        owner.network,
        owner.holder.value,
        owner.pod_namespace,
        owner.pod_name,
        owner.pod_uid,
        owner.netns,
        owner.netns_id,
        owner.call_id,
        made.created_at,
        int(made.confirmed),
        str(made.address),
        str(made.gateway),
        made.nic_mac,
        made.source,
        None if made.source else tx.now,
        key,
    )
    return made


def confirm_exactly(tx: Transaction, reservation: Reservation) -> Reservation | None:
    """Confirm what is held, and return it; None if it is not that very reservation of this store."""
    attachment, address = reservation.attachment, reservation.address
    key = (attachment.container_id, attachment.ifname, address.version, address.packed)
    by = (reservation.created_at, reservation.owner.call_id)
    if tx.connection.execute(CONFIRM_EXACTLY, (*key, *by)).rowcount != 1:
        return None
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
    """Clear the holder of a row."""
    tx.change_one(LET_GO, released_at, row["id"])


def key_of(tx: Transaction, ip: IPAddress) -> int:
    """The key of the row of ``ip``, which is created if there is none."""
    tx.change("INSERT INTO address (ip, family) VALUES (?, ?) ON CONFLICT DO NOTHING", ip.packed, ip.version)
    row = row_of(tx, ip)
    if row is None:
        message = f"{ip} was written and is not there"
        raise StoreDamaged(message)
    key: int = row["id"]
    return key


def offered_by_any(tx: Transaction, key: int) -> tuple[PoolAddress, str] | None:
    """An address as a source lists it, and that source's name; None where none does."""
    row = min(tx.rows(OFFERS_OF, key), key=lambda row: row["misses"], default=None)
    if row is None:
        return None
    source = tx.one("SELECT name FROM source WHERE id = ?", row["source"])
    name = "" if source is None else source["name"]
    return pool_address(row["interface"], row["gateway"], row["nic_mac"]), name


def name_configurations(tx: Transaction, listing: Listing) -> None:
    """Write the names of the IP configurations that a source listed, instead of those it listed before."""
    tx.change("DELETE FROM ip_configuration WHERE source = ?", listing.source)
    named = {ip: name for nic in listing.nics for ip, name in nic.configurations}
    tx.change_each(
        "INSERT INTO ip_configuration (source, ip, name) VALUES (?, ?, ?)",
        ((listing.source, ip.packed, name) for ip, name in named.items()),
    )


def configuration_of(tx: Transaction, ip: IPAddress) -> str:
    """Name of the IP configuration of an address; empty: no source named it."""
    row = tx.one("SELECT name FROM ip_configuration WHERE ip = ?", ip.packed)
    return "" if row is None else str(row["name"])


def reservation_from(row: Row, generation: str) -> Reservation:
    """A held row as a value.

    Raises:
        StoreDamaged: a column holds what was never written to it.
    """
    given = _described(row, "interface", "gateway", "nic_mac")
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
                call_id=row["call_id"],
            ),
            given.address,
            given.gateway,
            row["source"],
            row["created_wall"],
            bool(row["confirmed"]),
            generation,
            nic_mac=given.nic_mac,
        )
    except ValueError as error:
        message = f"unreadable row: {error}"
        raise StoreDamaged(message) from error


def status_from(row: Row, generation: str, cooldown: float, now: float) -> AddressStatus:
    """A row of ``POOL`` as a value."""
    held = row["container_id"] is not None
    listed = row["misses"] == 0
    quarantine_left = max(0.0, (row["quarantined_until"] or 0.0) - now)
    state = state_of(
        held=held,
        listed=listed,
        quarantined=quarantine_left > 0 or row["leaving_since"] is not None,
        released_at=row["released_at"],
        cooldown=cooldown,
        now=now,
    )
    columns = ("interface", "gateway", "nic_mac") if held else ("offered", "offered_gateway", "offered_mac")
    known = _described(row, *columns)
    return AddressStatus(
        address=known.address,
        gateway=known.gateway,
        nic_mac=known.nic_mac,
        source=row["source"] if held else row["offered_by"],
        state=state,
        listed=listed,
        reservation=reservation_from(row, generation) if held else None,
        cooling_left=cooling_left(row["released_at"], cooldown, now) if state is AddressState.COOLING else 0,
        quarantine_left=quarantine_left,
        reason=unusable_because(row, now),
    )


def unusable_because(row: Row, now: float) -> str:
    """Why an address that is offered can't be given out, its holder aside; empty: it can."""
    if (row["quarantined_until"] or 0.0) > now:
        return str(row["quarantine_reason"])
    if row["leaving_since"] is not None:
        return "it is being removed from the NIC, or is no longer on it"
    return "" if row["misses"] == 0 else "its source does not list it any more"


def _described(row: Row, interface: str, gateway: str, nic_mac: str) -> PoolAddress:
    """What a row says of its own address in these columns.

    Raises:
        StoreDamaged: it says something of another address.
    """
    found = pool_address(row[interface], row[gateway], row[nic_mac])
    if found.address.packed != row["ip"]:
        message = f"a row of another address than {found.ip}"
        raise StoreDamaged(message)
    return found


def is_of(nic_mac: str, scope: Scope) -> bool:
    """Whether an address of this NIC is in scope."""
    return nic_mac in {scope.nic_mac, ANY_NIC}


@lru_cache(maxsize=8192)
def pool_address(interface: str, gateway: str, nic_mac: str) -> PoolAddress:
    """An address as the store has it, as a value.

    Raises:
        StoreDamaged: it never was one.
    """
    # Parsing costs 10 us, and a large pool is read again with every listing.
    try:
        return PoolAddress(ip_interface(interface), ip_address(gateway), nic_mac)
    except ValueError as error:
        message = f"unreadable row: {error}"
        raise StoreDamaged(message) from error


def unpacked(packed: bytes) -> IPAddress:
    """An address of which the store has the bytes.

    Raises:
        StoreDamaged: it never was one.
    """
    if len(packed) == 4:
        return IPv4Address(packed)
    if len(packed) == 16:
        return IPv6Address(packed)
    message = f"an address of {len(packed)} bytes"
    raise StoreDamaged(message)
