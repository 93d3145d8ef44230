"""How the command line tells an agent that is well from one that hangs, lies or is gone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_plugin.agent.listener import Listener, Page
from cni_plugin.agent.unixsocket import UnixSocket
from cni_plugin.cli import asking
from cni_plugin.cli.asking import HANGS, NONE, RUNNING, ask_agent

INFO = {
    "pid": 7,
    "version": "9.9",
    "protocol": 1,
    "started": 5.0,
    "settings": "",
    "ready": False,
    "reason": "no address",
    "warnings": ["odd"],
    "cooldown": 12.0,
}


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(path: Path, undo: ExitStack, backlog: int = 8) -> socket.socket:
    sock = undo.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(str(path))
    sock.listen(backlog)
    return sock


def tell(folder: Path, undo: ExitStack, body: bytes) -> None:
    listening = UnixSocket(folder / "http.sock", 8).socket
    undo.callback(Listener(listening, lambda *_: Page(body), "test").stop)


def test_no_agent(tmp_path: Path, undo: ExitStack) -> None:
    assert ask_agent(tmp_path).state == NONE
    with ExitStack() as dead:
        listen(tmp_path / "agent.sock", dead)
    assert ask_agent(tmp_path).state == NONE, "a socket that a dead agent left"


def test_an_agent_that_tells(tmp_path: Path, undo: ExitStack) -> None:
    listen(tmp_path / "agent.sock", undo)
    tell(tmp_path, undo, json.dumps(INFO).encode())
    seen = ask_agent(tmp_path)
    assert (seen.state, seen.pid, seen.version, seen.ready) == (RUNNING, os.getpid(), "9.9", False), (
        "the number that the process has here; in a container it knows another one"
    )
    assert (seen.reason, seen.warnings, seen.cooldown) == ("no address", ("odd",), 12.0)


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"pid": 1}', b'{"pid": null}'])
def test_an_agent_that_tells_nonsense_is_running_and_not_ready(
    tmp_path: Path, undo: ExitStack, body: bytes
) -> None:
    listen(tmp_path / "agent.sock", undo)
    tell(tmp_path, undo, body)
    seen = ask_agent(tmp_path)
    assert (seen.state, seen.ready, seen.pid) == (RUNNING, False, os.getpid())
    assert "its page /info can't be read" in seen.reason


def test_an_older_agent_without_pages(tmp_path: Path, undo: ExitStack) -> None:
    listen(tmp_path / "agent.sock", undo)
    seen = ask_agent(tmp_path)
    assert (seen.state, seen.pid) == (RUNNING, os.getpid())


def test_one_that_answers_nothing_hangs(
    tmp_path: Path, undo: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.2)
    listen(tmp_path / "agent.sock", undo)
    listen(tmp_path / "http.sock", undo)
    seen = ask_agent(tmp_path)
    assert (seen.state, seen.pid) == (HANGS, os.getpid())
    assert "does not answer within 0.2 s" in seen.reason


def test_one_whose_queue_is_full_hangs(
    tmp_path: Path, undo: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.2)
    listen(tmp_path / "agent.sock", undo, backlog=0)
    waiting = undo.enter_context(socket.socket(socket.AF_UNIX))
    waiting.connect(str(tmp_path / "agent.sock"))
    assert ask_agent(tmp_path).state == HANGS
