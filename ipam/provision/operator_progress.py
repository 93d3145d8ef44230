"""What an agent reports as its state if an operator writes its NIC: the operator's, or that there is none.

It must not know how the operator's status is read, nor what is done about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.provision.progress import GROWING, IDLE, NO_OPERATOR, PHASES, QUEUED, QUIET, SHRINKING, Progress
from ipam.provision.refusals import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.provision.exchange import AzvnetNode, NodeStatus

FIRST_SECONDS = 60.0
"""Seconds to wait for the first status of this node."""
ANSWER_SECONDS = 90.0
"""Seconds to wait for a status if addresses are needed."""
WORK_SECONDS = 900.0
"""Seconds to wait for the end of an operation, or for the node's turn."""
SILENT_SECONDS = 1800.0
"""Seconds to wait at rest: the NIC is read once in ten minutes, and that updates the status."""
_REMEDY = "Check the operator: kubectl get pods -A -l app.kubernetes.io/component=operator, and their logs."


class OperatorProgress:
    """Args: clock: seconds of a clock that does not jump."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._status: NodeStatus | None = None
        self._since = 0.0

    def note(self, node: AzvnetNode) -> None:
        """What the resource says now."""
        if node.status != self._status:
            self._status, self._since = node.status, self._clock()

    def progress(self, status: NodeStatus, *, grows: bool) -> Progress:
        """``grows``: by what this node knows, addresses are needed that are not on their way."""
        silent = self._clock() - self._since
        if silent > _patience(status.state, grows=grows):
            return Progress(
                NO_OPERATOR,
                f"the cluster's operator has not written the status of this node for {silent:.0f} s",
                _REMEDY,
            )
        if not status.state:
            return Progress(text="the operator has not handled this node yet")
        if status.state in PHASES:
            return Progress(status.state, status.text, status.remedy)
        # A newer operator: its text is still true.
        phase = Kind.REFUSED.value if status.remedy else IDLE
        return Progress(phase, status.text or status.state, status.remedy)


def _patience(state: str, *, grows: bool) -> float:
    if not state:
        return FIRST_SECONDS
    if state in {GROWING, SHRINKING, QUEUED}:
        return WORK_SECONDS
    return ANSWER_SECONDS if grows and state in QUIET else SILENT_SECONDS
