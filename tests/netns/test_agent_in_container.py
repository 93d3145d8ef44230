"""The agent as a DaemonSet runs it: the host's network and state directory, all else of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.netns.node import RUN_DIR, Node
from tests.netns.ways import SETTINGS, SOCKET, Executables
from tests.waiting import eventually

pytestmark = pytest.mark.with_agent("it is about where the agent runs")

BareNode = Callable[..., Node]
StartContainer = Callable[[Node], "subprocess.Popen[bytes]"]
QUICK = '{"reconcile_seconds": 0.2, "refresh_seconds": 0.2, "reclaim_seconds": 0.5}'
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--")
# Process ids and files of its own; of the host's /run the state directory alone, as hostPath volumes are.
INSIDE = f"""
set -e
mount --make-rprivate /
mkdir -p /etc/kept && mount --bind {RUN_DIR} /etc/kept
mount -t tmpfs own /run
mkdir {RUN_DIR} && mount --move /etc/kept {RUN_DIR}
exec "$0" agent --config {SETTINGS}
"""


@pytest.fixture
def node(bare_node: BareNode) -> Node:
    node = bare_node()
    node.sandbox.run("mkdir", "-m", "700", RUN_DIR)
    node.sandbox.write(SETTINGS, QUICK)
    return node


@pytest.fixture
def start(product: Executables) -> Iterator[StartContainer]:
    with ExitStack() as undo:

        def begin(node: Node) -> subprocess.Popen[bytes]:
            process = node.sandbox.popen(
                [*CONTAINER, "sh", "-c", INSIDE, str(product.python)],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **product.environ},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            undo.callback(process.wait)
            undo.callback(process.kill)
            return process

        yield begin


def carried_out_by_agent(node: Node) -> bool:
    node.status().done()
    return bool(node.log() and node.log()[-1]["by"] == "agent")


def test_it_carries_calls_out_and_repairs_without_seeing_a_namespace_file(
    node: Node, start: StartContainer
) -> None:
    start(node)
    eventually(lambda: node.sandbox.path(SOCKET).exists() and carried_out_by_agent(node), "it serves")
    own, another, witness = node.sandbox.pods("own", "another", "witness")
    added = node.add(own).done()
    given = node.add(another, as_ipam=True).done()
    node.check(own, added).done()
    gone = node.add(witness).address
    before = node.host_routes()
    node.sandbox.run("ip", "route", "flush", "proto", "155")
    eventually(lambda: node.host_routes() == before, "the host's side is repaired")
    witness.remove()
    eventually(lambda: gone not in node.held(), "an endpoint that is gone can be seen to be")
    assert set(node.held()) == {added.address, given.address}, "what can't be seen is not taken for gone"
    own.remove()
    eventually(lambda: added.address not in node.held(), "an endpoint that is gone can be seen to be")
    assert set(node.held()) == {given.address}
    node.delete(another, as_ipam=True).done()
    node.delete(own).done()
    assert node.residue() == []


def test_two_that_start_at_once_and_follow_each_other_never_fail_a_call(
    node: Node, start: StartContainer
) -> None:
    """Both are process 1 for themselves. One is told to end, the other is killed, and so on."""
    pod = node.sandbox.pod("pod")
    for _ in range(3):
        first, second = start(node), start(node)
        for number in range(6):
            node.add(pod).done()
            node.delete(pod).done()
            if number == 2:
                first.kill()
                first.wait()
        eventually(lambda: carried_out_by_agent(node), "the other one serves, whichever took over")
        second.send_signal(signal.SIGKILL)
        second.wait()
        node.add(pod).done()
        node.delete(pod).done()
    assert node.residue() == []
    assert not [path.name for path in node.sandbox.path(RUN_DIR).glob("agent.sock.*")]
