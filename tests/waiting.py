"""Waiting for what others do in their own time: an agent, a process, the kernel."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30.0
"""Generous, for a machine that has much else to do; below the minute after which an agent finds by itself
what a call has left behind.
"""


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.02)
