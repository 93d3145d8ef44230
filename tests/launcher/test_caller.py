"""The protocol in Python, the caller's side: asking, with hostile agents or none."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cni_plugin.agent import caller
from cni_plugin.agent.caller import ask
from cni_plugin.agent.protocol import Reply
from tests.launcher.agents import Agent, AgentProcess, answer, hear, reply

ENV = b"CNI_COMMAND=ADD\0AZVNET_CALL_ID=" + b"0" * 32 + b"\0"
CALL = {"CNI_COMMAND": "ADD", "AZVNET_CALL_ID": "0" * 32}
LIBRARY = Path(caller.__file__).parents[2]


def soon(seconds: float = 20.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def test_the_answer_comes_back_as_it_was_given(run_dir: Path) -> None:
    netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    with Agent(run_dir / "agent.sock", answer(reply(b"{}", b"warning", 7))) as agent:
        found = ask(str(run_dir / "agent.sock"), CALL, b"stdin", netns, True, soon())
    expected = os.fstat(netns)
    os.close(netns)
    assert isinstance(found, Reply)
    assert (found.stdout, found.stderr, found.code) == (b"{}", b"warning", 7)
    heard = agent.only()
    assert (heard.env, heard.stdin, heard.flags) == (ENV, b"stdin", 3)
    assert heard.descriptors == [(expected.st_dev, expected.st_ino)]


@pytest.mark.parametrize("path", ["/nowhere/agent.sock", "", "x" * 200, "nul\0nul", "/proc/self/exe"])
def test_without_an_agent_there_is_none(path: str) -> None:
    assert ask(path, CALL, b"", None, False, soon()) == "none"


def test_an_agent_of_another_user_is_none(run_dir: Path) -> None:
    run_dir.chmod(0o777)
    with AgentProcess(run_dir / "agent.sock", AgentProcess.WAIT, uid=65534):
        assert ask(str(run_dir / "agent.sock"), CALL, b"", None, False, soon()) == "none"


def test_a_full_backlog_is_waited_for_a_second(run_dir: Path) -> None:
    path = str(run_dir / "agent.sock")
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(path)
        begin = time.monotonic()
        assert ask(path, CALL, b"", None, False, soon()) == "none"
        assert 0.9 < time.monotonic() - begin < 10
    for each in waiting:
        each.close()


@pytest.mark.parametrize(("env", "stdin"), [({"A": "x" * (1 << 20)}, b""), ({}, b"x" * ((1 << 20) + 1))])
def test_what_is_beyond_the_bounds_is_not_asked(run_dir: Path, env: dict[str, str], stdin: bytes) -> None:
    with Agent(run_dir / "agent.sock", answer(reply())) as agent:
        assert ask(str(run_dir / "agent.sock"), env, stdin, None, False, soon()) == "none"
    assert not agent.connected.is_set()


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_an_agent_that_is_stopped_hangs(run_dir: Path, size: int) -> None:
    with AgentProcess(run_dir / "agent.sock", AgentProcess.WAIT) as agent:
        agent.stop()
        assert ask(str(run_dir / "agent.sock"), CALL, b"x" * size, None, False, soon(0.3)) == "hung"


def test_an_agent_that_trickles_hangs(run_dir: Path) -> None:
    def trickle(connection: socket.socket, agent: Agent) -> None:
        hear(connection)
        try:
            while not agent.done.wait(0.01):
                connection.sendall(reply(b"x" * 1000)[:1])
        except (BrokenPipeError, ConnectionResetError):
            return

    with Agent(run_dir / "agent.sock", trickle):
        begin = time.monotonic()
        # 24 bytes of "A" are no magic, so what trickles has to stay within the header
        assert ask(str(run_dir / "agent.sock"), CALL, b"", None, False, soon(0.15)) == "hung"
        assert time.monotonic() - begin < 5


def test_asking_loads_nothing_that_costs_time() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "import cni_plugin.agent.caller\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", script, LIBRARY], stdout=subprocess.PIPE, text=True, check=True
    )
    ours = {"cni_plugin", "cni_plugin.agent", "cni_plugin.agent.caller", "cni_plugin.agent.protocol"}
    assert set(done.stdout.split()) <= ours | {"__future__", "_socket", "_struct"}
