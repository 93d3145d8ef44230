"""Pages over HTTP: a Unix socket of the node for root, and a port where one is asked for.

Owns listening, reading a request within bounds of time and size, and answering it; one connection, one
request. It must not know what is on the pages. ``http.server`` is not used: it bounds each receive but not
the request, so a client that trickles bytes would occupy a thread for ever.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address

from ipam.settings_file import SettingsError
from ipam.value import Value

SECONDS = 5.0
"""Seconds for a request to arrive, and again for its answer to be read."""
MAX_BYTES = 16 * 1024
AT_ONCE = 64
"""Connections that one listener serves at a time. One more replaces the oldest idle one."""
BACKLOG = 256
PACE_SECONDS = 0.002
"""Seconds between two connections: a flood of them must not take processor time from calls."""
ACCEPT_PAUSE = 0.1


class Page(Value):
    """An answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Answer = Callable[[str, str], Page]
"""Path and ``Accept`` of a request to its page."""


class Listener:
    """A listening socket and the threads that answer what comes in."""

    def __init__(self, listening: socket.socket, answer: Answer, name: str) -> None:
        self._socket = listening
        self._answer = answer
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, bool] = {}
        """Connections, oldest first, and whether the request has not come yet."""
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Accept no more connections. An answer in progress is finished by its own thread."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self._thread.join(1.0)
        self._socket.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                self._stopping.wait(ACCEPT_PAUSE)
                continue
            if self._admit(connection):
                threading.Thread(target=self._serve, args=(connection,), name="http", daemon=True).start()
            else:
                connection.close()
            self._stopping.wait(PACE_SECONDS)

    def _admit(self, connection: socket.socket) -> bool:
        """Whether there is room for one more; the oldest idle one is closed for it."""
        with self._lock:
            if len(self._open) >= AT_ONCE:
                silent = next((each for each, waits in self._open.items() if waits), None)
                if silent is None:
                    return False
                del self._open[silent]
                with contextlib.suppress(OSError):
                    silent.shutdown(socket.SHUT_RDWR)  # its thread sees EOF, and closes it
            self._open[connection] = True
            return True

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                self._exchange(connection)
        finally:
            with self._lock:
                self._open.pop(connection, None)

    def _exchange(self, connection: socket.socket) -> None:
        head = _read_head(connection, time.monotonic() + SECONDS)
        with self._lock:
            if head is None or connection not in self._open:
                return
            self._open[connection] = False
        method, page = _page(head, self._answer)
        connection.settimeout(SECONDS)
        connection.sendall(_encode(page, with_body=method != "HEAD"))
        connection.shutdown(socket.SHUT_WR)


def _read_head(connection: socket.socket, deadline: float) -> str | None:
    """Request line and headers; None when they are late, too long, or the client is gone."""
    head = b""
    while b"\r\n\r\n" not in head:
        left = deadline - time.monotonic()
        if left <= 0 or len(head) > MAX_BYTES:
            return None
        connection.settimeout(left)
        received = connection.recv(4096)
        if not received:
            return None
        head += received
    return head.split(b"\r\n\r\n", 1)[0].decode("latin-1")


def _page(head: str, answer: Answer) -> tuple[str, Page]:
    request, *lines = head.split("\r\n")
    words = request.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "", Page(b"this is not an HTTP request\n", HTTPStatus.BAD_REQUEST)
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        return method, Page(b"only GET and HEAD are supported\n", HTTPStatus.METHOD_NOT_ALLOWED)
    headers = (line.partition(":") for line in lines)
    accept = ",".join(value.strip() for name, _, value in headers if name.lower() == "accept")
    try:
        return method, answer(target.split("?")[0], accept)
    except Exception as error:  # noqa: BLE001 - a defect here must show in the answer
        text = f"internal error: {type(error).__name__}: {error}\n"
        return method, Page(text.encode(), HTTPStatus.INTERNAL_SERVER_ERROR)


def _encode(page: Page, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (page.body if with_body else b"")


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``metrics_address``. Raises SettingsError: it is not of that form."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ip_address(host)
        number = int(port)
    except ValueError as error:
        raise SettingsError(
            f"metrics_address {text!r} is not address:port; write it as 127.0.0.1:9631 or [::1]:9631"
        ) from error
    if not 0 < number < 65536:
        raise SettingsError(f"metrics_address {text!r} has no port from 1 to 65535")
    return host, number


def is_of_the_node_alone(host: str) -> bool:
    """Whether a listener there can be reached from the node only."""
    return ip_address(host).is_loopback


def listen_on_port(host: str, port: int) -> socket.socket:
    """A listening socket on a port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
