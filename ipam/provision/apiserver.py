"""The API server of the cluster as an agent needs it: one resource is read, written and watched.

Owns how a request is sent and bounded, the token, and the words for a refusal. The token is read for every
request, since the kubelet replaces it before it expires ("Bound service account tokens"), and goes to no
other host. Nothing is retried here. It must not know what the resource says, nor when it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from ipam.provision.exchange import GROUP, PLURAL, VERSION
from ipam.provision.progress import API_DENIED, API_REFUSED, NO_API, NO_DEFINITION
from ipam.quoting import one_line
from ipam.sources import arm_http
from ipam.sources.arm_errors import retry_seconds
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLLECTION = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
TIMEOUT = (5.0, 15.0)
"""Seconds to connect, and for the next bytes."""
WATCH_SECONDS = 300
"""After which the server ends a watch, and another one begins where it ended."""
QUIET_SECONDS = 120.0
"""A watch on which nothing came for so long is broken: bookmarks come about once a minute."""
LONGEST_LINE = 4 << 20
"""Bytes of one event: etcd takes 1.5 MiB."""
Document = dict[str, Any]


class ApiAccess(Value):
    """Where the API server is, and who asks."""

    url: str
    token_file: Path
    ca_file: str


class Trouble(Exception):
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


class Outdated(Exception):
    """What was written, or where a watch begins, is not the newest any more: read again."""


class ApiServer:
    """Not for several threads.

    Args:
        access: where it is.
        name: of the resource that is meant.
    """

    def __init__(self, access: ApiAccess, name: str) -> None:
        self._access = access
        self._name = name
        self._session = arm_http.session(access.url)
        self._stream = requests.Session()
        self._stream.mount("https://", HTTPAdapter(max_retries=0))
        for each in (self._session, self._stream):
            each.trust_env = False  # a proxy is not for requests inside of the cluster
            each.verify = access.ca_file or True

    def read(self) -> tuple[Document | None, str]:
        """The newest state of the resource, None where there is none; and where to watch from.

        Raises Trouble.
        """
        found = self._ask("GET", COLLECTION, {"fieldSelector": f"metadata.name={self._name}"})
        items = found.get("items")
        first = items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else None
        metadata = found.get("metadata")
        return first, str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""

    def write(self, document: Document) -> Document:
        """Make the resource, or replace it where ``document`` has a version; as it is then.

        Raises:
            Outdated: it has another version by now, or it exists already, or it does not any more.
            Trouble: what became of it may not be known.
        """
        if document["metadata"].get("resourceVersion"):
            return self._ask("PUT", f"{COLLECTION}/{self._name}", {}, document)
        return self._ask("POST", COLLECTION, {}, document)

    def watch(self, version: str) -> Iterator[tuple[Document | None, str]]:
        """Every state since a version, each with its own; None: it was deleted. Ends after some minutes.

        Raises:
            Outdated: the server does not remember that version.
            Trouble: it broke off, or was refused.
        """
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self._name}",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        try:
            response = self._stream.get(
                f"{self._access.url}{COLLECTION}",
                params=query,
                headers=self._headers(),
                timeout=(TIMEOUT[0], QUIET_SECONDS),
                stream=True,
                allow_redirects=False,
            )
            with response:
                if response.status_code != 200:
                    said = arm_http.json_object(response.raw.read(LONGEST_LINE))
                    raise _refused("watch", response.status_code, said, {})
                for line in _lines(response):
                    yield from _events(arm_http.json_object(line))
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _not_answered(self._access.url, error) from error

    def close(self) -> None:
        """Drop its connections; a watch in another thread ends."""
        self._session.close()
        self._stream.close()

    def _ask(self, method: str, path: str, query: dict[str, str], body: Document | None = None) -> Document:
        try:
            response = self._session.request(
                method,
                f"{self._access.url}{path}",
                params=query,
                json=body,
                headers=self._headers(),
                timeout=TIMEOUT,
                allow_redirects=False,
            )
        except (requests.RequestException, arm_http.AnswerRefused, HTTPError, OSError) as error:
            raise _not_answered(self._access.url, error) from error
        document = arm_http.json_object(response.content)
        if response.status_code not in {200, 201}:
            raise _refused(f"{method} {PLURAL}", response.status_code, document, response.headers)
        return document

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


def _lines(response: requests.Response) -> Iterator[bytes]:
    """The lines of a stream; the last one may be cut off and is dropped."""
    kept = b""
    while part := response.raw.read1(1 << 16, decode_content=False):
        *whole, kept = (kept + part).split(b"\n")
        if len(kept) > LONGEST_LINE:
            raise Trouble(NO_API, "the API server sent an event that does not end", "The agent tries again.")
        yield from whole


def _events(event: Document) -> Iterator[tuple[Document | None, str]]:
    kind, told = event.get("type"), event.get("object")
    if not isinstance(told, dict):
        return
    if kind == "ERROR":
        raise _refused("watch", int(told.get("code") or 0), told, {})
    metadata = told.get("metadata")
    version = str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""
    if kind in {"ADDED", "MODIFIED"}:
        yield told, version
    elif kind == "DELETED":
        yield None, version


def _not_answered(url: str, error: Exception) -> Trouble:
    return Trouble(
        NO_API,
        f"the API server does not answer: {one_line(str(error))}",
        f"Check from the node that {url} answers. Until it does, pods get the addresses that are free.",
    )


def _refused(what: str, status: int, document: Document, headers: Any) -> Exception:
    """Why, in words; ``document``: a Status of Kubernetes, if it is one."""
    text = f"{what}: {status} {one_line(str(document.get('message', '')))}".rstrip()
    after = retry_seconds(headers.get("retry-after"))
    if status in {409, 410}:
        return Outdated(text)
    if status == 404 and (document.get("details") or {}).get("name"):
        return Outdated(text)
    phase, remedy = _BY_STATUS.get(status, (API_REFUSED, "See the message."))
    if status >= 500:
        phase, remedy = NO_API, "The agent tries again. If this lasts, check the control plane."
    return Trouble(phase, text, remedy, after)


_ACCOUNT = (
    "The API server rejects the token: the agent's pod needs that of a service account of this "
    "cluster (provision.api.token_file)."
)
_ROLE = (
    "Give the agent's service account the ClusterRole of the chart. It may write the resource of its own "
    "node alone: provision.node_name has to be the name of the Kubernetes node."
)
_DEFINITION = (
    "Install the CustomResourceDefinition azvnetnodes.azvnet.io; the chart does with "
    "agent.provision.mode=operator."
)
_UPGRADE = "The CustomResourceDefinition in the cluster does not have the agent's version: upgrade the chart."
_BY_STATUS = {
    401: (API_DENIED, _ACCOUNT),
    403: (API_DENIED, _ROLE),
    404: (NO_DEFINITION, _DEFINITION),
    422: (API_REFUSED, _UPGRADE),
    429: (NO_API, "The API server is limiting requests; the agent tries again."),
}
