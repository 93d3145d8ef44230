"""Operator and agent with the rights that the chart gives them: they work, and use every one of them.

The frozen programs with the chart's settings and roles, a real API server with its audit log, and the
emulated Azure, which refuses whatever the role of conf/azure does not allow.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from integration.apiserver.operator_place import (
    AGENT,
    NAMESPACE,
    OPERATOR,
    ROOT,
    Place,
    Use,
    applied,
    chart,
    node_of,
)
from integration.cluster.apiserver import AZVNET_NODES
from integration.cluster.controlplane import PORT
from integration.cluster.program import put
from integration.fabric import Fabric
from integration.fabric.armroles import NIC
from integration.fabric.machine import CA_FILE
from integration.plugins import BIN, install_ours
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PROGRAM = ROOT / "dist/azvnet-operator/azvnet"
PATIENCE = 120.0
SIZES = {
    "minimum": 0,
    "batch": 4,
    "low": 2,
    "high": 8,
    "maximum": 50,
    "shrinkAfterSeconds": 600,
    "prefixes": False,
}

pytestmark = [pytest.mark.xdist_group("operator-rights"), pytest.mark.timeout(600)]


class Run:
    """The operator on a machine of the fabric, and a node of which no more than its agent's word is there."""

    def __init__(self, fabric: Fabric, place: Place, folder: Any) -> None:
        self.fabric = fabric
        self.place = place
        self.log = folder / "operator.log"
        self._machine = fabric.nodes["node1"]
        self._writer = place.writer()
        self._program: subprocess.Popen[str] | None = None
        self._turn = 0

    def start(self) -> None:
        """As its pod, but with a kubeconfig, and in a hurry."""
        (shown,) = (
            each["data"]["operator.json"]
            for each in yaml.safe_load_all(chart())
            if each and (each["kind"], each["metadata"]["name"]) == ("ConfigMap", OPERATOR)
        )
        settings = json.loads(shown)
        settings["arm"] |= {"credential": "managed-identity", "ca_file": CA_FILE}
        settings["lease"]["namespace"] = NAMESPACE
        settings |= {"kubeconfig": "/etc/azvnet/kubeconfig", "grace_seconds": 3, "log_level": "debug"}
        settings["budget"]["first_poll_seconds"] = 0.5
        access = json.loads(self.place.server.control.kubeconfig("nobody"))
        access["users"][0]["user"] = {"token": self.place.account(OPERATOR).token}
        put(self._machine, "/etc/azvnet/kubeconfig", json.dumps(access))
        put(self._machine, "/etc/azvnet/operator.json", json.dumps(settings))
        with self.log.open("w") as log:
            self._program = self._machine.popen(
                [str(PROGRAM), "operator", "--config", "/etc/azvnet/operator.json"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/bin:/bin"},
            )

    @contextlib.contextmanager
    def agent(self) -> Iterator[None]:
        """The agent of the node as in its pod: the chart's settings, its own node's name and token."""
        (shown,) = (
            each["data"]["agent.json"]
            for each in yaml.safe_load_all(chart("--set=network.source=imds"))
            if each and (each["kind"], each["metadata"]["name"]) == ("ConfigMap", AGENT)
        )
        settings = json.loads(shown)
        del settings["conflist"]  # no runtime is on this node
        settings["masquerade"]["file"] = ""
        install_ours(self._machine)
        put(self._machine, "/etc/azvnet/agent.json", json.dumps(settings))
        token = self.place.server.token(NAMESPACE, AGENT, "node1")
        put(self._machine, f"{ACCOUNT}/token", token)
        put(self._machine, f"{ACCOUNT}/ca.crt", self.place.server.control.authority.certificate)
        address = self.place.server.control.address
        with self.log.open("w") as log:
            program = self._machine.popen(
                [f"{BIN}/azvnet", "agent", "--config", "/etc/azvnet/agent.json"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "NODE_NAME": "node1",
                    "KUBERNETES_SERVICE_HOST": str(address),
                    "KUBERNETES_SERVICE_PORT": str(PORT),
                },
            )
        try:
            yield
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(30)

    def end(self) -> int:
        """SIGTERM, and its exit code."""
        program, self._program = self._program, None
        if program is None:
            return 0
        program.send_signal(signal.SIGTERM)
        return program.wait(30)

    def says(self, **pool: int) -> None:
        """What the agent says, with what it has seen of the status."""
        self._turn += 1
        change = {
            "spec": {"seen": self.status.get("revision", 0), "renewTime": str(self._turn), "pool": pool}
        }
        assert self._writer.patch("node1", change) == ""

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.place.node("node1").get("status", {})
        return found

    @property
    def ours(self) -> list[str]:
        """IP configurations of the NIC that azvnet named."""
        configurations = self._machine.vm.primary_nic.configurations
        return [each.name for each in configurations if each.name.startswith("azvnet-")]

    def await_use(self, *use: str, waiting: int) -> None:
        """Wait until the operator has used a right, while so many pods wait."""

        def used() -> bool:
            self.says(held=2, free=0, waiting=waiting)
            return use in self.place.used(OPERATOR)

        eventually(used, lambda: f"{use}: {self.log.read_text()[-3000:]}", patience=PATIENCE, pause=0.5)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    assert PROGRAM.exists(), "run: make operator"
    folder = tmp_path_factory.mktemp("audit")
    fabric = Fabric(nodes=1, addresses=2, vnet_hosts=1, imds_limit=None)
    with fabric, applied(fabric, folder) as place, contextlib.ExitStack() as stack:
        fabric.arm.roles.give(json.loads((ROOT / "conf/azure/role.json").read_text())["Actions"])
        made = Run(fabric, place, folder)
        stack.callback(made.end)
        yield made


def granted(*names: str) -> set[Use]:
    """What these roles of the chart allow."""
    found = set()
    for each in yaml.safe_load_all(chart()):
        if each and each["kind"] in {"ClusterRole", "Role"} and each["metadata"]["name"] in names:
            where = each["metadata"].get("namespace", "")
            for rule in each["rules"]:
                found |= {
                    (verb, group, resource, where)
                    for verb in rule["verbs"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                }
    return found


def machine_of(run: Run) -> dict[str, str]:
    """The machine of the node as its metadata service names it."""
    asked = ["curl", "-sf", "--header", "Metadata: true"]
    url = "http://169.254.169.254/metadata/instance/compute?api-version=2021-02-01"
    shown = json.loads(run.fabric.nodes["node1"].run([*asked, url]).stdout)
    names = {
        "resourceId": "resourceId",
        "vmId": "vmId",
        "environment": "azEnvironment",
        "location": "location",
    }
    return {ours: shown[theirs] for ours, theirs in names.items()}


def test_the_operator_uses_every_right_that_the_chart_gives_it_and_needs_no_other(run: Run) -> None:
    run.place.server.add_node("node1")
    run.place.server.api.create(AZVNET_NODES, node_of("node1", machine=machine_of(run), sizes=SIZES))
    run.start()
    eventually(lambda: run.status.get("revision"), lambda: run.log.read_text()[-3000:], patience=PATIENCE)

    def grown() -> bool:
        run.says(held=2, free=0, waiting=3)
        return bool(run.ours)

    eventually(grown, lambda: run.log.read_text()[-3000:], patience=PATIENCE)

    run.fabric.arm.roles.take(f"{NIC}/write")

    run.await_use("create", "", "events", "default", waiting=40)

    run.fabric.arm.roles.give(json.loads((ROOT / "conf/azure/role.json").read_text())["Actions"])
    run.place.server.api.delete("/api/v1/nodes/node1")
    eventually(
        lambda: not run.place.server.api.get(AZVNET_NODES)["items"] and not run.ours,
        lambda: run.log.read_text()[-3000:],
        patience=PATIENCE,
    )
    assert run.end() == 0
    assert run.place.used(OPERATOR) == granted(OPERATOR, f"{OPERATOR}-events")


def test_an_agent_uses_every_right_that_the_chart_gives_it_and_needs_no_other(run: Run) -> None:
    run.place.server.add_node("node1")
    with run.agent():
        eventually(
            lambda: run.place.server.api.get(AZVNET_NODES)["items"],
            lambda: run.log.read_text()[-3000:],
            patience=PATIENCE,
        )
        spec = run.place.node("node1")["spec"]
        assert machine_of(run).items() <= spec["machine"].items()
        status = {
            "revision": 1,
            "state": "idle",
            "lastReadTime": "2026-01-01T00:00:00Z",
            "observedGeneration": run.place.node("node1")["metadata"]["generation"],
        }
        assert run.place.account(OPERATOR).patch("node1/status", {"status": status}) == ""
        eventually(
            lambda: run.place.node("node1")["spec"].get("seen") == 1,
            lambda: run.log.read_text()[-3000:],
            patience=PATIENCE,
        )
        assert run.place.node("node1")["spec"]["renewTime"] != spec["renewTime"]
    assert run.place.used(AGENT) == granted(AGENT)
