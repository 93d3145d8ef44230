"""A fabric as a process of its own: starting it, being it, taking it down from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.fabric import control, outfit, records
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

ROOT = Path(__file__).parents[2]
_PATIENCE = 30.0
"""Seconds for a process to end when it was asked to."""


class StartError(RuntimeError):
    """A fabric did not come up; the message is what its process said."""


def start(arguments: dict[str, Any]) -> None:
    """Start a process that is a fabric with these arguments, and wait until it is up.

    Raises:
        StartError: with what it said.
    """
    with detached("integration.fabric", arguments) as report:
        said = report.read()
    if said != "up":
        raise StartError(said or "the process of the fabric ended without a message")


@contextlib.contextmanager
def detached(module: str, arguments: dict[str, Any]) -> Iterator[TextIO]:
    """Start ``python -m MODULE be DESCRIPTOR ARGUMENTS`` as a process of its own; yields what it reports
    on the descriptor.
    """
    ready, tell = os.pipe()
    with os.fdopen(ready, encoding="utf-8") as report:
        subprocess.Popen(
            [sys.executable, "-m", module, "be", str(tell), json.dumps(arguments)],
            cwd=ROOT,
            pass_fds=[tell],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(tell)
        yield report


def be(tell: int, arguments: dict[str, Any]) -> int:
    """Be a fabric until somebody asks to end; says ``up``, or what failed, on a descriptor."""
    from integration.fabric.fabric import Fabric

    plugin = arguments.pop("plugin", False)
    with os.fdopen(tell, "w", encoding="utf-8") as report:
        try:
            fabric = Fabric(**arguments)
            until_asked = end_on_request(fabric)
            with contextlib.ExitStack() as undo:
                undo.enter_context(fabric)
                if plugin:
                    outfit.install(fabric)
                undo.pop_all()
        except Exception as error:  # noqa: BLE001 - whatever it is, the starter has to know
            report.write(f"{type(error).__name__}: {error}")
            return 1
        report.write("up")
    until_asked.wait()
    fabric.down()
    return 0


def in_foreground(arguments: dict[str, Any]) -> int:
    """Be a fabric in this very process, until it is interrupted or asked to end."""
    from integration.fabric.fabric import Fabric

    plugin = arguments.pop("plugin", False)
    fabric = Fabric(**arguments)
    until_asked = end_on_request(fabric)
    with fabric:
        if plugin:
            outfit.install(fabric)
        print(f"fabric {fabric.name} is up; Ctrl-C takes it down", flush=True)
        until_asked.wait()
    return 0


def take_down(name: str) -> str:
    """Take a fabric down from outside; returns what was done, for people.

    Raises:
        control.ControlError: it belongs to a running program that is more than a fabric.
    """
    record = records.read(name)
    if record is None or not record.owner.alive():
        records.remove(name)
        return f"{name}: removed what a dead fabric had left"
    if not record.detached:
        raise control.ControlError(
            f"fabric {name} belongs to process {record.owner.pid}, which has other tasks; end that process"
        )
    ended = False
    with contextlib.suppress(control.ControlError):
        control.ask(name, "down")
        ended = _ended(record.owner)
    for sent in () if ended else (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.owner.pid, sent)
        if _ended(record.owner):
            break
    records.remove(name)
    return f"{name}: down"


def running() -> list[str]:
    """The names of the fabrics that are up."""
    return [name for name in records.names() if (r := records.read(name)) is not None and r.owner.alive()]


def end_on_request(fabric: Any) -> threading.Event:
    """Let signals and the control socket end a fabric; returns what is set then."""
    asked = threading.Event()
    fabric.stop = asked.set
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    return asked


def _ended(owner: records.Process) -> bool:
    return found_within(_PATIENCE, lambda: not owner.alive(), pause=0.02)
