"""Which operator leads: never two at the same moment, whatever stops, hangs or fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.operator.leader import Elector, LeaseConflict, LeaseRecord, LeaseUnavailable
from ipam.value import replace
from tests.unit.ipam.node import Clock

SECONDS = 15.0


class Lease:
    """The Lease in an API server."""

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self.is_away = False
        self.loses_answers = False
        self.acquired: list[str] = []

    def read(self) -> LeaseRecord | None:
        if self.is_away:
            raise LeaseUnavailable("it is away")
        return self.record

    def write(self, record: LeaseRecord, *, acquires: bool) -> LeaseRecord:
        if self.is_away:
            raise LeaseUnavailable("it is away")
        if (self.record.version if self.record else "") != record.version:
            raise LeaseConflict
        self.record = replace(record, version=str(int(record.version or "0") + 1))
        if acquires:
            self.acquired.append(record.holder)
        if self.loses_answers:
            raise LeaseUnavailable("no answer")
        return self.record


class Place:
    def __init__(self) -> None:
        self.clock, self.lease, self.told = Clock(), Lease(), list[str]()

    def candidate(self, name: str, zero: float = 0.0, rate: float = 1.0) -> Elector:
        """``zero``, ``rate``: of the clock of its machine."""

        def clock() -> float:
            return zero + rate * self.clock()

        return Elector(self.lease, name, SECONDS, clock, lambda _, text: self.told.append(text))


@pytest.fixture
def place() -> Place:
    return Place()


def test_the_first_one_leads_and_the_others_wait(place: Place) -> None:
    a, b = place.candidate("a"), place.candidate("b")
    a.step()
    b.step()
    assert a.leads
    assert not b.leads
    assert b.holder == "a"


def test_a_leader_that_is_killed_is_followed_after_the_duration_of_the_lease(place: Place) -> None:
    a, b = place.candidate("a"), place.candidate("b")
    a.step()
    b.step()
    place.clock.advance(SECONDS)
    b.step()
    too_early = b.leads
    place.clock.advance(0.1)
    b.step()
    assert (too_early, b.leads) == (False, True)
    assert place.lease.record is not None
    assert place.lease.record.transitions == 1


def test_a_leader_that_was_stopped_knows_that_it_no_longer_leads_before_it_asks(place: Place) -> None:
    a = place.candidate("a")
    a.step()
    place.clock.advance(SECONDS)
    assert not a.leads


def test_a_leader_that_gives_the_lease_back_is_followed_at_once(place: Place) -> None:
    a, b = place.candidate("a"), place.candidate("b")
    a.step()
    b.step()
    a.release()
    b.step()
    assert (a.leads, b.leads) == (False, True)
    assert place.lease.acquired == ["a", "b"]


def test_one_that_does_not_lead_gives_nothing_back(place: Place) -> None:
    a, b = place.candidate("a"), place.candidate("b")
    a.step()
    b.step()
    b.release()
    assert a.leads
    assert place.lease.record is not None
    assert place.lease.record.holder == "a"


def test_without_the_api_server_nobody_leads_after_a_while_and_it_is_told_once(place: Place) -> None:
    a = place.candidate("a")
    a.step()
    place.lease.is_away = True
    for _ in range(10):
        place.clock.advance(a.pause)
        a.step()
    assert not a.leads
    assert sum("can't be used" in text for text in place.told) == 1


def test_leading_again_after_a_gap_is_another_term(place: Place) -> None:
    a = place.candidate("a")
    a.step()
    a.step()
    assert a.term == 1
    place.clock.advance(SECONDS)
    a.step()
    assert a.leads
    assert a.term == 2


def test_a_renewal_counts_from_before_it_was_asked_for(place: Place) -> None:
    a = place.candidate("a")
    write = place.lease.write

    def slowly(record: LeaseRecord, *, acquires: bool) -> LeaseRecord:
        place.clock.advance(9.0)
        return write(record, acquires=acquires)

    place.lease.write = slowly  # type: ignore[method-assign]
    a.step()
    assert a.leads
    place.clock.advance(1.1)
    assert not a.leads


@pytest.mark.parametrize(("slow", "fast"), [(0.85, 1.15), (1.0, 1.0), (1.15, 0.85)])
def test_a_leader_whose_clock_is_slow_stops_before_one_whose_clock_is_fast_begins(
    place: Place, slow: float, fast: float
) -> None:
    """It stops after two thirds of what others wait: clocks may run apart by less than half."""
    a, b = place.candidate("a", 5e8, slow), place.candidate("b", -5e8, fast)
    a.step()
    b.step()
    led = 0.0
    while not b.leads:
        place.clock.advance(0.25)
        led += 0.25 * a.leads
        b.step()
        assert not (a.leads and b.leads)
    assert led >= SECONDS / 2
    assert place.lease.acquired == ["a", "b"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["step", "step", "step", "release", "away", "back", "lost"]),
            st.floats(0.0, 20.0),
        ),
        max_size=60,
    ),
    st.tuples(*[st.tuples(st.floats(-1e9, 1e9), st.floats(0.85, 1.15))] * 3),
)
def test_there_are_never_two_leaders_whatever_their_clocks_show(
    moves: list[tuple[str, str, float]], clocks: tuple[tuple[float, float], ...]
) -> None:
    place = Place()
    candidates = {name: place.candidate(name, *clock) for name, clock in zip("abc", clocks, strict=True)}
    for name, move, seconds in moves:
        place.lease.loses_answers = move == "lost"
        if move in {"away", "back"}:
            place.lease.is_away = move == "away"
        elif move == "release":
            candidates[name].release()
        else:
            candidates[name].step()
        assert sum(each.leads for each in candidates.values()) <= 1
        place.clock.advance(seconds)
        assert sum(each.leads for each in candidates.values()) <= 1
