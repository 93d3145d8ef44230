"""The agent's pages: which are served on which socket.

Owns the content of each page and the listeners: a Unix socket for root, and a port where one is set. It must
not know how HTTP is spoken (``listener``) or how a fact is found.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cni_plugin import __version__
from cni_plugin.agent import protocol
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.listener import (
    BACKLOG,
    Listener,
    Page,
    address_of,
    is_of_the_node_alone,
    listen_on_port,
)
from cni_plugin.agent.readiness import Readiness
from cni_plugin.agent.settings import Settings
from cni_plugin.agent.unixsocket import SocketOwner, UnixSocket
from cni_plugin.checks import Problem
from cni_plugin.node import Node
from ipam.settings_file import SettingsError

if TYPE_CHECKING:
    from ipam.provision.progress import Progress

HTTP_SOCKET = "http.sock"


class Pages:
    """The pages and their listeners. ``expose`` makes the metrics, in the format of a request's ``Accept``.

    Raises:
        SettingsError: ``metrics_address`` is not an address and a port.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        expose: Callable[[str], tuple[str, bytes]],
        readiness: Readiness,
        warnings: Callable[[], Sequence[Problem]],
        journal: Journal,
        progress: Callable[[], Progress | None] = lambda: None,
    ) -> None:
        self._progress = progress
        self._node = node
        self._settings = settings
        self._expose = expose
        self._readiness = readiness
        self._warnings = warnings
        self._journal = journal
        self._port = address_of(settings.metrics_address) if settings.metrics_address else None
        self._started = time.time()
        self._lock = threading.Lock()
        self._stopped = False
        self._listeners: dict[str, Listener] = {}
        self._unix: UnixSocket | None = None

    def listen(self) -> None:
        """Open what is not open yet. Call it periodically: a port that is in use may be free later."""
        with self._lock:
            if self._stopped:
                return
            troubles = [*self._listen_on_path(), *self._listen_on_port()]
        self._journal.report("pages", troubles)

    def stop(self) -> None:
        """Close the sockets."""
        with self._lock:
            self._stopped = True
            if self._unix is not None:
                self._unix.withdraw()
            for listener in self._listeners.values():
                listener.stop()
            self._listeners.clear()

    def use(self, settings: Settings) -> None:
        """Apply new settings."""
        try:
            port = address_of(settings.metrics_address) if settings.metrics_address else None
        except SettingsError as error:
            self._journal.write("error", f"{error}; it stays as it was")
            port = self._port
        with self._lock:
            self._settings = settings
            if port != self._port and (listener := self._listeners.pop("port", None)):
                listener.stop()
            self._port = port
        self.listen()

    def _listen_on_path(self) -> list[Problem]:
        if self._unix is not None and self._unix.owner() is not SocketOwner.NOBODY:
            return []
        path = self._node.run_dir / HTTP_SOCKET
        try:
            self._unix = UnixSocket(path, BACKLOG)
        except OSError as error:
            text = f"cannot listen on {path}: {error.strerror}"
            return [Problem("no-pages", text, "path", level="error", over=f"listening on {path}")]
        if old := self._listeners.pop("path", None):
            old.stop()
        self._listeners["path"] = Listener(self._unix.socket, self._answer, "http-path")
        return []

    def _listen_on_port(self) -> list[Problem]:
        if self._port is None or "port" in self._listeners:
            return []
        try:
            listening = listen_on_port(*self._port)
        except OSError as error:
            where = self._settings.metrics_address
            text = f"cannot listen on metrics_address {where}: {error.strerror}"
            return [Problem("no-pages", text, "port", level="error", over=f"listening on {where}")]
        answer = self._answer if is_of_the_node_alone(self._port[0]) else self._answer_others
        self._listeners["port"] = Listener(listening, answer, "http-port")
        return []

    # Content

    def _answer(self, path: str, accept: str) -> Page:
        if path == "/metrics":
            content_type, body = self._expose(accept)
            return Page(body, content_type=content_type)
        if path == "/healthz":
            return _verdict("ok", "stuck", self._readiness.why_not_alive())
        if path == "/agentz":
            return _verdict("working", "not working", self._readiness.why_not_working())
        if path == "/readyz":
            warnings = [warning.text for warning in self._warnings()]
            return _verdict("ready", "not ready", self._readiness.why_not(), warnings)
        if path == "/info":
            return Page(json.dumps(self._info()).encode() + b"\n", content_type="application/json")
        return Page(b"/metrics /healthz /agentz /readyz /info\n", HTTPStatus.NOT_FOUND)

    def _answer_others(self, path: str, accept: str) -> Page:
        """Pages for clients outside the node: numbers, but no names of pods."""
        return self._answer(path, accept) if path == "/metrics" else Page(b"/metrics\n", HTTPStatus.NOT_FOUND)

    def _info(self) -> dict[str, Any]:
        why_not = self._readiness.why_not()
        return {
            "pid": os.getpid(),
            "version": __version__,
            "protocol": protocol.VERSION,
            "started": self._started,
            "settings": str(self._settings.path or ""),
            "ready": not why_not,
            "reason": why_not,
            "warnings": [warning.text for warning in self._warnings()],
            "cooldown": self._readiness.cooldown,
            "provision": _provision(self._progress()),
        }


def _provision(progress: Progress | None) -> dict[str, Any] | None:
    """How the NIC's addresses follow demand; None: they do not have to."""
    if progress is None:
        return None
    return {
        "state": progress.phase,
        "text": progress.text,
        "remedy": progress.remedy,
        "inFlight": progress.in_flight,
        "coming": progress.coming,
        "unseen": progress.unseen.text if progress.unseen is not None else "",
    }


def _verdict(good: str, bad: str, why_not: str, warnings: Iterable[str] = ()) -> Page:
    """A page with the answer as its status and the reason as its text."""
    if why_not:
        return Page(f"{bad}: {why_not}\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE)
    return Page("".join(f"{line}\n" for line in (good, *warnings)).encode())
