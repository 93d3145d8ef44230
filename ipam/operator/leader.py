"""Leader election: the operator that holds a Lease (coordination.k8s.io/v1) works, the others wait.

The official client's elector can't be asked whether it still leads, keeps time with the wall clock, which
jumps, and does not release the lease at its end, so a successor waits for nothing. This elector is asked
before every write. It confirms only while no other operator can have taken the lease: others wait for the
whole duration of the lease after they saw it renewed, while this one counts two thirds of it from before
the renewal.

It must not know what a leader does, nor how a Lease is stored.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from ipam.value import Value, replace

if TYPE_CHECKING:
    from collections.abc import Callable

SAFE = 2 / 3
"""Share of the lease's duration for which a renewal counts."""
PACE = 5
"""Attempts to renew within one duration."""


class LeaseUnavailable(Exception):
    """The Lease could not be read or written; says why."""


class LeaseConflict(Exception):
    """Something else wrote the Lease in between."""


class LeaseRecord(Value):
    """The content of a Lease."""

    holder: str
    """Identity of the leader; empty: the lease was released."""
    seconds: float
    """Its duration."""
    transitions: int
    """How many times the leader changed."""
    version: str = ""
    """Version of the object; empty: it does not exist yet."""


class Box(Protocol):
    """The Lease in the cluster. Each raises LeaseUnavailable."""

    def read(self) -> LeaseRecord | None:
        """Its content; None: there is no such object."""

    def write(self, record: LeaseRecord, *, acquires: bool) -> LeaseRecord:
        """Create it (no version) or replace that version; as it is afterwards. ``acquires``: it changes
        hands. Raises LeaseConflict.
        """


class Elector:
    """One candidate. ``leads`` may be asked by any thread, ``step`` is for one.

    Args:
        box: the Lease.
        identity: a name that no other process has, nor had.
        seconds: the lease's duration.
        clock: seconds of a clock that does not jump, and that runs on while the machine sleeps.
        tell: writes to the log.
    """

    def __init__(
        self,
        box: Box,
        identity: str,
        seconds: float,
        clock: Callable[[], float],
        tell: Callable[[str, str], None],
    ) -> None:
        self._box = box
        self._identity = identity
        self._seconds = seconds
        self._clock = clock
        self._tell = tell
        self._until = float("-inf")
        self._seen: LeaseRecord | None = None
        self._seen_at = 0.0
        self._trouble = ""
        self.term = 0
        """How many times this process became the leader."""

    @property
    def leads(self) -> bool:
        """Whether nobody else can lead at this moment."""
        return self._clock() < self._until

    @property
    def holder(self) -> str:
        """The leader, as last seen."""
        return self._seen.holder if self._seen is not None else ""

    @property
    def pause(self) -> float:
        """Seconds between two attempts."""
        return self._seconds / PACE

    def step(self) -> None:
        """Take the lease if it is free, renew it if it is ours. Errors of the cluster are not raised."""
        try:
            self._attempt()
            self._trouble = ""
        except LeaseConflict:
            self._seen = None  # whoever wrote it was alive a moment ago
        except LeaseUnavailable as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._tell("warning", f"the lease can't be used: {error}")

    def release(self) -> None:
        """Release the lease, if it is ours: the next operator leads at once."""
        ours = self.leads and self._seen is not None
        self._until = float("-inf")
        if ours and self._seen is not None:
            try:
                self._box.write(replace(self._seen, holder="", seconds=1.0), acquires=False)
            except (LeaseConflict, LeaseUnavailable) as error:
                self._tell("warning", f"the lease could not be given back: {error}")

    def run(self, stop: threading.Event) -> None:
        """Attempt until ``stop`` is set."""
        while not stop.is_set():
            self.step()
            stop.wait(self.pause)

    def _attempt(self) -> None:
        began = self._clock()
        found = self._box.read()
        if found is None:
            self._take(LeaseRecord(self._identity, self._seconds, 0), began)
        elif found.holder == self._identity:
            self._hold(replace(found, seconds=self._seconds), began)
        elif not found.holder or self._has_expired(found):
            wanted = replace(
                found, holder=self._identity, seconds=self._seconds, transitions=found.transitions + 1
            )
            self._take(wanted, began)
        elif self._until > began:
            self._until = float("-inf")  # taken from us: somebody edited it

    def _has_expired(self, found: LeaseRecord) -> bool:
        """Whether it was not renewed for its whole duration while we watched."""
        now = self._clock()
        if self._seen is None or self._seen.version != found.version:
            self._seen, self._seen_at = found, now
            return False
        return now - self._seen_at > found.seconds

    def _take(self, wanted: LeaseRecord, began: float) -> None:
        self._write(wanted, began, acquires=True)
        self._tell("info", f"leading as {self._identity}")

    def _hold(self, wanted: LeaseRecord, began: float) -> None:
        self._write(wanted, began, acquires=False)

    def _write(self, wanted: LeaseRecord, began: float, *, acquires: bool) -> None:
        led = self.leads
        self._seen = self._box.write(wanted, acquires=acquires)
        self._seen_at = began
        if not led:
            self.term += 1
        self._until = began + self._seconds * SAFE
