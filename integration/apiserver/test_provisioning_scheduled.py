"""A node that grows its NIC by the pods that are scheduled to it, before they ask.

The frozen agent with the role of the chart, a real API server, the emulated Azure. No kubelet runs: a pod is
bound, and the test asks for its address or does not.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from integration.apiserver.operator_place import chart
from integration.fabric.documents import vm_id
from integration.provisioned import NodeOfCluster
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster.apiserver import ApiServer
    from integration.fabric import Fabric

PATIENCE = 120.0
SCENES = ("burst", "many", "refused", "away", "other")
PODS, ROLES = "/api/v1/namespaces/default/pods", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
UNKNOWN = "it is not known which pods are scheduled to this node"

pytestmark = [pytest.mark.xdist_group("scheduled"), pytest.mark.timeout(600)]


def prepare(server: ApiServer) -> None:
    """What the fixture ``server`` has in it."""
    server.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    server.give_role("azvnet", _rules(), "kube-system", "azvnet")


def _rules() -> list[dict[str, Any]]:
    """What the chart lets agents do that write their own NICs."""
    shown = yaml.safe_load_all(chart("--set=agent.provision.mode=node"))
    (role,) = (each for each in shown if each and each["kind"] == "ClusterRole")
    rules: list[dict[str, Any]] = role["rules"]
    return rules


class Scene(NodeOfCluster):
    """One node, and what is bound to it."""

    def bind(self, number: int, *, size: int = 0, **more: Any) -> None:
        """Pods as the scheduler leaves them; ``size``: bytes that nobody here reads."""
        for each in range(number):
            self.server.api.create(
                PODS,
                {
                    "metadata": {
                        "name": f"{self.name}-pod-{each}",
                        "annotations": {"more": "x" * size},
                    },
                    "spec": {
                        "nodeName": self.name,
                        "automountServiceAccountToken": False,
                        "containers": [{"name": "main", "image": "none.invalid/none"}],
                        **more,
                    },
                },
            )

    def puts(self) -> int:
        """PUTs of this machine that were accepted."""
        sent = self.fabric.arm.log.entries(kind="PUT", status=200, source=str(self.machine.primary_ip))
        return len(sent)

    def asked_of_azure(self) -> int:
        return len(self.fabric.arm.log.entries(source=str(self.machine.primary_ip)))

    def at_rest(self) -> None:
        eventually(lambda: self.free >= 2 and self.says("idle"), "it is at rest", patience=PATIENCE)

    def requests(self, method: str, resource: str, code: str, to: str = "api") -> float:
        labels = f'code="{code}",method="{method}",resource="{resource}"'
        for each in (labels, f'method="{method}",resource="{resource}",code="{code}"'):
            found = self.metric(f"azvnet_provision_{to}_requests_total{{{each}}}")
            if not math.isnan(found):
                return found
        return 0.0

    def sees(self, number: int) -> None:
        """Wait until the agent counts so many pods that have no address yet."""
        name = "azvnet_provision_coming_pods"
        eventually(lambda: self.metric(name) == number, lambda: str(self.metric(name)), patience=PATIENCE)

    def problems(self) -> str:
        return " ".join(self.status()["problems"])


@pytest.fixture
def node(request: pytest.FixtureRequest, fabric: Fabric, server: ApiServer) -> Iterator[Scene]:
    scene = request.param
    name = f"node{SCENES.index(scene) + 1}"
    owner = fabric.nodes["node1" if scene == "other" else name]
    account = "refused" if scene == "refused" else "azvnet"
    where = f"azure://{vm_id(fabric.estate, owner.vm)}"
    made = Scene(fabric, server, name, account=account, provider_id=where)
    yield made
    made.end()
    fabric.arm.operations.release()
    assert made.nothing_was_dropped()


def of(scene: str) -> pytest.MarkDecorator:
    """Which node it is told on."""
    return pytest.mark.parametrize("node", [scene], indirect=True)


@of("burst")
def test_a_burst_of_pods_is_written_for_before_the_first_of_them_asks(node: Scene) -> None:
    node.start()
    node.at_rest()
    node.sees(0)
    before = node.puts()
    node.bind(30)
    eventually(lambda: node.puts() > before, "the NIC is written", patience=PATIENCE)
    assert node.pods == {}, "no pod has asked"
    eventually(lambda: node.free >= 30, "addresses for all of them are there", patience=PATIENCE)
    assert node.puts() <= before + 2, "a write is for as many as were bound when it began"
    node.sees(30)
    for number in range(30):
        node.add(f"{node.name}-pod-{number}").done()
    node.sees(0)
    assert node.reaches_the_network(f"{node.name}-pod-29")
    assert node.requests("LIST", "pods", "200") >= 1
    assert node.requests("GET", "nodes", "200") >= 1
    assert node.requests("PUT", "networkInterfaces", "200", "arm") == node.puts()
    assert node.metric('azvnet_problems{kind="demand"}') == 0


@of("many")
def test_a_full_node_of_large_pods_takes_no_more_memory_than_the_agent_may(node: Scene) -> None:
    """250 pods of 40 kB: several times what pods usually are. Those of the host's network do not count."""
    node.bind(250, size=40_000, hostNetwork=True)
    node.start()
    node.at_rest()
    eventually(lambda: node.requests("LIST", "pods", "200") >= 1, "they were listed", patience=PATIENCE)
    node.sees(0)
    assert node.resident_bytes < 110 << 20


@of("refused")
def test_without_the_role_pods_get_addresses_when_they_ask_and_the_node_says_why(node: Scene) -> None:
    node.start()
    eventually(lambda: UNKNOWN in node.problems(), "the problem is told", patience=PATIENCE)
    assert "ClusterRole of the chart" in node.problems()
    assert node.says(UNKNOWN)
    eventually(lambda: node.metric('azvnet_problems{kind="demand"}') == 1, "and counted", patience=PATIENCE)
    node.bind(10)
    for number in range(2):
        node.add(f"{node.name}-pod-{number}").done()
    assert "addresses are on the way" in node.add(f"{node.name}-pod-2").document["msg"]
    eventually(lambda: node.add(f"{node.name}-pod-2").ok, "it gets one as before", patience=PATIENCE)
    assert node.logged("is forbidden")
    subject = {"kind": "ServiceAccount", "namespace": "kube-system", "name": "refused"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "azvnet"}
    node.server.create(ROLES, {"metadata": {"name": "refused"}, "roleRef": role, "subjects": [subject]})
    eventually(lambda: UNKNOWN not in node.problems(), "with the role it is over", patience=PATIENCE)
    eventually(lambda: node.logged("it is known again"), "which is logged", patience=PATIENCE)
    eventually(lambda: node.free >= 7, "and those that are bound have addresses", patience=PATIENCE)


@of("away")
def test_without_the_api_server_growth_goes_by_what_asks_and_the_node_says_so(node: Scene) -> None:
    node.start()
    node.at_rest()
    node.server.stop()
    try:
        eventually(lambda: UNKNOWN in node.problems(), "it is told after a minute", patience=PATIENCE)
        coming = "azvnet_provision_coming_pods"
        eventually(lambda: math.isnan(node.metric(coming)), "it counts none, not zero", patience=PATIENCE)
        for number in range(2):
            node.add(f"{node.name}-pod-{number}").done()
        node.add(f"{node.name}-pod-2")
        eventually(lambda: node.add(f"{node.name}-pod-2").ok, "the NIC grows all the same", patience=PATIENCE)
    finally:
        node.server.start()
    eventually(lambda: UNKNOWN not in node.problems(), "it goes on by itself", patience=PATIENCE)
    node.bind(20)
    eventually(lambda: node.free >= 18, "what is bound counts again", patience=PATIENCE)


@of("other")
def test_a_node_whose_provider_id_is_another_machine_is_not_written_and_says_so(node: Scene) -> None:
    node.start(minimum=12)
    eventually(lambda: node.says("other-machine"), "the state is told", patience=PATIENCE)
    assert "The Node's providerID" in node.problems()
    for number in range(2):
        node.add(f"{node.name}-pod-{number}").done()
    refused = node.add(f"{node.name}-late")
    assert "no more addresses can be added now (other-machine)" in refused.document["msg"]
    assert node.asked_of_azure() == 0, json.dumps(node.status())
