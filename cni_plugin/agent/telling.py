"""What the agent tells: metrics, readiness, its log, and the conflist, which tells the runtime.

Owns the pages and who answers them, and one thread that looks now and then whether the node is ready. It
must not be in the way of a call: ``observe`` is all that a call pays.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from cni_plugin import __version__, log
from cni_plugin.agent import advice, protocol
from cni_plugin.agent.listener import (
    AT_ONCE,
    Listener,
    Page,
    address_of,
    is_of_the_node_alone,
    listen_on_port,
)
from cni_plugin.agent.metrics import Metrics
from cni_plugin.agent.readiness import Readiness
from cni_plugin.agent.settings import Settings, SettingsError
from cni_plugin.agent.unixsocket import SocketOwner, UnixSocket
from cni_plugin.cni.call import Reply
from cni_plugin.conflist import ConflistFile, NotInPlace
from cni_plugin.node import Node
from ipam.model import AddressRequest

HTTP_SOCKET = "http.sock"
LOOK_SECONDS = 10.0
"""Between two looks while all is well."""
EAGER_SECONDS, EAGER_FOR, PATIENT_SECONDS = 0.25, 60.0, 2.0
"""Between two looks while it is not: a new node waits for the first address, a full one for long."""


STARTING_SECONDS = 3.0
"""So long it is nothing to speak of that the node is not ready yet."""


class Work(Protocol):
    """What is asked of the background work (``background.Background``)."""

    say: Any
    """Where it tells what it did."""

    @property
    def repairs(self) -> Mapping[str, int]:
        """How often each kind of thing was put back."""

    @property
    def cooldown(self) -> float:
        """Seconds an address rests."""

    def address_request(self) -> AddressRequest:
        """What the next pod will need."""

    @property
    def why_no_listing(self) -> str:
        """Why the source was not read with success yet; empty when it was."""

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know."""

    def why_not_alive(self) -> str:
        """Why this process should be killed; empty when it goes on."""

    def heard(self, document: dict[str, Any], /) -> None:
        """A netconf that says where addresses come from."""


class Telling:
    """Everything that others can learn from the agent.

    Args:
        node: the node.
        settings: the operator's.
        background: the agent's own work, which says through this what it did.

    Raises:
        SettingsError: ``metrics_address`` is no address.
    """

    def __init__(self, node: Node, settings: Settings, background: Work) -> None:
        self._node = node
        self._background = background
        self._settings = settings
        self._port = address_of(settings.metrics_address) if settings.metrics_address else None
        self._started = time.time()
        self._lock = threading.Lock()
        self._listeners: dict[str, Listener] = {}
        self._unix: UnixSocket | None = None
        self._said: dict[str, str] = {}
        self._warned: frozenset[str] = frozenset()
        self._small_pool = ""
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look_now_and_then, name="telling", daemon=True)
        self._conflist = ConflistFile(settings.conflist, background.heard) if settings.conflist else None
        self.readiness = Readiness(node, background)
        self.metrics = Metrics(node, background, self.readiness)
        self.serves: Callable[[], bool] = lambda: True
        """Whether callers find this agent; the conflist belongs to the one that they find."""
        if self._conflist is not None:
            self.readiness.not_in_place = f"the conflist {self._conflist.destination} was not looked at yet"
        background.say = self.say
        with contextlib.suppress(NotInPlace):
            # Before the first read of the source: the conflist says which.
            _ = self._conflist and self._conflist.read()

    def start(self) -> None:
        """Answer on the Unix socket and the port, and look whether the node is ready."""
        self._listen()
        self._thread.start()

    def stopping(self) -> None:
        """Not ready from now on; everything else goes on until ``stop``."""
        self.readiness.stopping = True

    def stop(self) -> None:
        """End. The conflist stays: pods are still made and removed, by the executable itself."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(2.0)
        with self._lock:
            if self._unix is not None:
                self._unix.withdraw()
            for listener in self._listeners.values():
                listener.stop()
            self._listeners.clear()

    def use(self, settings: Settings) -> None:
        """Go on with other settings."""
        try:
            port = address_of(settings.metrics_address) if settings.metrics_address else None
        except SettingsError as error:
            self.say("error", f"{error}; it stays as it was")
            port = self._port
        with self._lock:
            self._settings = settings
            self._conflist = (
                ConflistFile(settings.conflist, self._background.heard) if settings.conflist else None
            )
            if port != self._port and (listener := self._listeners.pop("port", None)):
                listener.stop()
            self._port = port
        self._wake.set()

    def observe(self, verb: str, reply: Reply, seconds: float) -> None:
        """Count one call."""
        self.metrics.observe(verb, reply, seconds)

    def say(self, level: str, text: str, **fields: Any) -> None:
        """One line in the agent's log and on stderr, where journald or the kubelet takes it. Never raises."""
        settings = self._settings
        line = log.line(level, settings.log_level, by="agent", msg=text, **fields)
        if line:
            log.append(settings.log_file, line)
            _write_to_stderr(line)

    # Pages

    def _answer(self, path: str, accept: str) -> Page:
        if path == "/metrics":
            content_type, body = self.metrics.encode(accept)
            return Page(body, content_type=content_type)
        if path == "/healthz":
            return _verdict("ok", "stuck", self.readiness.why_not_alive())
        if path == "/agentz":
            return _verdict("working", "not working", self.readiness.why_not_working())
        if path == "/readyz":
            return _verdict("ready", "not ready", self.readiness.why_not(), self._warnings())
        if path == "/info":
            return Page(json.dumps(self._info()).encode() + b"\n", content_type="application/json")
        return Page(b"/metrics /healthz /agentz /readyz /info\n", HTTPStatus.NOT_FOUND)

    def _answer_others(self, path: str, accept: str) -> Page:
        """What those beyond the node are told: numbers, and no names of pods."""
        return self._answer(path, accept) if path == "/metrics" else Page(b"/metrics\n", HTTPStatus.NOT_FOUND)

    def _info(self) -> dict[str, Any]:
        why_not = self.readiness.why_not()
        return {
            "pid": os.getpid(),
            "version": __version__,
            "protocol": protocol.VERSION,
            "started": self._started,
            "settings": str(self._settings.path or ""),
            "ready": not why_not,
            "reason": why_not,
            "warnings": self._warnings(),
            "cooldown": self._background.cooldown,
        }

    def _warnings(self) -> list[str]:
        """What an operator should know of the node, though pods get addresses."""
        found = (advice.preferred(self._conflist), self._small_pool, *self._background.warnings)
        return [each for each in found if each]

    # Looking

    def _look_now_and_then(self) -> None:
        began = time.monotonic()
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                well = self._look()
            except Exception as error:  # noqa: BLE001 - the thread must outlive any defect
                well = False
                self._say_change("defect", f"internal error: {type(error).__name__}: {error}")
            pause = EAGER_SECONDS if time.monotonic() - began < EAGER_FOR else PATIENT_SECONDS
            self._wake.wait(LOOK_SECONDS if well else pause)

    def _look(self) -> bool:
        listening = self._listen()
        if not self.readiness.stopping:
            no_address = self.readiness.why_no_address(fresh=True)
            self.readiness.not_in_place = self._install(may_write=not no_address)
        self._small_pool = advice.small_pool(self._node, self._settings.expected_pods)
        why_not = self.readiness.why_not()
        if not why_not or time.time() - self._started > STARTING_SECONDS:
            self._say_change("not ready", why_not, "ready: pods get addresses")
        self._say_warnings(frozenset(self._warnings()))
        return listening and not why_not

    def _install(self, *, may_write: bool) -> str:
        """Have the conflist in place if that may be; why it is not."""
        conflist = self._conflist
        if conflist is None or not self.serves():
            return ""
        try:
            content = conflist.read()
            if conflist.is_in_place(content):
                return ""
            conflist.require_plugins(content)
            if not may_write:
                return f"the conflist {conflist.destination} waits for an address"
            conflist.put_in_place(content)
        except NotInPlace as error:
            return str(error)
        self.say("info", f"the conflist {conflist.destination} was written")
        return ""

    def _listen(self) -> bool:
        """Open what is not open yet; a port that is taken now may be free later."""
        with self._lock:
            if self._stopped.is_set():
                return True
            troubles = [self._listen_on_path(), self._listen_on_port()]
        for name, trouble in zip(("http", "port"), troubles, strict=True):
            self._say_change(name, trouble, f"{name}: listening")
        return not any(troubles)

    def _listen_on_path(self) -> str:
        if self._unix is not None and self._unix.holder() is not SocketOwner.NOBODY:
            return ""
        path = self._node.run_dir / HTTP_SOCKET
        try:
            self._unix = UnixSocket(path, AT_ONCE)
        except OSError as error:
            return f"{path} can't be listened on: {error.strerror}"
        if old := self._listeners.pop("path", None):
            old.stop()
        self._listeners["path"] = Listener(self._unix.socket, self._answer, "http-path")
        return ""

    def _listen_on_port(self) -> str:
        if self._port is None or "port" in self._listeners:
            return ""
        try:
            listening = listen_on_port(*self._port)
        except OSError as error:
            return f"metrics_address {self._settings.metrics_address}: {error.strerror}"
        answer = self._answer if is_of_the_node_alone(self._port[0]) else self._answer_others
        self._listeners["port"] = Listener(listening, answer, "http-port")
        return ""

    def _say_warnings(self, warnings: frozenset[str]) -> None:
        for gone in sorted(self._warned - warnings):
            self.say("info", f"no more: {gone}")
        for new in sorted(warnings - self._warned):
            self.say("warning", new)
        self._warned = warnings

    def _say_change(self, about: str, trouble: str, well: str = "", level: str = "error") -> None:
        """Say what is wrong when it begins, changes and ends, not at every look."""
        before = self._said.get(about)
        self._said[about] = trouble
        if trouble and trouble != before:
            self.say(level, trouble if about != "not ready" else f"not ready: {trouble}")
        elif not trouble and (before or (before is None and about == "not ready")):
            self.say("info", well)


def _verdict(well: str, ill: str, why_not: str, warnings: Iterable[str] = ()) -> Page:
    """A page whose status is the answer, and whose text the reason."""
    if why_not:
        return Page(f"{ill}: {why_not}\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE)
    return Page("".join(f"{line}\n" for line in (well, *warnings)).encode())


_stderr_lock = threading.Lock()


def _write_to_stderr(line: bytes) -> None:
    """Without waiting: who reads it (journald, the runtime) may have stopped, and nothing here stops with it.

    What poll(2) calls writable takes 4096 bytes at least (pipe(7), PIPE_BUF), if nobody else writes.
    """
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with _stderr_lock, contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(2, line[: select.PIPE_BUF])
