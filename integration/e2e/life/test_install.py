"""From nodes without a network to Ready ones by one manifest, and back to what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration import residue
from integration.cluster import rollout, wait_until
from integration.e2e.life import agents
from integration.e2e.life.monitor import Line, Lines, addresses
from integration.e2e.life.storm import idle_pod
from integration.plugins import bundle

if TYPE_CHECKING:
    from integration.cluster import Cluster, Node
    from integration.cluster.api import Api

pytestmark = pytest.mark.timeout(600)

SOURCES = ("imds", "wireserver")
IN_VAIN = 3
"""So often an agent asks its source, so that a node that is ready without addresses would show."""


def has_conflist(node: Node) -> bool:
    return node.run(["test", "-e", agents.CONFLIST], check=False).returncode == 0


def run_pods(cluster: Cluster, api: Api, namespace: str, names: list[str], node: str) -> list[str]:
    """Create pods on a node, wait until they are Ready; their addresses."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    for name in names:
        api.create(path, idle_pod(name, node))
    pods = [f"pod/{name}" for name in names]
    cluster.kubectl("wait", *pods, "--for=condition=Ready", f"--namespace={namespace}", "--timeout=60s")
    return [str(api.get(f"{path}/{name}")["status"]["podIP"]) for name in names]


def test_one_manifest_makes_nodes_ready_and_adopts_running_pods_and_another_takes_it_off_again(
    bare: Cluster, api: Api, namespace: str
) -> None:
    node1, node2 = bare.nodes.values()
    before = {node.name: residue.whole(node.machine) for node in (node1, node2)}

    # node2 has pods already, by the executables alone; node1 finds no source of addresses yet.
    node2.run([str(bundle() / "azvnet"), "install"])
    wait_until("node2 is Ready", lambda: bare.ready_nodes() == ["node2"], patience=60)
    old = run_pods(bare, api, namespace, ["old-1", "old-2"], "node2")
    for surface in SOURCES:
        bare.fabric.fault(surface, refused=True, node="node1")
    with Lines(lines_of(bare, node2, old)) as lines:
        rollout.apply(bare)
        wait_until("node1 has an agent", lambda: agents.agent(node1).get("state") == "running", patience=60)

        def asked_in_vain() -> bool:
            assert not has_conflist(node1)
            assert bare.ready_nodes() == ["node2"]
            return bool((agents.status(node1)["source"] or {}).get("failures", 0) >= IN_VAIN)

        wait_until(f"node1 has asked {IN_VAIN} times in vain", asked_in_vain, patience=60)
        assert "source" in agents.agent(node1)["reason"]
        bare.fabric.clear_faults()
        bare.wait_nodes_ready(patience=60)
        bare.wait_available(rollout.WORKLOAD, namespace=rollout.NAMESPACE)
        agents.await_content(node2)
        new = run_pods(bare, api, namespace, ["new"], "node2")
    assert lines.failures == []
    held = {each["address"] for each in agents.status(node2)["attachments"]}
    assert held == set(addresses(node2.machine).values()) == {*old, *new}
    assert len(held) == len(old) + len(new)

    bare.kubectl("delete", "pod", "--all", f"--namespace={namespace}", "--wait")
    rollout.uninstall(bare)
    wait_until("no node is Ready", lambda: bare.ready_nodes() == [], patience=60)
    for node in (node1, node2):
        after = residue.whole(node.machine)
        assert after.added_to(before[node.name]) == []
        assert after.missing_from(before[node.name]) == []


def lines_of(cluster: Cluster, node: Node, pods: list[str]) -> list[Line]:
    """From one pod of a node to another, and from a host that is no node."""
    outside = cluster.fabric.vnet_hosts["vm2"]
    netns = {address: path for path, address in addresses(node.machine).items()}
    return [Line(node.machine, pods[1], netns[pods[0]]), *(Line(outside, each) for each in pods)]
