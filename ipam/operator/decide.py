"""What has to be done for a node now, from its resource and its record. Pure: no I/O, no clock.

How many addresses the node should have is up to ``ipam.provision.plan``; this module decides when that
plan may be carried out. It must not know budgets, nor how anything is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.operator.line import LASTING, Urgency
from ipam.operator.record import STALE, NodeRecord, Said, What, Wish
from ipam.provision import progress
from ipam.provision.pace import AGAIN_SECONDS, AT_REST_SECONDS
from ipam.provision.plan import OPERATION_SECONDS, Plan, plan_at, problem
from ipam.provision.refusals import Kind
from ipam.value import Value, replace

if TYPE_CHECKING:
    from ipam.provision.exchange import NodeSpec
    from ipam.provision.plan import Counts

STALE_SECONDS = 300.0
"""An agent that has not written for so many seconds is considered gone; it writes every two minutes."""
FRESH_SECONDS = 60.0
"""Nothing is removed from a NIC unless its agent wrote within so many seconds: it does every 30 s then."""


UNNOTICED = Said(progress.LISTING, "the node's agent has not confirmed yet what its NIC has")


class Around(Value):
    """What is known of the rest of the cluster, as far as it concerns one node."""

    has_node: bool
    """There is a Node with that name."""
    refused: str
    """Why nothing is done for the node whatever its resource says; empty: it may be served."""
    coming: int
    arrivals: float
    """Pods per second that the scheduler binds to the node."""
    wait: float
    """Seconds until a write that is requested now would begin."""
    full: Kind | None
    """``SUBNET_FULL`` or ``VNET_FULL``: there was no address left some minutes ago."""
    room: int | None
    """Addresses that may be requested now, if it was full; None: any number."""
    share: int
    """See ``plan.Counts``."""
    grace: float


def decide(record: NodeRecord, around: Around, now: float) -> Wish:
    """What is to be done next. Notes in the record since when there has been a surplus."""
    if (said := _why_not(record, around, now)) is not None:
        return Wish(What.NOTHING, said=said)
    if not around.has_node:
        return Wish(What.LEAVE, Urgency.REMOVAL)
    spec, status = record.node.spec, record.node.status
    counts = counts_of(record, around, now)
    urgent = max(counts.waiting, counts.coming) > counts.free
    if record.unsure or record.is_awaiting_read:
        return Wish(What.READ, Urgency.WAITING if urgent else Urgency.GROWTH)
    if spec.seen != status.revision:
        return _at_rest(record, UNNOTICED, now)
    planned = _planned(record, counts, now)
    if spec.dry_run:
        return _at_rest(record, Said(progress.DRY_RUN, _would(planned)), now)
    if planned.grows and around.room != 0:
        if urgent:
            return Wish(What.GROW, Urgency.WAITING, adds=planned.added)
        return Wish(What.GROW, Urgency.GROWTH, lasts=lasting(counts), adds=planned.added)
    if planned.remove or _may_go_on(record, planned):
        # Where there is nothing left, pods of other nodes wait for it.
        return Wish(What.SHRINK, Urgency.REMOVAL if around.full is None else Urgency.GROWTH)
    return _at_rest(record, _resting(record, around, planned, now), now)


def counts_of(record: NodeRecord, around: Around, now: float) -> Counts:
    """What the planner counts with."""
    counts = record.node.spec.pool.counts(max(1, len(record.node.status.configurations)))
    return replace(
        counts,
        coming=around.coming,
        arrivals=max(counts.arrivals, around.arrivals),
        write_seconds=OPERATION_SECONDS + around.wait,
        subnet_full=around.full is Kind.SUBNET_FULL,
        vnet_full=around.full is Kind.VNET_FULL,
        no_block=now < record.no_block_until,
        share=around.share,
        most=around.room or 0,
    )


def lasting(counts: Counts) -> float:
    """Seconds until a node has given out all that it has, at the rate at which pods arrive; at most
    ``LASTING``.
    """
    available = counts.free + counts.in_flight
    return min(LASTING, available / counts.arrivals) if counts.arrivals else LASTING


def may_remove(record: NodeRecord, now: float) -> bool:
    """Whether it is certain that the agent has its marks at this moment."""
    return record.renewed_at is not None and now - record.renewed_at <= FRESH_SECONDS


def _may_go_on(record: NodeRecord, planned: Plan) -> bool:
    """Whether the agent offers something that may be taken: what was asked for, or, unasked, IP
    configurations whose operation failed.
    """
    offered = [e for e in record.node.status.configurations if e.name in record.node.spec.releasing]
    return bool(offered) and (planned.surplus > 0 or any(each.state == "Failed" for each in offered))


def _why_not(record: NodeRecord, around: Around, now: float) -> Said | None:
    """Why nothing at all may be done."""
    silent = now - record.last_heard
    refused = record.broken or around.refused or impossible(record.node.spec)
    if not around.has_node:
        gone = now - (now if record.gone_since is None else record.gone_since)
        if min(gone, silent) < around.grace:
            return Said(STALE, "there is no Node with this name")
    elif refused:
        return Said(Kind.REFUSED.value, refused, "See the table of states in docs/operator.md.")
    elif silent > STALE_SECONDS:
        return Said(
            STALE,
            f"the node's agent has not written its resource for more than {STALE_SECONDS:.0f} s",
            "Check that the agent runs there with provision.mode operator and can reach the API server.",
        )
    if now < record.not_before:
        status = record.node.status
        return record.trouble or Said(status.state, status.text, status.remedy)
    return None


def impossible(spec: NodeSpec) -> str:
    """What is wrong with the node's settings in its resource; empty: nothing."""
    if spec.sizes.batch < 1:
        return "sizes.batch has to be at least 1"
    wrong = problem(spec.sizes)
    return f"sizes: {wrong}" if wrong else ""


def _planned(record: NodeRecord, counts: Counts, now: float) -> Plan:
    planned, record.surplus_since = plan_at(record.node.spec.sizes, counts, record.surplus_since, now)
    return planned


def _at_rest(record: NodeRecord, said: Said, now: float) -> Wish:
    """Nothing to do but read the NIC from time to time."""
    spec = record.node.spec
    sooner = AT_REST_SECONDS - AGAIN_SECONDS if spec.pool.in_flight or spec.vanished else 0.0
    return Wish(What.READ if now >= record.read_due - sooner else What.NOTHING, Urgency.REST, said)


def _resting(record: NodeRecord, around: Around, planned: Plan, now: float) -> Said:
    spec, status = record.node.spec, record.node.status
    if not spec.pool.in_flight:
        record.unlisted_since = None
    elif record.unlisted_since is None:
        record.unlisted_since = now
    if planned.limited:
        return Said(planned.limited, *progress.LIMITS[planned.limited])
    if around.full is not None:
        return Said(*progress.scarce(around.full))
    if planned.grows:
        return Said(progress.QUEUED, "another node asks first whether their network has addresses again")
    since = record.unlisted_since
    if since is not None and now - since > progress.LISTED_SECONDS:
        return Said(
            progress.NOT_LISTED,
            f"the node's source has not listed all addresses of its NIC for {progress.LISTED_SECONDS:.0f} s",
            "Check the source (run azvnet status on the node).",
        )
    if spec.pool.in_flight:
        return Said(progress.LISTING, "the node's source does not list all addresses of its NIC yet")
    if now < record.no_block_until:
        return Said(*progress.scarce(Kind.NO_BLOCK))
    return Said(progress.IDLE, f"the NIC has {len(status.configurations)} IP configurations")


def _would(planned: Plan) -> str:
    if planned.grows:
        return f"would add {planned.added} addresses (dryRun)"
    if planned.remove:
        return f"would remove {planned.remove} addresses (dryRun)"
    return "nothing would be done (dryRun)"
