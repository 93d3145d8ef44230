"""The agent's socket under callers that hang, and under a second agent: nobody else waits for them."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.netns.conftest import NewAgent
from tests.netns.node import Node
from tests.netns.waiting import eventually
from tests.netns.ways import SOCKET, Agent

pytestmark = pytest.mark.with_agent("it is the agent that is called")

BareNode = Callable[..., Node]
MORE_THAN_WORKERS, MORE_THAN_CAN_BE = 48, 140


@pytest.fixture
def node(bare_node: BareNode) -> Node:
    return bare_node()


@contextmanager
def hanging(node: Node, number: int) -> Iterator[None]:
    """Callers that began a request and were stopped over it: each keeps a thread of the agent for 5 s."""
    with ExitStack() as undo:
        for _ in range(number):
            sock = undo.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(node.sandbox.path(SOCKET)))
            sock.sendall(b"AZVN")
        yield


def threads(agent: Agent) -> int:
    return len(list(Path(f"/proc/{agent.pid}/task").iterdir()))


def carried_out_by(node: Node) -> str:
    """Who logged the last call; that is done once the caller has its reply."""
    log = node.log()
    return str(log[-1]["by"]) if log else ""


def test_callers_that_hang_delay_no_other_pod(node: Node, new_agent: NewAgent) -> None:
    agent = new_agent(node)
    pod, another = node.sandbox.pods("pod", "another")
    node.add(pod).done()
    before = threads(agent)
    with hanging(node, MORE_THAN_WORKERS):
        deleted, added = node.delete(pod).done(), node.add(another).done()
    assert deleted.seconds + added.seconds < 10, "by sixteen at a time they would take fifteen seconds"
    eventually(lambda: carried_out_by(node) == "agent", "the agent has carried it out")

    def back() -> bool:
        for each in [node.start("STATUS") for _ in range(8)]:  # one thread ends with each call
            each.finish().done()
        return threads(agent) <= before

    eventually(back, "as many threads as before")
    node.delete(another).done()
    assert node.residue() == []


def test_callers_that_wait_for_an_agent_that_is_stopped_are_let_go_at_once(
    node: Node, new_agent: NewAgent
) -> None:
    """Not when the last call that is under way has ended, up to twenty seconds later."""
    agent = new_agent(node)
    node.add(node.sandbox.pod("first")).done()
    pods = node.sandbox.pods("one", "two")
    with hanging(node, MORE_THAN_CAN_BE):
        time.sleep(0.5)
        calls = [node.start("ADD", pod) for pod in pods]
        time.sleep(0.2)
        agent.signal(signal.SIGTERM)
        for each in calls:
            each.finish().done()
        assert not agent.over, "it still waits for those that hang"
        eventually(lambda: carried_out_by(node) == "executable", "both did it themselves")
    agent.stop()
    for pod in pods:
        node.delete(pod).done()


def test_an_agent_whose_successor_was_killed_serves_again(node: Node, new_agent: NewAgent) -> None:
    old = new_agent(node)
    successor = new_agent(node)
    pod = node.sandbox.pod("pod")
    node.add(pod).done()
    eventually(lambda: carried_out_by(node) == "agent", "the successor has carried it out")
    successor.kill()

    def by_agent() -> bool:
        node.status().done()
        return carried_out_by(node) == "agent"

    eventually(by_agent, "the first one answers")
    node.delete(pod).done()
    eventually(lambda: "made anew" in old.said(), "it is said")
    old.stop()
    assert not node.sandbox.path(SOCKET).exists()


def test_an_agent_that_another_took_over_from_repairs_nothing(node: Node, new_agent: NewAgent) -> None:
    """Two agents that repair would count everything twice, and two configurations fight over the pool."""
    quick = {"reconcile_seconds": 0.2, "refresh_seconds": 0.2}
    new_agent(node, **quick)
    node.add(node.sandbox.pod("pod")).done()
    before = node.host_routes()
    successor = new_agent(node, **quick)
    time.sleep(1.5)  # a look that was under way
    successor.signal(signal.SIGSTOP)
    node.sandbox.run("ip", "route", "flush", "proto", "155")
    time.sleep(2.0)
    assert node.host_routes() == {}, "that is the successor's work"
    successor.signal(signal.SIGCONT)
    eventually(lambda: node.host_routes() == before, "the route is back")
