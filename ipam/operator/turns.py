"""Requests to Azure in order, within the budget of their subscription and region: threads wait for turns.

Two kinds wait: work on a node that has not begun, which also needs a worker, and requests of work in
progress. One thread serves all of them. It must not know what a turn is used for.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING

from ipam.operator.budget import READS, WRITES, Meter
from ipam.operator.line import Line, Urgency
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEAN_SECONDS = 80.0
"""Of one piece of work, for estimates: an operation takes a median of 71 s."""
LONGEST_LOOK = 5.0


class Sort(Enum):
    """Sorts of requests."""

    READ = "read"
    WRITE = "write"


class Region(Value):
    """A subscription and region, which have a budget of their own; both in lower case."""

    subscription: str
    location: str


class Stopped(Exception):
    """There are no more turns: this operator no longer leads, or ends."""


class Account:
    """The budget of one region, and what waits for it."""

    def __init__(self, share: float, now: float) -> None:
        self.meters = {Sort.READ: Meter(READS, share, now), Sort.WRITE: Meter(WRITES, share, now)}
        self.works: dict[Sort, Line[str]] = {sort: Line() for sort in Sort}
        """Work that has not begun, by node name."""
        self.requests: dict[Sort, Line[threading.Event]] = {sort: Line() for sort in Sort}
        """Requests of work in progress."""
        self.begun: dict[Urgency, tuple[int, float]] = dict.fromkeys(Urgency, (0, 0.0))
        """Pieces of work that were begun, and the seconds for which they waited together."""


class Turns:
    """Safe for threads.

    Args:
        share: of Azure's limits.
        workers: pieces of work at the same time.
        begin: begins work on a node in a thread of its own; its first request of that sort is counted.
        may_write: whether this operator leads.
        clock: seconds of a clock that does not jump.
    """

    def __init__(
        self,
        share: float,
        workers: int,
        begin: Callable[[str, Sort], None],
        may_write: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._share = share
        self._workers = workers
        self._begin = begin
        self._may_write = may_write
        self._clock = clock
        self._changed = threading.Condition()
        self._accounts: dict[Region, Account] = {}
        self._working = 0
        self._stopped = False

    def account(self, region: Region) -> Account:
        """The budget of a region; look at it within ``lock`` only."""
        with self._changed:
            if region not in self._accounts:
                self._accounts[region] = Account(self._share, self._clock())
            return self._accounts[region]

    def accounts(self) -> Iterator[tuple[Region, Account]]:
        """All of them, locked while they are looked at."""
        with self._changed:
            yield from list(self._accounts.items())

    def queue(self, node: str, region: Region, sort: Sort, order: Urgency, lasts: float = 0.0) -> None:
        """Queue work on a node; a node is in the queue once, whatever it waits for."""
        account = self.account(region)
        with self._changed:
            account.works[Sort.READ if sort is Sort.WRITE else Sort.WRITE].drop(node)
            account.works[sort].put(node, order, self._clock(), lasts)
            self._changed.notify()

    def drop(self, node: str) -> None:
        """Work on a node is no longer wanted."""
        with self._changed:
            for account in self._accounts.values():
                for line in account.works.values():
                    line.drop(node)

    def ended(self) -> None:
        """Work has ended: its worker is free."""
        with self._changed:
            self._working -= 1
            self._changed.notify()

    @property
    def working(self) -> int:
        """Pieces of work under way."""
        return self._working

    def give_back(self, region: Region, sort: Sort) -> None:
        """The request with which work began was not made."""
        account = self.account(region)
        with self._changed:
            account.meters[sort].give_back(self._clock())
            self._changed.notify()

    def throttled(self, region: Region, sort: Sort, seconds: float) -> None:
        """Azure throttles: no requests to that region for so many seconds."""
        account = self.account(region)
        with self._changed:
            account.meters[sort].pause(self._clock(), seconds)
            self._changed.notify()

    def expected_wait(self, region: Region, order: Urgency) -> float:
        """Seconds until a write that is requested now would begin."""
        account = self.account(region)
        with self._changed:
            now = self._clock()
            ahead = account.works[Sort.WRITE].ahead_of(order)
            for_worker = max(0, self._working + ahead + 1 - self._workers) * MEAN_SECONDS / self._workers
            return max(account.meters[Sort.WRITE].wait(now, ahead + 1), for_worker)

    def request(self, region: Region, sort: Sort, order: Urgency) -> None:
        """Wait for the turn of a request of work that is under way.

        Raises:
            Stopped: there is none any more.
        """
        account = self.account(region)
        turn = threading.Event()
        with self._changed:
            if not self._stopped:
                account.requests[sort].put(turn, order, self._clock())
                self._changed.notify()
        if not self._stopped:
            turn.wait()
        self.check()

    def check(self) -> None:
        """Raises Stopped: this operator no longer leads, or ends."""
        if self._stopped or not self._may_write():
            raise Stopped

    def stop(self) -> None:
        """No more turns; everything that waits gets ``Stopped``."""
        with self._changed:
            self._stopped = True
            for account in self._accounts.values():
                for line in account.requests.values():
                    while (found := line.first()) is not None:
                        line.drop(found[1])
                        found[1].set()
            self._changed.notify()

    def run(self) -> None:
        """Give turns until ``stop``."""
        while True:
            with self._changed:
                if self._stopped:
                    return
                begun = self._next_work()
                if begun is None:
                    self._changed.wait(self._pause())
            if begun is not None:
                self._begin(*begun)

    def _next_work(self) -> tuple[str, Sort] | None:
        """Let requests go on, and begin the work that is next in line in any region.

        Workers are shared by all regions. The region with the most nodes must not take every one that becomes
        free while a node with waiting pods in another region has a turn.
        """
        found = [
            (*work, account, sort)
            for account in self._accounts.values()
            for sort in Sort
            if (work := self._serve(account, sort)) is not None
        ]
        if not found:
            return None
        _, node, account, sort = min(found, key=lambda each: each[0])
        account.meters[sort].take(self._clock())
        self._note_wait(account, account.works[sort], node)
        account.works[sort].drop(node)
        self._working += 1
        return node, sort

    def _serve(self, account: Account, sort: Sort) -> tuple[float, str] | None:
        """Let requests go on that come before all work; rank and node of the work that may begin."""
        meter, works, requests = account.meters[sort], account.works[sort], account.requests[sort]
        while True:
            work = works.first() if self._working < self._workers else None
            request = requests.first()
            if (work is None and request is None) or meter.wait(self._clock()) > 0:
                return None
            if request is None or (work is not None and work[0] < request[0]):
                return work
            meter.take(self._clock())
            requests.drop(request[1])
            request[1].set()

    def _note_wait(self, account: Account, line: Line[str], node: str) -> None:
        place = line.place(node)
        assert place is not None
        number, seconds = account.begun[place.order]
        account.begun[place.order] = number + 1, seconds + max(0.0, self._clock() - place.since)

    def _pause(self) -> float:
        """Seconds until something may be served that waits now."""
        pause = LONGEST_LOOK
        for account in self._accounts.values():
            for sort in Sort:
                waits = len(account.requests[sort]) or (
                    len(account.works[sort]) and self._working < self._workers
                )
                if waits:
                    pause = min(pause, account.meters[sort].wait(self._clock()))
        return max(pause, 0.001)
