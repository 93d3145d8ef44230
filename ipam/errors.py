"""What can go wrong with addresses, as classes that carry facts.

``str()`` says what is wrong, ``remedy`` what to do about it. How a caller shows it
(a CNI error object, a log line) is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipam.model import Reservation


class IpamError(Exception):
    """Base of every error of this package."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
        """What the operator can do; a sentence."""


class PoolExhausted(IpamError):
    """No address of a family can be given out now; says how many there are and who holds them."""

    def __init__(self, message: str, remedy: str = "", *, family: int) -> None:
        super().__init__(message, remedy)
        self.family = family
        """The IP version of which there is none."""


class SourceUnreadable(IpamError):
    """A source did not answer, or answered something that is not an address document."""

    def __init__(self, message: str, remedy: str = "", retry_after: float = 0.0, *, status: int = 0) -> None:
        super().__init__(message, remedy)
        self.status = status
        """HTTP status of the answer; 0: none."""
        self.retry_after = retry_after
        """Retry-After of the answer, in seconds; 0: none."""


class SourceEmpty(IpamError):
    """A source answered, but lists no address that a pod could have."""


class NoAddressesKnown(IpamError):
    """No source was ever read successfully, so no address is known."""


class ListingStale(NoAddressesKnown):
    """The source's listing is older than the caller accepts and has to be read again first."""


class NicUnclear(IpamError):
    """The source lists several NICs, and it is unknown which of them the pod's packets leave by."""


class AddressUnavailable(IpamError):
    """The requested address is not in the pool, held by another attachment, or not usable."""


class AlreadyReserved(IpamError):
    """The attachment holds an address already."""

    def __init__(self, message: str, remedy: str, reservations: tuple[Reservation, ...]) -> None:
        super().__init__(message, remedy)
        self.reservations = reservations
        """What it holds; their ``owner.call_id`` tells whether the same call made them."""


class PredecessorsFound(IpamError):
    """The same pod (namespace, name) holds addresses on the same interface name under other container ids.

    The sandbox was recreated; if the old one's endpoint is gone, no DEL will come for it. The caller checks,
    then calls ``release`` with ``expected``.
    """

    def __init__(self, message: str, remedy: str, reservations: tuple[Reservation, ...]) -> None:
        super().__init__(message, remedy)
        self.reservations = reservations
        """Those that the caller has not checked."""


class ReservationLost(IpamError):
    """The reservation was released before it was confirmed: a DEL came in between."""


class AddressTaken(ReservationLost):
    """The store was lost after the reservation was made, and the new one gave the address to another."""


class StoreUnavailable(IpamError):
    """The store can't be read or written now: locked for too long, disk full, read-only."""


class StoreMissing(StoreUnavailable):
    """There is no store: nothing was attached since the node booted, or it was removed."""


class AdoptionNeeded(IpamError):
    """The store is new (first start, reboot, lost or corrupt): ``adopt`` what is alive first."""
