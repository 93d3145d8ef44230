"""Which address next, and what a new listing changes: pure functions, no I/O, no clock.

The order of choice spreads reuse as far as possible: addresses that were never used first, in
ascending order, then the one that was released longest ago. It must not know how the pool is
stored; times are plain seconds of whatever clock the caller uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.errors import SourceEmpty
from ipam.mac import ANY_NIC, normalize_mac
from ipam.model import AddressState
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipam.model import AddressRequest, IPAddress, Listing, PoolAddress

READS_UNTIL_GONE = 2
"""An address leaves the pool when so many consecutive successful reads did not list it."""


class Candidate(Value):
    """An address that nobody holds, that is listed and not quarantined."""

    key: int
    """The row of the store; means nothing here."""
    ip: IPAddress
    released_at: float | None
    """When its last holder let it go; None: it never had one."""
    nic_mac: str = ANY_NIC


class Choice(Value):
    """The address to give out."""

    candidate: Candidate
    shortened: bool
    """Its cooldown was not over: nothing else was left."""


def order_of_choice(candidate: Candidate) -> tuple[bool, float, int]:
    """Sort key: never used first, ascending; then by time of release, oldest first."""
    return candidate.released_at is not None, candidate.released_at or 0.0, int(candidate.ip)


def cooling_left(released_at: float | None, cooldown: float, now: float) -> float:
    """Seconds until an address released at ``released_at`` has rested for ``cooldown``; 0: it has."""
    if released_at is None:
        return 0.0
    return max(0.0, cooldown - max(0.0, now - released_at))


def choose(candidates: Iterable[Candidate], request: AddressRequest, now: float) -> Choice | None:
    """The first suitable of ``candidates``, which come in ``order_of_choice``.

    Because of that order, the first one that is still cooling is met only when nothing else is left,
    and it is the one that has rested longest: a short cooldown beats a pod that can't start.
    """
    for candidate in candidates:
        if candidate.ip not in request.excluded and is_of(candidate.nic_mac, request):
            return Choice(candidate, cooling_left(candidate.released_at, request.cooldown, now) > 0)
    return None


def is_of(nic_mac: str, request: AddressRequest) -> bool:
    """Whether an address of this NIC is one of the NIC that is asked for."""
    return not request.nic_mac or nic_mac in {request.nic_mac, ANY_NIC, ""}


def state_of(
    *, held: bool, listed: bool, quarantined: bool, released_at: float | None, cooldown: float, now: float
) -> AddressState:
    """The one of the four states that an address is in.

    An address that the source does not list any more is not given out, so it counts as quarantined
    while nobody holds it.
    """
    if held:
        return AddressState.ASSIGNED
    if quarantined or not listed:
        return AddressState.QUARANTINED
    if cooling_left(released_at, cooldown, now) > 0:
        return AddressState.COOLING
    return AddressState.FREE


class Known(Value):
    """What the pool knows of one address before a listing is merged."""

    address: PoolAddress
    listed: bool
    """The last successful read listed it."""
    misses: int
    """Consecutive successful reads that did not list it."""
    held: bool
    adopted: bool = False
    """It was never listed: it is known because a living endpoint carries it."""


class Changes(Value):
    """What a listing changes. An address that stays as it was is in none of these."""

    added: tuple[PoolAddress, ...] = ()
    changed: tuple[PoolAddress, ...] = ()
    """Known, to be marked as listed and written with these values."""
    missed: tuple[IPAddress, ...] = ()
    """Known, not listed this time: stays, but is not given out."""
    removed: tuple[IPAddress, ...] = ()
    """Gone for long enough and held by nobody."""


def offered(listing: Listing, macs: tuple[str, ...] | None) -> tuple[PoolAddress, ...]:
    """The addresses of ``listing`` on the NICs with ``macs`` (None: on every NIC).

    Raises:
        SourceEmpty: there is none. An empty answer is never taken for the truth: it would take every
            free address away (a source that is restarting answers so).
    """
    wanted = None if macs is None else {ANY_NIC, *map(normalize_mac, macs)}
    nics = [nic for nic in listing.nics if wanted is None or nic.mac in wanted]
    own = {ip for nic in listing.nics for ip in nic.own_addresses}
    found = {address.ip: address for nic in nics for address in nic.addresses if address.ip not in own}
    if found:
        return tuple(found.values())
    if not listing.nics:
        what = f"source {listing.source} lists no NIC at all"
        remedy = "Ask again in a while; if it stays so, the source does not know this machine."
    elif not nics:
        theirs = ", ".join(nic.mac for nic in listing.nics)
        what = f"source {listing.source} lists no NIC with MAC {', '.join(macs or ())}, only {theirs}"
        remedy = "Check `master`: it has to be the NIC that carries the pods' addresses."
    else:
        what = f"source {listing.source} lists no address for pods on NIC {', '.join(n.mac for n in nics)}"
        remedy = (
            "Add secondary IP configurations to the NIC (az network nic ip-config create), one for each "
            "pod; its primary one belongs to the node."
        )
    if listing.warnings and nics:
        remedy = f"Look at what was skipped and why (az network nic show). {remedy}"
    if listing.warnings:
        what += f" (skipped: {'; '.join(listing.warnings[:3])})"
    raise SourceEmpty(what, remedy)


def merge(listed: Iterable[PoolAddress], known: Mapping[IPAddress, Known]) -> Changes:
    """What has to change so that the pool follows ``listed``.

    New addresses enter at once. An address leaves only when it is gone in two consecutive reads and
    nobody holds it, so one stale or partial document costs no pod its address.
    """
    added: list[PoolAddress] = []
    changed: list[PoolAddress] = []
    seen: set[IPAddress] = set()
    for address in listed:
        seen.add(address.ip)
        before = known.get(address.ip)
        if before is None:
            added.append(address)
        elif before.held and not before.adopted:
            # What a living pod was given stays as it is on record until it is released.
            if not before.listed or before.misses:
                changed.append(before.address)
        elif before.address != address or not before.listed or before.misses or before.adopted:
            changed.append(address)
    missed: list[IPAddress] = []
    removed: list[IPAddress] = []
    for ip, before in known.items():
        if ip not in seen:
            gone = before.misses + 1 >= READS_UNTIL_GONE and not before.held
            (removed if gone else missed).append(ip)
    return Changes(tuple(added), tuple(changed), tuple(missed), tuple(removed))
