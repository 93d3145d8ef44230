"""A roll-out: old and new executables beside old and new agents, forth and back, and no call notices."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from tests.netns.calls import Caller, Running
from tests.netns.conftest import NewAgent
from tests.netns.next_version import next_version
from tests.netns.node import Node
from tests.netns.sandbox import Sandbox
from tests.netns.storm import Storm
from tests.netns.ways import Executables
from tests.waiting import eventually

pytestmark = pytest.mark.with_agent("it is the agents that differ")

BareNode = Callable[..., Node]
CALLS_EACH = 80


@pytest.fixture(scope="module")
def later(product: Executables, tmp_path_factory: pytest.TempPathFactory) -> Executables:
    return next_version(product, tmp_path_factory.mktemp("later"))


@dataclass
class InTurns:
    """A runtime on whose node the executables are replaced under it."""

    callers: itertools.cycle[Caller]

    def start(self, sandbox: Sandbox, environ: Mapping[str, str], stdin: bytes, *, as_ipam: bool) -> Running:
        """Start a call with the next of them."""
        return next(self.callers).start(sandbox, environ, stdin, as_ipam=as_ipam)


@pytest.fixture
def node(bare_node: BareNode) -> Node:
    node = bare_node(addresses=12)
    node.netconf = node.conf(ipam={"cooldown": 0})
    return node


def carried_out_by(node: Node, before: int) -> set[str]:
    """Who has logged the three calls behind the first so many."""
    eventually(lambda: len(node.log()) == before + 3, "all three are logged")
    return {record["by"] for record in node.log()[before:]}


def test_each_version_is_served_by_its_own_agent_and_helps_itself_with_the_other(
    node: Node, new_agent: NewAgent, product: Executables, later: Executables
) -> None:
    """Twice two: the version of the executable, and that of the agent."""
    pod = node.sandbox.pod("pod")
    for agent_of in (product, later):
        agent = new_agent(node, of=agent_of)
        for caller_of in (product, later):
            node.caller = caller_of.caller()
            before = len(node.log())
            added = node.add(pod).done()
            node.check(pod, added).done()
            node.delete(pod).done()
            by = "agent" if agent_of is caller_of else "executable"
            assert carried_out_by(node, before) == {by}
        agent.stop()
    assert node.residue() == []


@pytest.mark.timeout(300)
def test_no_call_fails_while_agents_and_executables_are_upgraded_and_downgraded(
    node: Node, new_agent: NewAgent, product: Executables, later: Executables
) -> None:
    """Taken over, stopped and killed in turns; each call by another version."""
    callers = [each.caller() for each in (product, later)]
    node.caller = InTurns(itertools.cycle(callers))
    agent = new_agent(node, of=product)
    with Storm(node, callers=6) as storm:
        for number, version in enumerate((later, product, later, product)):
            storm.await_calls(CALLS_EACH)
            if number % 2:
                agent.kill()
                agent = new_agent(node, of=version)
            else:
                successor = new_agent(node, of=version)  # it takes over while the other serves
                agent.stop()
                agent = successor
        storm.await_calls(CALLS_EACH)
    assert storm.nothing_left() == []
    who = Counter(record["by"] for record in node.log())
    assert who["agent"] > 10, who
    assert who["executable"] > 10, who
