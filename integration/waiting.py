"""Waiting for what others do in their own time. It must not know what follows if waiting fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def found_within(patience: float, condition: Callable[[], Found], *, pause: float = 0.05) -> Found:
    """What a condition finds as soon as it is true, or what it found last after ``patience`` seconds.

    Args:
        patience: seconds.
        condition: looks once.
        pause: seconds between two looks.
    """
    until = time.monotonic() + patience
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(pause)
    return found
