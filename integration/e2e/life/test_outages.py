"""A node rebooted, its runtime and kubelet killed, the API server away: pods have a network all the same."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from integration import residue
from integration.cluster import Cluster, rollout, wait_until
from integration.e2e.life import agents
from integration.e2e.life.churn import weather
from integration.e2e.life.monitor import Line, Lines, addresses
from integration.e2e.life.storm import idle_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster import Node
    from integration.cluster.api import Api, Object
    from integration.containerd.cri import Pod

pytestmark = pytest.mark.timeout(900)

OUTAGE_SECONDS = float(os.environ.get("AZVNET_E2E_OUTAGE_SECONDS", "20"))
"""For how long the API server is away, at least."""
MANIFESTS = "/etc/kubernetes/manifests"
STATIC = "static"


@pytest.fixture(scope="module")
def life() -> Iterator[Cluster]:
    """A cluster of their own: no other test has to do with what is broken here."""
    with Cluster(2, 16, dns=False, newest_containerd={"node2"}) as made:
        rollout.load(made)
        yield made


def ready_pods(api: Api, path: str) -> dict[str, str]:
    """The pods there that are Ready: name → address."""
    found: list[Object] = api.get(path)["items"]
    return {
        pod["metadata"]["name"]: str(pod["status"]["podIP"])
        for pod in found
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    }


def test_pods_of_a_rebooted_node_have_addresses_again_and_the_old_ones_are_free(
    installed: Cluster, api: Api, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    node2 = installed.nodes["node2"]
    before = residue.snapshot(node2.machine)
    names = [f"boots-{number}" for number in range(4)]
    for name in names:
        api.create(path, idle_pod(name, "node2"))
    api.create(path, idle_pod("stays", "node1"))
    wait_until("all are Ready", lambda: len(ready_pods(api, path)) == len(names) + 1, patience=60)
    stays = ready_pods(api, path)["stays"]
    outside = installed.fabric.vnet_hosts["vm2"]
    with Lines([Line(outside, stays)]) as lines:
        node2.reboot()
        installed.wait_nodes_ready(patience=120)

        def again() -> bool:
            carried = set(addresses(node2.machine).values())
            return len(carried) == len(names) == len(set(ready_pods(api, path).values()) & carried)

        wait_until("all pods of node2 are Ready with addresses that they carry", again, patience=120)
        installed.wait_available(rollout.WORKLOAD, namespace=rollout.NAMESPACE)
    assert lines.failures == []
    carried = set(addresses(node2.machine).values())
    assert set(residue.reservations(node2.machine)) == carried
    assert agents.agent(node2)["ready"]
    agents.await_content(node2)
    with Lines([Line(outside, address) for address in carried]) as lines:
        lines.await_answers(5)
    assert lines.failures == []

    installed.kubectl("delete", "pod", "--all", f"--namespace={namespace}", "--wait")
    wait_until(
        "nothing is left of the pods",
        lambda: not residue.snapshot(node2.machine).added_to(before, "link", "route", "reservation", "file"),
        patience=60,
    )


def test_runtime_and_kubelet_that_are_killed_cost_no_running_pod_its_network(
    installed: Cluster, api: Api, namespace: str
) -> None:
    with weather(installed, api, namespace, interrupted=True) as outside:
        for node in installed.nodes.values():
            node.containerd.restart(kill=True)
            outside.storm.await_more()
            node.kubelet.restart(kill=True)
            outside.storm.await_more()
    installed.wait_nodes_ready()


def static_pod(node: Node) -> None:
    """Give the kubelet a pod of its own, which needs no API server."""
    content = json.dumps(idle_pod(STATIC, "", app=STATIC))
    node.machine.run(["tee", f"{MANIFESTS}/{STATIC}.json"], input=content)


def test_static_pods_come_and_go_and_restart_while_the_api_server_is_away(
    installed: Cluster,
) -> None:
    node = installed.nodes["node1"]
    before = residue.snapshot(node.machine)
    installed.stop_api_server()
    away = time.monotonic()
    try:
        static_pod(node)
        first = await_address(node)
        kill_sandbox(node)
        second = await_address(node, but=first)
        agent = agents.agent(node)
        agents.kill(node)
        agents.await_other(node, agent)
        node.run(["rm", f"{MANIFESTS}/{STATIC}.json"])
        wait_until("the static pod is gone", lambda: not addresses(node.machine), patience=60)
        assert second not in residue.reservations(node.machine)
        static_pod(node)
        third = await_address(node)
        node.kubelet.restart(kill=True)
        kill_sandbox(node)
        await_address(node, but=third)
        time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - away)))
    finally:
        installed.start_api_server()
        node.run(["rm", "-f", f"{MANIFESTS}/{STATIC}.json"])
    installed.wait_nodes_ready()
    wait_until(
        "nothing is left of the static pods",
        lambda: not residue.snapshot(node.machine).added_to(before),
        patience=90,
    )
    installed.wait_available(rollout.WORKLOAD, namespace=rollout.NAMESPACE)
    assert agents.agent(node)["ready"]


def await_address(node: Node, but: str = "") -> str:
    """Wait until exactly one pod of the node has an address, and another one than ``but``; returns it."""
    found: list[str] = []

    def one() -> bool:
        found[:] = addresses(node.machine).values()
        return len(found) == 1 and found != [but]

    wait_until("the static pod has an address", one, patience=60)
    return found[0]


def kill_sandbox(node: Node) -> None:
    """End the first process of the static pod: the kubelet has to make its sandbox anew."""
    cri = node.containerd.cri
    found: list[Pod] = []

    def ready() -> bool:
        found[:] = (each for each in cri.pods() if each.name.startswith(STATIC) and each.state == "ready")
        return len(found) == 1

    # It has its address before the runtime calls it ready.
    wait_until("the runtime has a sandbox of the static pod", ready, patience=60)
    (pod,) = found
    node.run(["kill", "-KILL", str(cri.pod_status(pod).pid)])
