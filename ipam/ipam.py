"""``Ipam``: the addresses of this node, as the rest of the project uses them.

Each operation is one transaction on the store; none waits for the cloud or the kernel except
``refresh``, which reads the source outside of any transaction. It must not know CNI or netlink: what
is alive on the node is passed in (``adopt``, ``note_missing``).
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ipam import leaving, leaving_file, overview, reclaim, refresh, reservations
from ipam.errors import IpamError, StoreUnavailable
from ipam.model import DEFAULT_COOLDOWN_SECONDS, Overview
from ipam.store import records, source_records
from ipam.store.database import Store
from ipam.store.files import why_unwritable
from ipam.store.identity import NodeIdentity
from ipam.store.read_only import ReadOnlyStore
from ipam.store.transaction import StoreDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipam.model import (
        AddressRequest,
        AddressStatus,
        Attachment,
        IPAddress,
        ListedNic,
        Listing,
        Owner,
        PoolAddress,
        Reservation,
        SourceConfig,
        SourceState,
    )
    from ipam.store.transaction import Row, Transaction

T = TypeVar("T")

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ID_FILE = Path("/etc/machine-id")


boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, suspend included: a clock that nobody can set."""


class Ipam:
    """The pool of one node. Cheap to create: opens nothing before it is used. Thread-safe.

    Args:
        run_dir: the store's directory; created if it does not exist.
        boot_id_file: holds the boot id of the kernel.
        machine_id_file: holds the machine id, if the node has one (machine-id(5)).
        clock: seconds of CLOCK_BOOTTIME; every decision by time is taken with it.
        wall_clock: seconds since the epoch, for people only.
        busy_timeout: seconds to wait for another process that writes.
        reader: reads a source: ``(config, seconds it may take, source that answered last) -> Listing``;
            by default ``ipam.sources.read``.
        read_only: leave the files as they are: nothing is created, repaired or waited for.

    Every method raises ``StoreUnavailable`` when the store can't be used.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        boot_id_file: Path = BOOT_ID_FILE,
        machine_id_file: Path = MACHINE_ID_FILE,
        clock: Callable[[], float] = boottime,
        wall_clock: Callable[[], float] = time.time,
        busy_timeout: float = 5.0,
        reader: Callable[[SourceConfig, float, str], Listing] | None = None,
        read_only: bool = False,
    ) -> None:
        self.directory = run_dir
        """The directory of the store."""
        self.lasting = run_dir
        """Directory of what has to outlive a reboot; created if needed. ``Node`` sets another one."""
        self.reader = reader
        """How sources are read from now on; None: by ``ipam.sources.read`` with its defaults."""
        identity = NodeIdentity(boot_id_file, machine_id_file)
        self._store: Store | ReadOnlyStore
        if read_only:
            self._store = ReadOnlyStore(run_dir, identity=identity, clock=clock, wall_clock=wall_clock)
            return
        self._store = Store(
            run_dir,
            identity=identity,
            clock=clock,
            wall_clock=wall_clock,
            busy_timeout=busy_timeout,
        )

    def close(self) -> None:
        """Close the store's file. The next operation opens it again."""
        self._store.close()

    # The life of an attachment's addresses

    def reserve(
        self, attachment: Attachment, owner: Owner, request: AddressRequest
    ) -> tuple[Reservation, ...]:
        """Choose an address of each family and hold them for ``attachment``, not confirmed yet: all or none.

        Raises:
            AdoptionNeeded: the store is new; call ``adopt`` first.
            AlreadyReserved: the attachment holds addresses; they are in the error.
            PredecessorsFound: the same pod holds others that the request does not know of.
            NoAddressesKnown: the source was not read since the node was started.
            ListingStale: it was, but longer ago than the request accepts.
            SourceEmpty: the source lists nothing for pods on the NIC, or not the NIC.
            NicUnclear: it lists several NICs, and which one is wanted is not known.
            PoolExhausted: nothing is free.
            AddressUnavailable: a requested address can't be had.
        """
        outcome = self._store.write(
            partial(reservations.reserve, attachment=attachment, owner=owner, request=request)
        )
        if isinstance(outcome, IpamError):
            raise outcome
        return outcome

    def confirm(self, *made: Reservation) -> tuple[Reservation, ...]:
        """Record that the pod now carries the addresses that ``reserve`` returned.

        If the store was lost since then, they are written again.

        Raises:
            ReservationLost: they were released meanwhile (a DEL came in between), or, in a store that was
                rebuilt, another attachment holds one. The ADD has to be rolled back.
        """
        return self._store.write(partial(reservations.confirm, made=made))

    def release(
        self, attachment: Attachment, *, expected: Reservation | None = None
    ) -> tuple[Reservation, ...]:
        """Release the addresses of ``attachment``, to cool down; returns what it held.

        Idempotent. With ``expected``, only if it still holds exactly that reservation.
        """
        return self._store.write(lambda tx: reservations.release(tx, attachment, expected))

    def release_dead(self, dead: Reservation) -> bool:
        """Release what an attachment holds whose endpoint is gone, and count it. ``dead`` is any of its
        reservations. False: that one is not held any more.
        """
        return self._store.write(lambda tx: reclaim.release_dead(tx, dead))

    def abandon(self, *made: Reservation) -> bool:
        """Give back addresses that no pod ever used, without cooldown. Whether they were still held.

        Only if they are still those unconfirmed reservations of this store.
        """
        return self._store.write(lambda tx: reservations.abandon(tx, made))

    def quarantine(self, ip: IPAddress, reason: str, seconds: float) -> bool:
        """Don't give out ``ip`` for a while; its holder, if any, keeps it. Returns whether it is known."""
        return self._store.write(lambda tx: reservations.quarantine(tx, ip, reason, seconds))

    def mark_leaving(
        self, groups: Iterable[tuple[IPAddress, ...]], cooldown: float
    ) -> tuple[tuple[IPAddress, ...], ...]:
        """Give out no address of these groups: they are being removed from the NIC. A group in which one is
        held, or has not cooled down, is left alone; returns the others. The marks last for an hour.
        """
        marked = self._store.write(lambda tx: leaving.mark(tx, self.lasting, groups, cooldown))
        if marked:
            leaving_file.make_lasting_in(self.lasting)
        return marked

    def mark_gone(self, ips: Iterable[IPAddress]) -> None:
        """Record that the NIC does not have these: their holders keep them, and nobody is given them after
        that. The marks last for an hour.
        """
        self._store.write(lambda tx: leaving.mark_gone(tx, self.lasting, ips))

    def unmark_leaving(self, ips: Iterable[IPAddress]) -> None:
        """Let these be given out again."""
        self._store.write(lambda tx: leaving.unmark(tx, self.lasting, ips))

    def leaving(self) -> frozenset[IPAddress]:
        """The addresses that are marked."""
        return self._store.read(leaving.marked_addresses)

    def count(self, events: Mapping[str, int]) -> None:
        """Add to counters of ``Overview.counters``."""

        def work(tx: Transaction) -> None:
            for event, by in events.items():
                tx.count(event, by)

        self._store.write(work)

    # What is alive

    def needs_adoption(self) -> bool:
        """Whether ``adopt`` has to be called first (first start, reboot, lost store)."""
        return not self._store.read(lambda tx: tx.adopted)

    def adopt(self, reservations: Iterable[Reservation]) -> tuple[Reservation, ...]:
        """Write what the kernel says is alive, and mark the store as complete. Addresses that were being
        removed from the NIC when the former store was lost are marked again.

        Rows that exist win, so doing it again changes nothing. Returns those that could not be
        written because another attachment holds the address, or because the attachment holds another
        address; of two with the same address the first is taken.
        """
        alive = tuple(reservations)

        def work(tx: Transaction) -> tuple[Reservation, ...]:
            if not tx.adopted:
                leaving.mark_again(tx, self.lasting)
            return reclaim.adopt(tx, alive)

        return self._store.write(work)

    def note_missing(
        self, attachments: Iterable[Attachment], *, grace: float = reclaim.GRACE
    ) -> tuple[Reservation, ...]:
        """Record that no endpoint of these was found; returns those that may be freed now.

        Those are the ones that were missing in an earlier check at least ``grace`` seconds ago and were
        not seen since. One check is never enough: an ADD may be in progress.
        """
        missing = tuple(attachments)
        return self._store.write(lambda tx: reclaim.note_missing(tx, missing, grace))

    def note_present(self, attachments: Iterable[Attachment]) -> None:
        """Record that the endpoints of these exist; an earlier ``note_missing`` no longer counts."""
        present = tuple(attachments)
        self._store.write(lambda tx: reclaim.note_present(tx, present))

    # Reading

    def held_by(self, attachment: Attachment) -> tuple[Reservation, ...]:
        """What ``attachment`` holds, one address of each family at most."""
        return self._store.read(lambda tx: _held_by(tx, attachment))

    def held_if_adopted(self, attachment: Attachment) -> tuple[Reservation, ...] | None:
        """As ``held_by``; None: ``adopt`` was not called yet, so the store does not know what is alive."""
        return self._store.read(lambda tx: _held_by(tx, attachment) if tx.adopted else None)

    def reservations(self, network: str | None = None) -> tuple[Reservation, ...]:
        """Everything that is held, of one network or of all, by address."""
        sql = "SELECT * FROM address WHERE container_id IS NOT NULL ORDER BY family, ip"
        held = self._each(sql, lambda row, tx: records.reservation_from(row, tx.generation))
        return tuple(each for each in held if network is None or each.owner.network == network)

    def addresses(self, cooldown: float = DEFAULT_COOLDOWN_SECONDS) -> tuple[AddressStatus, ...]:
        """Every address with its state, in ascending order."""
        return self._each(
            records.POOL,
            lambda row, tx: records.status_from(row, tx.generation, cooldown, tx.now),
        )

    def configuration_of(self, ip: IPAddress) -> str:
        """Name of the NIC's IP configuration that has ``ip``; empty: no source named it."""
        return self._store.read(lambda tx: records.configuration_of(tx, ip))

    def overview(self, cooldown: float = DEFAULT_COOLDOWN_SECONDS) -> Overview:
        """Counts, counters and sources in one consistent snapshot."""
        return self._store.read(lambda tx: overview.overview(tx, cooldown))

    def require_available(self, request: AddressRequest) -> tuple[PoolAddress, ...]:
        """What ``reserve`` would give now, without giving it.

        It takes the writer's lock, so an unwritable store is noticed too.

        Raises:
            NoAddressesKnown, SourceEmpty, NicUnclear, PoolExhausted: as ``reserve`` would.
        """
        outcome = self._store.write(lambda tx: reservations.would_get(tx, request))
        unwritable, remedy = why_unwritable(self.directory)
        if unwritable:
            raise StoreUnavailable(f"the store can't be written: {unwritable}", remedy)
        if isinstance(outcome, IpamError):
            raise outcome
        return outcome

    # Sources

    def source_state(self, config: SourceConfig) -> SourceState:
        """When and how this source was read last."""
        return self._store.read(lambda tx: refresh.source_state(tx, config))

    def sources_in_use(self) -> tuple[SourceConfig, ...]:
        """Every source that a call needed since the node booted."""
        used = self._store.read(lambda tx: source_records.states(tx, in_use=True))
        return tuple(each.config for each in used)

    def replace_source(self, before: SourceConfig, now: SourceConfig) -> None:
        """Note that the network which used one source now uses another. What only the former listed leaves
        the pool once the other has been read.
        """
        self._store.write(lambda tx: source_records.move_use(tx, before.key, now))

    def nics(self, config: SourceConfig) -> tuple[ListedNic, ...]:
        """The NICs that this source listed last; none before its first read since the node booted."""

        def work(tx: Transaction) -> tuple[ListedNic, ...]:
            row = source_records.row_of_source(tx, config.key)
            return () if row is None or row["success_at"] is None else source_records.nics(tx, row["id"])

        return self._store.read(work)

    def refresh(
        self, config: SourceConfig, *, deadline: float, force: bool = False, in_use: bool = False
    ) -> SourceState:
        """Read a source if it is due, and update the pool to what it lists.

        One process reads a source at a time; the others use its last listing or, if there is none, wait.
        After failures the pause grows, up to a minute; a Retry-After is always respected. ``force`` reads at
        once whatever the interval says.

        Args:
            config: which source.
            deadline: seconds for the whole call.
            force: for an operator's request; never for an ADD.
            in_use: a network needs it now.

        Raises:
            SourceUnreadable, SourceEmpty: reading failed just now; or it failed a moment ago, is not
                due again, and nothing is known from before.
        """
        return refresh.refresh(
            self._store, self.directory, self.reader, config, deadline=deadline, force=force, in_use=in_use
        )

    def _each(self, sql: str, value: Callable[[Row, Transaction], T]) -> tuple[T, ...]:
        """Rows as values; made outside of the transaction, since thousands of them take a while."""
        tx, rows = self._store.read(lambda tx: (tx, tx.rows(sql)))
        try:
            return tuple(value(row, tx) for row in rows)
        except StoreDamaged:
            # Once more inside, where the store is repaired.
            return self._store.read(lambda tx: tuple(value(row, tx) for row in tx.rows(sql)))


def _held_by(tx: Transaction, attachment: Attachment) -> tuple[Reservation, ...]:
    return tuple(records.reservation_from(row, tx.generation) for row in records.held_by(tx, attachment))
