"""What of the estate reaches the host network, and when: lags make it late, faults make it wrong.

Owns the faults that are switched on, and passing the estate to the host network. It must not know the
processes of machines, nor services.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from integration.fabric.faults import FaultBoard, distort
from integration.fabric.model import Surface
from integration.fabric.services import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Address

    from integration.fabric.goalstate import GoalState
    from integration.fabric.hostnetwork import HostNetwork
    from integration.fabric.machine import Machine


class Delivery:
    """Brings the goal state to the host network of one fabric.

    Args:
        name: of the fabric.
        goal: what ARM wants, and what each surface sees of it.
        machines: all machines by name.
    """

    def __init__(self, name: str, goal: GoalState, machines: Callable[[], Mapping[str, Machine]]) -> None:
        self.board = FaultBoard(self._faults_changed)
        self.network: HostNetwork | None = None
        """None: the fabric is down, and nothing is delivered."""
        self.lock = threading.RLock()
        """Held while the host network is changed."""
        self._name = name
        self._goal = goal
        self._machines = machines
        self._stop = threading.Event()

    def deliver(self) -> None:
        """Let the host network see what has reached it."""
        with self.lock:
            if self.network is None:
                return
            estate = self._goal.seen_by(Surface.FABRIC)
            for fault in self.board.of(Surface.FABRIC):
                estate = distort(estate, fault)
            self.network.apply(estate)

    def watch(self) -> Callable[[], None]:
        """Start the thread that lets late changes reach the host network; returns what ends it."""
        self._stop.clear()

        def body() -> None:
            seen = self._goal.seen_by(Surface.FABRIC)
            while (now := self._goal.wait_for(Surface.FABRIC, seen, self._stop)) is not None:
                seen = now
                self.deliver()

        thread = threading.Thread(target=body, name=f"{self._name} goal state", daemon=True)
        thread.start()

        def end() -> None:
            self._stop.set()
            self._goal.wake()
            thread.join()

        return end

    def _faults_changed(self) -> None:
        with self.lock:
            for surface in Surface:
                if any(fault.stale for fault in self.board.of(surface)):
                    self._goal.freeze(surface)
                else:
                    self._goal.thaw(surface)
            if self.network is None:
                return
            self.network.set_refused(self._refusals())
            outages: list[str] = []
            losses: dict[str, int] = {}
            for fault in self.board.of(Surface.FABRIC):
                concerned = [fault.node] if fault.node else list(self._machines())
                outages += concerned if fault.hang else []
                losses.update(dict.fromkeys(concerned, fault.loss) if fault.loss else {})
            self.network.set_faults(outages, losses)
            self.deliver()

    def _refusals(self) -> list[tuple[str, IPv4Address, int]]:
        machines = self._machines()
        return [
            (str(machines[fault.node].primary_ip) if fault.node else "0.0.0.0/0", *PLACES[surface])
            for surface, fault in self.board.active()
            if fault.refused and surface in PLACES
        ]
