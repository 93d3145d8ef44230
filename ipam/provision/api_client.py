"""Requests to the API server of the cluster, as an agent sends them.

Owns how a request is sent, bounded and counted, the token, and the words for a refusal. The token is read for
every request, since the kubelet replaces it before it expires ("Bound service account tokens"), and goes to
no other host. Nothing is retried here. It must not know what is asked for.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from ipam.nic_counts import NO_ANSWER
from ipam.provision import json_items
from ipam.provision.progress import API_DENIED, API_REFUSED, NO_API
from ipam.provision.watching import NotFollowed, TooOld
from ipam.quoting import one_line
from ipam.sources import arm_http
from ipam.sources.arm_errors import retry_seconds
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

TIMEOUT = (5.0, 15.0)
"""Seconds to connect, and for the next bytes."""
WATCH_SECONDS = 300
"""After which the server ends a watch, and another one begins where it ended."""
QUIET_SECONDS = 120.0
"""A watch on which nothing came for so long is broken: bookmarks come about once a minute."""
LONGEST_LINE = 4 << 20
"""Bytes of one event, characters of one item of a list: etcd takes 1.5 MiB."""
Document = dict[str, Any]


class ApiAccess(Value):
    """Where the API server is, and who asks."""

    url: str
    token_file: Path
    ca_file: str


class Trouble(NotFollowed):
    """A request was not answered, or refused.

    Args:
        phase: the name of the state, of ``progress``.
        text: what happened.
        remedy: what to do; a sentence.
        retry_after: seconds that the server wants to be left alone; 0: it did not say.
    """

    def __init__(self, phase: str, text: str, remedy: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.phase, self.remedy, self.retry_after = phase, remedy, retry_after


class Outdated(TooOld):
    """What was written, or where a watch begins, is not the newest any more: read again."""


class ApiClient:
    """Not for several threads.

    Args:
        access: where it is.
        remedies: what a refusal means here and what to do, by status: name of the state, and a sentence.
        count: is told each request: method, resource, and the status of its answer or ``NO_ANSWER``.
    """

    def __init__(
        self,
        access: ApiAccess,
        remedies: Mapping[int, tuple[str, str]],
        count: Callable[[str, str, str], None],
    ) -> None:
        self._access = access
        self._remedies = {**_BY_STATUS, **remedies}
        self._count = count
        self._session = arm_http.session(access.url)
        self._stream = requests.Session()
        self._stream.mount("https://", HTTPAdapter(max_retries=0))
        for each in (self._session, self._stream):
            each.trust_env = False  # a proxy is not for requests inside of the cluster
            each.verify = access.ca_file or True

    def ask(
        self, method: str, resource: str, path: str, query: dict[str, str], body: Document | None = None
    ) -> Document:
        """One request. ``resource``: the plural of what it is about.

        Raises:
            Outdated: what is meant has another version, or there is no such object.
            Trouble: it was not answered, or refused.
        """
        headers = self._headers()
        with self._counted(method, resource) as answered:
            try:
                response = self._session.request(
                    method,
                    f"{self._access.url}{path}",
                    params=query,
                    json=body,
                    headers=headers,
                    timeout=TIMEOUT,
                    allow_redirects=False,
                )
            except (requests.RequestException, arm_http.AnswerRefused, HTTPError, OSError) as error:
                raise _not_answered(self._access.url, error) from error
            answered(response.status_code)
        document = arm_http.json_object(response.content)
        if response.status_code not in {200, 201}:
            raise self._refused(f"{method} {resource}", response.status_code, document, response.headers)
        return document

    def each_of(
        self, resource: str, path: str, query: dict[str, str], take: Callable[[Document], None]
    ) -> Document:
        """Call ``take`` with each item of a list, one being in memory at a time; the list without them.

        Raises as ``ask`` does.
        """
        with self._streamed("LIST", resource, path, query, TIMEOUT[1]) as response:
            try:
                return json_items.each_of(_parts(response), LONGEST_LINE, take)
            except (ValueError, RecursionError) as error:
                text = f"LIST {resource}: the answer can't be read: {one_line(str(error))}"
                raise Trouble(NO_API, text, "The agent tries again.") from error

    def watch(self, resource: str, path: str, query: dict[str, str], version: str) -> Iterator[Document]:
        """Events since a version, bookmarks among them; the first is empty, and says that it has begun. Ends
        after some minutes.

        Raises:
            Outdated: the server does not remember that version.
            Trouble: it broke off, or was refused.
        """
        query = {
            "watch": "true",
            **query,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        with self._streamed("WATCH", resource, path, query, QUIET_SECONDS) as response:
            yield {}
            for line in _lines(response):
                event = arm_http.json_object(line)
                told = event.get("object")
                if not isinstance(told, dict):
                    continue
                if event.get("type") == "ERROR":
                    raise self._refused(f"WATCH {resource}", int(told.get("code") or 0), told, {})
                yield event

    def close(self) -> None:
        """Drop its idle connections; a watch in another thread goes on until it is told something."""
        self._session.close()
        self._stream.close()

    @contextlib.contextmanager
    def _streamed(
        self, method: str, resource: str, path: str, query: dict[str, str], quiet: float
    ) -> Iterator[requests.Response]:
        """An answer whose body is read as it comes. ``quiet``: longest time without a byte, in seconds."""
        headers = self._headers()
        try:
            with self._counted(method, resource) as answered:
                response = self._stream.get(
                    f"{self._access.url}{path}",
                    params=query,
                    headers={**headers, "Accept-Encoding": "identity"},
                    timeout=(TIMEOUT[0], quiet),
                    stream=True,
                    allow_redirects=False,
                )
                answered(response.status_code)
            with response:
                if response.status_code != 200:
                    said = arm_http.json_object(response.raw.read(LONGEST_LINE))
                    raise self._refused(f"{method} {resource}", response.status_code, said, response.headers)
                yield response
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _not_answered(self._access.url, error) from error

    @contextlib.contextmanager
    def _counted(self, method: str, resource: str) -> Iterator[Callable[[int], None]]:
        """Count one request. What is yielded is told the status of its answer."""
        codes = [NO_ANSWER]
        try:
            yield lambda status: codes.append(str(status))
        finally:
            self._count(method, resource, codes[-1])

    def _refused(self, what: str, status: int, document: Document, headers: Any) -> NotFollowed:
        """Why, in words; ``document``: a Status of Kubernetes, if it is one."""
        text = f"{what}: {status} {one_line(str(document.get('message', '')))}".rstrip()
        after = retry_seconds(headers.get("retry-after"))
        if status in {409, 410}:
            return Outdated(text)
        if status == 404 and (document.get("details") or {}).get("name"):
            return Outdated(text)
        phase, remedy = self._remedies.get(status, (API_REFUSED, "See the message."))
        if status >= 500:
            phase, remedy = NO_API, "The agent tries again. If this lasts, check the control plane."
        return Trouble(phase, text, remedy, after)

    def _headers(self) -> dict[str, str]:
        if not self._access.url:
            raise Trouble(
                NO_API,
                "the address of the API server is not known: KUBERNETES_SERVICE_HOST is not set",
                "If the agent does not run in a pod, set provision.api.server to the URL.",
            )
        try:
            token = self._access.token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise Trouble(
                API_DENIED,
                f"cannot read the token of the API server: {error}",
                "The agent's pod needs the token of its service account (automountServiceAccountToken), or "
                "provision.api.token_file has to name another file.",
            ) from error
        return {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": "azvnet"}


def _parts(response: requests.Response) -> Iterator[bytes]:
    while part := response.raw.read1(1 << 16, decode_content=False):
        yield part


def _lines(response: requests.Response) -> Iterator[bytes]:
    """The lines of a stream; the last one may be cut off and is dropped."""
    kept = b""
    for part in _parts(response):
        *whole, kept = (kept + part).split(b"\n")
        if len(kept) > LONGEST_LINE:
            raise Trouble(NO_API, "the API server sent an event that does not end", "The agent tries again.")
        yield from whole


def _not_answered(url: str, error: Exception) -> Trouble:
    return Trouble(
        NO_API,
        f"the API server does not answer: {one_line(str(error))}",
        f"Check from the node that {url} answers. Until it does, pods get the addresses that are free.",
    )


_ACCOUNT = (
    "The API server rejects the token: the agent's pod needs that of a service account of this "
    "cluster (provision.api.token_file)."
)
_BY_STATUS = {
    401: (API_DENIED, _ACCOUNT),
    429: (NO_API, "The API server is limiting requests; the agent tries again."),
}
