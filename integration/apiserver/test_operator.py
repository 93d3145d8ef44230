"""``azvnet operator`` as a process of its own: a real API server, the real SDK, the emulated Azure.

Agents are played, and keep to the agreement. Whatever happens to operators, a witness looks at every change
of every NIC: nothing that is not ours, no address of a pod, none that a pod could be given.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.cluster.api import ApiError
from integration.cluster.apiserver import AZVNET_NODES, ApiServer
from integration.cluster.program import put
from integration.fabric import Fabric
from integration.fabric.armoperations import Outcome
from integration.fabric.documents import vm_id
from integration.fabric.machine import CA_FILE
from integration.fabric.model import State
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

pytestmark = pytest.mark.timeout(900)


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


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as undo:
        fabric = undo.enter_context(Fabric(nodes=3, addresses=2, vnet_hosts=1))
        fabric.arm.roles.give("nic-writer")
        server = undo.enter_context(ApiServer(fabric.vnet_hosts["vm1"], tmp_path))
        server.define_azvnet_nodes()
        server.give_role("azvnet-operator", RULES, "kube-system", "azvnet-operator")
        made = Site(fabric, server, tmp_path)
        undo.callback(made.close)
        yield made
        assert not made.witness.broken, made.witness.broken


def test_nodes_grow_and_shrink_and_the_pages_say_so(site: Site) -> None:
    operator = site.operator()
    site.scale(9)
    site.settled()
    site.soon(lambda: operator.page("readyz") == "ready\n")
    assert operator.page("healthz") == "ok\n"
    assert 'azvnet_operator_writes_total{outcome="ok"} 3.0' in operator.page("metrics")
    before = {name: len(site.names(name)) for name in site.agents}
    site.scale(1)
    site.soon(lambda: all(len(site.names(name)) < before[name] for name in site.agents))
    site.settled()
    assert operator.end() == 0


def test_operators_that_are_killed_and_stopped_are_followed_without_a_loss(site: Site) -> None:
    running = [site.operator(), site.operator()]
    for pods in (12, 1, 12):
        site.soon(lambda: any(each.leads for each in running))
        leader = next(each for each in running if each.leads)
        writes = site.fabric.arm.log.count("PUT")
        site.scale(pods)
        site.soon(lambda writes=writes: site.fabric.arm.log.count("PUT") > writes)  # type: ignore[misc]
        leader.end(signal.SIGKILL)
        running.remove(leader)
        running.append(site.operator())
        site.settled()


def test_a_leader_that_is_stopped_until_another_leads_does_no_harm_when_it_goes_on(site: Site) -> None:
    first = site.operator()
    site.soon(lambda: first.leads)
    second = site.operator()
    site.scale(12)
    site.settled()
    writes = site.fabric.arm.log.count("PUT")
    site.scale(1)
    site.soon(lambda: site.fabric.arm.log.count("PUT") > writes)
    first.process.send_signal(signal.SIGSTOP)
    site.soon(lambda: second.leads)
    first.process.send_signal(signal.SIGCONT)
    site.settled()
    assert not first.leads
    assert second.end() == 0  # gives the lease back
    site.soon(lambda: first.leads)
    site.scale(12)
    site.settled()


def test_without_the_api_server_nothing_is_written_and_afterwards_it_goes_on(site: Site) -> None:
    operator = site.operator()
    site.scale(3)
    site.settled()
    site.server.stop()
    site.soon(lambda: not operator.leads)
    writes = site.fabric.arm.log.count("PUT")
    site.scale(12)
    assert operator.page("healthz") == "ok\n"
    site.server.start()
    assert site.fabric.arm.log.count("PUT") == writes
    site.settled()


def test_azure_throttles_fails_late_and_is_away(site: Site) -> None:
    operator = site.operator()
    site.scale(3)
    site.settled()
    site.fabric.arm.faults.throttle(8, 1, ("PUT", "GET", "poll"))
    site.fabric.arm.operations.outcomes.append(Outcome(State.FAILED, "InternalServerError", "no"))
    site.scale(9)
    site.settled()
    assert 'azvnet_operator_throttled_total{kind="' in operator.page("metrics")
    site.fabric.fault("arm", refused=True)
    site.scale(14)
    site.soon(lambda: all(site.status(name).state == "unreachable" for name in site.agents))
    site.fabric.clear_faults("arm")
    site.settled()


def test_what_a_deleted_node_had_is_taken_away(site: Site) -> None:
    site.operator()
    site.scale(5)
    site.settled()
    agent = site.agents["node3"]
    with agent.lock:
        agent.is_silent = True
        agent.held.clear()  # nothing runs there any more
        agent.marked = {e.name: e.addresses for e in site.status("node3").configurations}
    site.server.api.delete("/api/v1/nodes/node3")
    site.soon(lambda: not site.kube.has("node3"))
    assert not site.names("node3")
    del site.agents["node3"]
    site.settled()


def test_a_frozen_agent_and_a_frozen_operator_give_pods_addresses_and_take_them_back(
    tmp_path: Path,
) -> None:
    """Nothing is played here: pods of a real node, whose agent has no rights in Azure."""
    with contextlib.ExitStack() as undo:
        fabric = undo.enter_context(Fabric(nodes=1, addresses=0, vnet_hosts=1, imds_limit=None))
        fabric.arm.roles.give("nic-writer")
        server = undo.enter_context(ApiServer(fabric.vnet_hosts["vm1"], tmp_path))
        server.define_azvnet_nodes()
        server.give_role("azvnet-operator", RULES, "kube-system", "azvnet-operator")
        server.give_role("azvnet", AGENT_RULES, "kube-system", "azvnet")
        node = FollowingNode(fabric, server)
        undo.callback(node.end)
        site = Site(fabric, server, tmp_path, played=False)
        undo.callback(site.close)
        site.witness.looks = False  # who holds what is known to the agent alone; the drop counter judges
        site.operator()
        for number in range(10):
            eventually(
                lambda name=f"pod-{number}": node.add(name).ok,  # type: ignore[misc]
                lambda: f"{node.status()} {site.status('node1')} {site.operators[0].log.read_text()}",
                patience=PATIENCE,
            )
        assert all(node.reaches_the_network(pod) for pod in node.pods)
        before = len(node.ours)
        for number in range(1, 10):
            node.delete(f"pod-{number}")
        site.soon(lambda: len(node.ours) < before)
        site.soon(lambda: site.status("node1").state == IDLE and not site.status("node1").releasing)
        assert node.reaches_the_network("pod-0")
        assert node.nothing_was_dropped()
        eventually(lambda: node.add("pod-late").ok, "what is left is given out", patience=PATIENCE)
