"""Serving HTTP on a socket that somebody else made, with everything that can be wrong with a server.

Must not know Azure: a surface is a function from `Request` and `Now` to `Response`.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from integration.fabric.faults import Garbage, Now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IDLE = 30.0
"""Seconds that a kept-alive connection may be idle."""

_PROXY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>upstream</body></html>"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    """Names in lower case."""
    client: IPv4Address
    body: bytes = b""
    host: str = ""

    def parameter(self, name: str) -> str | None:
        """The first query parameter of that name."""
        return next((value for key, value in self.query if key == name), None)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def json_response(status: int, document: Any, *headers: tuple[str, str]) -> Response:
    """A response with a JSON document."""
    return Response(status, json.dumps(document).encode(), headers=headers)


@dataclass(frozen=True, slots=True)
class Site:
    """What is served at one socket."""

    name: str
    server_header: str
    fault: Callable[[Request], Now]
    """What is wrong for this request; asked exactly once for each."""
    answer: Callable[[Request, Now], Response]
    error: Callable[[Request, int], Response]
    """The document that goes with an error status of this site."""


@dataclass(eq=False)
class Server:
    """Threads that serve a site at a listening socket until `close`."""

    site: Site
    listener: socket.socket
    tls: ssl.SSLContext | None = None
    closing: threading.Event = field(default_factory=threading.Event)
    _connections: set[socket.socket] = field(default_factory=set)
    _threads: set[threading.Thread] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Begin to accept."""
        self._spawn(self._accept, f"{self.site.name} accept")

    def close(self) -> None:
        """Stop, break every connection and wait for the threads."""
        self.closing.set()
        with self._lock:
            doomed = [self.listener, *self._connections]
            threads = list(self._threads)
        for sock in doomed:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        self.listener.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, (address, _) = self.listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            self._spawn(lambda c=connection, a=address: self._serve(c, a), self.site.name)  # type: ignore[misc]

    def _serve(self, connection: socket.socket, address: str) -> None:
        try:
            connection.settimeout(IDLE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                connection = self._secured(connection, self.tls)
            _Handler(connection, address, self)
        except OSError:
            pass  # the client went away, or does not trust our certificate
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _secured(self, plain: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        with self._lock:
            self._connections.discard(plain)
            secured = tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            self._connections.add(secured)
        try:
            secured.do_handshake()
        except OSError:
            # The client does not trust our certificate; the caller knows the plain socket only.
            with self._lock:
                self._connections.discard(secured)
            secured.close()
            raise
        return secured

    def _spawn(self, body: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                body()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def __init__(self, connection: socket.socket, address: str, owner: Server) -> None:
        self._owner = owner
        self._client = IPv4Address(address)
        super().__init__(connection, (address, 0), owner)  # type: ignore[arg-type]

    def version_string(self) -> str:
        return self._owner.site.server_header

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: the tests' output belongs to the tests."""

    def _dispatch(self) -> None:
        request = self._request()
        now = self._owner.site.fault(request)
        fault = now.fault
        if fault.delay:
            self._wait(now, time.monotonic() + fault.delay)
        if fault.hang:
            self._wait(now, None)
        if fault.hang or fault.refused or self._owner.closing.is_set():
            self._reset()
            return
        if fault.status is not None:
            response = self._owner.site.error(request, fault.status)
        else:
            response = self._owner.site.answer(request, now)
        self._send(response, now)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _dispatch  # noqa: N815

    def _request(self) -> Request:
        split = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        return Request(
            method=self.command,
            path=unquote(split.path),
            query=tuple(parse_qsl(split.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            client=self._client,
            body=self.rfile.read(length) if length else b"",
            host=self.headers.get("Host") or "",
        )

    def _send(self, response: Response, now: Now) -> None:
        fault = now.fault
        body, content_type, stated = response.body, response.content_type, None
        if fault.garbage is not None:
            body, content_type, stated = _spoil(fault.garbage, body, content_type)
        self.send_response(response.status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if stated is None else stated))
        for name, value in response.headers:
            self.send_header(name, value)
        if fault.retry_after is not None:
            self.send_header("Retry-After", str(fault.retry_after))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.trickle:
            self._trickle(body, now)
        else:
            self.wfile.write(body)
        if stated is not None:
            self.close_connection = True

    def _trickle(self, body: bytes, now: Now) -> None:
        for position in range(len(body)):
            self.wfile.write(body[position : position + 1])
            self.wfile.flush()
            if not self._wait(now, time.monotonic() + now.fault.trickle):
                self.wfile.write(body[position + 1 :])
                return

    def _wait(self, now: Now, until: float | None) -> bool:
        """Wait for the moment; False when the fault was lifted. Ends the thread if the client leaves."""
        while until is None or time.monotonic() < until:
            if self._owner.closing.is_set() or now.lifted.is_set():
                return False
            rest = 0.05 if until is None else max(0.0, min(0.05, until - time.monotonic()))
            if select.select([self.connection], [], [], rest)[0] and self._client_left():
                raise ConnectionResetError("the client left")
        return True

    def _client_left(self) -> bool:
        if isinstance(self.connection, ssl.SSLSocket):
            time.sleep(0.05)  # readable may be a record of TLS itself, and MSG_PEEK is not offered
            return False
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _reset(self) -> None:
        """Close with RST instead of FIN: what a client of a dead service sees."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _spoil(kind: Garbage, body: bytes, content_type: str) -> tuple[bytes, str, int | None]:
    """The spoilt body, its type, and the length to state when it is not the body's own."""
    if kind is Garbage.HTML:
        return _PROXY_PAGE, "text/html", None
    if kind is Garbage.BINARY:
        return bytes(range(255, -1, -1)) * 2, "application/octet-stream", None
    half = body[: len(body) // 2]
    return half, content_type, len(body) if kind is Garbage.CUT else None
