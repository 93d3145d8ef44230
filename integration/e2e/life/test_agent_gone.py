"""The agent killed, out of memory, or not there at all: pods come and go as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster import rollout, wait_until
from integration.e2e.life import agents
from integration.e2e.life.churn import weather

if TYPE_CHECKING:
    from integration.cluster import Cluster, Node
    from integration.cluster.api import Api

pytestmark = pytest.mark.timeout(600)

NOWHERE = "/spec/template/spec/nodeSelector/azvnet.test~1nowhere"


def patch(cluster: Cluster, operation: str) -> None:
    """Let the DaemonSet want nodes that do not exist, or end that."""
    where = (rollout.WORKLOAD, f"--namespace={rollout.NAMESPACE}")
    cluster.kubectl("patch", *where, "--type=json", f"--patch=[{operation}]")


def identities(cluster: Cluster) -> list[str]:
    """What tells whether the conflist of a node was ever taken away or written again."""
    look = ["stat", "--format=%i %Z %s", agents.CONFLIST]
    return [node.run(look).stdout for node in cluster.nodes.values()]


def await_verbs(node: Node, mark: int) -> None:
    """Wait until executables alone answered both an ADD and a DEL since a mark in the log of all calls."""

    def answered() -> bool:
        seen = {(call["by"], call["verb"]) for call in agents.calls(node)[mark:]}
        assert "agent" not in {by for by, _ in seen}
        return {("executable", "ADD"), ("executable", "DEL")} <= seen

    wait_until(f"{node.name} makes and deletes pods without an agent", answered, patience=60)


def test_pods_do_not_notice_that_the_agent_is_killed_starved_or_absent(
    installed: Cluster, api: Api, namespace: str
) -> None:
    node1, node2 = installed.nodes.values()
    conflists = identities(installed)
    with weather(installed, api, namespace) as outside:
        before = {node.name: agents.agent(node) for node in (node1, node2)}
        agents.kill(node1)
        agents.starve(node2)
        for node in (node1, node2):
            agents.await_other(node, before[node.name])
        wait_until(
            "the kubelet says why the agents ended",
            lambda: agents.last_ends(installed) == {"node1": "Error", "node2": "OOMKilled"},
            patience=30,
        )
        installed.wait_available(rollout.WORKLOAD, namespace=rollout.NAMESPACE)

        patch(installed, f'{{"op": "add", "path": "{NOWHERE}", "value": ""}}')
        try:
            installed.kubectl("wait", "pod", "--for=delete", *agents.OF_AGENTS, "--timeout=90s")
            marks = {node.name: len(agents.calls(node)) for node in (node1, node2)}
            outside.storm.await_more(3)
            for node in (node1, node2):
                await_verbs(node, marks[node.name])
        finally:
            patch(installed, f'{{"op": "remove", "path": "{NOWHERE}"}}')
        installed.wait_available(rollout.WORKLOAD, namespace=rollout.NAMESPACE)
        for node in (node1, node2):
            assert agents.agent(node)["ready"]
    assert identities(installed) == conflists
    for node in (node1, node2):
        agents.await_content(node)
