"""The protocol in Python, the agent's side: requests read and replies written, with hostile callers."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_plugin.agent import protocol
from cni_plugin.agent.protocol import (
    Gone,
    Malformed,
    ProtocolError,
    ReplyFrame,
    TooLarge,
    TooSlow,
    UnknownVersion,
    caller_alive,
    encode_reply,
    read_request,
    write_reply,
)
from tests.waiting import send_byte_by_byte

ENV = b"CNI_COMMAND=ADD\0AZVNET_CALL_ID=" + b"0" * 32 + b"\0"
CALL = {"CNI_COMMAND": "ADD", "AZVNET_CALL_ID": "0" * 32}
LIBRARY = Path(protocol.__file__).parents[2]

Pair = tuple[socket.socket, socket.socket]


def soon(seconds: float = 20.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def header(
    env: int,
    stdin: int,
    *,
    flags: int = 0,
    version: int = 1,
    magic: bytes = b"AZVN",
    reserved: bytes = bytes(8),
) -> bytes:
    """A request's header, true or lying."""
    return struct.pack("<4sHHII8s", magic, version, flags, env, stdin, reserved)


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The caller's end and the agent's end of a connection."""
    caller, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with caller, agent:
        yield caller, agent


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    """As many descriptors are open after the test as before."""
    before = descriptors()
    yield
    assert descriptors() == before


# The agent reads a request


def test_a_request_is_read_as_it_was_written(pair: Pair) -> None:
    caller, agent = pair
    caller.sendall(header(len(ENV), 2, flags=1) + ENV + b"{}")
    request = read_request(agent, soon())
    assert (request.version, request.as_ipam, request.env, request.stdin) == (1, True, ENV, b"{}")
    assert request.netns_fd is None
    assert request.environ() == CALL


def test_a_descriptor_arrives_and_is_closed_with_the_request(pair: Pair, no_descriptor_left: None) -> None:
    caller, agent = pair
    netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(caller, [header(0, 0, flags=2)], [netns])
    os.close(netns)
    request = read_request(agent, soon())
    assert request.netns_fd is not None
    assert os.fstat(request.netns_fd).st_ino == Path("/proc/self/ns/net").stat().st_ino
    assert not os.get_inheritable(request.netns_fd)
    request.close()
    request.close()
    assert request.netns_fd is None


def test_a_request_that_comes_byte_by_byte_is_put_together_with_its_descriptor(pair: Pair) -> None:
    caller, agent = pair
    data = header(len(ENV), 2, flags=2) + ENV + b"{}"

    def trickle() -> None:
        with Path("/proc/self/ns/net").open() as netns:
            socket.send_fds(caller, [data[:1]], [netns.fileno()])
        send_byte_by_byte(caller, data[1:])

    thread = threading.Thread(target=trickle)
    thread.start()
    request = read_request(agent, soon())
    thread.join()
    assert (request.env, request.stdin) == (ENV, b"{}")
    assert request.netns_fd is not None
    request.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", Gone, id="nothing"),
        pytest.param(b"AZVN", Gone, id="magic-alone"),
        pytest.param(header(10, 0), Gone, id="header-alone"),
        pytest.param(header(10, 0) + b"A=1\0", Gone, id="half-an-environment"),
        pytest.param(header(4, 2) + b"A=1\0{", Gone, id="half-a-stdin"),
        pytest.param(header(0, 0, magic=b"AZVR"), Malformed, id="a-reply"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Malformed, id="http"),
        pytest.param(header(0, 0, version=0), Malformed, id="version-0"),
        pytest.param(header(0, 0, version=2), UnknownVersion, id="version-2"),
        pytest.param(header(0, 0, flags=2), Malformed, id="descriptor-promised"),
        pytest.param(header(3, 0) + b"A=1", Malformed, id="environment-without-end"),
        pytest.param(header((256 << 10) + 1, 0), TooLarge, id="environment-too-large"),
        pytest.param(header(0, (256 << 10) + 1), TooLarge, id="stdin-too-large"),
        pytest.param(header(0xFFFFFFFF, 0xFFFFFFFF), TooLarge, id="both-endless"),
    ],
)
def test_what_is_no_request_is_refused(
    pair: Pair, no_descriptor_left: None, data: bytes, error: type[ProtocolError]
) -> None:
    caller, agent = pair
    caller.sendall(data)
    caller.shutdown(socket.SHUT_WR)
    with pytest.raises(error) as caught:
        read_request(agent, soon())
    assert str(caught.value)


def test_bytes_reserved_and_flags_of_later_are_ignored(pair: Pair) -> None:
    caller, agent = pair
    caller.sendall(header(0, 0, flags=0xFFFC, reserved=b"\xff" * 8))
    assert not read_request(agent, soon()).as_ipam


def test_limits_of_the_agents_own_are_kept(pair: Pair) -> None:
    caller, agent = pair
    caller.sendall(header(4, 11) + b"A=1\0" + b"x" * 11)
    with pytest.raises(TooLarge, match="11 bytes"):
        read_request(agent, soon(), limit=10)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 200])
@pytest.mark.parametrize("flags", [0, 2])
def test_descriptors_that_were_not_asked_for_are_closed(
    pair: Pair, no_descriptor_left: None, count: int, flags: int
) -> None:
    caller, agent = pair
    netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(caller, [header(0, 0, flags=flags)], [netns] * count)
    os.close(netns)
    if (count, flags) == (1, 2):
        read_request(agent, soon()).close()
    else:
        with pytest.raises(Malformed):
            read_request(agent, soon())


def test_descriptors_with_later_bytes_are_closed(pair: Pair, no_descriptor_left: None) -> None:
    caller, agent = pair
    caller.sendall(header(4, 0))
    with Path("/proc/self/ns/net").open() as netns:
        socket.send_fds(caller, [b"A=1\0"], [netns.fileno()])
    assert read_request(agent, soon()).netns_fd is None


@pytest.mark.parametrize("sent", [b"", b"AZ", header(4, 0), header(4, 0) + b"A="])
def test_a_caller_that_stalls_is_given_up_at_the_deadline(
    pair: Pair, no_descriptor_left: None, sent: bytes
) -> None:
    caller, agent = pair
    caller.sendall(sent)
    begin = time.monotonic()
    with pytest.raises(TooSlow):
        read_request(agent, soon(0.2))
    assert time.monotonic() - begin >= 0.19


def test_a_caller_that_trickles_is_given_up_at_the_same_deadline(pair: Pair) -> None:
    caller, agent = pair
    caller.sendall(header(0, 256 << 10))
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.01):
            caller.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises(TooSlow):  # a deadline of each read would never come
        read_request(agent, soon(0.3))
    stop.set()
    thread.join()


def test_an_endless_length_takes_no_memory() -> None:
    """4 GiB are promised to an agent that may have 200 MiB in all."""
    script = (
        "import resource, socket, struct, time\n"
        "from cni_plugin.agent import protocol\n"
        "resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))\n"
        "a, b = socket.socketpair()\n"
        "a.sendall(struct.pack('<4sHHII8x', b'AZVN', 1, 0, 0, 0xFFFFFFFF))\n"
        "try: protocol.read_request(b, time.monotonic() + 5)\n"
        "except protocol.TooLarge: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=LIBRARY, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"refused\n"


# The environment


def test_of_two_equal_names_the_first_counts_and_odd_entries_are_no_variables() -> None:
    env = b"A=1\0A=2\0NOTHING\0=x\0\0B=\xff=\n\0"
    assert protocol.decode_environment(env) == {"A": "1", "B": "\udcff=\n"}


# The agent answers


def test_a_reply_is_written_as_the_document_says(pair: Pair) -> None:
    caller, agent = pair
    write_reply(agent, ReplyFrame(b"{}\n", b"warning", 11), soon())
    agent.close()
    assert caller.recv(1000) == b"AZVR\1\0\0\0\3\0\0\0\7\0\0\0\x0b" + bytes(7) + b"{}\nwarning"


def test_of_a_log_that_is_too_long_the_end_is_sent() -> None:
    data = encode_reply(ReplyFrame(b"{}", b"begin" + b"x" * (256 << 10) + b"end"))
    assert len(data) == 24 + (256 << 10)
    assert data[24:26] == b"{}"
    assert data.endswith(b"end")
    assert encode_reply(ReplyFrame(b"x" * (256 << 10), b"log")).endswith(b"x")


def test_a_result_that_is_too_long_is_an_error_before_anything_is_sent(pair: Pair) -> None:
    caller, agent = pair
    with pytest.raises(TooLarge):
        write_reply(agent, ReplyFrame(b"x" * ((256 << 10) + 1)), soon())
    agent.close()
    assert caller.recv(1) == b""


def test_a_caller_that_takes_nothing_is_given_up_at_the_deadline(pair: Pair) -> None:
    _caller, agent = pair
    with pytest.raises(TooSlow):
        write_reply(agent, ReplyFrame(b"x" * (256 << 10)), soon(0.2))


def test_a_reply_that_does_not_fit_into_the_socket_is_sent_as_it_is_read(pair: Pair) -> None:
    caller, agent = pair
    agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    reply = ReplyFrame(b"x" * (256 << 10))
    writer = threading.Thread(target=write_reply, args=(agent, reply, soon()))
    writer.start()
    wanted, came = len(encode_reply(reply)), b""
    while len(came) < wanted and (some := caller.recv(1000)):
        came += some
    writer.join()
    assert came == encode_reply(reply)


def test_a_caller_that_is_gone_is_told_without_death_by_signal(pair: Pair) -> None:
    caller, agent = pair
    assert caller_alive(agent)
    caller.close()
    assert not caller_alive(agent)
    with pytest.raises(Gone):
        write_reply(agent, ReplyFrame(b"{}"), soon())


def test_a_caller_that_shut_down_its_side_is_gone_whatever_it_sent(pair: Pair) -> None:
    caller, agent = pair
    caller.sendall(b"more than was asked for")
    assert caller_alive(agent)
    caller.shutdown(socket.SHUT_WR)
    assert not caller_alive(agent)


@pytest.mark.parametrize(("callers", "spoken"), [(1, 1), (2, 1), (7, 1)])
def test_a_refusal_speaks_the_older_version(callers: int, spoken: int) -> None:
    assert encode_reply(protocol.refusal(callers))[:8] == b"AZVR" + struct.pack("<HH", spoken, 1)
