"""A storm of calls: many callers that attach and detach pods on one node, without a pause.

Owns the callers and what must hold of every one of their calls: it succeeds, and no two pods have one
address at the same time. It must not know what else happens to the node meanwhile.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from tests.netns.calls import Outcome
from tests.netns.node import Node
from tests.netns.sandbox import Pod
from tests.waiting import eventually

if TYPE_CHECKING:
    from typing import Self


class Storm:
    """Callers, each with a pod of its own that it adds and deletes until the storm is over."""

    def __init__(self, node: Node, callers: int) -> None:
        self._node = node
        self.pods = node.sandbox.pods(*(f"storm-{number}" for number in range(callers)))
        self._over = threading.Event()
        self._mutex = threading.Lock()
        self._holders: dict[str, str] = {}
        self.failures: list[str] = []
        self.calls: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._blow, args=(pod,)) for pod in self.pods]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def await_calls(self, number: int) -> None:
        """Wait until so many more calls have ended."""
        before = self.calls.total()
        eventually(lambda: self.calls.total() >= before + number, f"{number} more calls")

    def _blow(self, pod: Pod) -> None:
        while not self._over.is_set():
            added = self._node.add(pod)
            if self._note(added):
                self._take(pod, added.address)
            # Before the DEL: from its start on the address may be another's.
            self._give_back(pod)
            self._note(self._node.delete(pod))

    def _note(self, outcome: Outcome) -> bool:
        with self._mutex:
            self.calls[outcome.verb] += 1
            if not outcome.ok:
                self.failures.append(f"{outcome.verb}: {outcome.stdout.decode()} {outcome.stderr}")
        return outcome.ok

    def _take(self, pod: Pod, address: str) -> None:
        with self._mutex:
            other = self._holders.setdefault(address, pod.container_id)
            if other != pod.container_id:
                self.failures.append(f"{address} was given to {pod.container_id} while {other} had it")

    def _give_back(self, pod: Pod) -> None:
        with self._mutex:
            for address in [each for each, holder in self._holders.items() if holder == pod.container_id]:
                del self._holders[address]

    def nothing_left(self) -> list[str]:
        """Failures and residue, for the end; empty is good."""
        return [*self.failures, *self._node.residue()]
