"""What the pool should be, kept as plain dictionaries: the oracle of the random tests of the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ipam.model import PoolCounts

if TYPE_CHECKING:
    from ipam.model import Attachment, IPAddress, Reservation

COOLDOWN = 30.0
GRACE = 60.0


@dataclass
class Address:
    misses: int = 0
    """Reads in a row that did not list it; with two of them it is offered no more."""
    released_at: float | None = None
    quarantined_until: float = 0.0

    @property
    def listed(self) -> bool:
        return self.misses == 0

    @property
    def offered(self) -> bool:
        return self.misses < 2


@dataclass
class ModelPool:
    """The node, as it is known to be from everything that was done to it."""

    addresses: dict[IPAddress, Address] = field(default_factory=dict)
    held: dict[Attachment, Reservation] = field(default_factory=dict)
    confirmed: set[Attachment] = field(default_factory=set)
    missing_since: dict[Attachment, float] = field(default_factory=dict)
    ever_read: bool = False

    def holder_of(self, ip: IPAddress) -> Attachment | None:
        return next((who for who, what in self.held.items() if what.ip == ip), None)

    def pool(self) -> dict[IPAddress, Address]:
        """What is offered or held; of the others only the history is known."""
        return {
            ip: address
            for ip, address in self.addresses.items()
            if address.offered or self.holder_of(ip) is not None
        }

    def choices(self, now: float, excluded: frozenset[IPAddress]) -> list[IPAddress]:
        """Everything that may be given out, best first."""
        usable = [
            ip
            for ip, address in self.addresses.items()
            if address.listed
            and address.quarantined_until <= now
            and ip not in excluded
            and self.holder_of(ip) is None
        ]
        never = sorted(ip for ip in usable if self.addresses[ip].released_at is None)
        used = sorted(
            (ip for ip in usable if self.addresses[ip].released_at is not None),
            key=lambda ip: (self.addresses[ip].released_at, int(ip)),
        )
        return never + used

    def rests(self, ip: IPAddress, now: float) -> bool:
        released = self.addresses[ip].released_at
        return released is not None and now - released < COOLDOWN

    def counts(self, now: float) -> PoolCounts:
        assigned = cooling = quarantined = free = 0
        for ip, address in self.pool().items():
            if self.holder_of(ip) is not None:
                assigned += 1
            elif address.quarantined_until > now or not address.listed:
                quarantined += 1
            elif self.rests(ip, now):
                cooling += 1
            else:
                free += 1
        return PoolCounts(free, assigned, cooling, quarantined)

    def let_go(self, who: Attachment, now: float | None) -> None:
        """Without a time the address was never used by a pod and rests no longer than before."""
        ip = self.held.pop(who).ip
        self.confirmed.discard(who)
        self.missing_since.pop(who, None)
        if now is not None:
            self.addresses[ip].released_at = now

    def read(self, listed: set[IPAddress], now: float) -> None:
        self.ever_read = True
        for ip in listed:
            self.addresses.setdefault(ip, Address()).misses = 0
        for ip in [ip for ip in self.addresses if ip not in listed]:
            address = self.addresses[ip]
            address.misses += 1
            nothing_to_remember = address.released_at is None and address.quarantined_until <= now
            if not address.offered and nothing_to_remember and self.holder_of(ip) is None:
                del self.addresses[ip]

    def lost(self) -> dict[Attachment, Reservation]:
        """The store is gone; what the kernel still knows."""
        alive = {who: what for who, what in self.held.items() if who in self.confirmed}
        self.addresses.clear()
        self.held.clear()
        self.confirmed.clear()
        self.missing_since.clear()
        self.ever_read = False
        return alive

    def hold_again(self, reservation: Reservation) -> None:
        self.addresses.setdefault(reservation.ip, Address(misses=2))
        self.held[reservation.attachment] = reservation
        self.confirmed.add(reservation.attachment)

    def rebooted(self) -> None:
        self.held.clear()
        self.confirmed.clear()
        self.missing_since.clear()
        self.ever_read = False
        self.addresses = {
            ip: Address(misses=address.misses) for ip, address in self.addresses.items() if address.offered
        }
