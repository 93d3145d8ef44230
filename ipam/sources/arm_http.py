"""How the SDK's requests leave and their answers come in: to one host only, and bounded.

The SDK follows whatever link an answer names (``nextLink``, a redirect, the address of a running operation)
with the token in the request, and unpacks a compressed body of any size. So where bytes are sent and
received, only the expected origin gets requests, nothing compressed is accepted, and a body is limited in
bytes and seconds. It must not know tokens or what is requested.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from ipam.quoting import quoted
from ipam.sources.documents import SIZE_LIMIT

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

LONGEST_ANSWER = 20.0
"""Seconds from the request to the end of its answer; a read gives up earlier, this ends its thread."""
_DEFAULT_PORTS = {"https": 443, "http": 80}


class AnswerRefused(Exception):
    """An answer that is not used, and why."""


def json_object(body: str | bytes) -> dict[str, Any]:
    """The JSON object in a body; empty if it is not one: the answer's status says more than that would."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def session(origin: str = "", connections: int = 10) -> requests.Session:
    """A session that sends requests only to the scheme, host and port of the URL ``origin`` (empty: any), and
    keeps so many connections open.
    """
    made = requests.Session()
    adapter = _Bounded(origin, connections)
    for scheme in ("http://", "https://"):
        made.mount(scheme, adapter)
    return made


class _Bounded(HTTPAdapter):
    """Never retries: that is up to the caller."""

    def __init__(self, origin: str, connections: int) -> None:
        super().__init__(pool_maxsize=connections, max_retries=Retry(total=False))
        self._origin = _origin_of(origin) if origin else None

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        """As ``HTTPAdapter.send``, with the whole body read.

        Raises:
            AnswerRefused: the request is for another origin, or the answer is compressed, too large or too
            slow.
        """
        url = request.url or ""
        if self._origin is not None and _origin_of(url) != self._origin:
            raise AnswerRefused(f"an answer links to {quoted(url.partition('?')[0])}, which is not followed")
        until = time.monotonic() + LONGEST_ANSWER
        request.headers["Accept-Encoding"] = "identity"
        response = super().send(request, *args, **{**kwargs, "stream": True})
        try:
            response._content = _body(response, until)  # noqa: SLF001
        except (HTTPError, OSError) as error:
            raise AnswerRefused(f"the answer broke off: {error}") from error
        finally:
            response.close()
        response._content_consumed = True  # noqa: SLF001 - as azure.core does
        return response


def _body(response: Response, until: float) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() not in {"identity", ""}:
        raise AnswerRefused("the answer is compressed, which was not requested")
    parts: list[bytes] = []
    size = 0
    while part := response.raw.read1(1 << 16, decode_content=False):
        parts.append(part)
        size += len(part)
        if size > SIZE_LIMIT:
            raise AnswerRefused(f"the answer is larger than {SIZE_LIMIT} bytes")
        if time.monotonic() > until:
            raise AnswerRefused(f"the answer took more than {LONGEST_ANSWER:.0f} s")
    return b"".join(parts)


def _origin_of(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").casefold(), parts.port or _DEFAULT_PORTS.get(parts.scheme)
