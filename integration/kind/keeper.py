"""The process that keeps our Docker running while a kind cluster is up: starting it, being it.

Beside dockerd it serves IMDS to the nodes, and the API server's port on this machine's loopback. What it
needs to know it is told through its control socket, as a fabric is. The process that starts it reads
``up``, or what went wrong.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any

from integration.cluster.relay import Relay
from integration.fabric import control, records, standalone
from integration.fabric.control import ControlServer
from integration.kind.daemon import Daemon
from integration.kind.imds import Metadata
from integration.kind.places import DAEMON, ROOT, KindError

_UP = "up"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a running keeper says of itself."""

    pid: int
    """First process of Docker's machine, for ``nsenter -t``."""
    api_port: int
    """On 127.0.0.1, of this machine and of Docker's: there kind has to publish the API server."""
    checkout: str
    """Whose cluster it is."""


def start() -> Kept:
    """Start it and wait until Docker answers. Raises KindError."""
    with standalone.detached("integration.kind", {}) as report:
        said = report.read()
    if said != _UP:
        raise KindError(said or "the process that keeps Docker ended without a message")
    return ask()


def ask() -> Kept:
    """The keeper that runs now. Raises KindError when there is none, or it does not answer."""
    try:
        return Kept(**control.ask(DAEMON, "status"))
    except control.ControlError as error:
        what = "a cluster is coming up, or hangs; make kind-down ends it" if running() else "no cluster is up"
        raise KindError(what) from error


def running() -> bool:
    """Whether one runs."""
    return os.geteuid() == 0 and DAEMON in standalone.running()


def take_down() -> None:
    """End it with everything in it, or what a killed one left."""
    if os.geteuid() == 0:  # nobody else could have started it
        standalone.take_down(DAEMON)


def be(tell: int) -> int:
    """Keep Docker running until somebody asks to end."""
    daemon, metadata = Daemon(), Metadata()
    with os.fdopen(tell, "w", encoding="utf-8") as report:
        until_asked = standalone.end_on_request(daemon)
        try:
            with contextlib.ExitStack() as undo:
                daemon.up()
                undo.callback(daemon.down)
                metadata.start(daemon.machine)
                undo.callback(metadata.close)
                relay = Relay(daemon.machine, ("127.0.0.1", 0))
                undo.callback(relay.close)
                kept = {"pid": daemon.machine.holder_pid, "api_port": relay.port, "checkout": str(ROOT)}
                daemon.commands = {"status": lambda _: kept, "serve": _serve(metadata)}
                server = ControlServer(daemon, records.root() / DAEMON, until_asked.set)
                undo.callback(server.close)
                undone = undo.pop_all()
        except Exception as error:  # noqa: BLE001 - whatever it is, the starter has to know
            report.write(f"{error}" if isinstance(error, KindError) else f"{type(error).__name__}: {error}")
            return 1
        report.write(_UP)
    until_asked.wait()
    undone.close()
    return 0


def _serve(metadata: Metadata) -> Any:
    def serve(_: Daemon, documents: dict[str, Any]) -> None:
        metadata.serve(documents)

    return serve
