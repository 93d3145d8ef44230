"""Whose turn it is: workers, budgets of regions, requests under way, and the end of all turns."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from ipam.operator.budget import PAUSE
from ipam.operator.line import Urgency
from ipam.operator.turns import MEAN_SECONDS, Region, Sort, Stopped, Turns
from tests.unit.ipam.node import Clock
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, THERE = Region("s", "westeurope"), Region("s", "northeurope")
GROWTH, WAITING, REST = Urgency.GROWTH, Urgency.WAITING, Urgency.REST
SHARE = 0.02
"""Four writes at once, then one in five seconds; five reads at once."""


class Served:
    """Turns for two workers, served by a thread once it is begun."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.begun: list[tuple[str, Sort]] = []
        self.leads = True
        self.turns = Turns(
            SHARE, 2, lambda node, sort: self.begun.append((node, sort)), lambda: self.leads, self.clock
        )
        self._thread = threading.Thread(target=self.turns.run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.turns.stop()
        if self._thread.ident is not None:
            self._thread.join(20)
        assert not self._thread.is_alive()

    def until(self, *nodes: str) -> None:
        eventually(lambda: [node for node, _ in self.begun] == list(nodes), "they are begun")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    # Whoever changes something has to wake it: it would not look again by itself in this time.
    monkeypatch.setattr("ipam.operator.turns.LONGEST_LOOK", 1000.0)
    made = Served()
    yield made
    made.end()


def test_work_begins_by_urgency_with_as_many_workers_as_there_are(served: Served) -> None:
    for name, order in (("rest", REST), ("growth", GROWTH), ("waiting", WAITING)):
        served.turns.queue(name, HERE, Sort.READ, order)
    served.clock.advance(5)
    served.begin()
    served.until("waiting", "growth")
    assert served.turns.working == 2
    served.turns.ended()
    served.until("waiting", "growth", "rest")
    assert served.turns.working == 2
    assert {sort for _, sort in served.begun} == {Sort.READ}
    begun = served.turns.account(HERE).begun
    assert begun == {WAITING: (1, 5.0), GROWTH: (1, 5.0), Urgency.REMOVAL: (0, 0.0), REST: (1, 5.0)}


def test_work_waits_once_whatever_it_waits_for(served: Served) -> None:
    served.turns.queue("a", HERE, Sort.READ, REST)
    served.turns.queue("a", HERE, Sort.WRITE, GROWTH)
    served.turns.queue("b", HERE, Sort.WRITE, GROWTH)
    served.turns.queue("b", HERE, Sort.READ, REST)
    served.turns.queue("c", THERE, Sort.WRITE, WAITING)
    served.turns.drop("c")
    works = served.turns.account(HERE).works
    assert ("a" in works[Sort.WRITE], "a" in works[Sort.READ]) == (True, False)
    assert ("b" in works[Sort.WRITE], "b" in works[Sort.READ]) == (False, True)
    assert {region for region, _ in served.turns.accounts()} == {HERE, THERE}
    served.begin()
    eventually(lambda: len(served.begun) == 2, "both are begun")
    assert sorted(served.begun, key=str) == [("a", Sort.WRITE), ("b", Sort.READ)]


def test_a_budget_that_is_spent_keeps_only_its_own_region_waiting(served: Served) -> None:
    for _ in range(4):
        served.turns.account(HERE).meters[Sort.WRITE].take(served.clock())
    served.turns.queue("here", HERE, Sort.WRITE, WAITING)
    served.turns.queue("there", THERE, Sort.WRITE, GROWTH)
    served.begin()
    served.until("there")
    served.clock.advance(5)
    served.turns.queue("later", HERE, Sort.WRITE, REST)
    served.until("there", "here")


@pytest.mark.parametrize("sort", Sort)
def test_a_region_with_many_nodes_does_not_take_every_worker_that_becomes_free(
    served: Served, sort: Sort
) -> None:
    for number in range(4):
        served.turns.queue(f"here{number}", HERE, sort, GROWTH)
    served.turns.queue("there", THERE, Sort.WRITE, WAITING)
    served.begin()
    served.until("there", "here0")
    served.turns.ended()
    served.until("there", "here0", "here1")


def test_how_long_a_write_waits_is_the_longer_of_budget_and_workers(served: Served) -> None:
    def expected(order: Urgency) -> float:
        return served.turns.expected_wait(HERE, order)

    assert expected(GROWTH) == 0
    for number in range(2):
        served.turns.queue(f"n{number}", HERE, Sort.WRITE, GROWTH)
    served.turns.queue("reads", HERE, Sort.READ, WAITING)
    assert (expected(WAITING), expected(GROWTH)) == (0, MEAN_SECONDS / 2)
    for number in range(2, 4):
        served.turns.queue(f"n{number}", HERE, Sort.WRITE, GROWTH)
    assert expected(REST) == 3 * MEAN_SECONDS / 2
    served.turns.throttled(HERE, Sort.WRITE, 300.0)
    assert expected(REST) == 300
    assert served.turns.expected_wait(THERE, REST) == 0
    served.turns.throttled(THERE, Sort.WRITE, 0.0)
    assert served.turns.expected_wait(THERE, REST) == PAUSE, "Azure did not say for how long"


def test_the_write_that_is_requested_next_counts_when_the_budget_is_spent(served: Served) -> None:
    for _ in range(4):
        served.turns.account(HERE).meters[Sort.WRITE].take(served.clock())
    assert served.turns.expected_wait(HERE, GROWTH) == 5
    served.turns.queue("a", HERE, Sort.WRITE, GROWTH)
    assert served.turns.expected_wait(HERE, WAITING) == 5
    assert served.turns.expected_wait(HERE, GROWTH) == 10


def test_a_request_that_work_began_with_and_did_not_make_is_there_again(served: Served) -> None:
    meter = served.turns.account(HERE).meters[Sort.WRITE]
    for _ in range(4):
        meter.take(served.clock())
    assert meter.left(served.clock()) == 0
    served.turns.give_back(HERE, Sort.WRITE)
    assert meter.left(served.clock()) == 1


def test_requests_of_work_under_way_need_no_worker(served: Served) -> None:
    for name in ("a", "b", "c"):
        served.turns.queue(name, HERE, Sort.READ, WAITING)
    served.begin()
    served.until("a", "b")
    served.turns.request(HERE, Sort.WRITE, REST)
    served.turns.request(HERE, Sort.READ, REST)
    served.until("a", "b")
    assert served.turns.account(HERE).meters[Sort.WRITE].used == 1
    assert served.turns.account(HERE).meters[Sort.READ].used == 3


def test_who_does_not_lead_any_more_asks_for_nothing(served: Served) -> None:
    served.begin()
    served.turns.check()
    served.leads = False
    with pytest.raises(Stopped):
        served.turns.check()
    with pytest.raises(Stopped):
        served.turns.request(HERE, Sort.READ, GROWTH)


def test_at_the_end_all_who_wait_are_told(served: Served) -> None:
    ended: list[str] = []

    def wait() -> None:
        with pytest.raises(Stopped):
            served.turns.request(HERE, Sort.WRITE, GROWTH)
        ended.append("told")

    served.turns.throttled(HERE, Sort.WRITE, 1000.0)
    served.begin()
    threads = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
    for each in threads:
        each.start()
    requests = served.turns.account(HERE).requests[Sort.WRITE]
    eventually(lambda: len(requests) == 2, "both wait")
    served.turns.stop()
    for each in threads:
        each.join(20)
    assert ended == ["told", "told"]
    assert len(requests) == 0
    with pytest.raises(Stopped):
        served.turns.request(HERE, Sort.READ, WAITING)
