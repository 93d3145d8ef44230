"""One GET, bounded in time and size whatever the other side does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.errors import SourceUnreadable
from ipam.sources import http
from ipam.sources.documents import SIZE_LIMIT
from ipam.sources.http import RECEIVED_LIMIT, Get, get
from tests.unit.ipam.cloud import Cloud, ok, reply, running, silence
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.ipam.cloud import Answer

FOR_EVER = 3000.0
"""Seconds: a test that waited for this deadline would not end."""


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


def ask(cloud: Cloud, seconds: float = 10.0, path: str = "/x?y=1") -> bytes:
    return get(Get("test", cloud.url + path, {"Metadata": "true"}, "look"), time.monotonic() + seconds)


def refused(cloud: Cloud, seconds: float = FOR_EVER) -> SourceUnreadable:
    with pytest.raises(SourceUnreadable) as error:
        ask(cloud, seconds)
    assert error.value.remedy == "look"
    return error.value


def test_what_is_sent(cloud: Cloud) -> None:
    cloud.answers = [ok(b"body")]
    assert ask(cloud) == b"body"
    (request,) = cloud.requests
    assert request.startswith("GET /x?y=1 HTTP/1.1\r\n")
    assert "Metadata: true\r\n" in request
    assert "X-Forwarded-For" not in request


@pytest.mark.parametrize("status", [404, 408, 410, 429, 500, 502, 503, 504])
def test_a_service_that_is_not_ready_is_asked_again(cloud: Cloud, status: int) -> None:
    cloud.answers = [reply(f"{status} No"), ok(b"now")]
    assert ask(cloud) == b"now"
    assert len(cloud.requests) == 2


@pytest.mark.parametrize("status", ["400 Bad Request", "401 No", "403 No", "405 No", "204 No Content"])
def test_a_refusal_is_not_asked_again(cloud: Cloud, status: str) -> None:
    cloud.answers = [reply(status, b"" if status.startswith("204") else b'{"error":  "why"}')]
    error = refused(cloud)
    assert type(error) is SourceUnreadable
    assert error.status == int(status[:3])
    assert f"GET {cloud.url}/x?y=1: {status}" in str(error)
    assert (error.retry_after, "Retry-After" in str(error)) == (0, False)
    assert len(cloud.requests) == 1


def test_what_the_service_says_is_part_of_the_error(cloud: Cloud) -> None:
    cloud.answers = [reply("400 Bad Request", b"Required\n metadata header not specified" + b"x" * 1000)]
    error = refused(cloud)
    assert "Required metadata header not specified" in str(error)
    assert len(str(error)) < 400


def test_a_redirect_is_not_followed(cloud: Cloud) -> None:
    with running() as elsewhere:
        cloud.answers = [reply("302 Found", Location=f"{elsewhere.url}/y")]
        error = refused(cloud)
        assert "302 Found" in str(error)
        assert elsewhere.requests == []


def test_a_proxy_is_not_used(cloud: Cloud) -> None:
    cloud.answers = [ok(b"direct")]
    program = (
        "import sys, time; from ipam.sources.http import Get, get;"
        "print(get(Get('test', sys.argv[1], {}, ''), time.monotonic() + 10).decode())"
    )
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
    ran = subprocess.run(
        [sys.executable, "-c", program, f"{cloud.url}/"],
        env={**os.environ, **proxies},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "direct\n"


def test_retry_after_is_waited_for(cloud: Cloud) -> None:
    cloud.answers = [reply("429 Too Many Requests", Retry_After="1"), ok(b"now")]
    began = time.monotonic()
    assert ask(cloud) == b"now"
    assert time.monotonic() - began >= 1


def test_retry_after_that_is_too_long_is_told_at_once(cloud: Cloud) -> None:
    cloud.answers = [reply("429 Too Many Requests", Retry_After="3600")]
    error = refused(cloud)
    assert error.retry_after == 3600
    assert "Retry-After 3600 s" in str(error)
    assert len(cloud.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("-3", 0), ("1e9", 3600), ("nan", 0), ("soon", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 3600)],
)
def test_retry_after_in_every_spelling(cloud: Cloud, value: str, seconds: float) -> None:
    cloud.answers = [reply("403 No", Retry_After=value)]
    assert refused(cloud).retry_after == seconds


def test_retry_after_as_a_date(cloud: Cloud) -> None:
    cloud.answers = [reply("403 No", Retry_After=formatdate(time.time() + 100, usegmt=True))]
    assert 90 < refused(cloud).retry_after <= 100


@pytest.mark.timeout(30)
class TestTime:
    def test_a_server_that_says_nothing(self, cloud: Cloud) -> None:
        cloud.answers = [silence(cloud)]
        error = refused(cloud, 0.4)
        assert "no answer in time" in str(error)

    @pytest.mark.parametrize("where", ["status line", "headers", "body"])
    def test_a_server_that_sends_a_byte_now_and_then(self, cloud: Cloud, where: str) -> None:
        def trickle(connection: socket.socket) -> None:
            start = {
                "status line": b"",
                "headers": b"HTTP/1.1 200 OK\r\n",
                "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
            }[where]
            connection.sendall(start)
            slowly = b"HTTP/1.1 200 OK\r\n" if where == "status line" else b"X-Slow: yes\r\n" * 1000
            for byte in slowly:
                if cloud.stopping.wait(0.1):
                    return
                connection.sendall(bytes([byte]))

        cloud.answers = [trickle]
        error = refused(cloud, 0.5)
        assert "no answer in time" in str(error)

    def test_all_retries_together_end_in_time(self, cloud: Cloud) -> None:
        cloud.answers = [reply("503 No")]
        error = refused(cloud, 1.0)
        assert "503 No" in str(error)
        assert len(cloud.requests) <= 4

    def test_nobody_listens(self) -> None:
        with running() as cloud:
            pass
        error = refused(cloud)
        assert str(error).endswith("/x?y=1: Connection refused")

    def test_an_address_where_nothing_answers_is_given_up_soon(
        self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "_CONNECT_SECONDS", 0.2)
        with socket.socket() as full, socket.socket() as waiting:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting.connect(full.getsockname())  # the kernel drops what asks while one waits to be accepted
            host, port = full.getsockname()
            with pytest.raises(SourceUnreadable, match="no answer in time"):
                get(Get("test", f"http://{host}:{port}/", {}, "look"), time.monotonic() + FOR_EVER)

    def test_a_deadline_that_is_over(self, cloud: Cloud) -> None:
        error = refused(cloud, -1)
        assert "no answer in time" in str(error)
        assert cloud.requests == []


def endless(start: bytes, again: bytes) -> tuple[Answer, list[int]]:
    """An answer that goes on until the connection is closed, as fast as it can; how much was sent of it."""
    sent: list[int] = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        block = again * (65536 // len(again))
        while True:
            connection.sendall(block)
            sent.append(len(block))

    return answer, sent


ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim answers with headers": (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: y\r\n"),
    "chunks of one byte": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a chunk's extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "a chunk without an end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFF\r\n",
        b"x",
    ),
    "a body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "an error's body": (b"HTTP/1.1 400 Bad\r\n\r\n", b"x"),
    "a status line": (b"HTTP/1.1 200 ", b"O"),
}


PIECES = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0 404 No\r\n",
    b"HTTP/9",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Retry-After: Fri, 31 Dec 0001 23:59:59 +2359\r\n",
    b"Retry-After: nan\r\n",
    b"\r\n",
    b"0\r\n",
    b"-1\r\n",
    b"5\r\nhello\r\n",
    b"FFFFFFFFFFFFFFFFFFFF\r\n",
    b": \r\n",
    b"X" * 70_000,
    b"\n",
    b"\x00",
)


class TestBounds:
    """Whatever a server sends, and however: neither time nor bytes go on for ever."""

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("what", ENDLESS)
    def test_what_never_ends_is_given_up_after_so_many_bytes(self, cloud: Cloud, what: str) -> None:
        answer, sent = endless(*ENDLESS[what])
        cloud.answers = [answer]
        refused(cloud, 40)
        buffers = 16 * 1024 * 1024
        assert sum(sent) < RECEIVED_LIMIT + buffers

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("what", ENDLESS)
    def test_the_deadline_holds_while_there_is_always_something_to_read(
        self, cloud: Cloud, what: str
    ) -> None:
        """A read that never has to wait never times out by itself."""
        start, again = ENDLESS[what]

        def steadily(connection: socket.socket) -> None:
            connection.sendall(start)
            while not cloud.stopping.wait(0.0005):
                connection.sendall(again)

        cloud.answers = [steadily]
        error = refused(cloud, 0.5)
        assert "no answer in time" in str(error) or "line" in str(error)

    @pytest.mark.parametrize("size", ["-1", "-FF", "-80000000", "zz", "", "0x-1", "\u0661"])
    def test_a_chunk_of_no_possible_size(self, cloud: Cloud, size: str) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        cloud.answers = [head + size.encode() + b"\r\nx\r\n0\r\n\r\n"]
        refused(cloud, 1.0)

    @pytest.mark.timeout(200)
    def test_no_bytes_make_it_raise_anything_else(self, cloud: Cloud) -> None:
        pieces = st.sampled_from(PIECES) | st.binary(max_size=30)

        @settings(max_examples=settings().max_examples * 3, database=None)
        @given(st.lists(pieces, max_size=9).map(b"".join))
        def fuzz(answer: bytes) -> None:
            cloud.answers = [answer]
            with suppress(SourceUnreadable):
                ask(cloud, 0.15)

        fuzz()

    def test_what_a_server_says_is_cut_and_escaped(self, cloud: Cloud) -> None:
        cloud.answers = [b"HTTP/1.1 400 \x1b[2J" + b"y" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"]
        error = refused(cloud)
        assert str(error).isprintable()
        assert len(str(error)) < 400

    def test_a_body_that_a_terminal_would_act_on_is_not_shown(self, cloud: Cloud) -> None:
        cloud.answers = [reply("400 Bad", b"clear \x1b[2J the screen")]
        assert str(refused(cloud)).endswith(": 400 Bad")


class TestBrokenAnswers:
    def test_a_connection_that_is_cut_is_tried_again(self, cloud: Cloud) -> None:
        whole = ok(b"0123456789")
        cloud.answers = [lambda _: None, whole[:-3], whole]
        assert ask(cloud) == b"0123456789"

    def test_one_that_is_always_cut_is_an_error(self, cloud: Cloud) -> None:
        cloud.answers = [ok(b"0123456789")[:-3]]
        error = refused(cloud, 0.5)
        assert "the answer broke off" in str(error)

    def test_garbage(self, cloud: Cloud) -> None:
        cloud.answers = [b"\x00\xff" * 100 + b"\r\n\r\n"]
        refused(cloud)

    def test_endless_headers(self, cloud: Cloud) -> None:
        cloud.answers = [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"]
        refused(cloud)

    @pytest.mark.parametrize("length", [f"Content-Length: {SIZE_LIMIT * 4}\r\n", ""])
    def test_an_answer_that_is_too_large(self, cloud: Cloud, length: str) -> None:
        def flood(connection: socket.socket) -> None:
            connection.sendall(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
            for _ in range(SIZE_LIMIT // 65536 * 4):
                connection.sendall(b"x" * 65536)

        cloud.answers = [flood]
        assert f"larger than {SIZE_LIMIT} bytes" in str(refused(cloud))

    def test_an_answer_of_the_largest_size(self, cloud: Cloud) -> None:
        cloud.answers = [ok(b"x" * SIZE_LIMIT)]
        assert len(ask(cloud)) == SIZE_LIMIT

    def test_an_answer_in_chunks(self, cloud: Cloud) -> None:
        cloud.answers = [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n2\r\n!!\r\n0\r\n\r\n"
        ]
        assert ask(cloud) == b"body!!"


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "file:///etc/passwd", "http://localhost/", "http://"])
def test_only_plain_http_to_an_address(url: str) -> None:
    with pytest.raises(SourceUnreadable, match=r"plain http|IP address"):
        get(Get("test", url, {}, ""), time.monotonic() + 5)


def test_no_descriptor_is_left_open(cloud: Cloud) -> None:
    cloud.answers = [ok(b"x"), reply("400 No"), b"garbage\r\n\r\n", ok(b"x")]
    ask(cloud)
    before = open_descriptors()
    for _ in range(2):
        with pytest.raises(SourceUnreadable):
            ask(cloud, 1.0)
    ask(cloud)
    eventually(lambda: open_descriptors() <= before, "all are closed")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
