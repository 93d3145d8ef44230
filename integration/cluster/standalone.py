"""A cluster as a process of its own: starting it, being it. It ends like a fabric, which it is.

The process that starts it reads lines: one for each thing that begins, then ``up``, or ``failed:``
and what went wrong.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from integration.fabric import standalone
from integration.fabric.standalone import StartError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

_UP = "up"
_FAILED = "failed: "


def start(arguments: dict[str, Any], progress: Callable[[str], None]) -> None:
    """Start a process that is a cluster with these arguments, and wait until it is up.

    Raises:
        StartError: with what it said.
    """
    with standalone.detached("integration.cluster", arguments) as report:
        for line in report:
            text = line.rstrip("\n")
            if text == _UP:
                return
            if text.startswith(_FAILED):
                raise StartError(text.removeprefix(_FAILED) + "\n" + report.read())
            progress(text)
    raise StartError("the process of the cluster ended without a message")


def be(tell: int, arguments: dict[str, Any]) -> int:
    """Be a cluster until somebody asks to end."""
    from integration.cluster import control
    from integration.cluster.cluster import Cluster

    with os.fdopen(tell, "w", encoding="utf-8") as report:
        try:
            cluster = Cluster(**arguments, progress=lambda text: _say(report, text))
            until_asked = standalone.end_on_request(cluster.fabric)
            control.offer(cluster)
            with contextlib.ExitStack() as undo:
                undo.enter_context(cluster)
                if arguments.get("cni"):
                    _say(report, "waiting until the nodes are Ready")
                    cluster.wait_nodes_ready()
                undo.pop_all()
        except Exception as error:  # noqa: BLE001 - whatever it is, the starter has to know
            _say(report, f"{_FAILED}{type(error).__name__}: {error}")
            return 1
        _say(report, _UP)
    until_asked.wait()
    cluster.down()
    return 0


def _say(report: TextIO, text: str) -> None:
    report.write(text + "\n")
    report.flush()
