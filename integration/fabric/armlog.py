"""What was asked of ARM: who, what kind of request, how it was answered. For tests that count requests."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass

KEPT = 200_000
"""Requests that are remembered; of more, the oldest are forgotten."""

POLL = "poll"
"""The kind of a GET of an operation; every other request's kind is its method."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and the status of its answer."""

    at: float
    """``time.monotonic``"""
    client_id: str
    """Of the identity; empty if the token was no good."""
    kind: str
    path: str
    status: int
    source: str = ""
    """The address that it came from: with one identity for all, that tells the machines apart."""


class RequestLog:
    """Every request in the order of the answers. Safe for threads."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def record(self, client_id: str, kind: str, path: str, status: int, source: str) -> None:
        """Remember one request."""
        with self._lock:
            self._entries.append(Entry(time.monotonic(), client_id, kind, path, status, source))

    def entries(
        self,
        *,
        client_id: str | None = None,
        kind: str | None = None,
        status: int | None = None,
        source: str | None = None,
    ) -> list[Entry]:
        """The requests of an identity, of a kind, with a status, from an address; of all if None."""
        with self._lock:
            return [
                entry
                for entry in self._entries
                if client_id in (None, entry.client_id)
                and kind in (None, entry.kind)
                and status in (None, entry.status)
                and source in (None, entry.source)
            ]

    def count(self, kind: str | None = None, status: int | None = None, client_id: str | None = None) -> int:
        """How many there were, see `entries`."""
        return len(self.entries(client_id=client_id, kind=kind, status=status))

    def counts(self) -> dict[str, dict[str, int]]:
        """By client id: how many of each kind, and of each status that is an error."""
        table: dict[str, Counter[str]] = {}
        for entry in self.entries():
            row = table.setdefault(entry.client_id, Counter())
            row[entry.kind] += 1
            if entry.status >= 400:
                row[str(entry.status)] += 1
        return {who: dict(row) for who, row in table.items()}

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
