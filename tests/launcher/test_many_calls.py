"""Many calls: what one costs, and that none takes another's place."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from tests.launcher.agents import Agent, answer, hear, reply
from tests.launcher.programs import Bundle, finish


def test_a_call_costs_a_fraction_of_starting_python(shipped: Bundle) -> None:
    """Medians, interleaved; the real ratio is far better, see docs/launcher.md."""

    def take(*program: str | Path) -> float:
        begin = time.perf_counter()
        process = os.posix_spawn(program[0], program, shipped.environment(), file_actions=actions)
        assert os.waitpid(process, 0)[1] == 0
        return time.perf_counter() - begin

    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
    with Agent(shipped.socket, answer(reply(b"{}"))) as agent:
        times = [(take(shipped.launcher), take("/usr/bin/python3", "-ISc", "")) for _ in range(25)]
        assert len(agent.heard) == 25
    os.close(null)
    launcher, python = (sorted(column)[len(column) // 2] for column in zip(*times, strict=True))
    assert launcher < python / 2


def test_a_hundred_calls_at_once_are_all_answered_by_the_agent(shipped: Bundle, tmp_path: Path) -> None:
    def echo(connection: socket.socket, agent: Agent) -> None:
        agent.heard.append(hear(connection))
        connection.sendall(reply(agent.heard[-1].stdin))

    given = [tmp_path / str(number) for number in range(100)]
    with Agent(shipped.socket, echo, backlog=128) as agent, ExitStack() as files:
        for path in given:
            path.write_text(path.name)
        running = [shipped.start(stdin=files.enter_context(path.open("rb"))) for path in given]
        outputs = [finish(each).stdout for each in running]
    assert outputs == [path.name.encode() for path in given]
    assert len({heard.call_id for heard in agent.heard}) == 100
