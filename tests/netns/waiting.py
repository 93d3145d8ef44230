"""Waiting for what an agent does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 10.0


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.05)
