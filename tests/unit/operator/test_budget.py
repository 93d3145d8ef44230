"""Requests to Azure stay within the limits, whoever wants them and whenever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipam.operator.budget import PAUSE, READS, UNTIL_MADE, WINDOW, WRITES, Limits, Meter
from ipam.operator.line import AGEING, CLOSE, LASTING, Line, PlaceInLine, Urgency

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


def test_what_was_taken_at_once_comes_back_little_by_little_and_never_beyond() -> None:
    meter = Meter(Limits(100, 4, 0.5), 1.0, 0.0)
    for _ in range(4):
        meter.take(0.0)
    assert (meter.left(0.0), meter.wait(0.0), meter.wait(0.0, 3)) == (0, 2.0, 6.0)
    assert (meter.left(2.0), meter.left(5.0)) == (1, 2)
    assert (meter.left(1000.0), meter.used) == (4, 4)
    meter.give_back(1000.0)
    assert (meter.left(1000.0), meter.used) == (4, 4), "nothing is in the window, nothing can be given back"


def test_a_long_rest_before_requests_gives_none_after_them() -> None:
    meter = Meter(Limits(100, 4, 0.5), 1.0, 0.0)
    for _ in range(4):
        meter.take(1000.0)
    assert meter.left(1000.0) == 0


def test_a_window_that_is_full_is_over_when_the_first_of_it_can_not_count_any_more() -> None:
    meter = Meter(Limits(3, 100, 100.0), 1.0, 0.0)
    for at in (0.0, 10.0, 20.0):
        meter.take(at)
    span = WINDOW + UNTIL_MADE
    assert [meter.wait(20.0, number) for number in (1, 2, 3)] == [span - 20, span - 10, span]
    assert meter.wait(20.0, 4) == 2 * span - 20
    assert meter.left(20.0) == 0
    assert (meter.wait(span), meter.left(span)) == (0, 1)
    empty = Meter(Limits(2, 100, 100.0), 1.0, 50.0)
    assert [empty.wait(50.0, number) for number in (2, 3, 5)] == [0, span, 2 * span]


def test_a_turn_that_is_given_back_counts_neither_as_used_nor_in_the_window() -> None:
    meter = Meter(Limits(2, 10, 1.0), 1.0, 0.0)
    meter.take(0.0)
    meter.give_back(0.0)
    assert (meter.used, meter.left(0.0)) == (0, 2)
    for _ in range(2):
        meter.take(0.0)
    assert (meter.used, meter.left(0.0)) == (2, 0)


def test_the_least_share_still_allows_one_request() -> None:
    meter = Meter(Limits(100, 10, 1.0), 0.001, 0.0)
    assert (meter.allowed, meter.left(0.0)) == (1, 1)


def test_a_longer_pause_is_not_ended_by_a_shorter_one() -> None:
    meter = Meter(WRITES, 0.5, 0.0)
    meter.pause(0.0, 30.0)
    meter.pause(1.0, 5.0)
    assert (meter.wait(1.0), meter.throttled) == (29.0, 2)
    assert (meter.left(29.0), meter.left(30.0)) == (0, 100)


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
    assert order_of(line) == ["older", "newer", "growth", "removal", "rest"]


def test_whose_pods_begin_to_wait_moves_ahead_and_whose_do_not_any_more_moves_back() -> None:
    line: Line[str] = Line()
    line.put("a", Urgency.GROWTH, 0.0)
    line.put("b", Urgency.GROWTH, 1.0)
    line.put("b", Urgency.WAITING, 2.0)
    assert line.first() == (2.0, "b")
    line.put("b", Urgency.REST, 3.0)
    assert line.first() == (AGEING, "a")
    assert line.lengths() == {Urgency.WAITING: 0, Urgency.GROWTH: 1, Urgency.REMOVAL: 0, Urgency.REST: 1}


def test_who_becomes_more_urgent_late_keeps_the_better_place() -> None:
    line: Line[str] = Line()
    line.put("a", Urgency.REST, 0.0)
    line.put("a", Urgency.GROWTH, 500.0)
    assert line.place("a") == PlaceInLine(Urgency.GROWTH, 0.0, 3 * AGEING)
    line.put("a", Urgency.WAITING, 501.0)
    line.put("b", Urgency.REST, 0.0)
    line.put("b", Urgency.GROWTH, 10.0)
    assert line.place("a") == PlaceInLine(Urgency.WAITING, 0.0, 3 * AGEING)
    assert line.place("b") == PlaceInLine(Urgency.GROWTH, 0.0, 10 + AGEING)
    line.put("b", Urgency.GROWTH, 20.0)
    assert line.place("b") == PlaceInLine(Urgency.GROWTH, 0.0, 10 + AGEING)
    line.put("b", Urgency.REMOVAL, 30.0)
    assert line.place("b") == PlaceInLine(Urgency.REMOVAL, 0.0, 2 * AGEING)
    assert line.place("c") is None


def test_who_can_do_without_for_longer_comes_later_in_its_class() -> None:
    line: Line[str] = Line()
    line.put("has none", Urgency.GROWTH, 0.0)
    line.put("lasts", Urgency.GROWTH, 0.0, 300.0)
    line.put("lasts less", Urgency.GROWTH, 10.0, 60.0)
    line.put("waits", Urgency.WAITING, 20.0)
    assert order_of(line) == ["waits", "has none", "lasts less", "lasts"]


def test_how_long_one_can_do_without_is_what_was_said_last() -> None:
    line: Line[str] = Line()
    line.put("a", Urgency.GROWTH, 0.0, 300.0)
    line.put("a", Urgency.GROWTH, 10.0, 290.0 + CLOSE / 2)
    assert line.place("a") == PlaceInLine(Urgency.GROWTH, 0.0, 300 + AGEING), "too little to matter"
    line.put("a", Urgency.GROWTH, 10.0, 100.0)
    assert line.place("a") == PlaceInLine(Urgency.GROWTH, 0.0, 110 + AGEING)
    line.put("a", Urgency.GROWTH, 20.0)
    assert line.place("a") == PlaceInLine(Urgency.GROWTH, 0.0, 20 + AGEING)
    line.put("a", Urgency.GROWTH, 30.0)
    assert line.place("a") == PlaceInLine(Urgency.GROWTH, 0.0, 20 + AGEING)
    line.put("a", Urgency.GROWTH, 100.0, LASTING)
    assert line.place("a") == PlaceInLine(Urgency.GROWTH, 0.0, LASTING + AGEING), "since it began to wait"
    line.put("a", Urgency.WAITING, 110.0, 60.0)
    assert line.place("a") == PlaceInLine(Urgency.WAITING, 0.0, 170.0)
    line.put("a", Urgency.WAITING, 110.0)
    assert line.place("a") == PlaceInLine(Urgency.WAITING, 0.0, 110.0)
    assert line.lengths()[Urgency.GROWTH] == 0


def order_of(line: Line[str]) -> list[str]:
    served = []
    while (found := line.first()) is not None:
        served.append(found[1])
        line.drop(found[1])
    return served


def test_who_stops_waiting_is_counted_nowhere_and_never_next() -> None:
    line: Line[str] = Line()
    line.put("a", Urgency.GROWTH, 0.0)
    line.put("a", Urgency.WAITING, 1.0)
    line.put("b", Urgency.GROWTH, 2.0)
    line.put("c", Urgency.REST, 3.0)
    assert (len(line), "a" in line, "d" in line) == (3, True, False)
    assert [line.ahead_of(each) for each in Urgency] == [1, 2, 2, 3]
    assert line.longest(10.0) == {
        Urgency.WAITING: 10.0,
        Urgency.GROWTH: 8.0,
        Urgency.REMOVAL: 0.0,
        Urgency.REST: 7.0,
    }
    for each in ("a", "d", "b", "c"):
        line.drop(each)
    assert (len(line), "a" in line, line.first()) == (0, False, None)
    assert set(line.lengths().values()) == {0}
    line.put("a", Urgency.REST, 20.0)
    assert line.first() == (20 + 3 * AGEING, "a")


@given(
    st.lists(
        st.tuples(st.floats(0, 2 * LASTING), st.sampled_from(list(Urgency)), st.floats(0, 100)),
        min_size=1,
        max_size=120,
    )
)
def test_nobody_starves(arrivals: list[tuple[float, Urgency, float]]) -> None:
    """However many urgent ones keep coming, who waits is overtaken only by those that came soon after."""
    line: Line[int] = Line()
    since: dict[int, tuple[float, Urgency]] = {}
    now = 0.0
    for number, (lasts, order, seconds) in enumerate(arrivals):
        now += seconds
        line.put(number, order, now, lasts)
        since[number] = (now, order)
        if number % 2:
            found = line.first()
            assert found is not None
            came, _ = since[found[1]]
            for came_before, its_order in since.values():
                assert came <= came_before + LASTING + its_order * AGEING
            line.drop(found[1])
            del since[found[1]]
