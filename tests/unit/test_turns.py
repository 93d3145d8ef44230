"""Calls take turns; one that waits in its own keeps nobody for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cni_plugin.kernel import turns
from cni_plugin.kernel.turns import Turns

LONG = 30.0
"""Seconds that nothing here takes."""


@contextmanager
def running(*works: Callable[[], None]) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_one_thread_at_a_time_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", LONG)
    mine, inside, most = Turns(), [], []

    def work() -> None:
        for _ in range(20):
            with mine.taken():
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0001)
                inside.pop()

    with running(*[work] * 8):
        pass
    assert max(most) == 1


def test_what_is_waited_for_outside_of_a_turn_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", LONG)
    mine, other_was_there = Turns(), threading.Event()

    def wait_for_the_other() -> None:
        with mine.taken(), mine.left():
            assert other_was_there.wait(LONG)

    def be_there() -> None:
        with mine.taken():
            other_was_there.set()

    with running(wait_for_the_other, be_there):
        pass


@contextmanager
def one_that_waits_in_its_turn(mine: Turns) -> Iterator[threading.Event]:
    """It goes on when the event is set."""
    has_it, may_go = threading.Event(), threading.Event()

    def hang() -> None:
        with mine.taken():
            has_it.set()
            assert may_go.wait(LONG)

    with running(hang):
        assert has_it.wait(LONG)
        yield may_go


def test_one_that_waits_in_its_turn_keeps_the_others_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.2)
    mine = Turns()
    with one_that_waits_in_its_turn(mine) as may_go:
        started = time.monotonic()
        for _ in range(100):
            with mine.taken(), mine.left():
                pass
        seconds = time.monotonic() - started
        may_go.set()
    assert 0.2 <= seconds < 100 * 0.2 / 2


def test_turns_are_taken_again_when_the_one_that_waited_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.05)
    mine = Turns()
    with one_that_waits_in_its_turn(mine) as may_go:
        mine.take()
        assert not mine.leave()  # it went on without
        may_go.set()
    for _ in range(2):
        mine.take()
        assert mine.leave()


def test_whoever_has_no_turn_gives_none_up() -> None:
    mine = Turns()
    assert not mine.leave()
    mine.take()
    seen: list[bool] = []
    with running(lambda: seen.append(mine.leave())):
        pass
    assert seen == [False]
    with mine.left():
        assert not mine.leave()
    assert mine.leave()


def test_an_error_in_a_turn_ends_it() -> None:
    mine = Turns()
    with pytest.raises(ZeroDivisionError), mine.taken():
        _ = 1 // 0
    mine.take()
    assert mine.leave()
