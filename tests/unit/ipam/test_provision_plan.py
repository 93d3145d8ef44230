"""How many addresses a NIC gains or loses, as a pure function of settings and counts."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.azure_limits import BLOCK, NIC_CONFIGURATIONS
from ipam.model import Attachment
from ipam.provision.demand import WINDOW, Arrivals
from ipam.provision.plan import (
    OPERATION_SECONDS,
    SCARCE_SHRINK_AFTER,
    Counts,
    Plan,
    Sizes,
    Unit,
    leaving,
    plan,
    plan_at,
    problem,
)
from ipam.value import replace

LONG = 1e9
"""Seconds: long enough for anything to be removed."""


@st.composite
def some_sizes(draw: st.DrawFn) -> Sizes:
    batch = draw(st.integers(1, 40))
    low = draw(st.integers(0, 40))
    maximum = draw(st.integers(batch, 600))
    return Sizes(
        minimum=draw(st.integers(0, maximum)),
        batch=batch,
        low=low,
        high=low + batch + draw(st.integers(0, 60)),
        maximum=maximum,
        shrink_after=draw(st.sampled_from([0.0, 60.0])),
        prefixes=draw(st.booleans()),
    )


@st.composite
def some_counts(draw: st.DrawFn) -> Counts:
    few = st.integers(0, 60)
    return Counts(
        held=draw(few),
        free=draw(few),
        cooling=draw(few),
        unusable=draw(st.integers(0, 5)),
        in_flight=draw(st.integers(0, 40)),
        waiting=draw(st.integers(0, 20)),
        coming=draw(st.integers(0, 40)),
        arrivals=draw(st.floats(0, 2)),
        write_seconds=draw(st.sampled_from([OPERATION_SECONDS, 400.0])),
        configurations=draw(st.integers(1, NIC_CONFIGURATIONS)),
        subnet_full=draw(st.booleans()),
        vnet_full=draw(st.booleans()),
        no_block=draw(st.booleans()),
        share=draw(st.none() | st.integers(0, 100)),
    )


def after(counts: Counts, step: Plan) -> Counts:
    """The counts when the step has been taken, whatever can go having gone."""
    added = step.add + step.blocks * BLOCK
    return replace(
        counts,
        free=counts.free + added - step.remove,
        configurations=counts.configurations + step.add + step.blocks,
    )


@given(some_sizes(), some_counts())
def test_no_step_goes_above_the_maximum_or_what_a_nic_can_have(sizes: Sizes, counts: Counts) -> None:
    step = plan(sizes, counts, LONG)
    assert min(step.add, step.blocks, step.remove) >= 0
    if step.grows:
        assert after(counts, step).total <= sizes.maximum
        assert after(counts, step).configurations <= NIC_CONFIGURATIONS


@given(some_sizes(), some_counts())
def test_no_step_removes_what_is_held_cooling_or_needed(sizes: Sizes, counts: Counts) -> None:
    step = plan(sizes, counts, LONG)
    assert step.remove <= counts.free
    if step.remove:
        assert not step.grows
        left = after(counts, step)
        assert left.total >= sizes.minimum
        assert left.free + left.in_flight >= counts.waiting + counts.arrivals * OPERATION_SECONDS


@given(some_sizes(), some_counts())
def test_with_the_same_demand_the_pool_settles_after_going_one_way_only(sizes: Sizes, counts: Counts) -> None:
    directions = set()
    for _ in range(2 + sizes.maximum // BLOCK):  # a share of what is left allows a block at least in each
        step = plan(sizes, counts, LONG)
        if step == Plan(wanted=step.wanted, limited=step.limited, surplus=step.surplus):
            break
        directions.add("up" if step.grows else "down")
        counts = after(counts, step)
    else:
        raise AssertionError("it goes on for ever")
    assert len(directions) <= 1


@given(some_sizes(), some_counts())
def test_what_is_needed_is_there_after_one_step_unless_a_limit_says_no(sizes: Sizes, counts: Counts) -> None:
    counts = replace(counts, subnet_full=False, vnet_full=False, share=None)
    step = plan(sizes, counts)
    left = after(counts, step)
    enough = left.free + left.in_flight >= max(
        sizes.low + counts.waiting, counts.arrivals * OPERATION_SECONDS + counts.waiting
    )
    nearly_full = left.total > sizes.maximum - BLOCK or left.configurations == NIC_CONFIGURATIONS
    assert enough or nearly_full or step.limited


@given(some_sizes(), some_counts(), st.floats(0, 59))
def test_nothing_is_removed_before_there_were_too_many_for_long_enough(
    sizes: Sizes, counts: Counts, seconds: float
) -> None:
    assert plan(replace(sizes, shrink_after=60.0), counts, seconds).remove == 0


@given(some_sizes(), some_counts())
def test_steps_are_whole_batches_while_no_limit_is_near(sizes: Sizes, counts: Counts) -> None:
    far = replace(sizes, minimum=0, maximum=100_000, prefixes=False)
    plenty = replace(counts, configurations=1, subnet_full=False, vnet_full=False, share=None, arrivals=0.0)
    step = plan(far, plenty, LONG)
    assert step.add % far.batch == 0
    assert step.remove % far.batch == 0 or step.remove == counts.free


def test_an_empty_nic_is_given_a_batch_as_aks_does() -> None:
    assert plan(Sizes(), Counts(held=0, free=0)).add == 16


def test_it_grows_below_eight_free_and_not_at_eight() -> None:
    assert plan(Sizes(), Counts(held=9, free=7)).add == 16
    assert plan(Sizes(), Counts(held=8, free=8)) == Plan()


def test_it_shrinks_above_twenty_four_free_and_not_at_twenty_four() -> None:
    assert plan(Sizes(), Counts(held=8, free=24), LONG) == Plan()
    assert plan(Sizes(), Counts(held=7, free=25), LONG).remove == 16


def test_a_surplus_is_told_before_it_is_removed() -> None:
    assert plan(Sizes(), Counts(held=0, free=40), 599.0) == Plan(surplus=16)


def test_a_surplus_that_is_new_has_lasted_for_no_time() -> None:
    surplus = Counts(held=0, free=40)
    assert plan(Sizes(shrink_after=0.1), surplus).remove == 0
    assert plan(Sizes(shrink_after=0.0), surplus).remove == 16


def test_it_is_remembered_since_when_every_plan_has_had_a_surplus() -> None:
    surplus, enough = Counts(held=0, free=40), Counts(held=0, free=24)
    assert plan_at(Sizes(), surplus, None, 100.0) == (Plan(surplus=16), 100.0)
    assert plan_at(Sizes(), surplus, 100.0, 699.0) == (Plan(surplus=16), 100.0)
    assert plan_at(Sizes(), surplus, 100.0, 700.0) == (Plan(remove=16, surplus=16), 100.0)
    assert plan_at(Sizes(), enough, 100.0, 700.0) == (Plan(), None)
    assert plan_at(Sizes(shrink_after=0.0), surplus, None, 100.0) == (Plan(remove=16, surplus=16), 100.0)


def test_a_step_that_does_nothing_lacks_nothing_and_is_kept_from_nothing() -> None:
    step = plan(Sizes(), Counts(held=8, free=8))
    assert (step.add, step.blocks, step.remove, step.surplus) == (0, 0, 0, 0)
    assert (step.wanted, step.limited) == (0, "")


@pytest.mark.parametrize(
    ("step", "added"),
    [(Plan(), 0), (Plan(add=3), 3), (Plan(blocks=2), 2 * BLOCK), (Plan(remove=4, surplus=4), 0)],
)
def test_addresses_of_blocks_are_added_too(step: Plan, added: int) -> None:
    assert (step.added, step.grows) == (added, added > 0)


def test_what_cools_down_is_not_available() -> None:
    assert plan(Sizes(), Counts(held=0, free=7, cooling=20)).add == 16


def test_what_is_on_its_way_is_not_asked_for_twice() -> None:
    assert plan(Sizes(), Counts(held=16, free=0, in_flight=16)) == Plan()


def test_pods_that_wait_come_on_top_of_what_is_kept_free() -> None:
    assert plan(Sizes(), Counts(held=16, free=0, waiting=30)).add == 48


def test_a_fast_stream_of_pods_is_served_by_one_write_and_not_by_many() -> None:
    step = plan(Sizes(), Counts(held=20, free=10, arrivals=0.5))
    assert step.add == 80  # 0.5/s x 152 s = 76, less 10, in whole batches
    assert plan(Sizes(), after(Counts(held=20, free=10, arrivals=0.5), step)) == Plan()


def test_blocks_are_taken_whole() -> None:
    sizes = Sizes(prefixes=True)
    assert plan(sizes, Counts(held=0, free=0)) == Plan(blocks=1, wanted=16)
    assert plan(sizes, Counts(held=0, free=0, waiting=30)) == Plan(blocks=3, wanted=48)


def test_the_last_block_that_the_maximum_allows_is_taken_and_none_beyond() -> None:
    sizes = Sizes(prefixes=True, maximum=40)
    assert plan(sizes, Counts(held=0, free=0, waiting=100)).blocks == 2
    assert plan(replace(sizes, maximum=16), Counts(held=0, free=0)).blocks == 1


def test_a_block_that_is_more_than_a_batch_is_not_given_back_at_once() -> None:
    sizes = Sizes(prefixes=True, batch=4, high=12)
    assert plan(sizes, Counts(held=0, free=0)).blocks == 1
    assert plan(sizes, Counts(held=0, free=16), LONG) == Plan()
    assert plan(sizes, Counts(held=0, free=16, no_block=True), LONG).remove == 4


def test_every_address_counts_towards_the_pool_in_whatever_state() -> None:
    assert Counts(held=1, free=2, cooling=4, unusable=8, in_flight=16).total == 31


def test_where_no_block_is_left_single_addresses_do() -> None:
    assert plan(Sizes(prefixes=True), Counts(held=0, free=0, no_block=True)).add == 16


def test_a_block_counts_as_one_configuration_of_the_nic() -> None:
    counts = Counts(held=0, free=0, waiting=100, configurations=255)
    assert plan(Sizes(prefixes=True, maximum=4000), counts).blocks == 1
    assert plan(Sizes(maximum=4000), counts).add == 1


def test_a_full_nic_and_a_full_pool_are_told_apart() -> None:
    for configurations in (256, 257):
        full = Counts(held=9, free=0, configurations=configurations)
        assert plan(Sizes(), full) == Plan(wanted=16, limited="nic-full")
    assert plan(Sizes(maximum=16), Counts(held=16, free=0, configurations=17)).limited == "maximum"


FULL = [{"subnet_full": True}, {"vnet_full": True}]


@pytest.mark.parametrize("full", FULL, ids=str)
def test_in_a_full_network_addresses_are_for_pods_that_wait_and_are_given_back(
    full: dict[str, bool],
) -> None:
    """Each attempt costs a write, also one that is refused: a node that can do without makes none."""
    assert plan(Sizes(), Counts(held=20, free=0, **full)) == Plan()
    assert plan(Sizes(minimum=30), Counts(held=20, free=0, **full)) == Plan()
    assert plan(Sizes(), Counts(held=20, free=0, waiting=3, **full)).add == 3
    assert plan(Sizes(minimum=30), Counts(held=20, free=12, **full), LONG).remove == 2
    assert plan(Sizes(), Counts(held=4, free=12, **full), LONG).remove == 10


@pytest.mark.parametrize("full", FULL, ids=str)
def test_in_a_full_network_nothing_is_added_because_it_is_forecast(full: dict[str, bool]) -> None:
    """The PUT would be refused as a whole, and the pods that wait would get nothing."""
    counts = Counts(held=20, free=0, waiting=3, arrivals=0.5, write_seconds=750.0, **full)
    assert plan(Sizes(), counts).add == 3


@pytest.mark.parametrize("full", FULL, ids=str)
def test_in_a_full_network_a_surplus_goes_within_a_minute(full: dict[str, bool]) -> None:
    counts = Counts(held=4, free=12, **full)
    assert plan(Sizes(), counts, SCARCE_SHRINK_AFTER - 1) == Plan(surplus=10)
    assert plan(Sizes(), counts, SCARCE_SHRINK_AFTER).remove == 10
    assert plan(Sizes(shrink_after=20.0), counts, 20.0).remove == 10
    assert not plan(Sizes(), replace(counts, subnet_full=False, vnet_full=False), LONG).remove


@pytest.mark.parametrize("full", FULL, ids=str)
def test_in_a_full_network_a_node_keeps_what_lasts_for_one_operation(full: dict[str, bool]) -> None:
    """Or a rolling update would give back what it needs a moment later."""
    counts = Counts(held=9, free=12, arrivals=3 / 60, write_seconds=750.0, **full)
    assert plan(Sizes(), counts, LONG).remove == 12 - 8 - 1  # 3 pods per minute in 152 s


def test_in_a_full_virtual_network_blocks_are_still_taken() -> None:
    """A block counts as one."""
    sizes = Sizes(prefixes=True)
    assert plan(sizes, Counts(held=16, free=0, waiting=1, vnet_full=True)).blocks == 1
    assert plan(sizes, Counts(held=16, free=0, waiting=20, arrivals=2.0, vnet_full=True)).blocks == 2
    assert plan(sizes, Counts(held=0, free=32, vnet_full=True), LONG).remove == 16
    assert plan(sizes, Counts(held=16, free=0, waiting=1, subnet_full=True)) == Plan(add=1, wanted=1)


def test_a_forecast_is_cut_to_the_share_that_a_node_has_of_what_is_left() -> None:
    counts = Counts(held=16, free=10, arrivals=0.5, waiting=4)
    assert plan(Sizes(), counts).add == 80  # 76 + 4 - 10
    assert plan(Sizes(), replace(counts, share=200)).add == 80
    assert plan(Sizes(), replace(counts, share=20)).add == 32  # 20, in batches of 16
    assert plan(Sizes(), replace(counts, free=0, share=16)).add == 32  # 4 + 16
    assert plan(Sizes(prefixes=True), replace(counts, share=2)).blocks == 2


def test_where_little_is_left_only_that_is_added_and_in_no_batches() -> None:
    counts = Counts(held=16, free=0, arrivals=0.5, waiting=4)
    assert plan(Sizes(), replace(counts, share=15)).add == 12  # 8 + 4
    assert plan(Sizes(), replace(counts, share=3)).add == 7
    assert plan(Sizes(), replace(counts, share=0)).add == 4
    assert plan(Sizes(), replace(counts, waiting=0, share=0)) == Plan()
    assert plan(Sizes(prefixes=True), replace(counts, share=0)).blocks == 1


def test_where_little_is_left_nothing_is_given_back_early() -> None:
    counts = Counts(held=16, free=24, share=0)
    assert plan(Sizes(), counts, LONG) == Plan()
    assert not plan(Sizes(), replace(counts, free=26), 599.0).remove


def test_no_more_is_requested_at_once_than_may_be() -> None:
    counts = Counts(held=16, free=0, waiting=20, subnet_full=True, most=8)
    assert plan(Sizes(), counts) == Plan(add=8, wanted=20)
    assert plan(Sizes(), replace(counts, most=0)).add == 20
    assert plan(Sizes(prefixes=True), replace(counts, subnet_full=False, vnet_full=True)).blocks == 1


def test_what_may_be_requested_is_not_requested_unless_it_is_wanted() -> None:
    counts = Counts(held=16, free=0, waiting=3, vnet_full=True, most=50)
    assert plan(Sizes(), counts).add == 3
    assert plan(Sizes(prefixes=True), counts).blocks == 1


def test_the_last_addresses_that_the_maximum_allows_are_taken_one_by_one() -> None:
    assert plan(Sizes(maximum=20), Counts(held=16, free=0)) == Plan(add=4, wanted=16)
    assert plan(Sizes(maximum=20, prefixes=True), Counts(held=16, free=0)) == Plan(add=4, wanted=16)


def test_pods_that_wait_are_no_part_of_the_share_for_those_that_are_not_there_yet() -> None:
    counts = Counts(held=16, free=4, waiting=20, arrivals=0.5, share=20)
    assert plan(Sizes(batch=1), counts).add == 20 + 20 - 4


def test_in_a_full_network_a_node_that_keeps_none_free_keeps_none_for_long() -> None:
    sizes = Sizes(batch=1, low=0)
    assert plan(sizes, Counts(held=4, free=3, subnet_full=True), LONG).remove == 2


def test_the_minimum_is_there_from_the_start_and_stays() -> None:
    assert plan(Sizes(minimum=30), Counts(held=0, free=0)).add == 30
    assert plan(Sizes(minimum=30), Counts(held=0, free=30), LONG) == Plan()
    assert plan(Sizes(minimum=30), Counts(held=0, free=45), LONG) == Plan()
    assert plan(Sizes(minimum=30), Counts(held=0, free=47), LONG).remove == 16


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        (Sizes(minimum=9, maximum=8, batch=1, low=0, high=1), "minimum"),
        (Sizes(batch=300, high=400), "batch"),
        (Sizes(low=10), "high"),
    ],
)
def test_settings_that_cannot_work_are_named(sizes: Sizes, word: str) -> None:
    assert problem(sizes).startswith(word)


@given(some_sizes())
def test_other_settings_are_fine(sizes: Sizes) -> None:
    assert problem(sizes) == ""


def test_settings_may_be_as_near_to_each_other_as_they_can() -> None:
    assert problem(Sizes(minimum=16, batch=16, low=8, high=24, maximum=16)) == ""


def unit(name: str, *last: int) -> Unit:
    return Unit(name, tuple(ip_address(f"10.0.0.{each}") for each in last))


def test_the_highest_addresses_go_first_and_never_more_than_may() -> None:
    units = [unit("a", 5), unit("b", 9), unit("c", 7), unit("block", *range(32, 48))]
    assert [each.name for each in leaving(units, 2)] == ["b", "c"]
    assert [each.name for each in leaving(units, 17)] == ["block", "b"]
    assert leaving(units, 0) == ()


def pod(number: int) -> Attachment:
    return Attachment(f"container{number}", "eth0")


def test_pods_that_were_there_at_the_first_look_did_not_just_arrive() -> None:
    arrivals = Arrivals()
    arrivals.note([pod(1), pod(2)], 100.0)
    assert arrivals.per_second(100.0) == 0


def test_arrivals_are_averaged_over_the_window_and_forgotten_after_it() -> None:
    arrivals = Arrivals()
    arrivals.note([], 100.0)
    arrivals.note([pod(1), pod(2), pod(3)], 110.0)
    arrivals.note([pod(3), pod(4)], 120.0)
    assert arrivals.per_second(120.0) == 4 / WINDOW
    assert arrivals.per_second(110.0 + WINDOW) == 4 / WINDOW
    assert arrivals.per_second(110.0 + WINDOW + 1) == 1 / WINDOW
    assert arrivals.per_second(120.0 + WINDOW + 1) == 0


def test_growth_begins_for_pods_that_are_bound_to_the_node_before_they_ask() -> None:
    """Those that wait are among them: nobody counts twice."""
    none_known = Counts(held=10, free=10, waiting=4)
    assert plan(Sizes(), none_known).add == 16  # 8 + 4 - 10
    assert plan(Sizes(), replace(none_known, coming=4)).add == 16
    assert plan(Sizes(), replace(none_known, coming=30)).add == 32  # 8 + 30 - 10
    assert plan(Sizes(), replace(none_known, coming=2)).add == 16


def test_steps_get_larger_as_turns_get_rarer() -> None:
    """What is free has to last until the next write to the same NIC ends."""
    seen = Counts(held=10, free=10, arrivals=0.5)
    assert plan(Sizes(), seen).add == 80  # 76 - 10
    assert plan(Sizes(), replace(seen, write_seconds=300.0)).add == 144  # 150 - 10


def test_what_is_kept_for_a_longer_wait_is_no_surplus() -> None:
    seen = Counts(held=10, free=180, arrivals=0.5)
    assert plan(Sizes(), seen, LONG).remove > 0
    assert not plan(Sizes(), replace(seen, write_seconds=350.0), LONG).remove
