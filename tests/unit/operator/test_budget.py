"""Requests to Azure stay within the limits, whoever wants them and whenever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipam.operator.budget import PAUSE, READS, UNTIL_MADE, WINDOW, WRITES, Limits, Meter
from ipam.operator.line import AGEING, Line, Urgency

SMALL = Limits(20, 8, 1.0)


@given(
    st.sampled_from([SMALL, Limits(6, 100, 50.0)]),
    st.floats(0.1, 1.0),
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 30), st.booleans()), max_size=60),
)
def test_never_more_than_the_share_in_any_five_minutes(
    limits: Limits, share: float, moves: list[tuple[float, int, bool]]
) -> None:
    now, made = 1000.0, list[float]()
    meter = Meter(limits, share, now)
    for seconds, wanted, throttled in moves:
        now += seconds
        if throttled:
            meter.pause(now, 3.0)
        for _ in range(wanted):
            if meter.wait(now) == 0:
                meter.take(now)
                made.append(now)
    for end in made:
        inside = [at for at in made if end - WINDOW < at <= end]
        assert len(inside) <= max(1, int(limits.window * share))
        for begin in inside:
            between = sum(begin <= at <= end for at in inside)
            # The last one may be what is left of a whole one.
            assert between <= max(1, limits.burst * share) + (end - begin) * limits.per_second * share + 1e-6


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, UNTIL_MADE)), max_size=60))
def test_requests_that_come_some_seconds_after_their_turn_are_not_more_either(
    moves: list[tuple[float, float]],
) -> None:
    now, made = 1000.0, list[float]()
    meter = Meter(Limits(6, 100, 50.0), 1.0, now)
    for seconds, later in moves:
        now += seconds
        if meter.wait(now) == 0:
            meter.take(now)
            made.append(now + later)
    for end in made:
        assert sum(end - WINDOW < at <= end for at in made) <= 6


@given(st.integers(1, 60), st.floats(0.2, 1.0))
def test_the_wait_for_the_last_of_many_is_what_they_really_take(number: int, share: float) -> None:
    now = 50.0
    meter = Meter(SMALL, share, now)
    told = meter.wait(now, number)
    for _ in range(number):
        while (pause := meter.wait(now)) > 0:
            now += pause + 1e-6
        meter.take(now)
    assert abs(now - 50.0 - told) <= max(10.0, 0.5 * told)


def test_the_limits_of_azure_are_halved_by_half_a_share() -> None:
    writes, reads = Meter(WRITES, 0.5, 0.0), Meter(READS, 0.5, 0.0)
    assert (writes.allowed, reads.allowed) == (500, 5000)
    assert (writes.left(0.0), reads.left(0.0)) == (100, 125)


def test_a_throttled_request_makes_all_pause_for_as_long_as_azure_says() -> None:
    meter = Meter(WRITES, 0.5, 0.0)
    meter.pause(0.0, 17.0)
    assert meter.wait(0.0) == 17.0
    assert meter.left(5.0) == 0
    meter.pause(10.0, 0.0)
    assert meter.wait(10.0) == PAUSE
    assert meter.wait(20.0) == 0


def test_a_turn_that_was_not_used_is_there_again() -> None:
    meter = Meter(Limits(2, 2, 0.01), 1.0, 0.0)
    meter.take(0.0)
    meter.take(0.0)
    assert meter.wait(0.0) > 0
    meter.give_back(0.0)
    assert meter.wait(0.0) == 0


def test_pods_that_wait_come_first_and_the_oldest_of_a_class() -> None:
    line: Line[str] = Line()
    for at, (name, order) in enumerate(
        [
            ("rest", Urgency.REST),
            ("removal", Urgency.REMOVAL),
            ("growth", Urgency.GROWTH),
            ("older", Urgency.WAITING),
        ]
    ):
        line.put(name, order, float(at))
    line.put("newer", Urgency.WAITING, 9.0)
    served = []
    while (found := line.first()) is not None:
        served.append(found[1])
        line.drop(found[1])
    assert served == ["older", "newer", "growth", "removal", "rest"]


def test_whose_pods_begin_to_wait_moves_ahead_and_whose_do_not_any_more_moves_back() -> None:
    line: Line[str] = Line()
    line.put("a", Urgency.GROWTH, 0.0)
    line.put("b", Urgency.GROWTH, 1.0)
    line.put("b", Urgency.WAITING, 2.0)
    assert line.first() == (2.0, "b")
    line.put("b", Urgency.REST, 3.0)
    assert line.first() == (AGEING, "a")
    assert line.lengths() == {Urgency.WAITING: 0, Urgency.GROWTH: 1, Urgency.REMOVAL: 0, Urgency.REST: 1}


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(list(Urgency)), st.floats(0, 100)),
        min_size=1,
        max_size=120,
    )
)
def test_nobody_starves(arrivals: list[tuple[int, Urgency, float]]) -> None:
    """However many urgent ones keep coming, who waits is overtaken only by those that came soon after."""
    line: Line[int] = Line()
    since: dict[int, tuple[float, Urgency]] = {}
    now = 0.0
    for number, (_, order, seconds) in enumerate(arrivals):
        now += seconds
        line.put(number, order, now)
        since[number] = (now, order)
        if number % 2:
            found = line.first()
            assert found is not None
            came, _ = since[found[1]]
            for came_before, its_order in since.values():
                assert came <= came_before + its_order * AGEING
            line.drop(found[1])
            del since[found[1]]
