"""Calls that are killed at any point: nothing is lost, nothing stays locked, the next call goes through."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections import deque

import pytest

from tests.netns.calls import Executable, Running
from tests.netns.conftest import NewNode
from tests.netns.node import RUN_DIR, Node, pod_addresses
from tests.netns.sandbox import Pod
from tests.waiting import descriptors_of, eventually, exclusive_locks

ROUNDS = 200


def _kill_after(running: Running, seconds: float) -> bool:
    """Let a call live for so long; whether it was killed before its end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if running.over:
            break
        time.sleep(0.0002)
    return running.kill().exit_code == -signal.SIGKILL


def _typical_seconds(node: Node, pod: Pod) -> float:
    """How long an ADD takes here and now."""
    seconds = []
    for _ in range(3):
        seconds.append(node.add(pod).done().seconds)
        node.delete(pod).done()
    return sorted(seconds)[1]


@pytest.mark.timeout(240)
def test_an_add_killed_at_any_moment_is_followed_by_one_that_works(new_node: NewNode) -> None:
    """Row 3: two hundred random moments, no step by hand; some with a DEL and some without."""
    node = new_node(many=True, addresses=4)
    pod = node.sandbox.pod("c1")
    lately = deque([_typical_seconds(node, pod)], maxlen=9)
    """What ADDs have taken; a machine has more to do at one time than at another."""
    rng = random.Random(20)
    killed = 0
    for round_number in range(ROUNDS):
        longest = statistics.median(lately) * 1.2
        killed += _kill_after(node.start("ADD", pod), rng.random() * longest)
        if round_number % 2:
            node.delete(pod).done()
            assert not node.veths()
            added = node.add(pod).done()
        else:
            added = node.add(pod)
            if not added.ok:
                assert added.code == 104, "the one that was killed had come to its end"
                node.delete(pod).done()
                added = node.add(pod).done()
        lately.append(added.seconds)
        assert pod_addresses(pod) == [f"{added.address}/32"]
        node.delete(pod).done()
    assert killed > ROUNDS / 4
    assert not node.residue()
    assert node.counts()["assigned"] == 0
    assert sum(node.counts().values()) == 4


@pytest.mark.timeout(180)
def test_a_del_killed_at_any_moment_is_followed_by_one_that_works(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=4)
    pod = node.sandbox.pod("c1")
    longest = _typical_seconds(node, pod) * 1.2
    rng = random.Random(21)
    for _ in range(60):
        node.add(pod).done()
        _kill_after(node.start("DEL", pod), rng.random() * longest)
        node.delete(pod).done()
        assert not node.veths()
        assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert not node.residue()


@pytest.mark.timeout(180)
@pytest.mark.alone("the clock of a running agent can't be advanced from outside")
def test_pods_that_were_killed_while_they_were_made_leave_no_address_behind(new_node: NewNode) -> None:
    """Row 7: no DEL ever comes; the namespaces go away. Two looks, a minute apart, find the addresses."""
    node = new_node(many=True, addresses=6)
    rng = random.Random(22)
    for pod in node.sandbox.pods(*(f"c{number}" for number in range(12))):
        _kill_after(node.start("ADD", pod), rng.random() * 0.1)
        pod.remove()
    eventually(
        lambda: not any("azvnet1" in link.get("ifalias", "") for link in node.veths().values()),
        "the kernel takes links away with their namespace",
    )
    pods = node.sandbox.pods(*(f"n{number}" for number in range(6)))
    for minute in range(4):
        node.sandbox.clock_ahead = 70 * minute
        for pod in pods:
            if pod.container_id not in node.held().values():
                node.add(pod)
    assert sorted(node.held().values()) == [pod.container_id for pod in pods]
    assert len(node.veths()) == 6


# Every step

STEPS = {
    "netlink": ("sendto,sendmsg", 14),
    "store": ("pwrite64,ftruncate,rename", 12),
    "locks": ("fcntl,flock", 16),
}


def _start_to_be_killed(executable: Executable, node: Node, pod: Pod, syscalls: str, number: int) -> bool:
    """An ADD that is killed as it enters its n-th system call of some; whether it came so far."""
    env = {
        **executable.environ,
        **node.environ,
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": pod.container_id,
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": "eth0",
        "AZVNET_AGENT": "none",
    }
    import json

    node.sandbox.write("/run/netconf", json.dumps(node.netconf))
    with node.sandbox.path("/run/netconf").open("rb") as stdin:
        tracing = node.sandbox.popen(
            [
                *("strace", "-f", "-qq", "-o", "/run/trace", "-e", f"trace={syscalls}"),
                *("-e", f"inject={syscalls}:signal=KILL:when={number}"),
                str(executable.program.with_name("azvnet-python")),
            ],
            env=env,
            stdin=stdin,
        )
        out, err = tracing.communicate()
    assert tracing.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), (tracing.returncode, out, err)
    return tracing.returncode != 0


@pytest.mark.alone("it is the process itself that is killed at a step of its own")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", STEPS)
def test_an_add_killed_at_each_of_its_steps_leaves_nothing_that_matters(
    executable: Executable, new_node: NewNode, kind: str
) -> None:
    """Row 1 (c): at every message to the kernel, every write to the store, every lock."""
    node = new_node(many=True, addresses=4)
    warm, pod = node.sandbox.pods("warm", "c1")
    node.add(warm).done()
    syscalls, most = STEPS[kind]
    reached = 0
    for number in range(1, most + 1):
        if not _start_to_be_killed(executable, node, pod, syscalls, number):
            node.delete(pod).done()
            break
        locks = node.sandbox.path(RUN_DIR).glob("*.lock")
        assert descriptors_of(*locks) == 0, "what nobody has open is locked by nobody"
        reached = number
        if number % 2:
            node.delete(pod).done()
            assert len(node.veths()) == 1
            assert list(node.held().values()) == ["warm"]
        outcome = node.add(pod)
        if not outcome.ok:
            assert outcome.code == 104
            assert number % 2 == 0
            assert pod_addresses(pod)
        else:
            assert pod_addresses(pod) == [f"{outcome.address}/32"]
        node.delete(pod).done()
        assert len(node.veths()) == len(node.host_routes()) == len(node.held()) == 1
    assert reached >= 3, "the steps are where this test looks for them"
    assert node.counts()["assigned"] == 1


# Not killed, but stopped


def _stop_between_transactions(running: Running, node: Node) -> None:
    """Stop a call; where it is in the middle of a transaction, after that."""
    running.signal(signal.SIGSTOP)
    files = [node.sandbox.path(RUN_DIR) / name for name in ("azvnet.db-shm", "store.lock")]

    def outside() -> bool:
        if not exclusive_locks(*files):
            return True
        running.signal(signal.SIGCONT)
        time.sleep(0.0002)
        running.signal(signal.SIGSTOP)
        return False

    eventually(outside, "no transaction is open", pause=0.002)


@pytest.mark.timeout(240)
def test_an_add_that_is_stopped_anywhere_keeps_no_other_from_finishing(new_node: NewNode) -> None:
    """Row 3: what is locked for longer than a transaction concerns one attachment alone."""
    node = new_node(many=True, addresses=120)
    stopped, *others = node.sandbox.pods(*(f"c{number}" for number in range(41)))
    typical = _typical_seconds(node, stopped)
    rng = random.Random(23)
    finished = 0
    for _ in range(5):
        running = node.start("ADD", stopped)
        time.sleep(rng.random() * typical)
        _stop_between_transactions(running, node)
        calls = [node.start("ADD", pod) for pod in others[:20]]
        for each in calls:
            each.finish().done()
        finished += len(calls)
        running.signal(signal.SIGCONT)
        running.finish().done()
        for each in [node.start("DEL", pod) for pod in (stopped, *others[:20])]:
            each.finish().done()
    assert finished == 100
    assert not node.residue()
