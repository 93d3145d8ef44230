"""Reserve, confirm, release, abandon: each as what happens within one transaction.

It must not know how transactions are made, nor wait for anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam import diagnostics, reclaim
from ipam.errors import (
    AddressTaken,
    AdoptionNeeded,
    AlreadyReserved,
    IpamError,
    PoolExhausted,
    PredecessorsFound,
    ReservationLost,
)
from ipam.model import AddressState, PoolCounts
from ipam.pool import choose, cooling_left
from ipam.store import records

if TYPE_CHECKING:
    from ipam.model import AddressRequest, Attachment, IPAddress, Owner, Reservation
    from ipam.store.transaction import Transaction


def reserve(
    tx: Transaction, attachment: Attachment, owner: Owner, request: AddressRequest
) -> Reservation | IpamError:
    """A reservation, or the error as a value: what was counted with it has to be kept."""
    if not tx.adopted:
        return AdoptionNeeded(
            "the store is new and does not know yet which addresses are in use",
            "The next ADD or the agent looks at the node's endpoints and fills it.",
        )
    if request.looked_at is not None:
        others = _same_pod(tx, attachment, owner)
        unknown = tuple(each for each in others if each.attachment not in request.looked_at)
        if unknown:
            return _predecessors(owner, unknown)
    held = records.reservation_of(tx, attachment)
    if held is not None:
        return _already_reserved(records.reservation_from(held, tx.generation))
    if request.requested is not None:
        row = records.row_of(tx, request.requested)
        if row is None or row["container_id"] is not None or records.unusable_because(row, request, tx.now):
            return diagnostics.address_unavailable(tx, request, row)
        key, shortened = row["id"], cooling_left(row["released_at"], request.cooldown, tx.now) > 0
    else:
        choice = choose(records.candidates(tx, 4), request, tx.now)
        if choice is None:
            return _nothing_to_give(tx, request)
        key, shortened = choice.candidate.key, choice.shortened
    tx.count("cooldown_shortened", int(shortened))
    held = records.hold(tx, key, attachment, owner, created_at=tx.wall, confirmed=False)
    return records.reservation_from(held, tx.generation)


def _same_pod(tx: Transaction, attachment: Attachment, owner: Owner) -> tuple[Reservation, ...]:
    """What the same pod holds on the same interface name under other container ids."""
    if not owner.pod_name:
        return ()
    wanted = (owner.pod_namespace, owner.pod_name, attachment.container_id, attachment.ifname)
    return tuple(records.reservation_from(row, tx.generation) for row in tx.rows(records.BY_POD, *wanted))


def confirm(tx: Transaction, reservation: Reservation) -> Reservation:
    """Mark as confirmed, or write again what was made in a store that is gone.

    Raises:
        ReservationLost: it was released meanwhile.
        AddressTaken: that store is gone, and in this one another attachment holds the address.
    """
    if reservation.generation == tx.generation and records.confirm_exactly(tx, reservation):
        return records.confirmed(reservation)
    row = records.reservation_of(tx, reservation.attachment)
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
        row = reclaim.write_again(tx, reservation, row)
    return records.reservation_from(row, tx.generation)


def release(tx: Transaction, attachment: Attachment, expected: Reservation | None) -> Reservation | None:
    """Let go what ``attachment`` holds; if ``expected`` is given, only if it is that."""
    row = records.reservation_of(tx, attachment)
    if row is None:
        return None
    held = records.reservation_from(row, tx.generation)
    if expected is not None and not _same(held, expected):
        return None
    records.let_go(tx, row, tx.now)
    return held


def abandon(tx: Transaction, reservation: Reservation) -> bool:
    """Give back what no pod ever had; the time of the release before stays."""
    row = records.reservation_of(tx, reservation.attachment)
    if row is None or row["confirmed"] or reservation.generation != tx.generation:
        return False
    if not _same(records.reservation_from(row, tx.generation), reservation):
        return False
    records.let_go(tx, row, row["released_at"])
    return True


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
        f"pod {owner.pod_namespace}/{owner.pod_name} holds {what}",
        "An earlier sandbox of the pod was not deleted; DEL it.",
        unknown,
    )


def _already_reserved(held: Reservation) -> AlreadyReserved:
    attachment = held.attachment
    return AlreadyReserved(
        f"container {attachment.container_id}, {attachment.ifname} holds {held.ip} already",
        "Run DEL for this attachment before it is added again.",
        held,
    )


def nothing_to_give(tx: Transaction, request: AddressRequest) -> IpamError | None:
    """Why no address could be given now; None where one could."""
    if choose(records.candidates(tx, 4), request, tx.now) is not None:
        return None
    return _why_nothing(tx, request)


def _nothing_to_give(tx: Transaction, request: AddressRequest) -> IpamError:
    why = _why_nothing(tx, request)
    tx.count("exhausted", int(isinstance(why, PoolExhausted)))
    return why


def _why_nothing(tx: Transaction, request: AddressRequest) -> IpamError:
    source = tx.one("SELECT success_wall FROM source")
    if source is None or source["success_wall"] is None:
        return diagnostics.no_addresses_known(tx)
    return diagnostics.pool_exhausted(tx, request, counts(tx, request.cooldown, 4), 4)


def counts(tx: Transaction, cooldown: float, family: int) -> PoolCounts:
    """The pool by state."""
    rows = tx.rows_named(records.COUNTS, now=tx.now, cooldown=cooldown, family=family)
    by_state = {row["state"]: row["addresses"] for row in rows}
    return PoolCounts(**{state.value: by_state.get(state.value, 0) for state in AddressState})


def _lost(
    reservation: Reservation, why: str, kind: type[ReservationLost] = ReservationLost
) -> ReservationLost:
    return kind(
        f"the reservation of {reservation.ip} for container {reservation.attachment.container_id} {why}",
        "The runtime tries again with a new sandbox.",
    )
