"""A plan as text for people and as JSON for programs.

Owns the words. Pure: what a plan is based on is passed in, and ``ipam.planning`` computes the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_plugin.cli.table import Paint, table
from ipam import planning
from ipam.azure_limits import BLOCK, NIC_CONFIGURATIONS, VNET_CONFIGURATIONS
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.planning import Cluster
    from ipam.sources.arm_subnet import SubnetUsage

DAYS_IN_WORDS = 60
"""Shorter times are given in days, longer ones in months."""
LONGEST = 100 * 365.25
"""Days; nobody plans for growth that takes longer."""
USES = {
    "reserved": "reserved by Azure",
    "others": "in use already",
    "hosts": "nodes' own addresses",
    "pods": "pods",
    "rounding": "unused in batches or blocks",
    "alignment": "lost to alignment of blocks",
    "surge": "surge of an upgrade",
    "growth": "growth",
    "free": "free",
}


class SubnetPlan(Value):
    """A cluster, a subnet for it, and how far ahead to plan."""

    cluster: Cluster
    months: int
    given: int | None
    """Prefix length of the subnet that the plan is for; None: one is recommended."""
    batch: int = 1
    live: SubnetUsage | None = None
    """The subnet's usage according to ARM; ``cluster`` is then what is to be added."""

    @property
    def subnet(self) -> str:
        """The name of the subnet that is shown."""
        return f"subnet {self.live.name} ({self.live.prefix})" if self.live else f"a /{self.shown}"

    @property
    def days(self) -> float:
        """How far ahead to plan, in days."""
        return self.months * planning.MONTH

    @property
    def peak(self) -> int:
        """Nodes and their surge at the end."""
        return self.cluster.with_surge(self.cluster.nodes_after(self.days))

    @property
    def recommended(self) -> int | None:
        """The smallest subnet that holds them; None: no virtual network does."""
        return self.cluster.smallest(self.peak)

    @property
    def shown(self) -> int:
        """Prefix length of the subnet shown: the given, the recommended, or the largest useful one."""
        return self.given or self.recommended or self.cluster.largest_useful

    @property
    def fits_now(self) -> bool:
        """Whether it holds the nodes of today and their surge."""
        return self.cluster.fits(self.shown, self.cluster.with_surge(self.cluster.nodes))

    @property
    def is_known_to_fit(self) -> bool:
        """Whether it holds them wherever the addresses lie that something else has."""
        return self.cluster.surely_fits(self.shown, self.cluster.with_surge(self.cluster.nodes))


def duration(days: float) -> str:
    """So many days, in words."""
    if days < DAYS_IN_WORDS:
        return _plural(int(days), "day") if days >= 1 else "less than a day"
    months = f"{days / planning.MONTH:.1f}".removesuffix(".0")
    return f"{months} months"


def until(days: float | None, *, fits: bool = True) -> str:
    """How long something fits; ``fits``: whether it does now."""
    if not fits:
        return "no"
    return "always" if days is None or days > LONGEST else f"for {duration(days)}"


# For programs


def plan_document(plan: SubnetPlan) -> dict[str, Any]:
    """A plan as JSON; docs/plan.md describes the keys."""
    cluster, node = plan.cluster, plan.cluster.node
    return {
        "nodes": cluster.nodes,
        "perNode": {
            "pods": node.pods,
            "addresses": node.addresses,
            "blocks": node.blocks,
            "configurations": node.configurations,
            "taken": node.taken,
        },
        "months": plan.months,
        "live": _live_document(plan),
        "now": _moment(plan, 0),
        "atEnd": _moment(plan, plan.days),
        "recommended": plan.recommended,
        "fits": plan.is_known_to_fit or (None if plan.fits_now else False),
        "subnet": {
            **_size(plan, plan.shown),
            "uses": {name: getattr(_uses(plan), name) for name in (*USES, "missing")},
        },
        "sizes": [_size(plan, length) for length in _lengths(plan)],
        "timeline": [
            {"month": month, **_moment(plan, month * planning.MONTH)} for month in range(plan.months + 1)
        ],
        "limits": {
            "configurationsPerNIC": NIC_CONFIGURATIONS,
            "configurationsPerVirtualNetwork": VNET_CONFIGURATIONS,
            "reservedPerSubnet": planning.RESERVED,
        },
        "notes": list(notes(plan)),
    }


def _live_document(plan: SubnetPlan) -> dict[str, Any] | None:
    live = plan.live
    if live is None:
        return None
    return {
        "name": live.name,
        "prefix": str(live.prefix),
        "used": live.used,
        "elsewhere": live.elsewhere,
        "uncounted": list(live.uncounted),
    }


def _moment(plan: SubnetPlan, days: float) -> dict[str, Any]:
    cluster = plan.cluster
    nodes = cluster.nodes_after(days)
    peak = cluster.with_surge(nodes)
    return {
        "nodes": nodes,
        "nodesWithSurge": peak,
        "addresses": cluster.taken(nodes),
        "addressesWithSurge": cluster.taken(peak),
        "configurations": cluster.configurations(peak),
        "smallest": cluster.smallest(peak),
    }


def _size(plan: SubnetPlan, length: int) -> dict[str, Any]:
    cluster = plan.cluster
    return {
        "prefixLength": length,
        "addresses": planning.subnet_size(length),
        "capacity": cluster.capacity(length),
        "nodes": cluster.room(length),
        "nodesBesideSurge": max(0, cluster.surge.nodes_within(cluster.room(length))),
        "upgradesFitForDays": _rounded(cluster.upgrades_until(length)),
        "nodesFitForDays": _rounded(cluster.nodes_until(length)),
    }


def _rounded(days: float | None) -> float | None:
    return None if days is None or days > LONGEST else round(days, 1)


# For people


def plan_text(plan: SubnetPlan, paint: Paint) -> str:
    """Everything as tables."""
    where = plan.subnet if plan.live else plan.subnet.upper()
    parts = [
        headline(plan) + "\n",
        table(_MOMENTS, _moments(plan), paint, {"none": "bad"}, _NUMBERS),
        table(_SIZES, _size_rows(plan), paint, {"no": "bad", "always": "good"}, _NUMBERS),
        table((f"IN {where}", "ADDRESSES", "SHARE"), _use_rows(plan), paint, {}, _NUMBERS),
        f"{outlook(plan, paint)}\n" + "".join(f"note: {each}\n" for each in notes(plan)),
    ]
    return "\n".join(parts)


_MOMENTS = ("WHEN", "NODES", "WITH SURGE", "ADDRESSES", "SUBNET")
_SIZES = ("SUBNET", "ADDRESSES", "NODES", "UPGRADES FIT", "NODES FIT")
_NUMBERS = {"NODES", "WITH SURGE", "ADDRESSES", "SHARE"}


def headline(plan: SubnetPlan) -> str:
    """The cluster in one line."""
    node, cluster = plan.cluster.node, plan.cluster
    how = "1 address" if node.addresses == 1 else f"{node.addresses:,} addresses"
    if node.blocks:
        how = f"{_plural(node.blocks, 'block')} of {BLOCK}"
    elif plan.batch > 1:
        how += f" in batches of {plan.batch}"
    nodes = _plural(cluster.nodes, "more node" if plan.live else "node")
    return (
        f"{nodes} with {_plural(node.pods, 'pod')} each: {how} and the node's own, "
        f"{node.configurations} of the {NIC_CONFIGURATIONS} IP configurations of a NIC"
    )


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _moments(plan: SubnetPlan) -> Iterator[tuple[str, ...]]:
    for name, days in (("now", 0.0), (f"in {_plural(plan.months, 'month')}", plan.days)):
        if days and not plan.cluster.growth.amount:
            return
        seen = _moment(plan, days)
        counts = (f"{seen[key]:,}" for key in ("nodes", "nodesWithSurge", "addressesWithSurge"))
        yield name, *counts, f"/{seen['smallest']}" if seen["smallest"] else "none"


def _lengths(plan: SubnetPlan) -> list[int]:
    """The sizes that are compared: from one that is too small to one that is more than enough."""
    now = plan.cluster.smallest(plan.cluster.with_surge(plan.cluster.nodes)) or plan.shown
    known = [now, plan.recommended or now, plan.given or now]
    first, last = min(max(known) + 1, planning.SMALLEST), max(min(known) - 1, planning.LARGEST)
    return list(range(first, last - 1, -1))


def _size_rows(plan: SubnetPlan) -> Iterator[tuple[str, ...]]:
    for length in _lengths(plan):
        size, cluster = _size(plan, length), plan.cluster
        fits = (cluster.fits(length, each) for each in (cluster.with_surge(cluster.nodes), cluster.nodes))
        days = (size[key] for key in ("upgradesFitForDays", "nodesFitForDays"))
        times = (until(each, fits=now) for each, now in zip(days, fits, strict=True))
        yield f"/{length}", f"{size['addresses']:,}", f"{size['nodes']:,}", *times


def _use_rows(plan: SubnetPlan) -> Iterator[tuple[str, ...]]:
    seen = _uses(plan)
    for name in (*USES, "missing"):
        count = getattr(seen, name)
        if count:
            yield use_words(plan, name), f"{count:,}", share(plan, name, count)


def use_words(plan: SubnetPlan, name: str) -> str:
    """What a use is called in this plan."""
    if name == "rounding":
        return "unused in blocks" if plan.cluster.node.blocks else "unused in batches"
    return f"growth in {_plural(plan.months, 'month')}" if name == "growth" else USES.get(name, name)


def share(plan: SubnetPlan, name: str, count: int) -> str:
    """The share of the subnet, in percent."""
    return "" if name == "missing" else f"{count / planning.subnet_size(plan.shown):.1%}"


def _uses(plan: SubnetPlan) -> planning.Uses:
    return planning.uses(plan.cluster, plan.shown, plan.days)


def outlook(plan: SubnetPlan, paint: Paint | None = None) -> str:
    """The answer in one line."""
    painted = paint or Paint(wanted=False)
    missing = _uses(plan).missing
    if plan.recommended is None:
        advice = (
            "use several" if plan.cluster.node.blocks else "use several, or --prefixes, where a block is one"
        )
        return (
            f"{painted('does not fit', 'bad')}: {plan.cluster.configurations(plan.peak):,} IP configurations "
            f"are needed, and Azure allows {VNET_CONFIGURATIONS:,} in a virtual network: {advice}"
        )
    fits, recommended = painted("fits", "good"), painted("recommended", "good")
    if not plan.is_known_to_fit:
        fits, recommended = (
            painted(each + " if there are enough whole /28 blocks", "odd") for each in ("fits", "recommended")
        )
    if plan.given is None:
        return f"{recommended}: a /{plan.recommended}: {_times(plan, plan.recommended)}"
    if not plan.fits_now:
        larger = plan.cluster.smallest(plan.cluster.with_surge(plan.cluster.nodes))
        least = f"; now a /{larger} is needed" if larger else ""
        if larger != plan.recommended:
            least += f", and in {_plural(plan.months, 'month')} a /{plan.recommended}"
        return f"{painted('too small', 'bad')}: {missing:,} addresses are missing{least}"
    if plan.recommended < plan.given:
        later = f"in {_plural(plan.months, 'month')} a /{plan.recommended} is needed"
        return f"{fits} for now: {_times(plan, plan.given)}; {later}"
    return f"{fits}: {_times(plan, plan.given)}"


def _times(plan: SubnetPlan, length: int) -> str:
    upgrades, nodes = plan.cluster.upgrades_until(length), plan.cluster.nodes_until(length)
    if nodes is None or nodes > LONGEST:
        return f"room for {_plural(plan.cluster.room(length), 'node')}"
    surge = f", with the surge of an upgrade for {duration(upgrades or 0)}" if upgrades != nodes else ""
    return f"its nodes fit for {duration(nodes)}{surge}"


def notes(plan: SubnetPlan) -> Iterator[str]:
    """Remarks on what the numbers do not show."""
    cluster, length = plan.cluster, plan.shown
    in_order = cluster.smallest_in_order(plan.peak)
    if plan.recommended is not None and in_order is not None and in_order > plan.recommended:
        yield (
            f"a /{in_order} would do as long as no node is replaced; after that, nodes' own addresses lie "
            "between the blocks, and each keeps a /28 from being one"
        )
    if plan.live:
        yield (
            f"{plan.live.used:,} addresses are in use now, as Azure counts, without those that the present "
            "nodes have yet to take"
        )
    if plan.live and plan.live.uncounted:
        yield f"Azure does not count {', '.join(plan.live.uncounted)}, in the same virtual network"
    if cluster.node.blocks and cluster.others:
        yield (
            f"the {cluster.others:,} addresses in use already are taken to lie side by side: their number "
            "does not say how many /28 blocks they leave"
        )
    if cluster.capacity(length) - cluster.taken_by_others >= (cluster.room(length) + 1) * cluster.node.taken:
        yield (
            f"the virtual network's limit of {VNET_CONFIGURATIONS:,} IP configurations is reached "
            f"before a /{length} is full"
        )
