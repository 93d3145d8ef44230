"""What the agent is sent: every byte of the call, and the namespace itself."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launcher.agents import Agent, answer, hear, reply
from tests.launcher.programs import Bundle, finish
from tests.waiting import Syscall, eventually, unread, waits_in

OK = answer(reply(b"{}"))

# Starts a program with exactly these strings, which no mapping can hold: no "=", repeated, no argv at all.
EXECVE = """
import ctypes, sys
def strings(text):
    return (ctypes.c_char_p * 64)(*[bytes.fromhex(s) for s in text.split(",")] if text != "-" else [])
ctypes.CDLL(None).execve(sys.argv[1].encode(), strings(sys.argv[2]), strings(sys.argv[3]))
"""


def execve(bundle: Bundle, argv: list[bytes], environment: list[bytes]) -> int:
    """The exit code of the launcher, started with exactly these strings."""
    lists = [",".join(each.hex() for each in strings) if strings else "-" for strings in (argv, environment)]
    starter: list[str | Path] = [sys.executable, "-I", "-S", "-c", EXECVE, bundle.launcher, *lists]
    return subprocess.run(starter, input=b"x", check=False).returncode


def test_environment_arrives_byte_for_byte_with_the_name_of_the_call_at_its_end(bundle: Bundle) -> None:
    odd: dict[str, str | bytes | None] = {
        "ODD": b"\xff\xfe\n=\x01 %s",
        "EMPTY": "",
        "CNI_ARGS": "A=1;B=2",
        "LÄNGE": "é" * 500,
    }
    environment = bundle.environment(**odd)
    with Agent(bundle.socket, OK) as agent:
        assert bundle.run(environment=environment).code == 0
    entries = agent.only().entries
    assert entries[:-1] == [name + b"=" + value for name, value in environment.items()]
    assert re.fullmatch(rb"AZVNET_CALL_ID=[0-9a-f]{32}", entries[-1])


def test_every_call_has_another_name(bundle: Bundle) -> None:
    with Agent(bundle.socket, OK) as agent:
        for _ in range(5):
            bundle.run()
    assert len({heard.call_id for heard in agent.heard}) == 5


def test_a_name_that_the_caller_gave_the_call_is_kept(bundle: Bundle) -> None:
    with Agent(bundle.socket, OK) as agent:
        bundle.run(environment=bundle.environment(AZVNET_CALL_ID="feed" * 8, LAST="1"))
    assert agent.only().call_id == b"feed" * 8
    assert agent.only().entries[-1] == b"LAST=1"


def test_what_an_outer_caller_was_told_about_the_agent_does_not_reach_the_agent(bundle: Bundle) -> None:
    with Agent(bundle.socket, OK) as agent:
        bundle.run(environment=bundle.environment(AZVNET_AGENT="hung"))
    assert not [entry for entry in agent.only().entries if entry.startswith(b"AZVNET_AGENT=")]


def test_entries_without_equals_sign_and_repeated_ones_arrive_as_they_are(bundle: Bundle) -> None:
    given = [*(b"%b=%b" % pair for pair in bundle.environment().items()), b"NOTHING", b"A=1", b"A=2", b"=x"]
    with Agent(bundle.socket, OK) as agent:
        assert execve(bundle, [b"azvnet"], given) == 0
    assert agent.only().entries[:-1] == given


@pytest.mark.parametrize("size", [0, 1, 64 << 10, 256 << 10])
def test_stdin_arrives_whole(bundle: Bundle, size: int) -> None:
    given = os.urandom(size)
    with Agent(bundle.socket, OK) as agent:
        assert bundle.run(input=given).code == 0
    assert agent.only().stdin == given
    assert bundle.record() is None


def test_stdin_arrives_whole_when_it_comes_in_pieces(bundle: Bundle) -> None:
    with Agent(bundle.socket, OK) as agent:
        process = bundle.start()
        stdin = process.stdin
        assert stdin is not None
        for piece in (b'{"a"', b":1", b"}\n\n"):
            stdin.write(piece)
            stdin.flush()
            eventually(lambda: not unread(stdin.fileno()), "the piece was read", pause=0.001)
        assert finish(process).code == 0
    assert agent.only().stdin == b'{"a":1}\n\n'


def test_stdin_arrives_whole_through_a_pipe_that_does_not_block(bundle: Bundle) -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    with Agent(bundle.socket, OK) as agent, os.fdopen(write, "wb") as writer:
        process = bundle.start(stdin=read)
        os.close(read)
        eventually(lambda: waits_in(process.pid, Syscall.POLL), "it has found nothing there")
        writer.write(b"{}")
        writer.close()
        assert finish(process).code == 0
    assert agent.only().stdin == b"{}"


def test_environment_of_nearly_256_kib_arrives(bundle: Bundle) -> None:
    large = {f"LARGE{number}": b"\xee" * 25_000 for number in range(10)}
    with Agent(bundle.socket, OK) as agent:
        assert bundle.run(environment=bundle.environment(**large)).code == 0
    assert len(agent.only().env) > 250_000
    assert {b"LARGE9=" + b"\xee" * 25_000} <= set(agent.only().entries)


def test_the_agent_is_reached_before_stdin_is_read(bundle: Bundle) -> None:
    with Agent(bundle.socket, OK) as agent:
        process = bundle.start()
        assert agent.connected.wait(30)
        assert finish(process, b"late").code == 0
    assert agent.only().stdin == b"late"


def test_the_caller_stays_connected_both_ways_until_it_has_the_reply(bundle: Bundle) -> None:
    still_there = []

    def look_then_answer(connection: socket.socket, agent: Agent) -> None:
        agent.heard.append(hear(connection))
        connection.settimeout(0.2)
        try:
            still_there.append(connection.recv(1))
        except TimeoutError:
            still_there.append(b"waits")
        connection.sendall(reply(b"{}"))

    with Agent(bundle.socket, look_then_answer):
        assert bundle.run().code == 0
    assert still_there == [b"waits"]


def test_the_network_namespace_itself_arrives_as_a_descriptor(bundle: Bundle) -> None:
    with subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1) as pod:
        assert pod.stdout is not None
        pod.stdout.readline()
        netns = f"/proc/{pod.pid}/ns/net"
        expected = Path(netns).stat()
        with Agent(bundle.socket, OK) as agent:
            bundle.run(environment=bundle.environment(CNI_NETNS=netns))
        pod.kill()
    assert expected.st_ino != Path("/proc/self/ns/net").stat().st_ino
    assert agent.only().descriptors == [(expected.st_dev, expected.st_ino)]
    assert agent.only().flags & 2


def test_a_namespace_path_with_odd_bytes_is_opened(bundle: Bundle, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff \n"
    os.close(os.open(path, os.O_CREAT))
    with Agent(bundle.socket, OK) as agent:
        bundle.run(environment=bundle.environment(CNI_NETNS=path))
    assert agent.only().descriptors == [
        (Path(os.fsdecode(path)).stat().st_dev, Path(os.fsdecode(path)).stat().st_ino)
    ]


@pytest.mark.parametrize("netns", [None, "", "/nowhere/at/all", "/proc/self/ns/net/below", "n" * 5000])
def test_no_descriptor_is_attached_when_there_is_none_to_open(bundle: Bundle, netns: str | None) -> None:
    with Agent(bundle.socket, OK) as agent:
        assert bundle.run(environment=bundle.environment(CNI_NETNS=netns)).code == 0
    assert agent.only().descriptors == []
    assert not agent.only().flags & 2


def test_a_namespace_path_that_is_a_fifo_does_not_hang_the_call(bundle: Bundle, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with Agent(bundle.socket, OK) as agent:
        done = bundle.run(environment=bundle.environment(CNI_NETNS=str(tmp_path / "fifo")))
    assert done.code == 0
    assert len(agent.only().descriptors) == 1


@pytest.mark.parametrize(
    ("name", "as_ipam"),
    [
        ("azvnet", 0),
        ("azvnet-ipam", 1),
        ("/opt/cni/bin/azvnet-ipam", 1),
        ("./azvnet-ipam", 1),
        ("azvnet-ipam/azvnet", 0),
        ("azvnet-ipam/", 0),
        ("xazvnet-ipam", 0),
        ("", 0),
        ("/", 0),
        (b"\xff\xfe", 0),
    ],
)
def test_the_role_is_told_by_the_name_it_is_called_by(
    bundle: Bundle, name: str | bytes, as_ipam: int
) -> None:
    with Agent(bundle.socket, OK) as agent:
        assert bundle.run(name=name).code == 0
    assert agent.only().flags == as_ipam


def test_a_call_without_any_name_is_taken(bundle: Bundle) -> None:
    given = [b"%b=%b" % pair for pair in bundle.environment().items()]
    with Agent(bundle.socket, OK) as agent:
        assert execve(bundle, [], given) == 0
    assert agent.only().flags == 0


def test_a_socket_path_of_the_greatest_length_is_reached(bundle: Bundle) -> None:
    room = 107 - len(f"{bundle.run_dir}//agent.sock")
    longest = bundle.run_dir / ("x" * room)
    longest.mkdir()
    assert len(str(longest / "agent.sock")) == 107
    with Agent(longest / "agent.sock", OK) as agent:
        assert bundle.run(environment=bundle.environment(AZVNET_RUN_DIR=str(longest))).code == 0
    assert len(agent.heard) == 1
