"""When something is done for a node, one condition at a time: to a node that is at rest."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from ipam.operator.decide import Around, counts_of, decide, lasting, may_remove
from ipam.operator.line import LASTING, Urgency
from ipam.operator.record import STALE, UNBELIEVED_SECONDS, NodeRecord, Said, What, Wish
from ipam.provision import progress
from ipam.provision.exchange import AzvnetNode, Machine, NodeSpec, NodeStatus, Operation, PoolReport
from ipam.provision.nic_document import Configuration
from ipam.provision.plan import OPERATION_SECONDS, Counts, Sizes
from ipam.provision.refusals import Kind
from ipam.value import replace

NOW = 5000.0
"""Seconds of the operator's clock."""
AROUND = Around(
    has_node=True, refused="", coming=0, arrivals=0.0, wait=0.0, full=None, room=None, share=1000, grace=60.0
)
MACHINE = Machine("/subscriptions/S/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1")
ONE, TWO = (
    Configuration(
        f"azvnet-{number:016x}",
        ip_network(f"10.0.0.{number}"),
        primary=False,
        state="Succeeded",
        is_ours=True,
    )
    for number in (5, 6)
)
SIZES = Sizes()
IDLE = Said(progress.IDLE, "the NIC has 2 IP configurations")


def record(
    pool: PoolReport | None = None,
    *,
    sizes: Sizes = SIZES,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> NodeRecord:
    """Of a node whose pool of eight free addresses lacks nothing, and whose NIC was read a moment ago."""
    said = NodeSpec(machine=MACHINE, sizes=sizes, pool=pool or PoolReport(free=8), **{"seen": 3, **spec})
    shown = NodeStatus(**{"revision": 3, "configurations": (ONE, TWO), **(status or {})})
    made = NodeRecord(AzvnetNode("n1", "u", "1", 1, said, shown), NOW)
    made.read_due = NOW + 600
    return made


def around(**changed: Any) -> Around:
    return replace(AROUND, **changed)


def state_of(wish: Wish) -> str:
    """What people are told of the node; empty: nothing."""
    return wish.said.state if wish.said is not None else ""


def test_a_node_that_lacks_nothing_is_at_rest() -> None:
    assert decide(record(), AROUND, NOW) == Wish(What.NOTHING, Urgency.REST, IDLE)


def test_at_rest_the_nic_is_read_when_that_is_due() -> None:
    each = record()
    each.read_due = NOW + 1
    assert decide(each, AROUND, NOW).what is What.NOTHING
    assert decide(each, AROUND, NOW + 1) == Wish(What.READ, Urgency.REST, IDLE)


@pytest.mark.parametrize(
    "differing",
    [{"pool": PoolReport(free=8, in_flight=1)}, {"vanished": (ip_address("10.0.0.9"),)}],
    ids=["in-flight", "vanished"],
)
def test_what_differs_from_the_nic_is_looked_at_a_minute_after_the_last_read(
    differing: dict[str, Any],
) -> None:
    each = record(**differing)
    assert decide(each, AROUND, NOW + 59).what is What.NOTHING
    assert decide(each, AROUND, NOW + 60).what is What.READ


@pytest.mark.parametrize(
    ("waiting", "coming", "urgency"),
    [
        (0, 0, Urgency.GROWTH),
        (7, 7, Urgency.GROWTH),
        (8, 0, Urgency.WAITING),
        (0, 8, Urgency.WAITING),
    ],
)
def test_growth_is_urgent_where_more_pods_want_an_address_than_there_are(
    waiting: int, coming: int, urgency: Urgency
) -> None:
    each = record(PoolReport(free=7, waiting=waiting))
    lasts = LASTING if urgency is Urgency.GROWTH else 0.0
    assert decide(each, around(coming=coming), NOW) == Wish(What.GROW, urgency, lasts=lasts, adds=16)


def test_growth_can_wait_as_long_as_the_addresses_last_that_are_free_or_on_their_way() -> None:
    assert lasting(Counts(held=9, free=6, in_flight=2, cooling=5, arrivals=0.05)) == pytest.approx(160)
    assert lasting(Counts(held=9, free=6, arrivals=0.001)) == LASTING
    assert lasting(Counts(held=9, free=0, arrivals=0.05)) == 0.0


def test_a_surplus_is_taken_when_it_has_lasted() -> None:
    each = record(PoolReport(free=60))
    assert decide(each, AROUND, NOW) == Wish(What.NOTHING, Urgency.REST, IDLE)
    assert each.surplus_since == NOW
    each.renewed_at = NOW + 590
    assert decide(each, AROUND, NOW + 599).what is What.NOTHING
    assert decide(each, AROUND, NOW + 600) == Wish(What.SHRINK, Urgency.REMOVAL)


def test_a_surplus_that_ended_begins_anew() -> None:
    each = record(PoolReport(free=60))
    decide(each, AROUND, NOW)
    each.node = record().node
    decide(each, AROUND, NOW + 10)
    assert each.surplus_since is None


@pytest.mark.parametrize(
    ("pool", "releasing", "state", "what"),
    [
        (PoolReport(free=60), (ONE.name,), "Succeeded", What.SHRINK),
        (PoolReport(free=8), (ONE.name,), "Succeeded", What.NOTHING),
        (PoolReport(free=8), (ONE.name,), "Failed", What.SHRINK),
        (PoolReport(free=60), ("azvnet-gone",), "Succeeded", What.NOTHING),
        (PoolReport(free=8), (TWO.name,), "Failed", What.NOTHING),
    ],
    ids=["asked-for", "no-surplus", "failed", "not-on-the-nic", "another-failed"],
)
def test_what_the_agent_offers_is_taken_if_it_was_asked_for_or_failed(
    pool: PoolReport, releasing: tuple[str, ...], state: str, what: What
) -> None:
    there = (replace(ONE, state=state), TWO)
    each = record(pool, releasing=releasing, status={"configurations": there})
    assert decide(each, AROUND, NOW).what is what


def test_a_surplus_of_one_address_is_taken_as_well() -> None:
    one_by_one = Sizes(batch=1, low=8, high=9)
    each = record(PoolReport(free=10), sizes=one_by_one, releasing=(ONE.name,))
    assert decide(each, AROUND, NOW).what is What.SHRINK


def test_one_failed_configuration_among_those_that_are_offered_is_enough() -> None:
    there = (replace(ONE, state="Failed"), TWO)
    each = record(releasing=(ONE.name, TWO.name), status={"configurations": there})
    assert decide(each, AROUND, NOW).what is What.SHRINK


@pytest.mark.parametrize(
    ("gone", "silent", "what"),
    [(60, 60, What.LEAVE), (59, 60, What.NOTHING), (60, 59, What.NOTHING), (None, 60, What.NOTHING)],
)
def test_the_nic_of_a_node_that_is_gone_is_cleaned_after_the_grace(
    gone: float | None, silent: float, what: What
) -> None:
    each = record()
    each.gone_since = None if gone is None else NOW - gone
    each.seen_at = NOW - silent
    wish = decide(each, around(has_node=False), NOW)
    assert wish.what is what
    assert state_of(wish) == ("" if what is What.LEAVE else STALE)
    assert wish.order is (Urgency.REMOVAL if what is What.LEAVE else Urgency.REST)


def test_a_node_that_is_gone_is_cleaned_whatever_it_said() -> None:
    each = record(sizes=Sizes(batch=0))
    each.gone_since = each.seen_at = NOW - 600
    each.broken = "it is broken"
    assert decide(each, around(has_node=False, refused="no"), NOW).what is What.LEAVE


@pytest.mark.parametrize(
    ("broken", "refused", "sizes", "text"),
    [
        ("it is broken", "another claims it", Sizes(batch=0), "it is broken"),
        ("", "another claims it", Sizes(batch=0), "another claims it"),
        ("", "", Sizes(batch=0), "sizes.batch has to be at least 1"),
        ("", "", Sizes(minimum=2, maximum=1), "sizes: minimum 2 is more than maximum 1"),
    ],
)
def test_nothing_is_done_for_what_is_refused(broken: str, refused: str, sizes: Sizes, text: str) -> None:
    each = record(PoolReport(free=0), sizes=sizes)
    each.broken = broken
    wish = decide(each, around(refused=refused), NOW)
    assert wish.what is What.NOTHING
    assert wish.said is not None
    assert (wish.said.state, wish.said.text) == ("refused", text)
    assert wish.said.remedy


def test_a_batch_of_one_is_possible() -> None:
    assert decide(record(PoolReport(free=7), sizes=Sizes(batch=1)), AROUND, NOW).what is What.GROW


def test_nothing_is_done_for_an_agent_that_is_silent_for_five_minutes() -> None:
    each = record(PoolReport(free=0))
    assert decide(each, AROUND, NOW + 300).what is What.GROW
    wish = decide(each, AROUND, NOW + 301)
    assert (wish.what, state_of(wish)) == (What.NOTHING, STALE)


def test_after_a_failure_nothing_is_done_before_the_pause_is_over_and_what_failed_is_said() -> None:
    each = record(PoolReport(free=0), status={"state": "growing", "text": "more", "remedy": "Wait."})
    each.not_before = NOW + 10
    assert decide(each, AROUND, NOW) == Wish(What.NOTHING, said=Said("growing", "more", "Wait."))
    each.trouble = Said("busy", "another operation")
    assert decide(each, AROUND, NOW) == Wish(What.NOTHING, said=each.trouble)
    assert decide(each, AROUND, NOW + 10).what is What.GROW


@pytest.mark.parametrize(
    "status",
    [{"revision": 0}, {"operation": Operation()}, {"releasing": (ONE.name,)}],
    ids=["never-read", "operation", "releasing"],
)
@pytest.mark.parametrize(("waiting", "urgency"), [(8, Urgency.GROWTH), (9, Urgency.WAITING)])
def test_where_the_nic_may_differ_from_the_resource_it_is_read_first(
    status: dict[str, Any], waiting: int, urgency: Urgency
) -> None:
    each = record(PoolReport(free=8, waiting=waiting), status=status)
    assert decide(each, AROUND, NOW) == Wish(What.READ, urgency)


def test_an_agent_that_does_not_believe_an_old_status_is_shown_a_new_one() -> None:
    each = record(seen=0)
    assert decide(each, AROUND, NOW) == Wish(What.READ, Urgency.GROWTH)
    each.read_at = NOW
    each.renewed_at = NOW + UNBELIEVED_SECONDS
    assert decide(each, AROUND, NOW).what is What.NOTHING
    each.renewed_at += 0.1
    assert decide(each, AROUND, NOW).what is What.READ


def test_what_the_node_has_not_seen_is_waited_for() -> None:
    each = record(PoolReport(free=0), seen=2)
    wish = decide(each, AROUND, NOW)
    assert (wish.what, state_of(wish)) == (What.NOTHING, progress.LISTING)


@pytest.mark.parametrize(
    ("pool", "sizes", "text"),
    [
        (PoolReport(free=7), Sizes(), "would add 16 addresses (dryRun)"),
        (PoolReport(free=7), Sizes(prefixes=True), "would add 16 addresses (dryRun)"),
        (PoolReport(free=60), Sizes(shrink_after=0), "would remove 48 addresses (dryRun)"),
        (PoolReport(free=60), Sizes(), "nothing would be done (dryRun)"),
        (PoolReport(free=8), Sizes(), "nothing would be done (dryRun)"),
    ],
)
def test_a_dry_run_says_what_would_be_done(pool: PoolReport, sizes: Sizes, text: str) -> None:
    said = Said(progress.DRY_RUN, text)
    assert decide(record(pool, sizes=sizes, dry_run=True), AROUND, NOW) == Wish(What.NOTHING, said=said)


def test_what_keeps_a_pool_small_is_said() -> None:
    full = decide(record(PoolReport(held=20, free=2), sizes=Sizes(maximum=22)), AROUND, NOW)
    assert full.said == Said("maximum", *progress.LIMITS["maximum"])
    assert state_of(decide(record(), around(full=Kind.SUBNET_FULL), NOW)) == "subnet-full"
    blocks = record()
    blocks.no_block_until = NOW + 10
    assert state_of(decide(blocks, AROUND, NOW)) == "no-block"
    assert decide(blocks, AROUND, NOW + 10).said == IDLE


def test_a_source_that_does_not_list_what_is_on_the_nic_is_told_after_five_minutes() -> None:
    each = record(PoolReport(free=8, in_flight=1))

    def state(now: float) -> str:
        each.renewed_at = now
        return state_of(decide(each, AROUND, now))

    assert [state(NOW), state(NOW + 300), state(NOW + 301)] == ["listing", "listing", "not-listed"]
    listed = replace(each.node, spec=replace(each.node.spec, pool=PoolReport(free=9)))
    lacking, each.node = each.node, listed
    assert state(NOW + 302) == "idle"
    each.node = lacking
    assert state(NOW + 303) == "listing"


def test_the_planner_counts_with_what_the_operator_knows_besides() -> None:
    each = record(PoolReport(held=1, free=2, releasing=3, arrivals_per_minute=6.0))
    each.no_block_until = NOW + 1
    counts = counts_of(each, around(coming=4, arrivals=0.05, wait=30.0, full=Kind.SUBNET_FULL), NOW)
    assert (counts.held, counts.free, counts.coming, counts.arrivals) == (1, 5, 4, 0.1)
    assert counts.write_seconds == OPERATION_SECONDS + 30.0
    assert counts.configurations == 2
    assert counts.subnet_full
    assert counts.no_block
    later = counts_of(each, around(arrivals=0.2), NOW + 1)
    assert (later.arrivals, later.subnet_full, later.no_block) == (0.2, False, False)
    assert counts_of(record(status={"configurations": ()}), AROUND, NOW).configurations == 1


def test_the_planner_is_told_which_network_is_full_and_how_much_is_left_to_the_node() -> None:
    each = record()
    subnet, vnet, neither = (
        counts_of(each, around(full=full, share=share), NOW)
        for full, share in ((Kind.SUBNET_FULL, 7), (Kind.VNET_FULL, 0), (None, 9))
    )
    assert (subnet.subnet_full, subnet.vnet_full, subnet.share) == (True, False, 7)
    assert (vnet.subnet_full, vnet.vnet_full, vnet.share) == (False, True, 0)
    assert (neither.subnet_full, neither.vnet_full, neither.share) == (False, False, 9)


def test_no_more_is_requested_in_a_full_network_than_others_gave_back() -> None:
    each = record()
    assert counts_of(each, around(full=Kind.SUBNET_FULL, room=9), NOW).most == 9
    assert counts_of(each, around(), NOW).most == 0


def test_in_a_full_network_pods_wait_until_others_have_given_something_back() -> None:
    each = record(PoolReport(held=9, waiting=5))
    full = around(full=Kind.SUBNET_FULL, room=0)
    assert decide(each, full, NOW).what is What.NOTHING
    assert state_of(decide(each, full, NOW)) == "subnet-full"
    for room, adds in ((3, 3), (9, 5)):
        wish = decide(each, replace(full, room=room), NOW)
        assert (wish.what, wish.order, wish.adds) == (What.GROW, Urgency.WAITING, adds)


def test_while_another_node_asks_whether_there_are_addresses_again_the_others_queue() -> None:
    each = record(PoolReport(held=9, free=2))
    assert state_of(decide(each, around(room=0), NOW)) == progress.QUEUED
    assert decide(each, around(room=1), NOW).adds == 1


def test_what_is_given_back_in_a_full_network_comes_before_what_is_given_back_elsewhere() -> None:
    each = record(PoolReport(held=1, free=60), sizes=Sizes(shrink_after=0))
    assert decide(each, AROUND, NOW).order is Urgency.REMOVAL
    assert decide(each, around(full=Kind.VNET_FULL, room=0), NOW).order is Urgency.GROWTH


def test_something_is_removed_only_where_the_agent_was_seen_a_minute_ago() -> None:
    each = record()
    assert not may_remove(each, NOW)
    each.renewed_at = NOW
    assert may_remove(each, NOW + 60)
    assert not may_remove(each, NOW + 61)
