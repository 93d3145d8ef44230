"""When a change of the estate becomes visible where: the goal state on its way through the platform.

ARM's answer, IMDS, the wireserver and the host's packet filter learn of a change at different times.
Every change is kept with its moment; a surface sees the newest change that is older than its lag.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from integration.fabric.model import Estate, Surface


class GoalState:
    """The history of the estate, seen by each surface with its own lag. Safe for threads."""

    def __init__(self, estate: Estate) -> None:
        self._history: list[tuple[float, Estate]] = [(float("-inf"), estate)]
        self._shown: dict[Surface, tuple[float, Estate]] = {}
        self._lags: dict[Surface, float] = dict.fromkeys(Surface, 0.0)
        self._frozen: dict[Surface, Estate] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many states are kept because a surface may still show them."""
        with self._changed:
            return len(self._history)

    @property
    def newest(self) -> Estate:
        """The estate as the cloud wants it."""
        with self._changed:
            return self._history[-1][1]

    def change(self, how: Callable[[Estate], Estate]) -> Estate:
        """Make a change; returns the new estate. Whatever ``how`` raises leaves all as it was."""
        with self._changed:
            estate = how(self._history[-1][1])
            self._history.append((time.monotonic(), estate))
            self._forget()
            self._changed.notify_all()
            return estate

    def seen_by(self, surface: Surface) -> Estate:
        """The estate as that surface shows it now."""
        with self._changed:
            return self._seen_by(surface)

    def set_lag(self, surface: Surface, seconds: float) -> None:
        """From now on changes reach the surface that many seconds late (``inf``: never)."""
        if not seconds >= 0:
            raise ValueError(f"a lag is 0 seconds or more, not {seconds}")
        with self._changed:
            self._seen_by(surface)  # what was shown once is not taken back by a longer lag
            self._lags[surface] = seconds
            self._changed.notify_all()

    def lags(self) -> dict[Surface, float]:
        """The lag of every surface, seconds."""
        with self._changed:
            return dict(self._lags)

    def freeze(self, surface: Surface) -> None:
        """Keep showing what the surface shows now, whatever changes: a stale document."""
        with self._changed:
            self._frozen.setdefault(surface, self._seen_by(surface))

    def thaw(self, surface: Surface) -> None:
        """Undo `freeze`."""
        with self._changed:
            self._frozen.pop(surface, None)
            self._changed.notify_all()

    def wait_for(self, surface: Surface, seen: Estate, stop: threading.Event) -> Estate | None:
        """Block until the surface shows something else than ``seen``; None when ``stop`` is set."""
        with self._changed:
            while not stop.is_set():
                now = self._seen_by(surface)
                if now is not seen:
                    return now
                self._changed.wait(self._until_next(surface))
        return None

    def wake(self) -> None:
        """Let everybody in `wait_for` look again, after ``stop`` was set."""
        with self._changed:
            self._changed.notify_all()

    def _seen_by(self, surface: Surface) -> Estate:
        if surface in self._frozen:
            return self._frozen[surface]
        horizon = time.monotonic() - self._lags[surface]
        due = next((entry for entry in reversed(self._history) if entry[0] <= horizon), self._history[0])
        shown = self._shown.get(surface, due)
        self._shown[surface] = due if due[0] >= shown[0] else shown
        return self._shown[surface][1]

    def _until_next(self, surface: Surface) -> float | None:
        lag = self._lags[surface]
        now = time.monotonic()
        due = [moment + lag - now for moment, _ in self._history if moment + lag > now]
        soonest = min(due, default=None)
        return None if soonest is None or soonest == float("inf") else soonest

    def _forget(self) -> None:
        """Drop what no lag can show any more; an endless lag keeps the first entry."""
        longest = max(self._lags.values())
        horizon = time.monotonic() - longest
        while len(self._history) > 1 and self._history[1][0] <= horizon:
            del self._history[0]
