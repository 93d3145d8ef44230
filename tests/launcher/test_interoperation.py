"""The launcher in C and the protocol in Python understand each other, and treat the same things alike."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cni_plugin.agent import protocol
from cni_plugin.agent.caller import ask
from cni_plugin.agent.protocol import Reply, Request
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

    def __init__(self, path: Path, given: Reply) -> None:
        self.requests: list[Request] = []
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
def test_the_same_call_is_the_same_request_from_both(
    bundle: Bundle, extra: dict[bytes, bytes], stdin: bytes, netns: bool, as_ipam: bool
) -> None:
    variables = bundle.environment(CNI_NETNS="/proc/self/ns/net" if netns else None)
    ours = {b"AZVNET_AGENT", b"AZVNET_CALL_ID", b"CNI_NETNS"}
    others = {name: value for name, value in extra.items() if name not in ours}
    environment = others | variables | {b"AZVNET_CALL_ID": b"c" * 32}
    with Answering(fresh(bundle), Reply(b"{}")) as agent, Path("/proc/self/ns/net").open() as own:
        bundle.run(input=stdin, name="azvnet-ipam" if as_ipam else "azvnet", environment=environment)
        netns_fd = own.fileno() if netns else None
        ask(str(bundle.socket), environment, stdin, netns_fd, as_ipam, time.monotonic() + 30)
    launcher, python = agent.requests
    assert launcher.stdin == python.stdin == stdin
    assert launcher.env == python.env == b"".join(b"%b=%b\0" % pair for pair in environment.items())
    assert launcher.flags == python.flags == (1 if as_ipam else 0) + (2 if netns else 0)


@PROPERTY
@given(stdout=STREAMS, stderr=STREAMS, code=st.integers(0, 255))
def test_what_the_agent_replies_is_what_the_launcher_prints(
    bundle: Bundle, stdout: bytes, stderr: bytes, code: int
) -> None:
    with Answering(fresh(bundle), Reply(stdout, stderr, code)):
        done = bundle.run(input=b"{}")
    assert (done.stdout, done.stderr, done.code) == (stdout, stderr, code)
    assert bundle.record() is None


def like_a_reply(fields: tuple[bytes, int, int, tuple[int, int] | None, bytes, int]) -> bytes:
    """Bytes that are nearly a reply, cut off somewhere."""
    magic, version, kind, lengths, stdout, cut = fields
    data = reply(stdout, magic=magic, version=version, kind=kind, lengths=lengths)
    return data[: len(data) - cut] if cut else data


LENGTHS = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 24, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
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


@settings(PROPERTY, max_examples=60)
@given(data=REPLIES)
@example(data=reply(b"{}"))
@example(data=reply(b"{}", kind=1))
@example(data=reply(b"{}", lengths=(3, 0)))
def test_both_callers_take_any_bytes_for_the_same_reply_or_the_same_doubt(
    bundle: Bundle, data: bytes
) -> None:
    with Agent(fresh(bundle), answer(data)):
        done = bundle.run(input=b"{}")
        asked = ask(
            str(bundle.socket),
            bundle.environment(AZVNET_CALL_ID="1"),
            b"{}",
            None,
            False,
            time.monotonic() + 30,
        )
    record = bundle.record()
    if isinstance(asked, Reply):
        assert record is None
        assert (done.stdout, done.stderr, done.code) == (asked.stdout, asked.stderr, asked.code)
    else:
        assert record is not None
        assert record.agent == asked.encode()


@pytest.mark.parametrize("version", [2, 9])
def test_a_launcher_of_today_does_without_an_agent_that_refuses_in_another_version(
    bundle: Bundle, version: int
) -> None:
    with Answering(fresh(bundle), Reply(b"{}", version=version)):
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
        later.sendall(protocol.encode_request(Request(2, 0, b"", b"", None)))
        assert later.recv(100) == reply(kind=1)
    assert refused == [2]
