"""Pools that follow the pods of a cluster up and down, whoever is killed or in charge meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.cluster import wait_until
from integration.fabric.armlog import POLL

if TYPE_CHECKING:
    from integration.e2e.growth.operated import Operated

pytestmark = pytest.mark.timeout(900)

PODS = 200
HIGH, BATCH = 16, 8
"""The marks of the settings."""


def ready(pods: list[dict[str, Any]]) -> list[str]:
    """The addresses of pods that run."""
    conditions = [(pod, pod["status"].get("conditions", ())) for pod in pods]
    return [
        pod["status"]["podIP"]
        for pod, found in conditions
        if any(each["type"] == "Ready" and each["status"] == "True" for each in found)
    ]


def restarts(pods: list[dict[str, Any]]) -> int:
    """How often a container ended: each of them ends when its packets are not answered."""
    return sum(each["restartCount"] for pod in pods for each in pod["status"].get("containerStatuses", ()))


def kill_the_leader(operated: Operated) -> str:
    """Kill the process of the operator that leads; returns who that was."""
    leader = operated.leader()
    operated.kill_operator(next(name for name in operated.machines if leader.startswith(f"{name}_")))
    return leader


def test_two_hundred_pods_come_to_three_nodes_and_go_though_the_leader_is_killed(
    operated: Operated, namespace: str
) -> None:
    operated.talkers(namespace, "talkers", PODS)
    wait_until("the NICs are given more", lambda: sum(operated.addresses().values()) > PODS / 4, patience=300)
    before = kill_the_leader(operated)

    wait_until(
        "all pods run", lambda: len(set(ready(operated.pods(namespace)))) == PODS, patience=420, pause=2.0
    )

    assert operated.leader() not in ("", before)
    pods = operated.pods(namespace)
    assert restarts(pods) == 0, "whoever has an address can send"
    owned = {str(ip) for machine in operated.machines.values() for ip in machine.pod_addresses}
    assert set(ready(pods)) <= owned
    for name, row in operated.resources().items():
        assert row["status"]["addresses"] == operated.addresses()[name]
        assert row["spec"]["pool"]["held"] >= PODS // 3

    operated.cluster.kubectl("scale", "deployment/talkers", f"--namespace={namespace}", "--replicas=0")
    wait_until(
        "the NICs are as small as before",
        lambda: max(operated.addresses().values()) <= HIGH + BATCH and operated.states() == {"idle"},
        patience=300,
        pause=2.0,
    )
    log = operated.arm.log
    assert {each.client_id for each in log.entries()} == {operated.identity}, "no node asks Azure itself"
    assert log.count(status=429) == 0, "requests stay within the budget"
    assert log.count(kind="PUT") <= 40, "steps are sized by demand, so few writes do"
    assert log.count(kind=POLL) <= 10 * log.count(kind="PUT")


def test_a_node_that_reboots_gets_its_pods_back(operated: Operated, namespace: str) -> None:
    operated.talkers(namespace, "talkers", 12)
    wait_until("all pods run", lambda: len(ready(operated.pods(namespace))) == 12, patience=180)
    node = operated.cluster.nodes["node3"]
    renewed = operated.resources()["node3"]["spec"]["renewTime"]

    node.reboot()

    def back() -> bool:
        again = operated.resources()["node3"]["spec"]["renewTime"] != renewed
        return again and "node3" in operated.cluster.ready_nodes()

    wait_until("the node is back", back, patience=180)
    operated.cluster.kubectl("scale", "deployment/talkers", f"--namespace={namespace}", "--replicas=30")
    wait_until("more pods run", lambda: len(set(ready(operated.pods(namespace)))) == 30, patience=300)
    owned = {str(ip) for machine in operated.machines.values() for ip in machine.pod_addresses}
    assert set(ready(operated.pods(namespace))) <= owned


def test_a_living_cluster_changes_hands_and_its_pods_notice_nothing(
    operated: Operated, namespace: str
) -> None:
    operated.talkers(namespace, "stays", 6)
    wait_until("all pods run", lambda: len(ready(operated.pods(namespace))) == 6, patience=180)
    stays = {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in operated.pods(namespace)}

    def grows(mode: str, number: int) -> None:
        operated.talkers(namespace, f"more-{number}", number)
        wait_until(
            f"{number} more pods run in mode {mode}",
            lambda: len(set(ready(operated.pods(namespace)))) == 6 + number,
            patience=300,
        )
        operated.cluster.kubectl("delete", f"deployment/more-{number}", f"--namespace={namespace}")
        wait_until("they are gone", lambda: len(operated.pods(namespace)) == 6, patience=120)

    operated.allow_nodes(allow=True)
    operated.switch("node")
    wait_until("agents see what is scheduled to their nodes", lambda: not operated.blind(), patience=120)
    grows("node", 45)
    assert operated.blind() == []
    operated.switch("off")
    operated.allow_nodes(allow=False)
    operated.switch("operator")
    grows("operator", 75)

    pods = {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in operated.pods(namespace)}
    assert pods == stays
    assert restarts(operated.pods(namespace)) == 0


def test_kubectl_reads_the_nodes_like_a_dashboard(operated: Operated) -> None:
    head, *rows = operated.table().splitlines()
    assert head.split() == ["NAME", "NIC", "ADDRESSES", "USED", "FREE", "WAITING", "STATE", "AGE"]
    assert [row.split()[0] for row in rows] == ["node1", "node2", "node3"]
