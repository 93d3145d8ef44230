"""Azure Resource Manager for all nodes: one pipeline for each cloud, within the budget of each region.

Owns which token is used, how a request waits for its turn, and that throttling stops all requests. It
must not know what a NIC is changed for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ipam.errors import SourceUnreadable
from ipam.operator.inventory import Inventory
from ipam.operator.turns import Sort
from ipam.provision.azure import within_bounds
from ipam.provision.conversation import Conversation
from ipam.provision.refusals import Kind, Refusal, of_answer
from ipam.provision.tally import Tally
from ipam.sources import AZURE
from ipam.sources.managed_identity import NoToken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipam.operator.line import Urgency
    from ipam.operator.turns import Region, Turns
    from ipam.provision.nic_document import Document
    from ipam.sources import ArmConfig
    from ipam.sources.arm_answer import ArmAnswer, Ask
    from ipam.sources.arm_client import Requests
    from ipam.sources.placement import Placement

ANEW_SECONDS = 60.0
"""Minimum seconds between two replacements of a pipeline that has no token, or whose token was rejected."""


class Azure:
    """Safe for threads.

    Args:
        config: how ARM is reached.
        connections: requests at the same time.
        turns: the budget.
        wait: waits for so many seconds; raises ``turns.Stopped``.
        count: adds to counters.
        clock: seconds of a clock that does not jump.
    """

    def __init__(
        self,
        config: ArmConfig,
        connections: int,
        turns: Turns,
        wait: Callable[[float], None],
        count: Callable[[Mapping[str, int]], None],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._connections = connections
        self.turns = turns
        self._wait = wait
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self.inventory = Inventory(clock)
        self._pipelines: dict[str, tuple[float, Requests]] = {}

    def conversation(
        self, place: Placement, region: Region, order: Urgency, begun_with: Sort | None
    ) -> OneWork:
        """For one piece of work, which has had its turn for a request of sort ``begun_with``.

        Raises:
            Refusal: the cloud is not known, or there is no credential as configured.
        """
        return OneWork(self, self._pipeline(place), place, region, order, begun_with)

    def _pipeline(self, place: Placement) -> Requests:
        from ipam.sources import arm_client

        cloud = place.environment.casefold()
        with self._lock:
            kept = self._pipelines.get(cloud)
            if kept is not None:
                return kept[1]
            try:
                access = arm_client.Access(self._config, place, AZURE.imds)
            except SourceUnreadable as error:
                raise Refusal(Kind.NO_IDENTITY, f"{error} {error.remedy}".rstrip()) from error
            made = arm_client.Requests(access, self._connections)
            self._pipelines[cloud] = self._clock(), made
            return made

    def forget(self, place: Placement) -> None:
        """There was no token, or it was rejected: the next work asks for another one."""
        with self._lock:
            cloud = place.environment.casefold()
            kept = self._pipelines.get(cloud)
            if kept is not None and self._clock() - kept[0] > ANEW_SECONDS:
                del self._pipelines[cloud]

    def converse(self, ask: Ask, reads: Sorted, writes: Sorted) -> Conversation:
        """For ``OneWork``."""
        return Conversation(ask, self._wait, Tally(self._count, self._clock), reads, writes)


class OneWork:
    """The requests of one piece of work. Not for several threads."""

    def __init__(
        self,
        azure: Azure,
        pipeline: Requests,
        place: Placement,
        region: Region,
        order: Urgency,
        begun_with: Sort | None,
    ) -> None:
        self._azure = azure
        self._turns = azure.turns
        self._place = place
        self._region = region
        self._ask = within_bounds(pipeline)
        self.reads = Sorted(self._turns, region, Sort.READ, order, ready=begun_with is Sort.READ)
        self.writes = Sorted(self._turns, region, Sort.WRITE, order, ready=begun_with is Sort.WRITE)
        self.arm = azure.converse(self._send, self.reads, self.writes)

    def end(self) -> None:
        """Give back the turn that was not used."""
        for each in (self.reads, self.writes):
            each.end()

    def _send(self, method: str, where: str, body: Document | None, etag: str) -> ArmAnswer:
        try:
            answer = self._ask(method, where, body, etag)
        except NoToken:
            # The SDK reads the file with a workload identity's token once in ten minutes.
            self._azure.forget(self._place)
            raise
        if answer.status == 429:
            refusal = of_answer(method, answer)
            if refusal.kind is Kind.THROTTLED:
                sort = Sort.READ if method == "GET" else Sort.WRITE
                self._turns.throttled(self._region, sort, refusal.retry_after)
        elif answer.status == 401:
            self._azure.forget(self._place)
        return answer


class Sorted:
    """``pace.Allowance`` for one sort of requests."""

    def __init__(self, turns: Turns, region: Region, sort: Sort, order: Urgency, *, ready: bool) -> None:
        self._turns = turns
        self._region, self._sort, self._order = region, sort, order
        self._ready = ready
        self.check: Callable[[], None] = _nothing
        """Check what has to be true at the moment of a request; raises if it is not."""

    def take(self) -> float:
        """See ``pace.Turns``; waits itself."""
        if self._ready:
            self._ready = False
            self._turns.check()
        else:
            self._turns.request(self._region, self._sort, self._order)
        self.check()
        return 0.0

    def end(self) -> None:
        """Give it back, if it was not used."""
        if self._ready:
            self._ready = False
            self._turns.give_back(self._region, self._sort)


def _nothing() -> None:
    """Nothing to check."""
