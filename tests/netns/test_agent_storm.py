"""Whatever happens to the agent, no call fails, no address is given twice, nothing stays behind."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.netns.conftest import NewAgent
from tests.netns.node import Node
from tests.netns.storm import Storm
from tests.netns.ways import connections
from tests.waiting import Syscall, eventually, waits_in

pytestmark = pytest.mark.with_agent("it is the agent that things happen to")

BareNode = Callable[..., Node]
COOLDOWN = {"ipam": {"cooldown": 0}}
KILLS = 8
UPGRADES = 4
SECONDS = 8.0


@pytest.fixture
def windy_node(bare_node: BareNode) -> Node:
    """A node whose addresses are reused at once, so that a double use would show."""
    node = bare_node(addresses=12)
    node.netconf = node.conf(**COOLDOWN)
    return node


def test_no_call_fails_while_the_agent_is_killed_again_and_again(
    windy_node: Node, new_agent: NewAgent
) -> None:
    dice = random.Random(7)
    with Storm(windy_node, callers=6) as storm:
        for _ in range(KILLS):
            agent = new_agent(windy_node)
            time.sleep(dice.uniform(0.0, 0.8))
            agent.kill()
    assert storm.nothing_left() == []
    assert storm.calls["ADD"] >= KILLS


def test_no_call_fails_while_agents_take_over_from_one_another(windy_node: Node, new_agent: NewAgent) -> None:
    agent = new_agent(windy_node)
    with Storm(windy_node, callers=6) as storm:
        for _ in range(UPGRADES):
            successor = new_agent(windy_node)  # takes the socket over while the other still serves
            agent.stop()
            agent = successor
    assert storm.nothing_left() == []
    assert windy_node.sandbox.path("/run/azvnet/agent.sock").is_socket(), (
        "an agent that stops leaves its successor's socket alone"
    )


def test_no_call_fails_while_the_store_is_deleted_and_damaged_under_the_agent(
    windy_node: Node, new_agent: NewAgent
) -> None:
    new_agent(windy_node)
    store = windy_node.sandbox.path("/run/azvnet/azvnet.db")
    dice = random.Random(11)
    with Storm(windy_node, callers=6) as storm:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(dice.uniform(0.2, 0.7))
            if not store.exists():
                continue
            if dice.random() < 0.5:
                store.unlink()
            else:
                with store.open("r+b") as file:
                    file.seek(dice.randrange(0, 4096))
                    file.write(os.urandom(512))
    for pod_residue in storm.nothing_left():
        assert "held by" in pod_residue, pod_residue  # a record that came back from a lost store is swept


def test_a_call_that_the_agent_was_killed_over_is_finished_by_the_executable(
    windy_node: Node, new_agent: NewAgent
) -> None:
    """Killed at many points of one ADD: the caller always gets a result, and it is the pod's."""
    dice = random.Random(3)
    for number in range(12):
        agent = new_agent(windy_node)
        pod = windy_node.sandbox.pod(f"killed-{number}")
        running = windy_node.start("ADD", pod)
        time.sleep(dice.uniform(0.0, 0.012))
        agent.kill()
        result = running.finish()
        addresses = {
            each["local"] for link in pod.ip("addr", "show", "dev", "eth0") for each in link["addr_info"]
        }
        assert result.address in addresses
        assert windy_node.held()[result.address] == pod.container_id
        windy_node.check(pod, result).done()
        windy_node.delete(pod).done()
    assert windy_node.residue() == []


def test_an_agent_that_hangs_delays_an_add_but_never_doubles_it_and_a_del_finishes(
    windy_node: Node, new_agent: NewAgent
) -> None:
    agent = new_agent(windy_node)
    old, new = windy_node.sandbox.pods("old", "new")
    windy_node.add(old).done()
    agent.signal(signal.SIGSTOP)
    adding, deleting = windy_node.start("ADD", new), windy_node.start("DEL", old)
    deleting.finish().done()
    refused = adding.finish()
    assert refused.code == 11, "the kubelet is told to try again"
    assert windy_node.residue() == []
    agent.signal(signal.SIGCONT)
    eventually(lambda: not connections(windy_node.sandbox), "it is done with both")
    assert windy_node.residue() == [], "what nobody waits for any more is not done after all"
    windy_node.add(new).done()
    windy_node.delete(new).done()
    assert windy_node.residue() == []


def test_an_add_whose_caller_is_gone_is_rolled_back(windy_node: Node, new_agent: NewAgent) -> None:
    agent = new_agent(windy_node)
    pods = windy_node.sandbox.pods(*(f"gone-{number}" for number in range(8)))
    agent.signal(signal.SIGSTOP)
    calls = [windy_node.start("ADD", pod) for pod in pods]
    eventually(lambda: all(waits_in(call.pid, Syscall.POLL) for call in calls), "all wait for their replies")
    for call in calls:
        call.kill()
    agent.signal(signal.SIGCONT)
    eventually(lambda: not connections(windy_node.sandbox), "it is done with all of them")
    eventually(lambda: windy_node.residue() == [], "what was begun is undone")


def test_an_agent_that_is_stopped_finishes_what_it_has_begun(windy_node: Node, new_agent: NewAgent) -> None:
    pods = windy_node.sandbox.pods(*(f"last-{number}" for number in range(8)))
    agent = new_agent(windy_node)
    calls = [windy_node.start("ADD", pod) for pod in pods]
    agent.stop()
    addresses = {call.finish().address for call in calls}
    assert len(addresses) == len(pods)
    assert not windy_node.sandbox.path("/run/azvnet/agent.sock").exists()
    for pod in pods:
        windy_node.delete(pod).done()
    assert windy_node.residue() == []
