"""Operators that are killed after each of their requests: whoever leads next finishes what was begun.

What a dead process knew is lost, so being killed before a request is the same as being killed after the one
before it. Requests that are under way when it dies are in ``test_faults``.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from ipam.value import replace
from tests.unit.operator.witness import ANY_ADDRESS
from tests.unit.operator.world import SIZES, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.operator.world import RunningOperator

pytestmark = pytest.mark.slow

MANY, FEW = 14, 2


class Deaths:
    """One operator after the other, each killed after one more of its requests than the one before."""

    def __init__(self, place: World) -> None:
        self._place = place
        self._names = count()
        self.by: list[str] = []
        """The method of the last request of each of them."""
        self.operator = self.next()

    def next(self) -> RunningOperator:
        self.operator = self._place.operator(f"operator-{next(self._names)}", grace_seconds=5)
        return self.operator

    def kill_during(self, change: Callable[[], None], is_over: Callable[[], bool]) -> bool:
        """Make a change, and kill the operator some requests later; False: it did not make so many."""
        life = self.operator.life
        life.kill_at = life.asked + len(self.by) + 1
        change()
        self._place.soon(lambda: life.is_dead.is_set() or is_over())
        if not life.is_dead.is_set():
            return False
        self.by.append(life.killed_by)
        self.next()
        return True


@pytest.mark.parametrize("pods", [MANY, FEW], ids=["growing", "shrinking"])
def test_an_operator_that_is_killed_after_any_request_is_followed_without_a_loss(
    place: World, pods: int
) -> None:
    agent = place.agent("node1", replace(SIZES, shrink_after=2.0))
    deaths = Deaths(place)

    def settle(number: int) -> None:
        agent.pods = number
        place.soon(lambda: number == MANY or len(place.azure.names("node1")) < MANY - FEW)
        place.settled(agent)

    def is_over() -> bool:
        held = len(agent.held) == pods and not agent.marked
        few = pods == MANY or len(place.azure.names("node1")) < MANY - FEW
        status = place.status("node1")
        return held and few and status.state == "idle" and status.operation is None

    def change() -> None:
        agent.pods = pods

    settle(MANY)
    settle(MANY + FEW - pods)
    while deaths.kill_during(change, is_over):
        settle(pods)
        settle(MANY + FEW - pods)
    # The note, the NIC as it is, the write, its operation, the NIC as it is then, and what the node is told.
    assert {"PATCH", "GET", "PUT"} == set(deaths.by)
    assert deaths.by.index("PUT") > deaths.by.index("PATCH"), "it is noted before it is written"
    assert "GET" in deaths.by[deaths.by.index("PUT") :], "an operation that nobody waits for any more"


def test_an_operator_that_is_killed_while_it_clears_the_nic_of_a_node_that_is_gone_is_followed(
    place: World,
) -> None:
    deaths = Deaths(place)
    for _ in count():
        agent = place.agent("node1")
        agent.pods = 3
        place.settled(agent)
        agent.is_silent = True
        del place.agents["node1"]
        place.azure.witness.holders = lambda _: (frozenset(), ANY_ADDRESS)
        go_on = deaths.kill_during(
            lambda: place.api.remove("Nodes", "node1"), lambda: not place.api.has("node1")
        )
        place.soon(lambda: not place.api.has("node1"))
        assert not place.azure.names("node1")
        place.azure.witness.holders = place._holders
        if not go_on:
            break
    assert {"GET", "PUT", "PATCH", "DELETE"} >= set(deaths.by) >= {"GET", "PUT"}
