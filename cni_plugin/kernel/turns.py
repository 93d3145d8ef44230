"""Whose turn it is, in a process that carries out many calls at once.

Python runs one thread at a time, and each call of the kernel, sixty in an ADD, lets another one go on: with
many threads they mostly wake one another, which costs more than what they do. So a call has its turn until it
has to wait for somebody else. It keeps it while the kernel works for it: that takes less time than waking up.

One that is found waiting in its turn after all, for a disk that hangs say, has kept the others for a moment,
once: they go on without turns until it is done. The interpreter's lock is one for the process, and so are the
turns. It must not know what is done in one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.05
"""Longer than a burst of calls keeps the last of them waiting."""


class Turns:
    """Turns that are taken by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._whose = 0
        self._waits = False
        """Whether the one whose turn it is was found to wait for something."""

    def take(self) -> None:
        """Wait for a turn; without one where that takes too long."""
        if self._lock.acquire(timeout=0 if self._waits else PATIENCE_SECONDS):
            self._whose = threading.get_ident()
            self._waits = False
        else:
            self._waits = True

    def leave(self) -> bool:
        """Give the turn up, if this thread has it; whether it had."""
        if self._whose != threading.get_ident():
            return False
        self._whose = 0
        self._waits = False
        self._lock.release()
        return True

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a turn, and give it up at the end."""
        self.take()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def left(self) -> Iterator[None]:
        """Give the turn up for what has to be waited for, and take one again."""
        had = self.leave()
        try:
            yield
        finally:
            if had:
                self.take()


TURNS = Turns()
"""Those of this process. Only an agent takes any."""
