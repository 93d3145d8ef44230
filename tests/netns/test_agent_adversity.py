"""What befalls a node whose agent runs: each time every address is free, or held by the one live pod that
carries it, and everything goes on once the trouble is over.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns import model
from tests.netns.conftest import NewAgent
from tests.netns.model import Facts
from tests.netns.node import RUN_DIR, Node, pod_addresses
from tests.netns.sandbox import Pod
from tests.netns.storm import Storm
from tests.waiting import eventually

pytestmark = pytest.mark.with_agent("it is the agent that things happen to")

BareNode = Callable[..., Node]
QUICK = {"reconcile_seconds": 0.3, "refresh_seconds": 0.3, "reclaim_seconds": 0.8}
STORE_FAILED = 108
YEAR = 365 * 86400


@pytest.fixture
def node(bare_node: BareNode) -> Node:
    node = bare_node(addresses=12)
    node.netconf = node.conf(ipam={"cooldown": 0})
    return node


def mount_small(node: Node) -> None:
    node.sandbox.run("mkdir", "-m", "700", RUN_DIR)
    node.sandbox.run("mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "small", RUN_DIR)


def check_invariant(node: Node, pods: list[Pod]) -> Facts:
    """At a moment when no call is running."""
    facts = model.read(node, pods)
    carried = [(address, name) for name, found in facts.carried.items() for address in found]
    assert len({address for address, _ in carried}) == len(carried), f"carried twice: {facts}"
    assert len(set(facts.held.values())) == len(facts.held), f"held twice: {facts}"
    assert facts.states == len(set(facts.known)), f"the states do not add up: {facts}"
    for address, name in carried:
        assert facts.held.get(name) == address, f"{name} carries {address}, which is not held: {facts}"
        assert name in facts.finished, f"{name} is half made: {facts}"
        assert address in facts.routes, f"{address} of {name} has no route: {facts}"
    return facts


def becomes_clean(node: Node, pods: list[Pod]) -> None:
    """Within some looks nothing is held by a pod that does not carry it, and nothing is left of any."""

    def clean() -> bool:
        facts = check_invariant(node, pods)
        return set(facts.held) == set(facts.carried) == set(facts.finished) and not facts.unfinished

    eventually(clean, lambda: f"clean: {model.read(node, pods)}", pause=0.1)


# The state directory


def test_a_disk_that_fills_up_under_load_costs_no_pod_its_address(node: Node, new_agent: NewAgent) -> None:
    mount_small(node)
    new_agent(node, **QUICK)
    live = node.sandbox.pods("live-1", "live-2")
    results = {pod.container_id: node.add(pod).done() for pod in live}
    filler = node.sandbox.path(f"{RUN_DIR}/filler")
    with Storm(node, callers=6) as storm:
        for _ in range(3):
            storm.await_calls(30)
            node.sandbox.run("sh", "-c", f"cat /dev/zero > {RUN_DIR}/filler", check=False)
            storm.await_calls(30)
            filler.unlink()
    refused = [each for each in storm.failures if f'"code":{STORE_FAILED},' not in each]
    assert refused == [], "an ADD says that it can't be written down; a DEL never fails"
    assert not [each for each in storm.failures if each.startswith("DEL")]
    pods = [*live, *storm.pods]
    becomes_clean(node, pods)
    for pod in live:
        node.check(pod, results[pod.container_id]).done()
    assert set(node.held().values()) == {"live-1", "live-2"}
    node.add(storm.pods[0]).done()


def test_a_state_directory_that_is_read_only_keeps_pods_from_coming_but_none_from_going(
    node: Node, new_agent: NewAgent
) -> None:
    agent = new_agent(node, **QUICK)
    stays, goes, comes = pods = node.sandbox.pods("stays", "goes", "comes")
    kept = node.add(stays).done()
    node.add(goes).done()
    node.sandbox.run("mount", "--bind", RUN_DIR, RUN_DIR)
    node.sandbox.run("mount", "-o", "remount,bind,ro", RUN_DIR)
    refused = node.add(comes)
    assert refused.code == STORE_FAILED
    assert "Read-only file system" in refused.msg
    node.delete(goes).done()
    assert node.status().code == 51
    assert not agent.over
    node.sandbox.run("umount", RUN_DIR)
    becomes_clean(node, pods)
    assert set(node.held().values()) == {"stays"}
    node.check(stays, kept).done()
    node.add(comes).done()
    assert node.status().ok
    check_invariant(node, pods)


def test_a_state_directory_that_is_removed_with_everything_in_it_is_made_anew(
    node: Node, new_agent: NewAgent
) -> None:
    new_agent(node, **QUICK)
    pods = node.sandbox.pods("one", "two", "three")
    added = [node.add(pod).done() for pod in pods[:2]]
    node.sandbox.run("rm", "-rf", RUN_DIR)
    third = node.add(pods[2]).done()
    assert third.address not in {each.address for each in added}
    eventually(lambda: len(node.held()) == 3, "what lives is adopted")
    eventually(node.sandbox.path(f"{RUN_DIR}/agent.sock").exists, "the agent can be found again")
    assert node.sandbox.path(RUN_DIR).stat().st_mode & 0o777 == 0o700
    check_invariant(node, pods)
    for pod in pods:
        node.delete(pod).done()
    assert node.residue() == []


# Clocks


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves the clocks of the process it is preloaded into."""
    target = tmp_path_factory.mktemp("clocks") / "clocks.so"
    source = Path(__file__).with_name("clocks.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", target, source], check=True)
    return target


class Clocks:
    """The clocks of an agent: what somebody sets, and what passes while the node is suspended."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._path = folder / "offsets"
        self.move(0, 0)
        self.environ = {"LD_PRELOAD": str(library), "TEST_CLOCKS": str(self._path)}

    def move(self, wall: int, boot: int) -> None:
        """Seconds that each is ahead from now on."""
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(struct.pack("=qq", wall, boot))


def test_clocks_that_are_set_and_a_node_that_is_suspended_cost_no_pod_its_address(
    node: Node, new_agent: NewAgent, tmp_path: Path, clocks: Path
) -> None:
    """Set to 1970, to 2090, and back; and hours that pass between two looks, each of which finds the pods."""
    moved = Clocks(tmp_path, clocks)
    agent = new_agent(node, environ=moved.environ, **QUICK)
    live = node.sandbox.pods("live-1", "live-2")
    results = {pod.container_id: node.add(pod).done() for pod in live}
    dice, suspended = random.Random(5), 0
    with Storm(node, callers=6) as storm:
        for _ in range(24):
            storm.await_calls(10)
            suspended += dice.choice((0, 0, 60, 7200))
            moved.move(dice.choice((0, -50 * YEAR, 64 * YEAR, 3600, -3600)), suspended)
    assert storm.nothing_left() == [each for each in node.residue() if "live-" in each or "dev azv" in each]
    facts = check_invariant(node, [*live, *storm.pods])
    assert set(facts.held) == {"live-1", "live-2"}
    for pod in live:
        node.check(pod, results[pod.container_id]).done()
    moved.move(-50 * YEAR, suspended)
    node.list_addresses(14)
    eventually(lambda: sum(node.counts().values()) == 14, "the source is read on")
    vanished = node.sandbox.pod("vanished")
    address = node.add(vanished).address
    vanished.remove()
    eventually(lambda: address not in node.held(), "what is gone is found to be gone")
    assert not agent.over


def test_a_node_that_was_off_comes_up_with_the_same_pool_and_no_holder(
    node: Node, new_agent: NewAgent, tmp_path: Path, clocks: Path
) -> None:
    """Another boot id, CLOCK_BOOTTIME from zero, a wall clock that was not set yet; a store that survived."""
    moved = Clocks(tmp_path, clocks)
    moved.move(0, 10 * YEAR)
    agent = new_agent(node, environ=moved.environ, **QUICK)
    before = node.sandbox.pods(*(f"before-{number}" for number in range(12)))
    for pod in before:
        node.add(pod).done()
    agent.kill()
    for pod in before:
        pod.remove()
    node.set_boot_id("11111111-2222-3333-4444-555555555555")
    moved.move(-50 * YEAR, 0)
    new_agent(node, environ=moved.environ, **QUICK)
    after = node.sandbox.pods(*(f"after-{number}" for number in range(12)))
    given = {node.add(pod).done().address for pod in after}
    assert len(given) == 12, "all are free again, none is still cooling"
    facts = check_invariant(node, [*before, *after])
    assert set(facts.held) == {pod.container_id for pod in after}
    for pod in before:
        node.delete(pod).done()
    assert set(node.held().values()) == {pod.container_id for pod in after}


# A store that is spoilt in place


@pytest.mark.parametrize("what", ["zeros", "random", "cut", "empty", "text", "removed", "directory"])
def test_a_store_that_is_spoilt_under_the_agent_costs_no_pod_its_address(
    node: Node, new_agent: NewAgent, what: str
) -> None:
    """Whoever notices first, agent or executable: the next process that opens it does."""
    agent = new_agent(node, **QUICK)
    live = node.sandbox.pods("live-1", "live-2", "live-3")
    for pod in live:
        node.add(pod).done()
    spoil(node.sandbox.path(f"{RUN_DIR}/azvnet.db"), what)
    by_executable = {"AZVNET_RUN_DIR": RUN_DIR, "AZVNET_AGENT": "none"}
    new = node.sandbox.pods("new-1", "new-2")
    addresses = {pod_addresses(pod)[0] for pod in live}
    given = [f"{node.add(new[0]).address}/32", f"{node.add(new[1], env=by_executable).address}/32"]
    assert not addresses & set(given)
    assert given[0] != given[1]
    agent.kill()
    new_agent(node, **QUICK)
    eventually(lambda: len(node.held()) == 5, "all five are known")
    becomes_clean(node, [*live, *new])
    for pod in (*live, *new):
        node.delete(pod).done()
    assert node.residue() == []


def spoil(path: Path, what: str) -> None:
    size = path.stat().st_size
    if what in ("removed", "directory"):
        path.unlink()
        if what == "directory":
            path.mkdir()
        return
    with path.open("r+b") as file:
        if what == "cut":
            file.truncate(size // 2 // 4096 * 4096)
        elif what == "empty":
            file.truncate(0)
        else:
            file.write(
                {"zeros": b"\0" * size, "text": b"no database " * (size // 12)}.get(what) or os.urandom(size)
            )
