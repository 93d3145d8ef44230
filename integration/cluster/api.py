"""The API server over HTTP, for what kubectl is too slow for: many objects at once, and watching them.

Owns connections, errors and watches. Must not know what objects mean. Paths and verbs: Kubernetes'
documentation, "Kubernetes API Concepts".
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

Object = dict[str, Any]
_PATIENCE = 30.0


class ApiError(Exception):
    """The API server refused a request, or was not there; ``status`` is 0 then."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}" if status else text)
        self.status = status


class Api:
    """Requests as the user of a kubeconfig, such as `Cluster.kubeconfig`; any number of threads.

    A context manager, since each thread has a connection that lasts.
    """

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text(encoding="utf-8"))
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        place = urlsplit(server["server"])
        self._place = (str(place.hostname), int(place.port or 443))
        self._context = ssl.create_default_context(cadata=_decoded(server["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as both:  # the library takes a client's key from a file only
            both.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            both.flush()
            self._context.load_cert_chain(both.name)
        self._own = threading.local()
        self._open: list[http.client.HTTPSConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._open:
            connection.close()

    def get(self, path: str, **query: str) -> Object:
        """An object, or a list of objects. Raises ApiError."""
        return self.call("GET", path, None, **query)

    def create(self, path: str, body: Object) -> Object:
        """Create an object in a collection. Raises ApiError."""
        return self.call("POST", path, body)

    def delete(self, path: str, **query: str) -> None:
        """Delete an object, or a collection; one that is gone already is no error. Raises ApiError."""
        try:
            self.call("DELETE", path, None, **query)
        except ApiError as error:
            if error.status != http.client.NOT_FOUND:
                raise

    def call(self, method: str, path: str, body: Object | None = None, **query: str) -> Object:
        """One request on the calling thread's connection. Raises ApiError."""
        target = f"{path}?{urlencode(query)}" if query else path
        content = json.dumps(body).encode() if body is not None else None
        form = "merge-patch+json" if method == "PATCH" else "json"
        headers = {"Content-Type": f"application/{form}", "Accept": "application/json"}
        is_old = getattr(self._own, "connection", None) is not None
        try:
            try:
                status, text = self._ask(method, target, content, headers)
            except ConnectionError:  # it closes one that was idle for 90 s, which may be at this very moment
                if method != "GET" or not is_old:
                    raise
                status, text = self._ask(method, target, content, headers)
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, f"{method} {path}: {error!r}") from error
        if status >= http.client.MULTIPLE_CHOICES:
            raise ApiError(status, f"{method} {path}: {text.strip()[:500]}")
        found: Object = json.loads(text)
        return found

    def _ask(
        self, method: str, target: str, content: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str]:
        connection = self._connection()
        try:
            connection.request(method, target, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            connection.close()
            self._own.connection = None
            raise

    def watch(self, path: str, told: Callable[[float, str, Object], None], **query: str) -> Watch:
        """Watch a collection; see `Watch`."""
        return Watch(self._connect, path, told, query)

    def _connection(self) -> http.client.HTTPSConnection:
        mine: http.client.HTTPSConnection | None = getattr(self._own, "connection", None)
        if mine is None:
            mine = self._own.connection = self._connect()
            self._open.append(mine)
        return mine

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self._place, context=self._context, timeout=_PATIENCE)


class Watch:
    """Tells of every object in a collection, first as ``ADDED``, and of every change afterwards.

    A context manager. ``told`` is called in a thread of its own with the moment (``time.monotonic``), the
    kind of change and the object. A connection that ends is continued where it ended. Only where the API
    server does not know that any more, all objects are told of again, and what was deleted meanwhile is not.
    """

    def __init__(
        self,
        connect: Callable[[], http.client.HTTPSConnection],
        path: str,
        told: Callable[[float, str, Object], None],
        query: dict[str, str],
    ) -> None:
        self._connect = connect
        self._target = f"{path}?{urlencode({'watch': 'true', 'allowWatchBookmarks': 'true', **query})}"
        self._version = ""
        """Of the last object that was told of; empty: begin with all of them."""
        self._told = told
        self._over = threading.Event()
        self._begun = threading.Event()
        self._connection: http.client.HTTPSConnection | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.error: Exception | None = None
        """What ended it before its time: an error of ``told``."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait(_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PATIENCE)
        if self.error is not None and error is None:
            raise self.error

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._once()
            except (OSError, http.client.HTTPException, ValueError):
                self._over.wait(0.2)  # the API server is away; a line that was cut off
            except Exception as error:  # noqa: BLE001 - the thread that watches has to see it
                self.error = error
                return

    def _once(self) -> None:
        self._connection = self._connect()
        with contextlib.closing(self._connection):
            since = f"&resourceVersion={self._version}" if self._version else ""
            self._connection.request("GET", self._target + since)
            assert self._connection.sock is not None
            self._connection.sock.settimeout(None)
            answer = self._connection.getresponse()
            self._begun.set()
            if answer.status != http.client.OK:
                self._version = ""
                raise OSError(f"the API server answered {answer.status}")
            while line := answer.readline():
                change = json.loads(line)
                if self._over.is_set():
                    return
                if change["type"] == "ERROR":  # such as 410: that version is too old
                    self._version = ""
                    return
                if change["type"] != "BOOKMARK":
                    self._told(time.monotonic(), change["type"], change["object"])
                self._version = change["object"]["metadata"]["resourceVersion"]


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode("ascii")
