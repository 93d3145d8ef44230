"""A path that agents take over from one another: somebody answers there, and it is known who."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from cni_plugin.agent.unixsocket import SocketOwner, UnixSocket
from tests.waiting import Syscall, eventually, waits_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def names(path: Path) -> list[str]:
    """What is in the socket's directory."""
    return sorted(each.name for each in path.parent.iterdir())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_is_for_root_alone_and_leaves_nothing_beside_it(path: Path) -> None:
    made = UnixSocket(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path) == ["agent.sock"]
    assert made.owner() is SocketOwner.OURS
    made.withdraw()
    made.close()
    assert names(path) == []


def test_the_path_is_another_ones_as_long_as_that_lives(path: Path) -> None:
    old, new = UnixSocket(path, 1), UnixSocket(path, 1)
    assert (old.owner(), new.owner()) == (SocketOwner.ANOTHER, SocketOwner.OURS)
    old.withdraw()
    assert path.is_socket(), "what is another's is left alone"
    new.close()
    assert old.owner() is SocketOwner.NOBODY, "its file is there, but nobody listens"
    path.unlink()
    assert old.owner() is SocketOwner.NOBODY
    old.close()


def test_one_that_does_not_get_round_to_accepting_lives(path: Path) -> None:
    old, new = UnixSocket(path, 1), UnixSocket(path, 0)
    waiting = connected(path)
    assert [old.owner() for _ in range(4)] == [SocketOwner.ANOTHER] * 4
    for each in (waiting, old, new):
        each.close()


def test_two_agents_that_start_at_once_do_not_get_in_each_others_way(path: Path) -> None:
    """Both are process 1 of a container of their own, and see the same directory."""
    failures: list[BaseException] = []

    def make() -> None:
        try:
            for _ in range(50):
                UnixSocket(path, 1).close()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(path) == ["agent.sock"]


def test_what_a_killed_agent_left_beside_the_path_is_cleared_and_nothing_else(path: Path) -> None:
    old, young, file = (path.with_name(f"agent.sock.{name}") for name in ("old", "young", "file"))
    made = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for sock, where in zip(made, (old, young), strict=True):
        sock.bind(str(where))
        sock.close()
    file.touch()
    for each in (old, file):
        os.utime(each, (time.time() - 3600,) * 2)
    UnixSocket(path, 1).close()
    assert names(path) == ["agent.sock", "agent.sock.file", "agent.sock.young"]


def test_a_directory_that_is_not_there_leaves_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        UnixSocket(tmp_path / "missing" / "agent.sock", 1)
    assert descriptors() == before


def test_those_who_wait_are_let_go_at_once_while_a_thread_still_uses_the_socket(path: Path) -> None:
    made = UnixSocket(path, 8)
    waiting = [connected(path) for _ in range(5)]
    waiting[0].sendall(b"a request that nobody reads")
    refused = 0
    for connection in made.refuse_more():
        connection.sendall(b"no")
        refused += 1
    assert refused == 5
    for each in waiting:
        each.settimeout(5)
        assert each.recv(10) == b"no"
        each.close()
    with pytest.raises(ConnectionRefusedError):
        connected(path)
    made.close()


def test_a_thread_in_accept_is_woken(path: Path) -> None:
    made = UnixSocket(path, 8)
    woken = threading.Event()

    def accept() -> None:
        try:
            made.socket.accept()
        except OSError:
            woken.set()

    thread = threading.Thread(target=accept)
    thread.start()
    assert thread.native_id is not None
    eventually(partial(waits_in, thread.native_id, Syscall.ACCEPT4), "it waits for a connection")
    assert list(made.refuse_more()) == []
    thread.join(5)
    assert woken.is_set()
    made.close()
