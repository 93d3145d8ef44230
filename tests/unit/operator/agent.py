"""A node's agent, as far as an operator notices it: it keeps to the agreement, and may be silent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ipam.provision import exchange
from ipam.provision.exchange import Machine, NodeSpec, PoolReport
from ipam.provision.plan import Sizes, Unit, leaving
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.model import IPAddress
    from tests.unit.operator.api_server import ApiServer


class Agent:
    """One step after the other, by whoever calls ``step``.

    Args:
        machine: what it says to be.
        clock: seconds.
        renew: seconds between two writes that say nothing new.
    """

    def __init__(
        self,
        api: ApiServer,
        name: str,
        machine: Machine,
        sizes: Sizes,
        clock: Callable[[], float],
        renew: float = 20.0,
    ) -> None:
        self.api, self.name, self.clock, self.renew = api, name, clock, renew
        self.lock = threading.RLock()
        self.spec = NodeSpec(machine=machine, sizes=sizes)
        self.pods = 0
        """Pods that want an address."""
        self.held: dict[int, IPAddress] = {}
        self.marked: dict[str, tuple[IPAddress, ...]] = {}
        """IP configurations that are kept back, with their addresses."""
        self.withdrawn_at: dict[str, int] = {}
        """Of those that are not offered any more: the generation that said so."""
        self.is_silent = False
        self.keeps_marks = True
        self.extra: dict[str, Any] = {}
        """Fields of another version of the agent."""
        self.without: tuple[str, ...] = ()
        """Fields that an older one does not have."""
        self._written = 0.0
        self._renewals = 0
        api.put("Nodes", name, {"spec": {"providerID": f"azure://{machine.resource_id}"}})
        self._publish(self.spec)

    def guarded(self) -> tuple[frozenset[Any], frozenset[Any]]:
        """Addresses that pods hold, and those that are kept back."""
        with self.lock:
            return frozenset(self.held.values()), frozenset(ip for ips in self.marked.values() for ip in ips)

    def step(self) -> None:
        if self.is_silent:
            return
        with self.lock:
            if not self.api.has(self.name):
                self._publish(self.spec)
                return
            node = exchange.read(self.api.node(self.name))
            self._step(node)

    def _step(self, node: exchange.AzvnetNode) -> None:
        status = node.status
        there = {
            e.name: e.addresses for e in status.configurations if not e.primary and e.state == "Succeeded"
        }
        for name in [*self.marked]:
            if name not in there and name not in status.releasing:
                del self.marked[name]
                self.withdrawn_at.pop(name, None)
        offered = self._offers(node, there)
        kept = {ip for ips in self.marked.values() for ip in ips}
        usable = sorted({ip for ips in there.values() for ip in ips} - kept)
        self._run_pods(usable)
        free = [ip for ip in usable if ip not in self.held.values()]
        pool = PoolReport(
            held=len(self.held),
            free=len(free),
            releasing=len(kept),
            waiting=max(0, self.pods - len(self.held)),
        )
        spec = replace(self.spec, pool=pool, seen=status.revision, releasing=offered)
        due = self.clock() - self._written >= self.renew
        if spec != replace(self.spec, renew_time=self.spec.renew_time) or due:
            self._publish(spec)

    def _offers(self, node: exchange.AzvnetNode, there: dict[str, tuple[IPAddress, ...]]) -> tuple[str, ...]:
        status = node.status
        if status.surplus and not self.marked:
            held = set(self.held.values())
            ours = {e.name for e in status.configurations if e.is_ours}
            units = [Unit(n, ips) for n, ips in there.items() if n in ours and not held & set(ips)]
            self.marked = {unit.name: unit.addresses for unit in leaving(units, status.surplus)}
        if not status.surplus:
            for name in self.marked.keys() - set(status.releasing) - self.withdrawn_at.keys():
                self.withdrawn_at[name] = node.generation + 1
        for name in status.releasing:
            self.withdrawn_at.pop(name, None)
        for name, generation in [*self.withdrawn_at.items()]:
            if name not in status.releasing and status.observed_generation >= generation:
                del self.withdrawn_at[name], self.marked[name]
        return tuple(sorted(self.marked.keys() - self.withdrawn_at.keys()))

    def _run_pods(self, usable: list[IPAddress]) -> None:
        for number in [n for n in self.held if n >= self.pods]:
            del self.held[number]
        for number in range(self.pods):
            if number not in self.held:
                free = next((ip for ip in usable if ip not in self.held.values()), None)
                if free is None:
                    return
                self.held[number] = free

    def lose_marks(self) -> None:
        """The store is lost, and with it what was kept back."""
        with self.lock:
            self.marked.clear()
            self.withdrawn_at.clear()

    def _publish(self, spec: NodeSpec) -> None:
        self._renewals += 1
        self._written = self.clock()
        self.spec = replace(spec, renew_time=f"2026-01-01T00:00:00.{self._renewals:06d}Z")
        document = exchange.SPEC.write(self.spec) | self.extra
        for field in self.without:
            document.pop(field, None)
        self.api.write_spec(self.name, document)
