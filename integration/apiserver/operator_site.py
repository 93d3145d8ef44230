"""A fabric with an API server, agents that are played, and ``azvnet operator`` as processes of their own.

Owns starting, killing and looking at them, and a witness of every change of a NIC. It must not know what is
tested with them.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from integration.cluster.api import ApiError
from integration.cluster.apiserver import AZVNET_NODES, ApiServer
from integration.cluster.program import put
from integration.fabric import Fabric
from integration.fabric.armanswers import error
from integration.fabric.armlog import POLL
from integration.fabric.documents import vm_id
from integration.fabric.machine import CA_FILE
from integration.plugins import operator_bundle
from integration.provisioned import ProvisionedNode
from ipam.provision import exchange
from ipam.provision.exchange import Machine, NodeStatus
from ipam.provision.nic_document import named_by_us
from ipam.provision.plan import Sizes
from ipam.provision.progress import IDLE
from tests.unit.operator.agent import Agent
from tests.unit.operator.witness import Witness
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.fabric.model import Estate
    from integration.fabric.web import Request, Response

SIZES = Sizes(low=2, batch=4, high=8, shrink_after=2.0)
LEASE_SECONDS = 4
PATIENCE = 120.0
"""Seconds, on a machine that may be ten times slower."""
RULES: list[dict[str, Any]] = [
    {"apiGroups": ["azvnet.io"], "resources": ["azvnetnodes"], "verbs": ["list", "watch", "delete"]},
    {"apiGroups": ["azvnet.io"], "resources": ["azvnetnodes/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
]
"""As docs/operator.md lists them."""
AGENT_RULES: list[dict[str, Any]] = [
    {
        "apiGroups": ["azvnet.io"],
        "resources": ["azvnetnodes"],
        "verbs": ["create", "get", "list", "watch", "patch", "update"],
    }
]
TOKEN, AUTHORITY = "/etc/azvnet/token", "/etc/azvnet/cluster-ca.crt"


class Kube:
    """The API server as agents use it: what ``Agent`` asks for."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def has(self, name: str) -> bool:
        return any(each["metadata"]["name"] == name for each in self._list())

    def node(self, name: str) -> dict[str, Any]:
        return self._server.api.get(f"{AZVNET_NODES}/{name}")

    def put(self, kind: str, name: str, document: dict[str, Any]) -> None:
        assert kind == "Nodes"
        self._server.add_node(name, document["spec"].get("providerID", ""))

    def write_spec(self, name: str, spec: dict[str, Any]) -> None:
        body: dict[str, Any] = {
            "apiVersion": exchange.API_VERSION,
            "kind": exchange.KIND,
            "metadata": {"name": name},
            "spec": spec,
        }
        try:
            found = self.node(name)
        except ApiError as error:
            if error.status != 404:
                raise
            self._server.api.create(AZVNET_NODES, body)
            return
        body["metadata"] = found["metadata"]
        self._server.api.call("PUT", f"{AZVNET_NODES}/{name}", body)

    def _list(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._server.api.get(AZVNET_NODES)["items"]
        return items


class Site:
    """A fabric with an API server, three nodes whose agents are played, and operators."""

    def __init__(self, fabric: Fabric, server: ApiServer, folder: Path, *, played: bool = True) -> None:
        self.fabric, self.server, self.folder = fabric, server, folder
        self.witness = Witness(lambda: fabric.estate, fabric.arm.change)
        fabric.arm.change = self.witness.change
        self.kube: Any = Kube(server)
        self.agents = {name: self._agent(name) for name in fabric.nodes if played}
        self.witness.holders = self._holders
        self.operators: list[OperatorProcess] = []
        self._token = server.token("kube-system", "azvnet-operator", "node1")
        self._stop = threading.Event()
        self._stepping = threading.Thread(target=self._step, daemon=True)
        self._stepping.start()

    def _agent(self, name: str) -> Agent:
        estate = self.fabric.estate
        vm = estate.vm(name)
        machine = Machine(vm_id(estate, vm), vm.vm_id, estate.environment, estate.location)
        return Agent(self.kube, name, machine, SIZES, time.monotonic, 5.0)

    def _holders(self, node: str) -> tuple[frozenset[Any], frozenset[Any]]:
        agent = self.agents.get(node)
        return agent.guarded() if agent is not None else (frozenset(), frozenset())

    def _step(self) -> None:
        while not self._stop.wait(0.1):
            for agent in [*self.agents.values()]:
                with contextlib.suppress(ApiError):  # it is away, or somebody was faster
                    agent.step()

    def operator(self, **settings: Any) -> OperatorProcess:
        number = len(self.operators)
        config = {
            "arm": {"ca_file": CA_FILE, "credential": "managed-identity"},
            "budget": {"first_poll_seconds": 0},
            "lease": {"seconds": LEASE_SECONDS, "namespace": "kube-system"},
            "grace_seconds": 5,
            "kubeconfig": str(self._kubeconfig()),
            "metrics_address": f"127.0.0.1:{9640 + number}",
            **settings,
        }
        made = OperatorProcess(self, number, config)
        self.operators.append(made)
        return made

    @contextlib.contextmanager
    def killing(self, operator: OperatorProcess, kind: str, *, after: bool) -> Iterator[None]:
        """Kill an operator at its first request to Azure of that kind; ``marks``: when an agent offers some.

        ``after``: when it has been carried out, before it is answered.
        """
        answer, write_spec = self.fabric.arm.answer, self.kube.write_spec

        def answering(request: Request, estate: Estate) -> Response:
            asked = POLL if "/operations/" in request.path else request.method
            is_it = asked == kind and operator.process.poll() is None
            if is_it and not after:
                operator.end(signal.SIGKILL)
                return error(503, "whoever asks for it is dead")
            answered = answer(request, estate)
            if is_it:
                operator.end(signal.SIGKILL)
            return answered

        def writing(name: str, spec: dict[str, Any]) -> None:
            is_it = kind == "marks" and bool(spec.get("releasing"))
            if is_it and not after:
                operator.end(signal.SIGKILL)
            write_spec(name, spec)
            if is_it:
                operator.end(signal.SIGKILL)

        self.fabric.arm.answer = answering  # type: ignore[method-assign]
        self.kube.write_spec = writing
        try:
            yield
        finally:
            self.fabric.arm.answer = answer  # type: ignore[method-assign]
            self.kube.write_spec = write_spec

    def _kubeconfig(self) -> Path:
        path = self.folder / "operator.kubeconfig"
        document = json.loads(self.server.kubeconfig.read_text())
        document["clusters"][0]["cluster"]["server"] = self.server.control.url
        document["users"][0]["user"] = {"token": self._token}
        path.write_text(json.dumps(document))
        return path

    def names(self, node: str) -> list[str]:
        entries = self.fabric.estate.vm(node).nics[0].configurations
        return [each.name for each in entries if named_by_us(each.name)]

    def status(self, node: str) -> NodeStatus:
        return exchange.read(self.kube.node(node)).status

    def scale(self, pods: int) -> None:
        for agent in self.agents.values():
            agent.pods = pods

    def abandon(self, name: str) -> None:
        """Have nothing run on a node any more, and its agent be silent."""
        agent = self.agents[name]
        with agent.lock:
            agent.is_silent = True
            agent.held.clear()
            agent.marked = {each.name: each.addresses for each in self.status(name).configurations}

    def cleared(self, name: str) -> None:
        """Wait until what a node had is gone, and look after it no longer."""
        self.soon(lambda: not self.kube.has(name))
        assert not self.names(name)
        del self.agents[name]

    def soon(self, what: Callable[[], object]) -> None:
        def found() -> bool:
            with contextlib.suppress(ApiError):
                return bool(what())
            return False

        eventually(found, self._told, patience=PATIENCE)

    def settled(self) -> None:
        """Every pod has an address, nothing is under way, and the resources say what the NICs have."""
        for name, agent in self.agents.items():
            self.soon(lambda a=agent: len(a.held) == a.pods and not a.marked)  # type: ignore[misc]
            self.soon(lambda n=name: self._is_settled(n))  # type: ignore[misc]
        assert not self.witness.broken, self.witness.broken

    def _is_settled(self, name: str) -> bool:
        status = self.status(name)
        ours = {each.name for each in status.configurations if each.is_ours}
        quiet = status.state == IDLE and status.operation is None and not status.releasing
        return quiet and ours == set(self.names(name))

    def _told(self) -> str:
        logs = "\n".join(each.log.read_text()[-2500:] for each in self.operators)
        states = [
            (name, len(agent.held), agent.pods, self.status(name).state, self.status(name).text)
            for name, agent in self.agents.items()
        ]
        return f"{states}\n{logs}"

    def close(self) -> None:
        for each in self.operators:
            each.end(signal.SIGKILL)
        self._stop.set()
        self._stepping.join(10)


class OperatorProcess:
    """The frozen operator in a machine of the fabric."""

    def __init__(self, site: Site, number: int, config: dict[str, Any]) -> None:
        self._machine = site.fabric.vnet_hosts["vm1"]
        self._page = config["metrics_address"]
        self.log = site.folder / f"operator-{number}.log"
        path = site.folder / f"operator-{number}.json"
        path.write_text(json.dumps(config))
        with self.log.open("w") as log:
            self.process = self._machine.popen(
                [str(operator_bundle() / "azvnet"), "operator", "--config", str(path)],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        return self.process.wait(60)

    def page(self, name: str) -> str:
        page = ["curl", "-s", "--max-time", "10", f"http://{self._page}/{name}"]
        return self._machine.run(page, check=False).stdout

    @property
    def leads(self) -> bool:
        return "azvnet_operator_leader 1.0" in self.page("metrics")


class FollowingNode(ProvisionedNode):
    """A node with the frozen agent."""

    def __init__(self, fabric: Fabric, server: ApiServer) -> None:
        super().__init__(fabric)
        server.add_node("node1")
        put(self.machine, TOKEN, server.token("kube-system", "azvnet", "node1"))
        put(self.machine, AUTHORITY, server.control.authority.certificate)
        api = {"server": server.control.url, "token_file": TOKEN, "ca_file": AUTHORITY}
        self.start(mode="operator", node_name="node1", api=api, shrink_after_seconds=2)


@contextlib.contextmanager
def site_with_agents(folder: Path) -> Iterator[Site]:
    """Three nodes whose agents are played; at the end no operator may have done any harm."""
    with contextlib.ExitStack() as undo:
        fabric = undo.enter_context(Fabric(nodes=3, addresses=2, vnet_hosts=1))
        fabric.arm.roles.give("nic-writer")
        server = undo.enter_context(ApiServer(fabric.vnet_hosts["vm1"], folder))
        server.define_azvnet_nodes()
        server.give_role("azvnet-operator", RULES, "kube-system", "azvnet-operator")
        made = Site(fabric, server, folder)
        undo.callback(made.close)
        yield made
        assert not made.witness.broken, made.witness.broken
