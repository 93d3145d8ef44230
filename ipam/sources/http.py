"""One bounded GET over plain HTTP, as IMDS and the wireserver expect it.

One deadline and one number of bytes bound everything that is received: status lines, headers, chunk sizes
and trailers as well as the body, since ``http.client`` itself reads any number of interim answers, chunks
and trailers. No proxy, no redirect, no name resolution: both services are link-local addresses of the
platform, and a request that leaves the node by another way must fail. ``http.client`` costs 28 ms to load,
``urllib.request`` 35; neither is loaded when nothing has to be read.
"""

from __future__ import annotations

import http.client
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ipam.errors import SourceUnreadable
from ipam.quoting import one_line
from ipam.sources.documents import SIZE_LIMIT
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import WriteableBuffer

RETRIED = frozenset({404, 408, 410, 429, 500, 502, 503, 504})
"""Both services answer these while they start, move or are asked too often. 404: the element is not there
yet; 410: gone for at most 70 s while the service is updated (IMDS documentation, "Errors")."""

RECEIVED_LIMIT = SIZE_LIMIT + 64 * 1024
"""Bytes of one answer altogether: the largest body, and what is around it."""

_CONNECT_SECONDS = 2.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_LONGEST_RETRY_AFTER = 3600.0


class Get(Value):
    """What to request, and the texts for its failure."""

    source: str
    url: str
    headers: Mapping[str, str]
    remedy: str
    final: frozenset[int] = frozenset()
    """Statuses that are an answer here, and not retried."""

    def unreadable(self, why: str) -> SourceUnreadable:
        """The error with the reason ``why``."""
        return SourceUnreadable(f"source {self.source}: GET {self.url}: {why}", self.remedy)


class _Answer(Value):
    status: int
    reason: str
    retry_after: float
    body: bytes


def get(request: Get, until: float) -> bytes:
    """The body of the answer; ``until`` is ``time.monotonic`` when it has to be over, retries and all.

    Raises:
        SourceUnreadable: no answer, a broken one, one larger than ``SIZE_LIMIT``, or one with another
            status than 200, which is in ``status``.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            answer = _ask(request, until)
            if answer.status == 200:
                return answer.body
            failed = _bad_status(request, answer)
            again = answer.status in RETRIED - request.final
            wait = max(pause, answer.retry_after)
        except (http.client.IncompleteRead, ConnectionResetError) as error:
            # RemoteDisconnected is one too: the service was restarted in the middle of it.
            failed, again, wait = request.unreadable(f"the answer broke off ({_reason(error)})"), True, pause
            failed.__cause__ = error
        except _TooLarge as error:
            raise request.unreadable(f"the answer is larger than {SIZE_LIMIT} bytes") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            # ValueError: http.client takes any number for the size of a chunk, and fails to read it.
            raise request.unreadable(_reason(error)) from error
        if not again or time.monotonic() + wait >= until:
            raise failed
        time.sleep(wait)
        pause = min(pause * 2, _LONGEST_PAUSE)


class _TooLarge(Exception):
    """More than ``RECEIVED_LIMIT`` was received."""


class _BoundedSocket(socket.socket):
    """A socket whose reads all end at one time and after so many bytes, however the bytes come in."""

    until = 0.0
    received = 0

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """As ``socket.recv_into``; ``http.client`` reads everything through it."""
        left = self.until - time.monotonic()
        if left <= 0:  # a socket that always has something to read never times out by itself
            raise TimeoutError
        self.settimeout(left)
        count = super().recv_into(buffer, nbytes, flags)
        self.received += count
        if self.received > RECEIVED_LIMIT:
            raise _TooLarge
        return count


def _ask(request: Get, until: float) -> _Answer:
    parts = urlsplit(request.url)
    host, port = parts.hostname or "", parts.port or 80
    if parts.scheme != "http":
        raise request.unreadable("the URL is not a plain http one")
    try:
        family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
    except ValueError as error:
        raise request.unreadable("its host is not an IP address; names are not resolved here") from error
    with _BoundedSocket(family, socket.SOCK_STREAM) as connected:
        connected.until = until
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connected.settimeout(min(left, _CONNECT_SECONDS))
        connected.connect((host, port))
        connection = http.client.HTTPConnection(host, port)
        connection.sock = connected
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={**request.headers, "Connection": "close"})
        # The response keeps the descriptor until it is closed itself.
        with connection.getresponse() as response:
            return _answer(response)


def _answer(response: http.client.HTTPResponse) -> _Answer:
    body = response.read(SIZE_LIMIT + 1)
    if len(body) > SIZE_LIMIT:
        raise _TooLarge
    if response.length:
        # read() with a limit does not complain about an answer that ends early.
        raise http.client.IncompleteRead(body, response.length)
    return _Answer(response.status, response.reason, _seconds(response.getheader("Retry-After")), body)


def _bad_status(request: Get, answer: _Answer) -> SourceUnreadable:
    words = one_line(f"{answer.status} {answer.reason}", 80)
    if answer.retry_after:
        words += f", Retry-After {answer.retry_after:.0f} s"
    said = " ".join(answer.body[:200].decode("utf-8", "replace").split())
    if said.isprintable() and said:
        words += f": {said}"
    return SourceUnreadable(
        f"source {request.source}: GET {request.url}: {words}",
        request.remedy,
        answer.retry_after,
        status=answer.status,
    )


def _seconds(retry_after: str | None) -> float:
    """Retry-After in seconds; it may be a date (RFC 9110, section 10.2.3)."""
    if not retry_after:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER)  # NaN is not larger than 0


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(str(error)) or type(error).__name__
