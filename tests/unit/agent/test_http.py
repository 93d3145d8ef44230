"""The pages: reachable where they should be and nowhere else, whatever a client does."""

from __future__ import annotations

import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_plugin.agent import listener
from cni_plugin.agent.listener import (
    AT_ONCE,
    BACKLOG,
    Listener,
    Page,
    address_of,
    is_of_the_node_alone,
    listen_on_port,
)
from cni_plugin.agent.unixsocket import UnixSocket
from ipam.settings_file import SettingsError
from tests.unit.agent.work import get, read_answer
from tests.waiting import eventually

Serve = Callable[..., Path]


def echo(path: str, accept: str) -> Page:
    if path == "/broken":
        raise ZeroDivisionError("by intent")
    return Page(f"{path} {accept}".encode())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as undo:

        def start(answer: listener.Answer = echo) -> Path:
            path = tmp_path / "http.sock"
            listening = UnixSocket(path, BACKLOG).socket
            undo.callback(Listener(listening, answer, "test").stop)
            return path

        yield start


def test_a_page_is_answered_whole(serve: Serve) -> None:
    answer = get(serve(), "/page?query=1", accept="text/plain")
    assert (answer.status, answer.body) == (200, "/page text/plain")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["connection"] == "close"


def test_head_gets_the_headers_alone(serve: Serve) -> None:
    answer = get(serve(), "/page", method="HEAD")
    assert (answer.status, answer.body) == (200, "")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\xff\xfe\x00 / HTTP/1.1\r\n\r\n", 405),
        (b"GET /broken HTTP/1.1\r\n\r\n", 500),
    ],
)
def test_what_is_no_get_is_told_so(serve: Serve, sent: bytes, status: int) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(serve()))
        sock.sendall(sent)
        assert read_answer(sock).status == status


def test_a_defect_in_a_page_leaves_the_listener_alive(serve: Serve) -> None:
    path = serve()
    assert "ZeroDivisionError: by intent" in get(path, "/broken").body
    assert get(path, "/page").status == 200


def send_again_and_again(sock: socket.socket, data: bytes, pause: float = 0.0) -> None:
    """Until the other side has closed."""
    while True:
        sock.sendall(data)
        time.sleep(pause)


def test_a_request_without_end_is_dropped(serve: Serve) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(serve()))
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            send_again_and_again(sock, b"X: " + b"a" * 1000 + b"\r\n")


def test_a_client_that_sends_a_byte_now_and_then_is_dropped_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes well within the bound; the request as a whole does not."""
    monkeypatch.setattr(listener, "SECONDS", 0.5)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(serve()))
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            send_again_and_again(sock, b"G", 0.05)


def test_clients_that_say_nothing_take_a_bounded_number_of_threads(serve: Serve) -> None:
    path = serve()
    before = threading.active_count()
    with ExitStack() as closing:
        for _ in range(3 * AT_ONCE):
            sock = closing.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(path))
        assert get(path, "/page").status == 200, "behind all of them"
        eventually(lambda: threading.active_count() - before <= AT_ONCE, "those that were closed have ended")


def test_clients_that_say_nothing_keep_nobody_out(serve: Serve) -> None:
    """A port scanner, a monitoring system that keeps connections: the oldest silent one goes."""
    path = serve()
    with ExitStack() as closing:
        silent = [closing.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(AT_ONCE)]
        for sock in silent:
            sock.settimeout(10)
            sock.connect(str(path))
        assert get(path, "/page").status == 200
        assert silent[0].recv(1) == b"", "closed"
        silent[-1].sendall(b"GET /page HTTP/1.1\r\n\r\n")
        assert read_answer(silent[-1]).status == 200, "it was silent for less time"


def test_the_socket_is_for_root_alone(serve: Serve) -> None:
    assert stat.S_IMODE(serve().stat().st_mode) == 0o600


def test_a_newer_agent_takes_the_path_over_and_nobody_is_refused_in_between(
    serve: Serve, tmp_path: Path
) -> None:
    path = serve(lambda *_: Page(b"old"))
    new = Listener(UnixSocket(path, BACKLOG).socket, lambda *_: Page(b"new"), "new")
    assert get(path).body == "new"
    new.stop()
    assert [entry.name for entry in tmp_path.iterdir()] == ["http.sock"]


def test_nothing_answers_after_the_stop(tmp_path: Path) -> None:
    listener = Listener(UnixSocket(tmp_path / "http.sock", BACKLOG).socket, echo, "test")
    assert get(tmp_path / "http.sock").status == 200
    listener.stop()
    with pytest.raises(ConnectionRefusedError):
        get(tmp_path / "http.sock")


def test_a_loopback_port_answers() -> None:
    listening = listen_on_port("127.0.0.1", 0)
    listener = Listener(listening, echo, "port")
    try:
        assert get(listening.getsockname(), "/page").status == 200
    finally:
        listener.stop()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("127.0.0.1:9631", ("127.0.0.1", 9631)),
        ("127.5.5.5:1", ("127.5.5.5", 1)),
        ("localhost:9631", ("127.0.0.1", 9631)),
        ("[::1]:9631", ("::1", 9631)),
    ],
)
def test_loopback_addresses_are_of_the_node_alone(text: str, where: tuple[str, int]) -> None:
    assert address_of(text) == where
    assert is_of_the_node_alone(where[0])


@pytest.mark.parametrize(
    "text", ["0.0.0.0:9631", "10.1.0.4:9631", "[::]:9631", "168.63.129.16:80", "[fe80::1]:80"]
)
def test_addresses_that_others_can_reach_are_told_apart(text: str) -> None:
    assert not is_of_the_node_alone(address_of(text)[0])


@pytest.mark.parametrize("text", ["9631", "127.0.0.1", "127.0.0.1:", "example.com:80", "127.0.0.1:x", "::1"])
def test_what_is_no_address_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1"):
        address_of(text)


@pytest.mark.parametrize("port", [0, 65536])
def test_ports_that_do_not_exist_are_refused(port: int) -> None:
    with pytest.raises(SettingsError, match="metrics_address"):
        address_of(f"127.0.0.1:{port}")
