"""The launcher in C and the agent's side of the protocol in Python understand each other."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cni_plugin.agent import protocol
from cni_plugin.agent.protocol import ReplyFrame, RequestFrame
from tests.launcher.agents import Agent, answer, reply
from tests.launcher.programs import Bundle

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0, ord("=")})
VALUES = st.binary(max_size=200).map(lambda value: value.replace(b"\0", b""))
ENVIRONMENTS = st.dictionaries(NAMES, VALUES, max_size=20)
STREAMS = st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(lambda size: b"\xa5" * size))

# One bundle serves all examples of a test; each starts a program, so there are not too many of them.
PROPERTY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Answering:
    """An agent as ours will be: made of the protocol's own functions."""

    def __init__(self, path: Path, given: ReplyFrame) -> None:
        self.requests: list[RequestFrame] = []
        self._reply = given
        self._agent = Agent(path, self._behave)

    def _behave(self, connection: socket.socket, _agent: Agent) -> None:
        deadline = time.monotonic() + 30
        assert protocol.peer_uid(connection) == 0
        request = protocol.read_request(connection, deadline)
        self.requests.append(request)
        assert (request.netns_fd is None) == (b"CNI_NETNS=" not in b"\0" + request.env)
        request.close()
        assert protocol.caller_alive(connection)
        protocol.write_reply(connection, self._reply, deadline)

    def __enter__(self) -> Self:
        self._agent.__enter__()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._agent.__exit__(None, None, None)


def fresh(bundle: Bundle) -> Path:
    """The socket's path, free for another agent."""
    bundle.socket.unlink(missing_ok=True)
    return bundle.socket


@PROPERTY
@given(extra=ENVIRONMENTS, stdin=STREAMS, netns=st.booleans(), as_ipam=st.booleans())
def test_the_agent_reads_what_the_launcher_was_given(
    bundle: Bundle, extra: dict[bytes, bytes], stdin: bytes, netns: bool, as_ipam: bool
) -> None:
    variables = bundle.environment(CNI_NETNS="/proc/self/ns/net" if netns else None)
    ours = {b"AZVNET_AGENT", b"AZVNET_CALL_ID", b"CNI_NETNS"}
    others = {name: value for name, value in extra.items() if name not in ours}
    environment = others | variables | {b"AZVNET_CALL_ID": b"c" * 32}
    with Answering(fresh(bundle), ReplyFrame(b"{}")) as agent:
        bundle.run(input=stdin, name="azvnet-ipam" if as_ipam else "azvnet", environment=environment)
    [request] = agent.requests
    assert request.stdin == stdin
    assert request.env == b"".join(b"%b=%b\0" % pair for pair in environment.items())
    assert request.flags == (1 if as_ipam else 0) + (2 if netns else 0)


@PROPERTY
@given(stdout=STREAMS, stderr=STREAMS, code=st.integers(0, 255))
def test_what_the_agent_replies_is_what_the_launcher_prints(
    bundle: Bundle, stdout: bytes, stderr: bytes, code: int
) -> None:
    with Answering(fresh(bundle), ReplyFrame(stdout, stderr, code)):
        done = bundle.run(input=b"{}")
    assert (done.stdout, done.stderr, done.code) == (stdout, stderr, code)
    assert bundle.record() is None


def like_a_reply(fields: tuple[bytes, int, int, tuple[int, int] | None, bytes, int]) -> bytes:
    """Bytes that are nearly a reply, cut off somewhere."""
    magic, version, kind, lengths, stdout, cut = fields
    data = reply(stdout, magic=magic, version=version, kind=kind, lengths=lengths)
    return data[: len(data) - cut] if cut else data


LIMIT = 256 << 10
LENGTHS = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 24, LIMIT - 1, LIMIT, LIMIT + 1])
REPLIES = st.one_of(
    st.binary(max_size=100),
    st.tuples(
        st.sampled_from([b"AZVR", b"AZVR", b"AZVR", b"AZVN"]),
        st.sampled_from([1, 1, 1, 0, 2, 256]),
        st.sampled_from([0, 0, 0, 1, 2, 256]),
        st.none() | st.none() | st.tuples(LENGTHS, LENGTHS),
        st.binary(max_size=100),
        st.sampled_from([0, 0, 0, 1, 50]),
    ).map(like_a_reply),
)


def meaning(data: bytes) -> tuple[bytes, bytes, int] | bytes:
    """What a caller makes of these bytes, read from the document alone: stdout, stderr and exit code, or the
    doubt that it tells the frozen Python.
    """
    if len(data) < 24:
        return b"lost"
    magic, version, kind, out, err, code = struct.unpack("<4sHHIIB7x", data[:24])
    if magic != b"AZVR" or version != 1 or kind == 1:
        return b"none"
    if kind != 0 or out + err > LIMIT or len(data) < 24 + out + err:
        return b"lost"
    return data[24 : 24 + out], data[24 + out : 24 + out + err], code


@settings(PROPERTY, max_examples=60)
@given(data=REPLIES)
@example(data=reply(b"{}"))
@example(data=reply(b"{}", kind=1))
@example(data=reply(b"{}", lengths=(3, 0)))
def test_the_launcher_takes_any_bytes_for_what_the_document_says(bundle: Bundle, data: bytes) -> None:
    with Agent(fresh(bundle), answer(data)):
        done = bundle.run(input=b"{}")
    record, expected = bundle.record(), meaning(data)
    if isinstance(expected, tuple):
        assert record is None
        assert (done.stdout, done.stderr, done.code) == expected
    else:
        assert record is not None
        assert record.agent == expected


@pytest.mark.parametrize("version", [2, 9])
def test_a_launcher_of_today_does_without_an_agent_that_refuses_in_another_version(
    bundle: Bundle, version: int
) -> None:
    with Answering(fresh(bundle), ReplyFrame(b"{}", version=version)):
        assert bundle.run(input=b"{}").code == 42
    assert bundle.fallback().agent == b"none"


def test_a_launcher_of_tomorrow_is_refused_in_words_that_it_understands(run_dir: Path) -> None:
    """An agent of version 1 hears version 2, and says so with a reply of version 1."""
    refused = []

    def behave(connection: socket.socket, _agent: Agent) -> None:
        deadline = time.monotonic() + 30
        with pytest.raises(protocol.UnknownVersion) as unknown:
            protocol.read_request(connection, deadline)
        refused.append(unknown.value.version)
        protocol.write_reply(connection, protocol.refusal(unknown.value.version), deadline)

    with Agent(run_dir / "agent.sock", behave), socket.socket(socket.AF_UNIX) as later:
        later.connect(str(run_dir / "agent.sock"))
        later.sendall(struct.pack("<4sHHII8x", b"AZVN", 2, 0, 0, 0))
        assert later.recv(100) == reply(kind=1)
    assert refused == [2]
