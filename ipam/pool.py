"""Which NIC, which address next, and what a new listing changes: pure functions, no I/O, no clock.

The order of choice spreads reuse as far as possible: addresses that were never used first, in
ascending order, then the one that was released longest ago. It must not know how the pool is
stored; times are plain seconds of whatever clock the caller uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.errors import NicUnclear, SourceEmpty
from ipam.mac import ANY_NIC
from ipam.model import AddressState
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ipam.model import AddressRequest, IPAddress, ListedNic, Listing, PoolAddress

READS_UNTIL_GONE = 2
"""Consecutive successful reads that have to lack an address before it leaves the pool."""


class Candidate(Value):
    """An address that nobody holds, that the source lists for the NIC and that is not quarantined."""

    key: int
    """The row of the store; means nothing here."""
    address: PoolAddress
    released_at: float | None
    """When its last holder released it; None: it never had one."""


class Choice(Value):
    """The address to give out."""

    candidate: Candidate
    shortened: bool
    """Its cooldown was not over: nothing else was left."""


def cooling_left(released_at: float | None, cooldown: float, now: float) -> float:
    """Seconds until an address released at ``released_at`` has cooled down for ``cooldown``; 0: it has."""
    if released_at is None:
        return 0.0
    return max(0.0, cooldown - max(0.0, now - released_at))


def choose(candidates: Iterable[Candidate], request: AddressRequest, now: float) -> Choice | None:
    """The first suitable of ``candidates``, which come in the order of choice (see above).

    Because of that order, the first one that is still cooling is met only when nothing else is left,
    and it is the one that has cooled longest: a short cooldown beats a pod that can't start.
    """
    for candidate in candidates:
        if not request.excluded or candidate.address.ip not in request.excluded:
            return Choice(candidate, cooling_left(candidate.released_at, request.cooldown, now) > 0)
    return None


def choose_nic(nics: Sequence[ListedNic], wanted: str, source: str) -> str:
    """The MAC of the NIC whose addresses are to be given out.

    Args:
        nics: those of the last listing.
        wanted: the NIC by which the pod's packets leave; empty: not known.
        source: its name, for the error.

    Raises:
        SourceEmpty: ``wanted`` is not among them, or there is none.
        NicUnclear: nothing is wanted, there are several, and not exactly one of them is the primary one.
    """
    macs = [nic.mac for nic in nics]
    if wanted:
        if wanted in macs or ANY_NIC in macs:
            return wanted
        others = f", only {', '.join(macs)}" if macs else ""
        raise SourceEmpty(
            f"source {source} lists no NIC with MAC {wanted}{others}",
            "Pods need addresses of the NIC by which their packets leave: see `ip route get 1.1.1.1`, or "
            "name the NIC as `master`.",
        )
    primary = [nic.mac for nic in nics if nic.primary]
    for group in (macs, primary):
        if len(group) == 1:
            return group[0]
    raise NicUnclear(
        f"source {source} lists NICs {', '.join(macs)}, and no route of the node shows which one pods use",
        "Name the NIC as `master` in the netconf.",
    )


def state_of(
    *, held: bool, listed: bool, quarantined: bool, released_at: float | None, cooldown: float, now: float
) -> AddressState:
    """The one of the four states that an address is in.

    An address that no source lists any more is not given out, so it counts as quarantined while nobody
    holds it.
    """
    if held:
        return AddressState.ASSIGNED
    if quarantined or not listed:
        return AddressState.QUARANTINED
    if cooling_left(released_at, cooldown, now) > 0:
        return AddressState.COOLING
    return AddressState.FREE


class Known(Value):
    """What one source said of an address before its next listing is merged."""

    address: PoolAddress
    misses: int
    """Consecutive successful reads that did not list it."""


class Changes(Value):
    """What a listing changes in what its source is known to offer."""

    listed: tuple[PoolAddress, ...] = ()
    """New, back, or with other values: to be written."""
    missed: tuple[IPAddress, ...] = ()
    """Known, not listed this time: stays, but is not given out."""
    removed: tuple[IPAddress, ...] = ()
    """Gone for long enough."""


def offered(listing: Listing) -> tuple[PoolAddress, ...]:
    """The addresses of ``listing`` that pods can have, those of every NIC.

    Raises:
        SourceEmpty: there is none. An empty answer is never taken for the truth: it would take every
            free address away (a source that is restarting answers so).
    """
    own = {ip for nic in listing.nics for ip in nic.own_addresses}
    found = {a.ip: a for nic in listing.nics for a in nic.addresses if a.ip not in own}
    if found:
        return tuple(found.values())
    skipped = f" (skipped: {'; '.join(listing.warnings[:3])})" if listing.warnings else ""
    if not listing.nics:
        raise SourceEmpty(
            f"source {listing.source} lists no NIC at all{skipped}",
            "Try again later; if this persists, the source does not know this machine.",
        )
    macs = ", ".join(nic.mac for nic in listing.nics)
    raise no_address_for_pods(listing.source, macs, skipped)


def no_address_for_pods(source: str, mac: str, skipped: str = "") -> SourceEmpty:
    """The error where a NIC has nothing but its own address."""
    remedy = (
        "Add secondary IP configurations to the NIC (az network nic ip-config create), one for each pod; its "
        "primary one belongs to the node."
    )
    if skipped:
        remedy = f"Look at what was skipped and why (az network nic show). {remedy}"
    return SourceEmpty(f"source {source} lists no address for pods on NIC {mac}{skipped}", remedy)


def merge(listed: Iterable[PoolAddress], known: Mapping[IPAddress, Known]) -> Changes:
    """What has to change so that what a source offers follows ``listed``.

    New addresses enter at once. An address leaves only when it is gone in two consecutive reads, so one
    stale or partial document takes no address from a pod.
    """
    written: list[PoolAddress] = []
    seen: set[IPAddress] = set()
    for address in listed:
        seen.add(address.ip)
        before = known.get(address.ip)
        if before is None or before.address != address or before.misses:
            written.append(address)
    missed: list[IPAddress] = []
    removed: list[IPAddress] = []
    for ip, before in known.items():
        if ip not in seen:
            (removed if before.misses + 1 >= READS_UNTIL_GONE else missed).append(ip)
    return Changes(tuple(written), tuple(missed), tuple(removed))
