"""A cluster with its Azure, in fast motion: an API server, agents, and operators that come and go."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from ipam.operator import arm_pipeline
from ipam.operator.common import Common
from ipam.operator.leader import Elector
from ipam.operator.settings import Settings
from ipam.operator.term import Term
from ipam.operator.turns import Stopped
from ipam.provision import exchange
from ipam.provision.exchange import Machine, NodeStatus
from ipam.provision.plan import Sizes
from ipam.provision.progress import IDLE
from ipam.sources import Endpoints
from tests.unit.operator.agent import Agent
from tests.unit.operator.api_server import ApiServer, View
from tests.unit.operator.azure_service import AzureService
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

FAST = 20.0
"""A second of the operator's time takes a twentieth of one."""
SIZES = Sizes(low=2, batch=4, high=8, shrink_after=30.0)
LEASE_SECONDS = 15.0
PATIENCE = 60.0


def clock() -> float:
    return time.monotonic() * FAST


class FastCommon(Common):
    """The time of a test."""

    def wait(self, seconds: float) -> None:
        if self.ended.wait(seconds / FAST) or not self.leads():
            raise Stopped


class Mortal:
    """Counts what an operator asks of others, and kills it at one of these requests."""

    def __init__(self) -> None:
        self.asked = 0
        self.kill_at: int | None = None
        """The number of the request that is carried out, and whose answer is not seen any more."""
        self.killed_by = ""
        """Its method."""
        self.is_dead = threading.Event()
        self.gates: dict[str, threading.Event] = {}
        """A request of that method waits for the event before it leaves."""
        self.at_gate = threading.Event()
        self.is_over = threading.Event()
        """The test ends: threads that belong to a dead process may end as well."""
        self._lock = threading.Lock()

    def request(self, method: str, send: Callable[[], Any]) -> Any:
        with self._lock:
            self.asked += 1
            is_last = self.asked == self.kill_at
        self.live()
        gate = self.gates.get(method)
        if gate is not None:
            self.at_gate.set()
            gate.wait()
        answer = send()
        if is_last:
            self.killed_by = method
            self.is_dead.set()
        self.live()
        return answer

    def live(self) -> None:
        """A dead process does nothing any more."""
        if self.is_dead.is_set():
            self.is_over.wait()
            raise Stopped


class MortalView(View):
    """The API server, as an operator that may be killed reaches it."""

    def __init__(self, server: ApiServer, life: Mortal) -> None:
        super().__init__(server)
        self._life = life

    def reach(self) -> None:
        super().reach()
        self._life.live()

    def write_status(self, name: str, changed: Any, version: str) -> Any:
        write = super().write_status
        return self._life.request("PATCH", lambda: write(name, changed, version))

    def delete(self, name: str, uid: str, version: str) -> None:
        delete = super().delete
        self._life.request("DELETE", lambda: delete(name, uid, version))


class MortalRequests:
    """``arm_client.Requests`` of an operator that may be killed."""

    def __init__(self, requests: Any, life: Mortal) -> None:
        self._requests, self._life = requests, life

    def ask(self, method: str, where: str, body: Any, etag: str) -> Any:
        return self._life.request(method, lambda: self._requests.ask(method, where, body, etag))


class RunningOperator:
    """One of several operators."""

    def __init__(self, world: World, name: str, settings: Settings) -> None:
        self.life = Mortal()
        self.view = MortalView(world.api, self.life)
        self.told: list[tuple[str, str]] = []
        self.counters: Counter[str] = Counter()
        self.term: Term | None = None
        self._settings = settings
        self._stop = threading.Event()
        self.elector = Elector(
            self.view.lease(settings.lease), name, LEASE_SECONDS, clock, lambda *said: self.told.append(said)
        )
        self.frozen = False
        """As if the process were stopped: it renews nothing, and what it asked before goes on."""
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._elect, self._lead)]
        for each in self._threads:
            each.start()

    def _elect(self) -> None:
        while not self._stop.is_set() and not self.life.is_dead.is_set():
            if not self.frozen:
                self.elector.step()
            self._stop.wait(self.elector.pause / FAST)

    def _lead(self) -> None:
        while not self._stop.wait(0.01):
            number = self.elector.term
            if not self.elector.leads:
                continue

            def leads(number: int = number) -> bool:
                return self.elector.leads and self.elector.term == number

            view: Any = self.view
            common = FastCommon(
                self._settings,
                view,
                leads,
                clock,
                lambda level, text: self.told.append((level, text)),
                self.counters,
            )
            self.term = Term(common)
            pipeline = self.term.azure._pipeline

            def mortal(place: Any, pipeline: Any = pipeline) -> Any:
                return MortalRequests(pipeline(place), self.life)

            self.term.azure._pipeline = mortal  # type: ignore[method-assign]
            self.term.run(self._stop)
            self.term = None

    def stop(self) -> None:
        self._stop.set()
        self.life.is_over.set()
        for gate in self.life.gates.values():
            gate.set()
        for each in self._threads:
            each.join(5)
        if not self.life.is_dead.is_set():
            self.elector.release()


class World:
    """Everything; ``operators`` and ``agents`` by name."""

    def __init__(self, azure: AzureService) -> None:
        self.azure = azure
        self.api = ApiServer()
        self.agents: dict[str, Agent] = {}
        self.operators: dict[str, RunningOperator] = {}
        self._stop = threading.Event()
        self._stepping = threading.Thread(target=self._step, daemon=True)
        azure.witness.holders = self._holders
        self._stepping.start()

    def _holders(self, node: str) -> tuple[frozenset[Any], frozenset[Any]]:
        agent = self.agents.get(node)
        return agent.guarded() if agent is not None else (frozenset(), frozenset())

    def _step(self) -> None:
        while not self._stop.wait(0.02):
            for agent in [*self.agents.values()]:
                agent.step()

    def machine(self, node: str, **more: str) -> Machine:
        estate = self.azure.estate
        vm = estate.vm(node)
        said = {
            "resource_id": self.azure.machine_id(node),
            "vm_id": vm.vm_id,
            "environment": estate.environment,
            "location": estate.location,
        }
        return Machine(**{**said, **more})

    def agent(self, node: str, sizes: Sizes = SIZES, **more: str) -> Agent:
        made = Agent(self.api, node, self.machine(node, **more), sizes, clock)
        self.agents[node] = made
        return made

    def operator(self, name: str = "a", **settings: Any) -> RunningOperator:
        document = {
            "arm": {
                "base_url": self.azure.url,
                "ca_file": str(self.azure.ca_file),
                "credential": "managed-identity",
            },
            "budget": {"first_poll_seconds": 0, **settings.pop("budget", {})},
            "grace_seconds": 60,
            "workers": 16,
            **settings,
        }
        made = RunningOperator(self, name, Settings.of(document))
        self.operators[name] = made
        return made

    def status(self, node: str) -> NodeStatus:
        return exchange.read(self.api.node(node)).status

    def says(self, node: str, state: str) -> bool:
        return self.api.has(node) and self.status(node).state == state

    def settled(self, *agents: Agent) -> None:
        """Wait until every pod has an address, and nothing is under way."""
        for agent in agents:
            self.soon(lambda agent=agent: len(agent.held) == agent.pods)  # type: ignore[misc]
            self.soon(lambda agent=agent: self.says(agent.name, IDLE) and not agent.marked)  # type: ignore[misc]
        for agent in agents:
            status = self.status(agent.name)
            assert status.operation is None
            assert not status.releasing
            assert {e.name for e in status.configurations if e.is_ours} == set(self.azure.names(agent.name))

    def soon(self, what: Callable[[], object]) -> None:
        """Wait until something is so; a failure says what everybody said."""
        eventually(lambda: bool(what()), self._told, patience=PATIENCE)

    def _told(self) -> str:
        lines = [f"{name}: {said}" for name, each in self.operators.items() for said in each.told[-30:]]
        lines += [f"{name}: {self.api.node(name)}"[:3000] for name in self.agents if self.api.has(name)]
        return "\n".join(lines)

    def close(self) -> None:
        for each in self.operators.values():
            each.stop()
        self._stop.set()
        self._stepping.join(5)


@contextlib.contextmanager
def world(folder: Path, monkeypatch: pytest.MonkeyPatch, **azure: Any) -> Iterator[World]:
    """A world; at its end nothing may have been done that must not be done."""
    with AzureService(folder, **azure) as service:
        monkeypatch.setattr(arm_pipeline, "AZURE", Endpoints(imds=service.imds))
        made = World(service)
        try:
            yield made
        finally:
            made.close()
        assert not service.witness.broken, service.witness.broken
