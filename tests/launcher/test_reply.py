"""What the runtime gets: the agent's stdout, stderr and exit code, whole or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.launcher.agents import Agent, answer, hear, reply
from tests.launcher.programs import STDIN, Bundle, finish
from tests.waiting import Syscall, eventually, send_byte_by_byte, unread, waits_in

RESULT = b'{"cniVersion":"1.1.0","ips":[]}\n'


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        (b"", b""),
        (RESULT, b""),
        (b"", b"a warning\n"),
        (b"\0\xff" * 50_000, b"\xfe\0" * 20_000),
        (b"o" * (256 << 10), b""),
        (b"", b"e" * (256 << 10)),
        (b"o" * (128 << 10), b"e" * (128 << 10)),
    ],
    ids=["nothing", "result", "warning", "binary", "largest-stdout", "largest-stderr", "largest-both"],
)
def test_both_streams_come_out_byte_for_byte(bundle: Bundle, stdout: bytes, stderr: bytes) -> None:
    with Agent(bundle.socket, answer(reply(stdout, stderr))):
        done = bundle.run()
    assert (done.stdout, done.stderr, done.code) == (stdout, stderr, 0)
    assert bundle.record() is None


@pytest.mark.parametrize("code", [0, 1, 11, 42, 255])
def test_the_exit_code_is_the_replys(bundle: Bundle, code: int) -> None:
    with Agent(bundle.socket, answer(reply(RESULT, code=code))):
        assert bundle.run().code == code


def test_a_reply_that_trickles_is_put_together(bundle: Bundle) -> None:
    def trickle(connection: socket.socket, _agent: Agent) -> None:
        hear(connection)
        send_byte_by_byte(connection, reply(RESULT, b"warning", 3))

    with Agent(bundle.socket, trickle):
        done = bundle.run()
    assert (done.stdout, done.stderr, done.code) == (RESULT, b"warning", 3)


def test_what_a_later_agent_adds_behind_the_reply_or_in_reserved_bytes_is_ignored(bundle: Bundle) -> None:
    later = bytearray(reply(RESULT))
    later[17:24] = b"\xff" * 7
    with Agent(bundle.socket, answer(bytes(later) + b"more")):
        done = bundle.run()
    assert (done.stdout, done.code) == (RESULT, 0)


def test_a_reply_is_enough_the_agent_need_not_close(bundle: Bundle) -> None:
    def keep_open(connection: socket.socket, agent: Agent) -> None:
        hear(connection)
        connection.sendall(reply(RESULT))
        agent.done.wait()

    with Agent(bundle.socket, keep_open):
        done = bundle.run()
    assert done.stdout == RESULT
    assert bundle.record() is None, "it did not wait until its deadline"


def test_a_refusal_of_the_request_before_it_was_read_is_obeyed(bundle: Bundle) -> None:
    def refuse_early(connection: socket.socket, _agent: Agent) -> None:
        connection.sendall(reply(b"{}", code=7))

    with Agent(bundle.socket, refuse_early):
        done = bundle.run(input=b"x" * (256 << 10))
    assert (done.code, done.stdout) == (7, b"{}")
    assert bundle.record() is None


@pytest.mark.parametrize(("verb", "code"), [("ADD", 0), ("ADD", 1), ("ADD", 7), ("DEL", 0), ("VERSION", 0)])
def test_stdout_that_is_full_is_no_success(bundle: Bundle, verb: str, code: int) -> None:
    """Of an ADD nobody got to know of the interface: the fallback removes it."""
    environment = bundle.environment(CNI_COMMAND=verb)
    with (
        Agent(bundle.socket, answer(reply(RESULT, code=code))) as agent,
        Path("/dev/full").open("wb") as full,
    ):
        done = finish(bundle.start(stdout=full, environment=environment), STDIN)
    if (verb, code) == ("ADD", 0):
        started = bundle.fallback()
        assert (started.agent, started.stdin) == (b"gone", STDIN)
        assert started.variable(b"AZVNET_CALL_ID") == agent.only().call_id
    else:
        assert done.code == 1
        assert bundle.record() is None


@pytest.mark.parametrize("restore_signals", [True, False], ids=["sigpipe-kills", "sigpipe-ignored"])
def test_stdout_that_nobody_reads_is_no_success_and_no_death_by_signal(
    bundle: Bundle, restore_signals: bool
) -> None:
    read, write = os.pipe()
    os.close(read)
    with Agent(bundle.socket, answer(reply(RESULT))):
        process = bundle.start(stdout=write, restore_signals=restore_signals)
        os.close(write)
        assert finish(process, b"").code > 0
    assert bundle.fallback().agent == b"gone"


def test_a_log_that_cannot_be_written_fails_no_pod(bundle: Bundle) -> None:
    with Agent(bundle.socket, answer(reply(RESULT, b"a warning"))), Path("/dev/full").open("wb") as full:
        done = finish(bundle.start(stderr=full), b"")
    assert (done.code, done.stdout) == (0, RESULT)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_slow_reader_of_stdout_gets_all_of_it(bundle: Bundle, blocking: bool) -> None:
    text = os.urandom(256 << 10)
    read, write = os.pipe()
    os.set_blocking(write, blocking)
    with Agent(bundle.socket, answer(reply(text))), os.fdopen(read, "rb") as reader:
        process = bundle.start(stdin=subprocess.DEVNULL, stdout=write)
        os.close(write)
        eventually(
            lambda: unread(read) and waits_in(process.pid, Syscall.WRITE, Syscall.POLL), "the pipe is full"
        )
        assert reader.read() == text
        assert finish(process).code == 0


def test_nothing_is_printed_of_a_reply_that_broke_off_in_stdout(bundle: Bundle) -> None:
    broken_off = reply(RESULT * 1000, lengths=(len(RESULT) * 1000 + 1, 0))
    with Agent(bundle.socket, answer(broken_off)):
        done = bundle.run()
    assert (done.stdout, done.code) == (b"recorded\n", 42)
    assert bundle.fallback().agent == b"lost"
