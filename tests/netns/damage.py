"""CHECK of what a test has damaged, where an agent may be quicker to put it back.

It must not know what is damaged.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.netns.calls import Outcome
from tests.netns.node import Node
from tests.waiting import eventually


def checked_after(
    node: Node, damage: Callable[[], object], check: Callable[[], Outcome], words: Sequence[str]
) -> Outcome:
    """CHECK as soon as something is damaged, and once more whenever an agent has put it back by then.

    Returns:
        A CHECK that failed with all these words.
    """
    while True:
        before = _put_back(node)
        with suppress(subprocess.CalledProcessError, AssertionError):  # what it is about may be gone in part
            damage()
        checked = check()
        if not checked.ok and all(word in checked.msg for word in words):
            return checked
        eventually(lambda: _put_back(node) > before, f"an agent has put it back, or CHECK fails: {checked}")  # noqa: B023 - called at once


def _put_back(node: Node) -> int:
    """How much an agent has put back so far: its log comes after what it did."""
    log = node.sandbox.path("/var/log/azvnet/agent.log")
    return log.read_text().count("was restored") if log.exists() else 0
