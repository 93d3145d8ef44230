"""What an agent says of the operator: its own words, or that there have been none for too long."""

from __future__ import annotations

import pytest

from ipam.provision.exchange import AzvnetNode, NodeStatus
from ipam.provision.operator_progress import OperatorProgress
from ipam.provision.progress import NO_OPERATOR, STARTING, Progress
from tests.unit.ipam.node import Clock


class Hearing:
    def __init__(self, status: NodeStatus) -> None:
        self.clock = Clock()
        self.progress = OperatorProgress(self.clock)
        self.hear(status)

    def hear(self, status: NodeStatus) -> None:
        self.status = status
        self.progress.note(AzvnetNode("n1", status=status))

    def says(self, *, grows: bool = False) -> Progress:
        return self.progress.progress(self.status, grows=grows)


@pytest.mark.parametrize(
    ("state", "grows", "seconds"),
    [
        ("", False, 60),
        ("", True, 60),
        ("growing", True, 900),
        ("shrinking", False, 900),
        ("queued", True, 900),
        ("idle", True, 90),
        ("idle", False, 1800),
        ("subnet-full", True, 1800),
        ("unheard-of", True, 1800),
    ],
)
def test_how_long_an_operator_may_be_silent_depends_on_what_it_said_last(
    state: str, grows: bool, seconds: float
) -> None:
    hearing = Hearing(NodeStatus(state=state))
    hearing.clock.advance(seconds)
    assert hearing.says(grows=grows).phase != NO_OPERATOR
    hearing.clock.advance(1)
    said = hearing.says(grows=grows)
    assert said.phase == NO_OPERATOR
    assert f" for {seconds + 1} s" in said.text
    assert "kubectl" in said.remedy


def test_only_another_word_counts_as_one() -> None:
    hearing = Hearing(NodeStatus(state="growing", text="more"))
    hearing.clock.advance(600)
    hearing.hear(NodeStatus(state="growing", text="more"))
    hearing.clock.advance(301)
    assert hearing.says().phase == NO_OPERATOR
    hearing.hear(NodeStatus(state="growing", text="still more"))
    assert hearing.says() == Progress("growing", "still more")


def test_it_says_what_the_operator_says() -> None:
    first = Hearing(NodeStatus()).says()
    assert first.phase == STARTING
    assert "operator" in first.text
    full = NodeStatus(state="subnet-full", text="no room", remedy="Free some.")
    assert Hearing(full).says() == Progress("subnet-full", "no room", "Free some.")


def test_a_state_of_a_newer_operator_is_a_problem_where_something_is_to_be_done() -> None:
    newer = NodeStatus(state="unheard-of", text="as it is", remedy="Do.")
    assert Hearing(newer).says() == Progress("refused", "as it is", "Do.")
    assert Hearing(NodeStatus(state="unheard-of")).says() == Progress("idle", "unheard-of")
