"""Reserve, confirm, release, abandon: each as what happens within one transaction.

An attachment holds one address of each family that it asked for; all of them are reserved, confirmed and
released together. It must not know how transactions are made, nor wait for anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam import diagnostics
from ipam.errors import (
    AddressTaken,
    AdoptionNeeded,
    AlreadyReserved,
    IpamError,
    ListingStale,
    PoolExhausted,
    PredecessorsFound,
    ReservationLost,
)
from ipam.model import AddressState, PoolAddress, PoolCounts, Reservation
from ipam.pool import Candidate, Choice, choose, choose_nic, cooling_left
from ipam.store import records, source_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipam.model import AddressRequest, Attachment, IPAddress, Owner
    from ipam.store.records import Scope
    from ipam.store.transaction import Row, Transaction


def exhausted(family: int) -> str:
    """The name of the counter of requests that found no address of a family."""
    return f"exhausted ipv{family}"


def reserve(
    tx: Transaction, attachment: Attachment, owner: Owner, request: AddressRequest
) -> tuple[Reservation, ...] | IpamError:
    """One reservation for each family, or the error as a value: raising it would undo what was counted."""
    if not tx.adopted:
        return AdoptionNeeded(
            "the store is new, and it is not known yet which addresses are in use",
            "The next ADD, or the agent, fills it from the endpoints on the node.",
        )
    if request.looked_at is not None:
        others = _same_pod(tx, attachment, owner)
        unknown = tuple(each for each in others if each.attachment not in request.looked_at)
        if unknown:
            return _predecessors(owner, unknown)
    held = records.held_by(tx, attachment)
    if held:
        return _already_reserved(tuple(records.reservation_from(row, tx.generation) for row in held))
    source = source_records.offering(tx, request.source, request.nic_mac)
    if source is not None and source["use_is_due"]:
        source_records.note_use(tx, request.source)
    try:
        chosen = _choose_all(tx, scope := _scope(tx, source, request), request)
    except IpamError as error:
        if isinstance(error, PoolExhausted):
            tx.count(exhausted(error.family), 1)
        return error
    if any(choice.shortened for choice in chosen):
        tx.count("cooldown_shortened", sum(choice.shortened for choice in chosen))
    return tuple(
        records.hold(
            tx,
            choice.candidate.key,
            Reservation(
                attachment,
                owner,
                choice.candidate.address.address,
                choice.candidate.address.gateway,
                scope.source_name,
                created_at=tx.wall,
                confirmed=False,
                generation=tx.generation,
                nic_mac=choice.candidate.address.nic_mac,
                several_nics=scope.several_nics,
            ),
        )
        for choice in chosen
    )


def would_get(tx: Transaction, request: AddressRequest) -> tuple[PoolAddress, ...] | IpamError:
    """What an attachment would get now, or why not. Does not count as use of the source: probes call it."""
    try:
        source = source_records.offering(tx, request.source, request.nic_mac)
        chosen = _choose_all(tx, _scope(tx, source, request), request)
    except IpamError as error:
        return error
    return tuple(choice.candidate.address for choice in chosen)


def _scope(tx: Transaction, source: Row | None, request: AddressRequest) -> Scope:
    """Which addresses of a source the request may have.

    Raises:
        NoAddressesKnown: the source was not read since the node was started.
        ListingStale: it was, but too long ago for this request.
        SourceEmpty, NicUnclear: see ``pool.choose_nic``.
    """
    if source is None or source["success_at"] is None:
        raise diagnostics.no_addresses_known(tx, request.source)
    if request.max_age is not None and tx.now - source["success_at"] > request.max_age:
        raise ListingStale(f"the listing is old: {diagnostics.source_words(tx, request.source)}")
    nic_mac = request.nic_mac
    if not nic_mac or not source["lists_nic"]:
        nic_mac = choose_nic(source_records.nics(tx, source["id"]), nic_mac, source["name"])
    return records.Scope(source["id"], source["name"], nic_mac, bool(source["several_nics"]))


def _choose_all(tx: Transaction, scope: Scope, request: AddressRequest) -> list[Choice]:
    """An address of each family. Raises as ``_choose`` does."""
    for ip in request.requested:
        if ip.version not in request.families:
            raise diagnostics.unknown_address(tx, ip, request)
    return [_choose(tx, scope, family, request) for family in request.families]


def _choose(tx: Transaction, scope: Scope, family: int, request: AddressRequest) -> Choice:
    """The address of one family.

    Raises:
        AddressUnavailable: the requested one can't be given out.
        PoolExhausted: none can be.
        SourceEmpty: the NIC has none at all.
    """
    wanted = next((ip for ip in request.requested if ip.version == family), None)
    if wanted is not None:
        row = records.requested(tx, scope, wanted)
        why = diagnostics.unavailable(tx, wanted, row, scope, request)
        if row is None or why is not None:
            raise why or diagnostics.unknown_address(tx, wanted, request)
        offered = records.pool_address(row["offered"], row["offered_gateway"], row["offered_mac"])
        shortened = cooling_left(row["released_at"], request.cooldown, tx.now) > 0
        return Choice(Candidate(row["id"], offered, row["released_at"]), shortened)
    choice = choose(records.candidates(tx, scope, family), request, tx.now)
    if choice is None:
        raise diagnostics.nothing_free(tx, scope, family, request)
    return choice


def _same_pod(tx: Transaction, attachment: Attachment, owner: Owner) -> tuple[Reservation, ...]:
    """What the same pod holds on the same interface name under other container ids."""
    if not owner.pod_name:
        return ()
    wanted = (owner.pod_namespace, owner.pod_name, attachment.container_id, attachment.ifname)
    rows = tx.connection.execute(records.BY_POD, wanted).fetchall()
    return tuple([records.reservation_from(row, tx.generation) for row in rows])


def confirm(tx: Transaction, made: Sequence[Reservation]) -> tuple[Reservation, ...]:
    """Mark as confirmed, or write again what was made in a store that is gone: all of it or nothing.

    Raises:
        ReservationLost: it was released meanwhile.
        AddressTaken: that store is gone, and in this one another attachment holds the address.
    """
    return tuple(_confirm_one(tx, each) for each in made)


def _confirm_one(tx: Transaction, reservation: Reservation) -> Reservation:
    if reservation.generation == tx.generation:
        confirmed = records.confirm_exactly(tx, reservation)
        if confirmed is not None:
            return confirmed
    row = _held(tx, reservation)
    if row is not None:
        if not _same(records.reservation_from(row, tx.generation), reservation):
            raise _lost(reservation, "was released, and another one was made for the same attachment")
        row = tx.change_into(records.CONFIRM, row["id"])
    elif reservation.generation == tx.generation:
        raise _lost(reservation, "was released while the pod was being attached (a DEL came in between)")
    else:
        row = records.row_of(tx, reservation.ip)
        if row is not None and row["container_id"] is not None:
            why = "was in a store that is lost, and the address has another holder now"
            raise _lost(reservation, why, AddressTaken)
        return write_again(tx, reservation)
    return records.reservation_from(row, tx.generation)


def _held(tx: Transaction, reservation: Reservation) -> Row | None:
    """What the attachment of ``reservation`` holds of the same family."""
    rows = records.held_by(tx, reservation.attachment)
    return next((row for row in rows if row["family"] == reservation.ip.version), None)


def write_again(tx: Transaction, reservation: Reservation) -> Reservation:
    """Write a reservation that an earlier store had, of an address that nobody holds.

    What a source lists of the address (prefix, gateway, NIC) is taken from there; an address that no source
    has listed yet is written as the reservation says it.
    """
    key = records.key_of(tx, reservation.ip)
    as_it_was = PoolAddress(reservation.address, reservation.gateway, reservation.nic_mac)
    given, source = records.offered_by_any(tx, key) or (as_it_was, "")
    return records.hold(
        tx,
        key,
        Reservation(
            reservation.attachment,
            reservation.owner,
            given.address,
            given.gateway,
            source,
            reservation.created_at,
            confirmed=True,
            generation=tx.generation,
            nic_mac=given.nic_mac,
        ),
    )


def release(tx: Transaction, attachment: Attachment, expected: Reservation | None) -> tuple[Reservation, ...]:
    """Release everything that ``attachment`` holds; if ``expected`` is given, only if that is part of it."""
    rows = records.held_by(tx, attachment)
    held = tuple(records.reservation_from(row, tx.generation) for row in rows)
    if expected is not None and not any(_same(each, expected) for each in held):
        return ()
    for row in rows:
        records.let_go(tx, row, tx.now)
    return held


def abandon(tx: Transaction, made: Sequence[Reservation]) -> bool:
    """Give back what no pod ever used; the earlier release time stays. All of it or nothing."""
    rows = [row for each in made if (row := _unconfirmed(tx, each)) is not None]
    if not rows or len(rows) != len(made):
        return False
    for row in rows:
        records.let_go(tx, row, row["released_at"])
    return True


def _unconfirmed(tx: Transaction, reservation: Reservation) -> Row | None:
    """The row of exactly this reservation of this store, if it is not confirmed yet."""
    row = _held(tx, reservation)
    if row is None or row["confirmed"] or reservation.generation != tx.generation:
        return None
    return row if _same(records.reservation_from(row, tx.generation), reservation) else None


def quarantine(tx: Transaction, ip: IPAddress, reason: str, seconds: float) -> bool:
    """Keep an address from being given out; whether it is known."""
    changed = tx.change(
        "UPDATE address SET quarantined_until = ?, quarantine_reason = ? WHERE ip = ?",
        tx.now + seconds,
        reason,
        ip.packed,
    )
    tx.count("quarantined", changed)
    return changed == 1


def counts(tx: Transaction, cooldown: float) -> PoolCounts:
    """The pool by state."""
    rows = tx.rows_named(records.COUNTS, now=tx.now, cooldown=cooldown)
    by_state = {row["state"]: row["addresses"] for row in rows}
    return PoolCounts(**{state.value: by_state.get(state.value, 0) for state in AddressState})


def _same(held: Reservation, expected: Reservation) -> bool:
    """Whether a row is the very reservation that somebody was given earlier.

    A row written from the kernel's facts after the store was lost knows no call and has a time of its
    own: then the address decides.
    """
    if held.attachment != expected.attachment or held.ip != expected.ip:
        return False
    if held.generation == expected.generation:
        return held.created_at == expected.created_at and held.owner.call_id == expected.owner.call_id
    return held.owner.call_id in {"", expected.owner.call_id}


def _predecessors(owner: Owner, unknown: tuple[Reservation, ...]) -> PredecessorsFound:
    what = ", ".join(f"{each.ip} for {each.attachment}" for each in unknown)
    return PredecessorsFound(
        f"pod {owner.pod} holds {what}",
        "An earlier sandbox of the pod was not deleted; DEL it.",
        unknown,
    )


def _already_reserved(held: tuple[Reservation, ...]) -> AlreadyReserved:
    attachment = held[0].attachment
    addresses = ", ".join(str(each.ip) for each in held)
    return AlreadyReserved(
        f"container {attachment.container_id}, {attachment.ifname} already holds {addresses}",
        "Run DEL for this attachment before another ADD.",
        held,
    )


def _lost(
    reservation: Reservation, why: str, kind: type[ReservationLost] = ReservationLost
) -> ReservationLost:
    return kind(
        f"the reservation of {reservation.ip} for container {reservation.attachment.container_id} {why}",
        "The runtime retries with a new sandbox.",
    )
