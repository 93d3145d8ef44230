"""On any doubt the frozen Python takes over, as if it had been executed in the first place."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time

import pytest

from tests.launcher.agents import Agent, AgentProcess, Behaviour, answer, hear, reply
from tests.launcher.programs import IMPATIENT_SECONDS, STDIN, Bundle, assert_taken_over, finish
from tests.waiting import Syscall, eventually, waits_in

# Who is not asked at all


def test_without_a_socket(bundle: Bundle) -> None:
    assert_taken_over(bundle, bundle.run(input=STDIN), b"none")


def test_without_a_run_directory(bundle: Bundle) -> None:
    environment = bundle.environment(AZVNET_RUN_DIR=str(bundle.run_dir / "missing"))
    assert_taken_over(bundle, bundle.run(input=STDIN, environment=environment), b"none")


def test_with_a_file_where_the_socket_should_be(bundle: Bundle) -> None:
    bundle.socket.write_bytes(b"")
    assert_taken_over(bundle, bundle.run(input=STDIN), b"none")


def test_with_a_socket_that_a_dead_agent_left(bundle: Bundle) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(bundle.socket))
        dead.listen()
    assert_taken_over(bundle, bundle.run(input=STDIN), b"none")


@pytest.mark.parametrize("length", [97, 98, 107, 108, 109, 5000])
def test_with_a_run_directory_too_long_for_a_socket(bundle: Bundle, length: int) -> None:
    environment = bundle.environment(AZVNET_RUN_DIR="/" + "x" * (length - 1))
    assert_taken_over(bundle, bundle.run(input=STDIN, environment=environment), b"none")


def test_with_an_agent_that_is_not_of_root(bundle: Bundle) -> None:
    bundle.run_dir.chmod(0o777)
    with AgentProcess(bundle.socket, AgentProcess.WAIT, uid=65534):
        done = bundle.run(input=STDIN)
    assert_taken_over(bundle, done, b"none")  # one that had waited for a reply would say "hung"


def test_with_a_backlog_that_is_full_it_does_not_hang(shipped: Bundle) -> None:
    listener = socket.socket(socket.AF_UNIX)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with listener:
        listener.bind(str(shipped.socket))
        listener.listen(0)
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(str(shipped.socket))
        done = shipped.run(input=STDIN)
    for each in waiting:
        each.close()
    assert_taken_over(shipped, done, b"none")
    assert done.seconds > 0.9


def test_a_backlog_that_becomes_free_is_waited_for(shipped: Bundle) -> None:
    listener = socket.socket(socket.AF_UNIX)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with listener:
        listener.bind(str(shipped.socket))
        listener.listen(0)
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(str(shipped.socket))
        process = shipped.start()
        eventually(lambda: waits_in(process.pid, Syscall.CONNECT), "it waits for the backlog")
        for each in waiting:
            each.close()
        while True:  # those that have closed meanwhile say nothing
            connection, _address = listener.accept()
            with connection:
                if connection.recv(1, socket.MSG_PEEK):
                    hear(connection)
                    connection.sendall(reply(b"{}"))
                    break
            if process.stdin is not None:
                process.stdin.close()
                process.stdin = None
        done = finish(process)
    assert (done.code, done.stdout) == (0, b"{}")


def test_with_an_environment_beyond_the_bounds(bundle: Bundle) -> None:
    large = {f"LARGE{number}": b"x" * 100_000 for number in range(3)}
    environment = bundle.environment(**large)
    with Agent(bundle.socket, answer(reply())) as agent:
        assert bundle.run(input=STDIN, environment=environment).code == 42
    assert agent.heard == []
    record = bundle.fallback()
    assert record.stdin == STDIN
    assert record.environment == [b"%b=%b" % pair for pair in environment.items()]


@pytest.mark.parametrize("size", [(256 << 10) + 1, 5 << 20])
def test_with_a_stdin_beyond_the_bounds_all_of_it_is_given_back(bundle: Bundle, size: int) -> None:
    given = os.urandom(size)

    def wait_for_the_end(connection: socket.socket, _agent: Agent) -> None:
        assert connection.recv(1) == b""

    with Agent(bundle.socket, wait_for_the_end) as agent:
        done = bundle.run(input=given)
        assert agent.connected.wait(30)
    assert_taken_over(bundle, done, b"none", given)


# Who does not take the call, is lost over it, or hangs


@pytest.mark.parametrize(
    "data",
    [
        reply(kind=1),
        reply(b"text", kind=1),
        reply(version=2),
        reply(version=0),
        reply(version=0x0100),
        reply(magic=b"AZVN"),
        reply(magic=b"HTTP"),
        reply(b"{}", magic=b"\0\0\0\0"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["not-taken", "not-taken-text", "v2", "v0", "v256", "own-magic", "other-magic", "zeros", "http"],
)
def test_an_agent_that_does_not_take_the_call(bundle: Bundle, data: bytes) -> None:
    with Agent(bundle.socket, answer(data)) as agent:
        done = bundle.run(input=STDIN)
    record = assert_taken_over(bundle, done, b"none")
    assert record.variable(b"AZVNET_CALL_ID") == agent.only().call_id


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"A", id="one-byte"),
        pytest.param(reply(b"{}")[:23], id="most-of-the-header"),
        pytest.param(reply(b"{}")[:24], id="the-header"),
        pytest.param(reply(b"{}")[:25], id="half-of-stdout"),
        pytest.param(reply(b"x" * 300_000)[:200_000], id="half-of-a-large-stdout"),
        pytest.param(reply(b"{}", b"warning")[:-1], id="most-of-stderr"),
        pytest.param(reply(lengths=(0xFFFFFFFF, 0)), id="endless-stdout"),
        pytest.param(reply(lengths=(0, 0xFFFFFFFF)), id="endless-stderr"),
        pytest.param(reply(lengths=(0xFFFFFFFF, 0xFFFFFFFF)), id="endless-both"),
        pytest.param(reply(lengths=(0x80000000, 0x80000000)), id="lengths-that-overflow-to-zero"),
        pytest.param(reply(b"x" * 100, lengths=((256 << 10) + 1, 0)), id="stdout-a-byte-too-long"),
        pytest.param(reply(b"x" * (256 << 10), b"y"), id="stderr-a-byte-too-long"),
        pytest.param(reply(b"{}", kind=2), id="kind-2"),
        pytest.param(reply(b"{}", kind=0xFFFF), id="kind-65535"),
        pytest.param(reply(b"{}", kind=0x0100), id="kind-256"),
    ],
)
def test_an_agent_that_is_lost_over_the_call_or_answers_what_cannot_be_printed(
    bundle: Bundle, data: bytes
) -> None:
    with Agent(bundle.socket, answer(data)) as agent:
        done = bundle.run(input=STDIN)
    record = assert_taken_over(bundle, done, b"lost")
    assert record.variable(b"AZVNET_CALL_ID") == agent.only().call_id


def test_an_agent_that_is_killed_over_the_reply(bundle: Bundle) -> None:
    half = reply(b"x" * 1000)[:500]
    with AgentProcess(bundle.socket, AgentProcess.DIE_OVER_THE_REPLY, data=half):
        done = bundle.run(input=STDIN)
    assert_taken_over(bundle, done, b"lost")


def test_an_agent_that_closes_without_having_read_the_request(bundle: Bundle) -> None:
    def close_unread(connection: socket.socket, _agent: Agent) -> None:
        eventually(lambda: len(connection.recv(1 << 16, socket.MSG_PEEK)) > len(STDIN), "all of it")

    with Agent(bundle.socket, close_unread):
        done = bundle.run(input=STDIN)
    # It was there for it to be read; whether it was, nobody can tell from outside.
    assert bundle.fallback().agent in {b"lost", b"none"}
    assert done.code == 42


@pytest.mark.parametrize("last_words", [b"", reply(kind=1), reply(b"{}")[:20]], ids=["no", "refusal", "half"])
def test_an_agent_that_closes_before_it_has_the_whole_request_has_not_carried_it_out(
    bundle: Bundle, last_words: bytes
) -> None:
    given = STDIN + b" " * 250_000

    def read_a_little(connection: socket.socket, _agent: Agent) -> None:
        assert connection.recv(4096)
        connection.sendall(last_words)

    with Agent(bundle.socket, read_a_little):
        done = bundle.run(input=given)
    assert_taken_over(bundle, done, b"none", given)


def test_an_agent_that_wants_no_request_but_does_not_close_is_not_waited_for(bundle: Bundle) -> None:
    unwilling = threading.Event()

    def refuse_to_read(connection: socket.socket, agent: Agent) -> None:
        connection.shutdown(socket.SHUT_RD)
        unwilling.set()
        agent.done.wait()

    with Agent(bundle.socket, refuse_to_read):
        process = bundle.start()
        assert unwilling.wait(30)
        done = finish(process, STDIN)
    assert_taken_over(bundle, done, b"none")  # one that had waited for a reply would say "hung"


def silent(connection: socket.socket, agent: Agent) -> None:
    """Hears, and says nothing."""
    agent.heard.append(hear(connection))
    agent.done.wait()


def silent_after_the_header(connection: socket.socket, agent: Agent) -> None:
    """Promises two bytes."""
    agent.heard.append(hear(connection))
    connection.sendall(reply(b"{}")[:24])
    agent.done.wait()


def trickling(connection: socket.socket, agent: Agent) -> None:
    """Sends a byte now and then, without end."""
    agent.heard.append(hear(connection))
    try:
        for byte in reply(b"x" * 100_000):
            connection.sendall(bytes([byte]))
            if agent.done.wait(0.02):
                return
    except (BrokenPipeError, ConnectionResetError):
        return


@pytest.mark.parametrize("behaviour", [silent, silent_after_the_header, trickling])
def test_an_agent_that_hangs(impatient: Bundle, behaviour: Behaviour) -> None:
    with Agent(impatient.socket, behaviour) as agent:
        done = impatient.run(input=STDIN)
    record = assert_taken_over(impatient, done, b"hung")
    assert record.variable(b"AZVNET_CALL_ID") == agent.only().call_id
    assert done.seconds >= IMPATIENT_SECONDS


@pytest.mark.parametrize("size", [0, 256 << 10], ids=["small", "larger-than-the-socket's-buffer"])
def test_an_agent_that_is_stopped(impatient: Bundle, size: int) -> None:
    given = STDIN + b" " * (size - len(STDIN))
    with AgentProcess(impatient.socket, AgentProcess.WAIT) as agent:
        agent.stop()
        done = impatient.run(input=given)
    assert_taken_over(impatient, done, b"hung", given)
    assert done.seconds >= IMPATIENT_SECONDS


def test_time_that_the_runtime_takes_for_stdin_is_not_the_agents(impatient: Bundle) -> None:
    with Agent(impatient.socket, answer(reply(b"{}"))):
        process = impatient.start()
        eventually(lambda: waits_in(process.pid, Syscall.READ, Syscall.POLL), "it waits for stdin")
        time.sleep(2 * IMPATIENT_SECONDS)  # longer than it would wait for the agent
        done = finish(process, STDIN)
    assert (done.code, done.stdout) == (0, b"{}")


def test_peer_credentials_are_those_the_kernel_tells(shipped: Bundle) -> None:
    """The test of an agent of another user rests on this: it is refused for its user alone."""
    with AgentProcess(shipped.socket, AgentProcess.WAIT), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(shipped.socket))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert struct.unpack("=iII", credentials)[1] == 0
