"""What a cluster says when a test has failed, and what is left of pods when all are gone.

Must not know what was tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration import residue
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster import Cluster, Node

_PATIENCE = 60.0
_OF_PODS = ("azv", "cali", "veth")


def story(cluster: Cluster) -> str:
    """All pods, the last events, and the ends of azvnet's logs on every node."""
    pods = cluster.kubectl("get", "pods", "--all-namespaces", "--output=wide", check=False).stdout
    columns = "TIME:.lastTimestamp,OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message"
    events = cluster.kubectl(
        "get",
        "events",
        "--all-namespaces",
        "--sort-by=.lastTimestamp",
        f"--output=custom-columns={columns}",
        check=False,
    ).stdout.splitlines()
    parts = [pods.rstrip(), *events[-25:]]
    for node in cluster.nodes.values():
        for name in ("azvnet.log", "agent.log"):
            tail = node.run(["tail", "-n", "8", f"/var/log/azvnet/{name}"], check=False).stdout.rstrip()
            parts.append(f"{node.name}: {name}\n{tail}")
        # What a container says that does not come up stands here alone.
        tails = "tail -q -n 8 /var/log/pods/kube-system_azvnet*/*/*.log"
        parts.append(f"{node.name}: its pod\n{node.run(['sh', '-c', tails], check=False).stdout.rstrip()}")
    return "\n".join(parts)


def left_behind(cluster: Cluster) -> list[str]:
    """What nodes still have of pods, after every pod with an address of its own was deleted.

    Deletes what runs everywhere, and looks until nothing is found: a pod with no grace period is gone
    from the API server before the kubelet has taken it away.
    """
    cluster.kubectl("delete", "deployment/coredns", "--namespace=kube-system", "--ignore-not-found")
    left: list[str] = []

    def nothing() -> bool:
        left[:] = [f"pod {name}" for name in _pods(cluster)] or [
            f"{node.name}: {fact}" for node in cluster.nodes.values() for fact in _of_pods(node)
        ]
        return not left

    found_within(_PATIENCE, nothing, pause=0.5)
    return left


def _pods(cluster: Cluster) -> list[str]:
    """Pods that are not in their node's own network, by name."""
    return [
        f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        for item in cluster.get("pods", "--all-namespaces")["items"]
        if not item["spec"].get("hostNetwork")
    ]


def _of_pods(node: Node) -> Iterator[str]:
    """Links, routes, namespaces, reservations that only a pod can have made."""
    of_ipv6 = node.machine.vm.primary_nic.ipv6[1:]
    addresses = [str(address) for address in (*node.machine.pod_addresses, *of_ipv6)]
    for fact in sorted(residue.snapshot(node.machine).facts):
        kind, _, rest = fact.partition(" ")
        of_pod = rest.startswith(_OF_PODS) if kind == "link" else kind in {"reservation", "file"}
        if of_pod or any(f'"{address}"' in rest or f" {address} " in f" {rest} " for address in addresses):
            yield fact
