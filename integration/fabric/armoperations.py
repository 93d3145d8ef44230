"""Long-running operations of ARM: how long they take, how they end, what their resource answers.

A thread ends each one when it is due, whether somebody polls or not. Must not know what they change.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from integration.fabric.model import State

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK = "Microsoft.Network"
COMPUTE = "Microsoft.Compute"

RECORDED_SECONDS = {
    NETWORK: (
        *(30, 30, 31, 32, 51, 51, 51, 51, 52, 52, 61, 62, 62, 62, 63, 63, 70, 70, 71, 71),
        *(71, 71, 71, 71, 72, 72, 72, 72, 72, 72, 73, 73, 73, 73, 83, 83, 93, 152, 198),
    ),
    COMPUTE: (30, 30, 31, 31),
}
"""How long the real service took: from the answer to a PUT to the first poll that said that it was over.

39 writes to attached NICs and 4 to scale set instances in the recordings of azure-libraries-for-net and
azure-libraries-for-java (Tests/SessionRecords, session-records; 2016 to 2020), polled every 10 or 30 s.
"""

POLL_AFTER = 10
"""Seconds between two polls, as the service's Retry-After asks for."""

SPEED = 60.0
"""A minute of the real service in a second."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ends."""

    state: State = State.SUCCEEDED
    code: str = ""
    message: str = ""


@dataclass(slots=True, eq=False)
class Operation:
    """One operation on one resource."""

    resource: str
    """ARM id in lower case."""
    provider: str
    settle: Callable[[State], object]
    """Called once with the outcome before anybody is told of it."""
    outcome: Outcome
    due: float
    """``time.monotonic`` when it ends."""
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    ending: bool = False

    def document(self) -> dict[str, Any]:
        """What the operation's resource answers."""
        over = self.ended is not None
        document: dict[str, Any] = {"status": self.outcome.state.value if over else "InProgress"}
        if self.provider == COMPUTE:
            times = {"startTime": self.started.isoformat()}
            if self.ended is not None:
                times["endTime"] = self.ended.isoformat()
            document = {**times, **document, "name": self.identifier}
        if over and self.outcome.code:
            error: dict[str, Any] = {"code": self.outcome.code, "message": self.outcome.message}
            document["error"] = {**error, "details": []} if self.provider == NETWORK else error
        return document


class Operations:
    """All operations of a fabric. Safe for threads."""

    def __init__(self, seed: int = 0) -> None:
        self.speed = SPEED
        """How many times faster than the real service; for operations that begin from now on."""
        self.seconds: dict[str, tuple[float, ...]] = dict(RECORDED_SECONDS)
        """By resource provider: one of these is how long an operation takes, before ``speed``."""
        self.outcomes: deque[Outcome] = deque()
        """How the next operations end, the first one first; those after them succeed."""
        self._chance = random.Random(seed)
        self._held = False
        self._known: dict[str, Operation] = {}
        self._open: dict[str, Operation] = {}
        """Those that have not ended, by identifier."""
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def begin(self, resource: str, provider: str, settle: Callable[[State], object]) -> Operation:
        """An operation on the resource that ends by itself."""
        with self._changed:
            outcome = self.outcomes.popleft() if self.outcomes else Outcome()
            due = time.monotonic() + self.seconds_of(provider)
            operation = Operation(resource.casefold(), provider, settle, outcome, due)
            self._known[operation.identifier] = self._open[operation.identifier] = operation
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="operations", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return operation

    def seconds_of(self, provider: str) -> float:
        """How long the next operation takes: one of the recorded times, drawn again every time."""
        return self._chance.choice(self.seconds[provider]) / self.speed

    def find(self, identifier: str) -> Operation | None:
        """The operation of that id, running or over."""
        with self._changed:
            return self._known.get(identifier.casefold())

    def running(self, resource: str) -> Operation | None:
        """The operation that the resource is busy with."""
        with self._changed:
            return next((o for o in self._open.values() if o.resource == resource.casefold()), None)

    def retry_after(self) -> int:
        """Seconds in the Retry-After of an answer; never 0, which the SDK takes for none."""
        return max(1, round(POLL_AFTER / self.speed))

    def hold(self) -> None:
        """Let no operation end from now on, until `release` or `finish`."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """Undo `hold`: what is overdue ends now."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def finish(self) -> None:
        """End every operation that is running now, in this thread."""
        while (operation := self._take(lambda _: True)) is not None:
            self._end(operation)

    def close(self) -> None:
        """Stop the thread; what was running never ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._thread, self._closed = None, False

    def _take(self, fits: Callable[[Operation], bool]) -> Operation | None:
        """One that fits and that nobody else is ending."""
        with self._changed:
            found = next((o for o in self._open.values() if not o.ending and fits(o)), None)
            if found is not None:
                found.ending = True
            return found

    def _end(self, operation: Operation) -> None:
        try:
            operation.settle(operation.outcome.state)
        finally:
            with self._changed:
                operation.ended = datetime.now(UTC)
                del self._open[operation.identifier]
                self._changed.notify_all()

    def _work(self) -> None:
        while True:
            operation = self._take(lambda o: not self._held and o.due <= time.monotonic())
            if operation is not None:
                try:
                    self._end(operation)
                except Exception:  # noqa: BLE001 - the next ones have to end as well
                    traceback.print_exc()
                continue
            with self._changed:
                if self._closed:
                    return
                dues = [] if self._held else [o.due for o in self._open.values() if not o.ending]
                self._changed.wait(max(0.0, min(dues) - time.monotonic()) if dues else None)
