"""The queue for scarce requests: nodes with waiting pods first, then growth, then removal, then the rest.

Within a class the oldest is first, and those that can do without for a while come that much later, but not
more than ``LASTING`` seconds. Each class is ``AGEING`` seconds behind the one before it, so a node that has
waited that much longer goes first nevertheless: none starves. Pure. It must not know what is waited for.
"""

from __future__ import annotations

import heapq
from enum import IntEnum
from typing import Generic, TypeVar

from ipam.value import Value

AGEING = 120.0
"""Seconds: about one operation."""
LASTING = 600.0
"""Seconds: nobody comes later than that because it can do without for longer."""
CLOSE = 5.0
"""Seconds: a place that would change by less stays as it is."""


class Urgency(IntEnum):
    """Classes, the most urgent one first."""

    WAITING = 0
    """Pods of the node have no address, or are about to ask for one."""
    GROWTH = 1
    REMOVAL = 2
    REST = 3
    """Checking a NIC at rest."""


class PlaceInLine(Value):
    """The position of one waiting entry."""

    order: Urgency
    since: float
    rank: float
    """The lowest rank is next."""


K = TypeVar("K")


def _placed(before: PlaceInLine | None, order: Urgency, now: float, lasts: float) -> PlaceInLine:
    since = now if before is None else before.since
    if before is not None and (order < before.order or (order == before.order and not lasts)):
        return PlaceInLine(order, since, min(before.rank, now + lasts + order * AGEING))
    moment = min(now + lasts, since + LASTING) if lasts else since
    return PlaceInLine(order, since, moment + order * AGEING)


class Line(Generic[K]):
    """The waiting entries, each with a key of its own. Not for several threads."""

    def __init__(self) -> None:
        self._places: dict[K, PlaceInLine] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._number = 0
        self._lengths = dict.fromkeys(Urgency, 0)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: K) -> bool:
        return key in self._places

    def put(self, key: K, order: Urgency, now: float, lasts: float = 0.0) -> None:
        """Begin to wait, or wait in another class: more urgent from now on, less urgent as if always.

        ``lasts``: seconds for which it can do without; what is said last holds.
        """
        before = self._places.get(key)
        place = _placed(before, order, now, lasts)
        if before is not None and order == before.order and abs(place.rank - before.rank) < CLOSE:
            return
        if before is not None:
            self._lengths[before.order] -= 1
        self._lengths[order] += 1
        self._places[key] = place
        self._number += 1
        heapq.heappush(self._heap, (place.rank, self._number, key))

    def drop(self, key: K) -> None:
        """Stop waiting."""
        place = self._places.pop(key, None)
        if place is not None:
            self._lengths[place.order] -= 1

    def first(self) -> tuple[float, K] | None:
        """Rank and key of the next entry."""
        while self._heap:
            rank, _, key = self._heap[0]
            place = self._places.get(key)
            if place is not None and place.rank == rank:
                return rank, key
            heapq.heappop(self._heap)
        return None

    def place(self, key: K) -> PlaceInLine | None:
        """The position of one waiting entry."""
        return self._places.get(key)

    def ahead_of(self, order: Urgency) -> int:
        """How many entries of the same or a more urgent class wait."""
        return sum(number for each, number in self._lengths.items() if each <= order)

    def lengths(self) -> dict[Urgency, int]:
        """How many entries wait in each class."""
        return dict(self._lengths)

    def longest(self, now: float) -> dict[Urgency, float]:
        """Seconds for which the oldest entry of each class has waited."""
        found = dict.fromkeys(Urgency, 0.0)
        for each in self._places.values():
            found[each.order] = max(found[each.order], now - each.since)
        return found
