"""Growing and shrinking one NIC step by step, so that its pool follows demand.

Owns the order in which that is safe, and what to do after a failure. An address may be given to a pod when
the source lists it, which is the pool's own rule. It is taken from the NIC only when it is marked in the
store, so that no ADD can be given it: no pod holds it then, and it has cooled down. Whatever was interrupted
is found again by reading the NIC, which comes first; nothing is remembered elsewhere. It must not know
threads, CNI or how the settings are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam import nic_counts as counts
from ipam.azure_limits import BLOCK
from ipam.provision import nic_document, offers, pace
from ipam.provision.demand import Arrivals
from ipam.provision.nic_document import NotANic
from ipam.provision.nic_pool import NicPool
from ipam.provision.pace import AGAIN_SECONDS, AT_REST_SECONDS, SCARCE_SECONDS
from ipam.provision.plan import Counts, Plan, leaving, plan_at
from ipam.provision.progress import (
    DRY_RUN,
    GROWING,
    IDLE,
    LIMITS,
    SHRINKING,
    Progress,
    scarce,
)
from ipam.provision.refusals import FULL, Kind, Refusal
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.ipam import Ipam
    from ipam.provision.nic_document import Document
    from ipam.provision.nic_writer import NicWriter
    from ipam.provision.plan import Sizes, Unit
    from ipam.provision.pool_view import PoolView
    from ipam.provision.progress import Demand, Surroundings
    from ipam.provision.tally import Tally


class Provisioner:
    """One NIC of one node. Not for several threads, but ``progress`` may be read by any.

    Args:
        ipam: the pool.
        around: the node.
        tally: counts what was changed.
        sizes: what the operator wants.
        subnet: name or id of the subnet that the NIC has to be in; empty: any.
        dry_run: only tell what would be done.
    """

    def __init__(
        self,
        ipam: Ipam,
        around: Surroundings,
        tally: Tally,
        sizes: Sizes,
        subnet: str = "",
        *,
        dry_run: bool = False,
    ) -> None:
        self._ipam = ipam
        self._around = around
        self._tally = tally
        self._sizes = sizes
        self._subnet = subnet
        self._dry_run = dry_run
        self._arrivals = Arrivals()
        self._writer: NicWriter | None = None
        self._nic = NicPool(ipam, around, lambda: offers.kept(ipam.lasting, around.clock()))
        self._read_at = 0.0
        self._unsure = True
        """Something may have happened to the NIC that is not known here: it has to be read."""
        self._failures = 0
        self._not_before = 0.0
        self._surplus_since: float | None = None
        self._full: Kind | None = None
        """Of ``FULL``, until the time below."""
        self._full_until = self._no_block_until = 0.0
        self._asked = self._most = 0
        """Addresses that were requested last, and ``plan.Counts.most``."""
        self._told = Plan()
        self._demand: Demand | None = None
        self.progress = Progress()

    def step(self) -> None:
        """One step: look at the pool and do what is needed, which may take minutes.

        Raises:
            IpamError: the store can't be used.
        """
        wanted, pool = self._look()
        self.progress = self._with_facts(self.progress, pool)
        if not self._is_to_act(wanted, pool):
            self._rest(wanted, pool)
        elif self._around.clock() >= self._not_before:
            self._try()

    def _try(self) -> None:
        self._unsure = True
        try:
            self._act()
        except Refusal as refusal:
            self._failed(refusal)
        except NotANic as error:
            self._failed(Refusal(Kind.REFUSED, f"the NIC that ARM returned can't be used: {error}"))
        else:
            self._unsure = False
            self._failures, self._not_before = 0, 0.0
            self._rest(*self._look())

    def _is_to_act(self, wanted: Plan, pool: PoolView) -> bool:
        if self._unsure or (self._dry_run and wanted != self._told):
            return True
        return not self._dry_run and (wanted.grows or bool(leaving(self._nic.removable(pool), wanted.remove)))

    def _look(self) -> tuple[Plan, PoolView]:
        """What is to be done, by what is known now."""
        now = self._around.clock()
        pool = self._nic.view()
        self._arrivals.note(pool.holders, now)
        # Where it is known what is bound, that is earlier than what asks, and is not counted twice.
        demand = self._demand = self._around.demand(pool.held)
        full = self._full_at(now)
        seen = Counts(
            held=pool.held,
            free=len(pool.free),
            cooling=pool.cooling,
            unusable=pool.unusable,
            in_flight=len(self._nic.in_flight(pool)),
            waiting=len(self._around.waiting() - pool.pods),
            coming=demand.coming if demand is not None else 0,
            arrivals=demand.per_second if demand is not None else self._arrivals.per_second(now),
            configurations=max(1, len(self._nic.configurations)),
            subnet_full=full is Kind.SUBNET_FULL,
            vnet_full=full is Kind.VNET_FULL,
            no_block=now < self._no_block_until,
            most=0 if full is None else self._most,
        )
        wanted, self._surplus_since = plan_at(self._sizes, seen, self._surplus_since, now)
        return wanted, pool

    def _full_at(self, now: float) -> Kind | None:
        return self._full if now < self._full_until else None

    def _act(self) -> None:
        """Read the NIC, waiting for any operation on it; then decide again by what is there, and do it."""
        if self._writer is None:
            self._writer = self._around.writer(self._subnet)
        writer = self._writer
        self._note(writer.read())
        wanted, pool = self._look()
        if self._dry_run:
            self._tell_plan(wanted)
            return
        if failed := self._nic.failed(pool):
            self._remove(writer, failed, cooldown=0.0)
            wanted, pool = self._look()
        if wanted.grows:
            self._grow(writer, wanted)
        elif wanted.remove:
            units = leaving(self._nic.removable(pool), wanted.remove)
            self._remove(writer, units, cooldown=self._around.cooldown())

    def _grow(self, writer: NicWriter, wanted: Plan) -> None:
        number = wanted.add or wanted.blocks
        what = f"{wanted.blocks} blocks of {BLOCK}" if wanted.blocks else f"{wanted.add}"
        self._proceed(GROWING, f"adding {what} addresses to the NIC")
        names = nic_document.new_names(number)
        self._asked = wanted.added
        self._note(writer.add(names, blocks=bool(wanted.blocks)))
        self._most *= 2
        made = [each for each in self._nic.configurations if each.name in names]
        self._tally.add({counts.ADDED: sum(len(each.addresses) for each in made)})
        if wanted.blocks and any(len(each.addresses) < BLOCK for each in made):
            # An API that does not know blocks silently ignores the field (azure-cli#32553).
            self._no_block_until = self._around.clock() + SCARCE_SECONDS
            self._around.tell("warning", "blocks were requested, but Azure gave single addresses")
        self._done()

    def _remove(self, writer: NicWriter, units: Iterable[Unit], *, cooldown: float) -> None:
        """Take IP configurations from the NIC; those of which a pod just got an address stay."""
        units = tuple(units)
        marked = frozenset(self._ipam.mark_leaving([each.addresses for each in units], cooldown))
        names = [each.name for each in units if each.addresses in marked]
        if names:
            self._proceed(SHRINKING, f"taking {sum(map(len, marked))} addresses from the NIC")
            self._note(writer.remove(names))
            self._tally.add({counts.REMOVED: sum(map(len, marked))})
            self._done()

    def _done(self) -> None:
        self._around.tell("info", f"the NIC has {len(self._nic.configurations)} IP configurations now")
        self._around.refresh()

    def _note(self, nic: Document) -> None:
        """What the NIC has, no operation on it being in progress."""
        self._nic.note(nic_document.configurations(nic), nic_document.mac_of(nic))
        self._read_at = self._around.clock()
        self._nic.note_gone(self._nic.view(), mark=not self._dry_run)

    # Reporting

    def _rest(self, wanted: Plan, pool: PoolView) -> None:
        """Nothing has to be done now; say why, and have the source read while it does not list everything."""
        going = not self._dry_run and self._nic.keep_marked(pool)
        if going or self._nic.in_flight(pool):
            self._around.refresh()
        self._nic.note_listing(pool)
        again = AGAIN_SECONDS if self._nic.differs(pool) else AT_REST_SECONDS
        if self._around.clock() - self._read_at >= again:
            self._unsure = True
        self.progress = self._with_facts(self._resting(wanted, pool), pool)

    def _with_facts(self, told: Progress, pool: PoolView) -> Progress:
        coming = None if self._demand is None else self._demand.coming
        return replace(self._nic.with_facts(told, pool), coming=coming)

    def _resting(self, wanted: Plan, pool: PoolView) -> Progress:
        now = self._around.clock()
        if wanted.limited:
            return Progress(wanted.limited, *LIMITS[wanted.limited])
        if (full := self._full_at(now)) is not None:
            return Progress(*scarce(full))
        if (listing := self._nic.listing(pool)) is not None:
            return listing
        if now < self._no_block_until:
            return Progress(*scarce(Kind.NO_BLOCK))
        if self._dry_run:
            return Progress(DRY_RUN, "the plan is only logged (provision.dry_run)")
        return Progress(IDLE, f"the NIC has {len(self._nic.configurations)} IP configurations")

    def _proceed(self, phase: str, text: str) -> None:
        self.progress = replace(self.progress, phase=phase, text=text, remedy="")
        self._around.tell("info", text)

    def _tell_plan(self, wanted: Plan) -> None:
        if wanted == self._told:
            return
        self._told = wanted
        if wanted.grows:
            self._around.tell("info", f"dry run: would add {wanted.added} addresses")
        elif wanted.remove:
            self._around.tell("info", f"dry run: would remove {wanted.remove} addresses")

    def _failed(self, refusal: Refusal) -> None:
        now = self._around.clock()
        self._failures += 1
        if refusal.kind in FULL:
            self._full, self._full_until = refusal.kind, now + SCARCE_SECONDS
            self._most = max(1, self._asked // 2)
        elif refusal.kind is Kind.NO_BLOCK:
            self._no_block_until = now + SCARCE_SECONDS
        elif refusal.kind in {Kind.NOT_FOUND, Kind.NO_IDENTITY, Kind.OTHER_MACHINE}:
            self._writer = None  # looked up again, with another token
        seconds = pace.pause(self._failures, refusal.retry_after, pace.chance())
        self._not_before = now + seconds
        self.progress = replace(
            self.progress, phase=refusal.kind.value, text=str(refusal), remedy=refusal.remedy
        )
