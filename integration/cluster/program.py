"""One long-running program in a machine: started, ended, restarted, with its log in a file.

Must not know what the program is.
"""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from integration.fabric import Machine

_END_PATIENCE = 20.0
"""Seconds for a program to end after SIGTERM."""


class ClusterError(RuntimeError):
    """Something of the cluster did not happen; the message says what, and ends with a log's tail."""


class Program:
    """A program of one machine. ``argv`` may be changed between two starts.

    Args:
        machine: where it runs.
        name: for people, and the name of the log.
        argv: program and arguments.
        log: where its output goes, on this machine; a new start appends.
    """

    def __init__(self, machine: Machine, name: str, argv: Sequence[str], log: Path) -> None:
        self.machine = machine
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id on this machine. Raises ClusterError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ClusterError(f"{self} does not run\n{self.log_tail()}")
        return self._process.pid

    def __str__(self) -> str:
        return f"{self.name} of {self.machine.name}"

    def start(self) -> None:
        """Start it; does nothing when it runs."""
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = without_proxies(self.machine.environment)
        with self.log.open("a", encoding="utf-8") as log:
            self._process = self.machine.popen(
                self.argv, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def stop(self, *, kill: bool = False) -> None:
        """End it, with SIGKILL when ``kill`` or when it takes too long; does nothing when it does not run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(_END_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_END_PATIENCE)
        self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """End it and start it again."""
        self.stop(kill=kill)
        self.start()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def wait_until(self, what: str, condition: Callable[[], bool], *, patience: float = 60.0) -> None:
        """Wait for a condition as long as the program runs.

        Raises:
            ClusterError: it ended, or ``patience`` seconds were not enough.
        """
        # Reading the pid raises when it has ended.
        if not found_within(patience, lambda: condition() or not self.pid, pause=0.1):
            raise ClusterError(f"{self}: not once within {patience:.0f} s {what}\n{self.log_tail()}")


def wait_until(what: str, condition: Callable[[], bool], *, patience: float, pause: float = 0.5) -> None:
    """Wait for a condition. Raises ClusterError when ``patience`` seconds were not enough."""
    if not found_within(patience, condition, pause=pause):
        raise ClusterError(f"not once within {patience:.0f} s: {what}")


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables without those that would lead requests within the cluster to a developer's HTTP proxy."""
    return {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}


def put(machine: Machine, path: str, content: str, *, mode: str = "600") -> None:
    """Write a file in a machine, with its folders, whole or not at all."""
    machine.run(["install", "-D", "-m", mode, "/dev/stdin", f"{path}.new"], input=content)
    machine.run(["mv", f"{path}.new", path])
