"""The agent's socket under callers that hang, and under a second agent: nobody else waits for them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.netns import pages, wire
from tests.netns.conftest import NewAgent
from tests.netns.node import Node
from tests.netns.ways import SOCKET, Agent
from tests.waiting import Syscall, eventually, waits_in

pytestmark = pytest.mark.with_agent("it is the agent that is called")

BareNode = Callable[..., Node]
MANY_TIMES_THE_WORKERS, MORE_THAN_CAN_BE = 112, 140


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


def test_a_caller_that_is_not_root_is_not_answered_even_where_it_can_connect(
    node: Node, new_agent: NewAgent
) -> None:
    """A mode can be changed, a socket can be passed on: who calls is asked of the kernel."""
    new_agent(node)
    node.sandbox.path("/run/azvnet").chmod(0o755)
    node.sandbox.path(SOCKET).chmod(0o666)
    script = f"""
import socket, struct
env = b"CNI_COMMAND=VERSION\\0"
sock = socket.socket(socket.AF_UNIX)
sock.connect({SOCKET!r})
sock.sendall(struct.pack("<4sHHII8x", b"AZVN", 1, 0, len(env), 0) + env)
print(sock.recv(4))
"""
    as_nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    said = [node.sandbox.run(*who, "/usr/bin/python3", "-c", script, check=False) for who in ((), as_nobody)]
    assert said[0].stdout.strip() == "b'AZVR'"
    assert said[1].stdout.strip() != "b'AZVR'", "closed, or broken off"


def test_an_add_whose_caller_does_not_take_the_reply_is_undone(node: Node, new_agent: NewAgent) -> None:
    """It is connected still, so it was carried out; the reply is larger than what the socket holds."""
    new_agent(node)
    pod = node.sandbox.pod("deaf")
    search = [f"{number}.{'x' * 200}.example" for number in range(1150)]
    conf = json.dumps(node.conf(dns={"search": search})).encode()
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": pod.container_id,
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": pod.netns,
        "AZVNET_CALL_ID": "1",
    }
    with socket.socket(socket.AF_UNIX) as sock, node.sandbox.path(pod.netns).open("rb") as netns:
        sock.connect(str(node.sandbox.path(SOCKET)))
        wire.send(sock, environ, conf, netns.fileno())
        eventually(lambda: len(node.veths()) == 1, "the pod is attached")
        eventually(lambda: not node.residue(), "after five seconds it is not any more")
    node.add(pod).done()


def test_callers_that_hang_delay_no_other_pod(node: Node, new_agent: NewAgent) -> None:
    agent = new_agent(node)
    pod, another = node.sandbox.pods("pod", "another")
    node.add(pod).done()
    eventually(lambda: pages.works(node.sandbox), "each of its threads was started")
    before = threads(agent)
    logged = len(node.log())
    with hanging(node, MANY_TIMES_THE_WORKERS):
        for each in [node.start("DEL", pod), node.start("ADD", another)]:
            each.finish().done()
    # Served by sixteen at a time, those that hang would take 35 s; the callers do not wait longer than 25.
    eventually(lambda: [each["by"] for each in node.log()[logged:]] == ["agent"] * 2, "the agent did both")
    node.status().done()  # those that were added see a call come that another thread takes
    eventually(lambda: threads(agent) <= before, "as many threads as before")
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
        calls = [node.start("ADD", pod) for pod in pods]
        eventually(lambda: all(waits_in(each.pid, Syscall.POLL) for each in calls), "both wait for the agent")
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
    eventually(lambda: "recreated" in old.said(), "it is said")
    old.stop()
    assert not node.sandbox.path(SOCKET).exists()


@contextmanager
def passing_over(agent: Agent, scratch: Path) -> Iterator[Callable[[int], int]]:
    """How many threads of an agent have found so often that another one answers at the socket.

    Before its background work, and before it restores its socket, an agent connects to see who does.
    """
    trace = scratch / "trace"
    tracing = subprocess.Popen(
        ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace), "-p", str(agent.pid)]
    )

    def threads_that_did(times: int) -> int:
        lines = trace.read_text().splitlines() if trace.exists() else []
        found = Counter(line.split()[0] for line in lines if SOCKET in line)
        return sum(each >= times for each in found.values())

    try:
        yield threads_that_did
    finally:
        tracing.terminate()
        tracing.wait()
        trace.unlink()


def test_an_agent_that_another_took_over_from_repairs_nothing(
    node: Node, new_agent: NewAgent, tmp_path: Path
) -> None:
    """Two agents that repair would count everything twice, and two configurations fight over the pool."""
    quick = {"reconcile_seconds": 0.2, "refresh_seconds": 0.2}
    old = new_agent(node, **quick)
    node.add(node.sandbox.pod("pod")).done()
    before = node.host_routes()
    successor = new_agent(node, **quick)
    with passing_over(old, tmp_path) as threads_that_did:
        eventually(lambda: threads_that_did(1) >= 2, "a look that was under way is over")
        successor.signal(signal.SIGSTOP)
        node.sandbox.run("ip", "route", "flush", "proto", "155")
    with passing_over(old, tmp_path) as threads_that_did:
        eventually(lambda: threads_that_did(2) >= 2, "it would have looked")
    assert node.host_routes() == {}, "that is the successor's work"
    successor.signal(signal.SIGCONT)
    eventually(lambda: node.host_routes() == before, "the route is back")


LARGE = 256 * 1024


def test_a_configuration_beyond_the_bound_is_refused_with_and_without_the_agent(
    node: Node, new_agent: NewAgent
) -> None:
    new_agent(node)
    pod = node.sandbox.pod("pod")
    conf = json.dumps(node.conf(args={"x": "x" * LARGE})).encode()
    not_taken = wire.ask(str(node.sandbox.path(SOCKET)), {"CNI_COMMAND": "ADD"}, conf)
    assert (not_taken.kind, not_taken.stdout) == (1, b"")
    failed = node.add(pod, stdin=conf)
    assert failed.code == 5
    assert "stdin has more than 262144 bytes" in failed.error["msg"]
    node.add(pod).done()


def test_large_requests_at_once_take_a_bounded_part_of_the_memory(node: Node, new_agent: NewAgent) -> None:
    """Most of a JSON document of that kind is objects: they take thirty times its size."""
    agent = new_agent(node)
    conf = json.dumps(node.conf(args={"x": [{}] * (LARGE // 3 - 1000)}), separators=(",", ":")).encode()
    assert LARGE - 10_000 < len(conf) < LARGE
    path = str(node.sandbox.path(SOCKET))
    wire.ask(path, {"CNI_COMMAND": "STATUS"}, conf)
    before = highest_kib(agent)
    with ThreadPoolExecutor(64) as callers:
        answers = list(callers.map(lambda _: wire.ask(path, {"CNI_COMMAND": "STATUS"}, conf), range(64)))
    assert {answer.kind for answer in answers} <= {0, 1}
    assert highest_kib(agent) - before < 100 * 1024
    node.status().done()


def highest_kib(agent: Agent) -> int:
    """The most memory that the agent has had (VmHWM of proc(5))."""
    status = Path(f"/proc/{agent.pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0])
