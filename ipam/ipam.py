"""``Ipam``: the addresses of this node, as the rest of the project uses them.

Each operation is one transaction on the store; none waits for the cloud or the kernel except
``refresh``, which reads the source outside of any transaction. It must not know CNI or netlink: what
is alive on the node is told to it (``adopt``, ``note_missing``).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ipam import reclaim, refresh, reservations
from ipam.errors import IpamError, StoreUnavailable
from ipam.model import DEFAULT_COOLDOWN_SECONDS, Overview, PoolCounts, Reservation
from ipam.store import records
from ipam.store.database import Store
from ipam.store.files import why_unwritable
from ipam.store.transaction import StoreDamaged
from ipam.store.view import StoreView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipam.model import (
        AddressRequest,
        AddressStatus,
        Attachment,
        IPAddress,
        Listing,
        Owner,
        SourceConfig,
        SourceState,
    )
    from ipam.store.transaction import Row, Transaction

T = TypeVar("T")

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
COUNTERS = (
    "exhausted",
    "cooldown_shortened",
    "quarantined",
    "reclaimed",
    "source_reads",
    "source_errors",
)
"""What ``Ipam.counters`` counts since the store was made."""


def boottime() -> float:
    """Seconds since the node was started, suspend included: a clock that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Ipam:
    """The pool of one node. Cheap to make, opens nothing before it is used; safe among threads.

    Args:
        run_dir: where the store is kept; made if it does not exist.
        boot_id_file: tells one start of the node from another.
        clock: seconds of CLOCK_BOOTTIME; every decision by time is taken with it.
        wall_clock: seconds since the epoch, for people only.
        busy_timeout: seconds to wait for another process that writes.
        reader: reads a source: ``(config, seconds it may take, source that answered last) -> Listing``;
            by default ``ipam.sources.read``.
        read_only: only look, and leave the files as they are: nothing is made, repaired or waited for.

    Every method raises ``StoreUnavailable`` when the store can't be used.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        boot_id_file: Path = BOOT_ID_FILE,
        clock: Callable[[], float] = boottime,
        wall_clock: Callable[[], float] = time.time,
        busy_timeout: float = 5.0,
        reader: Callable[[SourceConfig, float, str], Listing] | None = None,
        read_only: bool = False,
    ) -> None:
        self._run_dir = run_dir
        self.reader = reader
        """How sources are read from now on; None: as ``ipam.sources.read`` does by itself."""
        self._store: Store | StoreView
        if read_only:
            self._store = StoreView(run_dir, boot_id_file=boot_id_file, clock=clock, wall_clock=wall_clock)
            return
        self._store = Store(
            run_dir,
            boot_id_file=boot_id_file,
            clock=clock,
            wall_clock=wall_clock,
            busy_timeout=busy_timeout,
        )

    def close(self) -> None:
        """Close the store's file. The next operation opens it again."""
        self._store.close()

    # The life of one address

    def reserve(self, attachment: Attachment, owner: Owner, request: AddressRequest) -> Reservation:
        """Choose an address and hold it for ``attachment``, not confirmed yet.

        Raises:
            AdoptionNeeded: the store is new; call ``adopt`` first.
            AlreadyReserved: the attachment holds an address; it is in the error.
            PredecessorsFound: the same pod holds others that the request does not know of.
            NoAddressesKnown: no source was ever read.
            PoolExhausted: nothing is free.
            AddressUnavailable: the requested address can't be had.
        """
        outcome = self._store.write(lambda tx: reservations.reserve(tx, attachment, owner, request))
        if isinstance(outcome, IpamError):
            raise outcome
        return outcome

    def confirm(self, reservation: Reservation) -> Reservation:
        """Say that the pod now carries the address.

        If the store was lost since ``reservation`` was made, it is written again.

        Raises:
            ReservationLost: it was released meanwhile (a DEL came in between), or, in a store that was
                made anew, the address is held by another by now. The ADD has to be rolled back.
        """
        return self._store.write(lambda tx: reservations.confirm(tx, reservation))

    def release(self, attachment: Attachment, *, expected: Reservation | None = None) -> Reservation | None:
        """Let the address of ``attachment`` go, to rest for its cooldown; what it was, or None.

        Doing it again is no error. With ``expected``, only if it still is that very reservation.
        """
        return self._store.write(lambda tx: reservations.release(tx, attachment, expected))

    def abandon(self, reservation: Reservation) -> bool:
        """Give an address back that its pod never had: no cooldown. Whether it was still held.

        Only if it is still that unconfirmed reservation of this store.
        """
        return self._store.write(lambda tx: reservations.abandon(tx, reservation))

    def quarantine(self, ip: IPAddress, reason: str, seconds: float) -> bool:
        """Give ``ip`` to nobody for a while; its holder, if it has one, keeps it. Whether it is known."""
        return self._store.write(lambda tx: reservations.quarantine(tx, ip, reason, seconds))

    # What is alive

    def needs_adoption(self) -> bool:
        """Whether the store waits to be told what is alive (first start, reboot, lost store)."""
        return not self._store.read(lambda tx: tx.adopted)

    def adopt(self, reservations: Iterable[Reservation]) -> tuple[Reservation, ...]:
        """Tell a store what the kernel says is alive, and that it is now complete.

        Rows that exist win, so doing it again changes nothing. Returns those that could not be
        written because another attachment holds the address, or because the attachment holds another
        address; of two with the same address the first is taken.
        """
        alive = tuple(reservations)
        return self._store.write(lambda tx: reclaim.adopt(tx, alive))

    def note_missing(
        self, attachments: Iterable[Attachment], *, grace: float = reclaim.GRACE
    ) -> tuple[Reservation, ...]:
        """Remember that no endpoint of these was found; which of them may be freed now.

        Those are the ones that were missing in an earlier look at least ``grace`` seconds ago and were
        not seen since. Never on one negative look: an ADD may be just under way.
        """
        missing = tuple(attachments)
        return self._store.write(lambda tx: reclaim.note_missing(tx, missing, grace))

    def note_present(self, attachments: Iterable[Attachment]) -> None:
        """Remember that the endpoints of these are there: a later look starts counting anew."""
        present = tuple(attachments)
        self._store.write(lambda tx: reclaim.note_present(tx, present))

    def sweep(
        self,
        missing: Iterable[Attachment],
        present: Iterable[Attachment] = (),
        *,
        grace: float = reclaim.GRACE,
    ) -> tuple[Reservation, ...]:
        """``note_present``, ``note_missing`` and the release of what may be freed, in one step; the freed."""
        gone, alive = tuple(missing), tuple(present)
        return self._store.write(lambda tx: reclaim.sweep(tx, gone, alive, grace))

    # Looking

    def reservation(self, attachment: Attachment) -> Reservation | None:
        """What ``attachment`` holds."""
        return self._store.read(lambda tx: _value(tx, records.reservation_of(tx, attachment)))

    def find(self, ip: IPAddress) -> Reservation | None:
        """Who holds ``ip``."""

        def work(tx: Transaction) -> Reservation | None:
            row = records.row_of(tx, ip)
            return _value(tx, row if row is not None and row["container_id"] is not None else None)

        return self._store.read(work)

    def reservations(self, network: str | None = None) -> tuple[Reservation, ...]:
        """Everything that is held, of one network or of all, by address."""
        sql = "SELECT * FROM address WHERE container_id IS NOT NULL ORDER BY family, ip"
        held = self._each(sql, lambda row, tx: records.reservation_from(row, tx.generation))
        return tuple(each for each in held if network is None or each.owner.network == network)

    def addresses(self, cooldown: float = DEFAULT_COOLDOWN_SECONDS) -> tuple[AddressStatus, ...]:
        """Every address with its state, in ascending order."""
        return self._each(
            "SELECT * FROM address ORDER BY family, ip",
            lambda row, tx: records.status_from(row, tx.generation, cooldown, tx.now),
        )

    def configuration_of(self, ip: IPAddress) -> str:
        """The name of the NIC's IP configuration that ``ip`` is; empty: no source has said it."""
        return self._store.read(lambda tx: records.configuration_of(tx, ip))

    def counts(self, cooldown: float = DEFAULT_COOLDOWN_SECONDS, *, family: int = 4) -> PoolCounts:
        """The pool by state; ``cooldown`` decides what is still cooling."""
        return self._store.read(lambda tx: reservations.counts(tx, cooldown, family))

    def counters(self) -> dict[str, int]:
        """Events since the store was made, by the names of ``COUNTERS``."""
        return self._store.read(_counters)

    def overview(self, cooldown: float = DEFAULT_COOLDOWN_SECONDS) -> Overview:
        """Counts, counters and source, all of one moment."""
        return self._store.read(lambda tx: _overview(tx, cooldown))

    def require_available(self, request: AddressRequest) -> None:
        """Find out whether ``reserve`` could give an address now, without giving one.

        It asks as a writer does, so a store that nobody can write to is noticed too.

        Raises:
            NoAddressesKnown, PoolExhausted: as ``reserve`` would.
        """
        why_not = self._store.write(lambda tx: reservations.nothing_to_give(tx, request))
        unwritable, remedy = why_unwritable(self._run_dir)
        if unwritable:
            raise StoreUnavailable(f"the store can't be written: {unwritable}", remedy)
        if why_not is not None:
            raise why_not

    def source_state(self) -> SourceState:
        """When and how the source was read last."""
        return self._store.read(refresh.source_state)

    # The source

    def refresh(
        self, config: SourceConfig, *, deadline: float, force: bool = False, patient: bool = False
    ) -> SourceState:
        """Read the source if it is due, and let the pool follow what it lists.

        One process reads at a time; the others go on with what is known, or, if nothing is known,
        wait for it. After failures it is left alone for longer and longer, up to a minute, and never
        asked before a Retry-After is over. ``force`` reads at once whatever the interval says. Where nothing
        is known because another configuration failed just now, this one waits for its turn, a second at most.

        Args:
            config: which source.
            deadline: seconds that all of this may take.
            force: for a person who asks; never for an ADD.
            patient: what is known is of no use, so wait until this configuration's turn has come.

        Raises:
            SourceUnreadable, SourceEmpty: reading failed just now; or it failed a moment ago, is not
                due again, and nothing is known from before.
        """
        return refresh.refresh(
            self._store, self._run_dir, self.reader, config, deadline=deadline, force=force, patient=patient
        )

    def _each(self, sql: str, value: Callable[[Row, Transaction], T]) -> tuple[T, ...]:
        """Rows as values; made outside of the transaction, since thousands of them take a while."""
        tx, rows = self._store.read(lambda tx: (tx, tx.rows(sql)))
        try:
            return tuple(value(row, tx) for row in rows)
        except StoreDamaged:
            # Once more inside, where the store is repaired.
            return self._store.read(lambda tx: tuple(value(row, tx) for row in tx.rows(sql)))


def _value(tx: Transaction, row: Row | None) -> Reservation | None:
    return None if row is None else records.reservation_from(row, tx.generation)


def _counters(tx: Transaction) -> dict[str, int]:
    rows = tx.rows("SELECT name, value FROM counter")
    return dict.fromkeys(COUNTERS, 0) | {row["name"]: row["value"] for row in rows}


def _overview(tx: Transaction, cooldown: float) -> Overview:
    known = tx.one("SELECT count(*) AS known FROM address WHERE family = 4")
    return Overview(
        counts=reservations.counts(tx, cooldown, 4),
        known=0 if known is None else known["known"],
        counters=_counters(tx),
        source=refresh.source_state(tx),
        adopted=tx.adopted,
        same_boot=tx.same_boot,
    )
