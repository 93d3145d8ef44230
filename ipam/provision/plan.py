"""How many addresses a NIC should gain or lose: from settings and counts, without I/O and without a clock.

It must not know what a NIC looks like, how it is written, or who asks. Sizes are numbers of addresses.

A write to a NIC that is attached to a machine takes a median of 71 s and 152 s at the 95th percentile
(recorded operations), so what is free when it begins has to serve the pods that arrive until it ends:
``free + in flight >= arrivals per second x 152 s``, and never fewer than ``low``. Where NICs share a budget
of writes, it has to last until the next turn, and steps get larger as turns get rarer. Where they share a
network that is nearly full, what is added for pods that are not there yet has an upper bound, and where it
is full, nodes add for pods that are there, and give back what they don't need.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from ipam.azure_limits import BLOCK, NIC_CONFIGURATIONS
from ipam.value import Value, replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.model import IPAddress

OPERATION_SECONDS = 152.0
"""What a write to an attached NIC takes at the 95th percentile."""
SCARCE_SHRINK_AFTER = 60.0
"""Seconds for which too many have to be free in a full network: as long as the rate of arrivals needs to show
that they are not.
"""


class Sizes(Value):
    """The sizes in the settings, in addresses."""

    minimum: int = 0
    """The pool is never made smaller than this, and grown to it at once."""
    batch: int = 16
    """Each step is a multiple of it, unless a limit is nearer."""
    low: int = 8
    """Grow when fewer are free or on their way."""
    high: int = 24
    """Shrink when more are free for ``shrink_after``."""
    maximum: int = 250
    """The pool is never made larger than this."""
    shrink_after: float = 600.0
    """Seconds for which too many have to be free."""
    prefixes: bool = False
    """Add /28 blocks instead of single addresses."""


class Counts(Value):
    """A NIC and the pool of its addresses at one moment; the states are disjoint."""

    held: int
    free: int
    """Could be given to a pod now, without shortening a cooldown."""
    cooling: int = 0
    unusable: int = 0
    """In quarantine, or carried by the host itself."""
    in_flight: int = 0
    """On the NIC or about to be, but not listed by the source yet."""
    waiting: int = 0
    """Pods that found no address."""
    coming: int = 0
    """Pods that are bound to the node and have no address yet, those that wait included; 0: not known."""
    arrivals: float = 0.0
    """Pods per second that are given an address."""
    write_seconds: float = OPERATION_SECONDS
    """Seconds until the next write to this NIC could end: longer where many NICs share a budget."""
    configurations: int = 1
    """IP configurations of the NIC, the primary one and all that other programs made included."""
    subnet_full: bool = False
    """The subnet had no address left some minutes ago."""
    vnet_full: bool = False
    """The virtual network had as many IP configurations as it may have some minutes ago; a block is one."""
    no_block: bool = False
    """The subnet had no free /28 some minutes ago."""
    share: int | None = None
    """IP configurations that may be added for pods that are not there yet; None: any number."""
    most: int = 0
    """So many addresses may be added at once, since twice as many were refused; 0: any number."""

    @property
    def is_scarce(self) -> bool:
        """Whether there was no address left where the NIC is."""
        return self.subnet_full or self.vnet_full

    @property
    def total(self) -> int:
        """Every address that pods have or could have."""
        return self.held + self.free + self.cooling + self.unusable + self.in_flight


class Plan(Value):
    """The next step; at most one of ``add``, ``blocks`` and ``remove`` is not 0."""

    add: int = 0
    """Single addresses."""
    blocks: int = 0
    """Blocks of ``BLOCK`` addresses."""
    remove: int = 0
    """At most so many addresses are removed."""
    surplus: int = 0
    """What ``remove`` would be if it had been so for ``shrink_after``."""
    wanted: int = 0
    """How many more addresses are needed."""
    limited: str = ""
    """What keeps the pool from having them: ``maximum``, ``nic-full``; empty: nothing."""

    @property
    def added(self) -> int:
        """Addresses that are added, those of blocks included."""
        return self.add + self.blocks * BLOCK

    @property
    def grows(self) -> bool:
        """Whether addresses are added."""
        return bool(self.add or self.blocks)


class Unit(Value):
    """One IP configuration that could go: it was made by us, and no pod uses an address of it."""

    name: str
    addresses: tuple[IPAddress, ...]


def problem(sizes: Sizes) -> str:
    """What is impossible about the settings, in words; empty: nothing."""
    if sizes.minimum > sizes.maximum:
        return f"minimum {sizes.minimum} is more than maximum {sizes.maximum}"
    if sizes.batch > sizes.maximum:
        return f"batch {sizes.batch} is more than maximum {sizes.maximum}"
    if sizes.high < sizes.low + sizes.batch:
        return (
            f"high {sizes.high} is less than low {sizes.low} plus batch {sizes.batch}: each step up would be "
            "followed by one down"
        )
    return ""


def plan(sizes: Sizes, counts: Counts, surplus_for: float = 0.0) -> Plan:
    """The next step. ``surplus_for``: seconds since which every plan has had a surplus.

    Never both ways: what is added stays below the mark for shrinking, what is removed leaves more than the
    mark for growing, as long as demand does not change in between.
    """
    sizes = _effective(sizes, counts)
    seconds = OPERATION_SECONDS if counts.is_scarce else counts.write_seconds
    forecast = max(sizes.low, ceil(counts.arrivals * seconds))
    pods = max(counts.waiting, counts.coming)
    available = counts.free + counts.in_flight
    short = pods + _ahead(sizes, counts, forecast, available - pods) - available
    wanted = max(_whole(short, sizes.batch), 0 if counts.is_scarce else sizes.minimum - counts.total)
    if wanted > 0:
        return _growth(sizes, counts, wanted)
    mark = max(sizes.high, forecast + pods + sizes.batch)
    surplus = min(
        _whole(available - mark, sizes.batch),
        (counts.total - sizes.minimum) // sizes.batch * sizes.batch,
        counts.free,
    )
    surplus = max(0, surplus)
    return Plan(remove=surplus if surplus_for >= sizes.shrink_after else 0, surplus=surplus)


def plan_at(sizes: Sizes, counts: Counts, since: float | None, now: float) -> tuple[Plan, float | None]:
    """The next step, and since when every plan has had a surplus; None: this one has none.

    ``since``: the same of the plan before.
    ``now``: seconds of a clock that does not jump.
    """
    planned = plan(sizes, counts, 0.0 if since is None else now - since)
    if not planned.surplus:
        return planned, None
    return planned, now if since is None else since


def leaving(units: Iterable[Unit], most: int) -> tuple[Unit, ...]:
    """Which IP configurations go: at most ``most`` addresses, the highest first, since the pool gives out
    the lowest of those that were never used.
    """
    chosen: list[Unit] = []
    for unit in sorted(units, key=lambda each: max(each.addresses), reverse=True):
        if len(unit.addresses) <= most:
            chosen.append(unit)
            most -= len(unit.addresses)
    return tuple(chosen)


def _effective(sizes: Sizes, counts: Counts) -> Sizes:
    """The sizes that hold now: the fewer addresses the network has, the fewer a node takes and keeps."""
    blocks = _takes_blocks(sizes, counts)
    batch = _whole(sizes.batch, BLOCK) if blocks else sizes.batch
    left = _left(sizes, counts)
    if left is None or left >= BLOCK:
        return replace(sizes, batch=batch)
    batch, low = BLOCK if blocks else 1, min(sizes.low, left)
    if not counts.is_scarce:
        return replace(sizes, batch=batch, low=low)
    high, after = min(sizes.low, 1) + batch, min(sizes.shrink_after, SCARCE_SHRINK_AFTER)
    return replace(sizes, batch=batch, low=low, high=high, shrink_after=after)


def _takes_blocks(sizes: Sizes, counts: Counts) -> bool:
    return sizes.prefixes and not (counts.no_block or counts.subnet_full)


def _left(sizes: Sizes, counts: Counts) -> int | None:
    """How many addresses may be added for pods that are not there yet; None: any number."""
    if counts.is_scarce:
        return 0
    if counts.share is None:
        return None
    return counts.share * (BLOCK if _takes_blocks(sizes, counts) else 1)


def _ahead(sizes: Sizes, counts: Counts, forecast: int, present: int) -> int:
    """How many addresses there should be for pods that are not there yet; ``present`` ones are.

    Where few are left, that is ``low``, and where none are, nothing, whatever is forecast: a PUT is refused
    as a whole, so that pods that are there would get nothing either, and each attempt costs a write.
    """
    left = _left(sizes, counts)
    if left is None:
        return forecast
    return sizes.low if left < BLOCK else min(forecast, max(0, present) + left)


def _growth(sizes: Sizes, counts: Counts, wanted: int) -> Plan:
    room = max(0, sizes.maximum - counts.total)
    slots = max(0, NIC_CONFIGURATIONS - counts.configurations)
    if not room or not slots:
        return Plan(wanted=wanted, limited="nic-full" if room else "maximum")
    most = counts.most or wanted
    if _takes_blocks(sizes, counts) and room >= BLOCK:
        blocks = min(_whole(wanted, BLOCK) // BLOCK, slots, room // BLOCK, _whole(most, BLOCK) // BLOCK)
        return Plan(blocks=blocks, wanted=wanted)
    return Plan(add=min(wanted, room, slots, most), wanted=wanted)


def _whole(number: int, batch: int) -> int:
    """``number`` rounded up to a multiple of ``batch``."""
    return -(-number // batch) * batch
