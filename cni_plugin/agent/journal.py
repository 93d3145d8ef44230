"""The agent's own log: JSON lines in its file and on stderr, for journald or the kubelet.

Owns the level, and that a state is logged when it begins and when it ends, however often it is checked. It
must not know what is logged.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterable
from typing import Any

from cni_plugin import log
from cni_plugin.agent.settings import Settings
from cni_plugin.checks import Problem

_stderr_lock = threading.Lock()


class Journal:
    """Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, dict[tuple[str, str], Problem]] = {}

    def use(self, settings: Settings) -> None:
        """Apply new settings."""
        self._settings = settings

    def write(self, level: str, text: str, **fields: Any) -> None:
        """One line. Never raises."""
        line = log.line(level, self._settings.log_level, by="agent", msg=text, **fields)
        if line:
            log.append(self._settings.log_file, line)
            _write_to_stderr(line)

    def report(self, reporter: str, problems: Iterable[Problem]) -> None:
        """Log what began and what ended since this reporter's last report.

        Problems are compared by key: one whose numbers change is not logged again. What is ``over`` is logged
        only if no problem is left that ends with the same words: a node with another reason is not ready yet.
        """
        now = {problem.key: problem for problem in problems}
        before = self._known.get(reporter, {})
        self._known[reporter] = now
        not_over = {problem.over for problem in now.values()} - {""}
        for key, problem in before.items():
            if key not in now and problem.over not in not_over:
                self.write("info", problem.over or f"no longer: {problem.text}")
        for key, problem in now.items():
            if key not in before:
                more = {"remedy": problem.remedy} if problem.remedy else {}
                self.write(problem.level, problem.text, **more)


def _write_to_stderr(line: bytes) -> None:
    """Without waiting: the reader (journald, the runtime) may have stopped, and the agent must not.

    What poll(2) calls writable takes 4096 bytes at least (pipe(7), PIPE_BUF), if nobody else writes.
    """
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with _stderr_lock, contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(2, line[: select.PIPE_BUF])
