"""Long-running operations by themselves: how long, in which order, how they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from integration.fabric.armoperations import COMPUTE, NETWORK, RECORDED_SECONDS, Operations, Outcome
from integration.fabric.model import State

PATIENCE = 60.0
"""Seconds for what takes none."""


@pytest.fixture
def operations() -> Iterator[Operations]:
    made = Operations()
    yield made
    made.close()


def test_operations_take_as_long_as_recorded_ones() -> None:
    seconds = sorted(RECORDED_SECONDS[NETWORK])
    assert len(seconds) == 39
    assert (seconds[19], seconds[-1]) == (71, 198), "median and longest"
    assert set(RECORDED_SECONDS[COMPUTE]) == {30, 31}


def test_the_choice_is_the_same_in_every_run_and_follows_the_seed() -> None:
    def drawn(seed: int, speed: float) -> list[float]:
        made = Operations(seed)
        made.speed = speed
        made.hold()
        chosen = [made.seconds_of(NETWORK) for _ in range(20)]
        made.close()
        return chosen

    assert drawn(1, 60) == drawn(1, 60) != drawn(2, 60)
    assert drawn(1, 1) == pytest.approx([60 * each for each in drawn(1, 60)])


def test_an_operation_ends_by_itself_and_settles_before_anybody_is_told(operations: Operations) -> None:
    operations.speed = 1e6
    ended = threading.Event()
    seen: list[tuple[State, str]] = []

    def settle(state: State) -> None:
        running = operations.running("/nic")
        assert running is not None
        seen.append((state, running.document()["status"]))
        ended.set()

    operations.hold()
    operation = operations.begin("/NIC", NETWORK, settle)
    assert operations.find(operation.identifier.upper()) is operation
    operations.release()
    assert ended.wait(PATIENCE)
    operations.finish()
    assert seen == [(State.SUCCEEDED, "InProgress")]


def test_outcomes_are_used_in_their_order_and_success_follows(operations: Operations) -> None:
    operations.hold()
    operations.outcomes.extend([Outcome(State.FAILED, "Code", "Words."), Outcome(State.CANCELED)])
    states: list[State] = []
    for number in range(3):
        operations.begin(f"/{number}", NETWORK, states.append)
    operations.finish()
    assert states == [State.FAILED, State.CANCELED, State.SUCCEEDED]


def test_an_operation_whose_change_breaks_is_over_all_the_same(operations: Operations) -> None:
    operations.hold()

    def breaks(_: State) -> None:
        raise KeyError("the machine is gone")

    operation = operations.begin("/nic", NETWORK, breaks)
    with pytest.raises(KeyError):
        operations.finish()
    assert operations.running("/nic") is None
    assert operation.document() == {"status": "Succeeded"}


def test_operations_can_be_closed_and_used_again(operations: Operations) -> None:
    operations.begin("/nic", NETWORK, lambda _: None)
    operations.close()
    operations.speed = 1e6
    ended = threading.Event()
    operations.begin("/other", NETWORK, lambda _: ended.set())
    assert ended.wait(PATIENCE)


def test_polls_are_asked_for_at_the_recorded_pace_and_never_at_once(operations: Operations) -> None:
    for speed, seconds in ((1, 10), (5, 2), (60, 1), (1e6, 1)):
        operations.speed = speed
        assert operations.retry_after() == seconds
