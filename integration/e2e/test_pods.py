"""Pods that the kubelet made, on the cluster that the end-to-end tests share."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from integration.containerd import TRAFFIC_IMAGE

if TYPE_CHECKING:
    from integration.cluster import Cluster


def pod(name: str, node: str, *command: str) -> dict[str, Any]:
    """A pod with a busybox container on one node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": TRAFFIC_IMAGE, "command": list(command)}],
        },
    }


def test_pods_of_two_nodes_reach_each_other_by_addresses_of_their_nics(
    ready_cluster: Cluster, namespace: str
) -> None:
    cluster = ready_cluster
    for node in cluster.nodes:
        serve = f"mkdir -p /www && echo hello from {node} >/www/index.html && exec httpd -f -p 8080 -h /www"
        manifest = pod(f"on-{node}", node, "sh", "-c", serve)
        manifest["metadata"]["namespace"] = namespace
        cluster.apply(manifest)
    cluster.kubectl("wait", "pod", "--all", "--for=condition=Ready", f"-n{namespace}", "--timeout=60s")

    addresses = {
        item["spec"]["nodeName"]: item["status"]["podIP"]
        for item in cluster.get("pods", f"-n{namespace}")["items"]
    }
    for node, address in addresses.items():
        assert ip_address(address) in cluster.nodes[node].machine.pod_addresses
    for here, there in (("node1", "node2"), ("node2", "node1")):
        fetch = ["timeout", "5", "wget", "-q", "-O-", f"http://{addresses[there]}:8080/"]
        got = cluster.kubectl("exec", f"-n{namespace}", f"on-{here}", "--", *fetch)
        assert got.stdout == f"hello from {there}\n"


def test_service_and_name_lead_to_a_pod_on_the_other_node(ready_cluster: Cluster, namespace: str) -> None:
    cluster = ready_cluster
    server = pod("server", "node2", "sh", "-c", "echo served >/tmp/index.html; exec httpd -f -p 80 -h /tmp")
    client = pod("client", "node1", "sleep", "1000")
    for manifest in (server, client):
        manifest["metadata"]["namespace"] = namespace
        cluster.apply(manifest)
    cluster.kubectl("expose", "pod", "server", "--port=80", f"-n{namespace}")
    cluster.kubectl("wait", "pod", "--all", "--for=condition=Ready", f"-n{namespace}", "--timeout=60s")

    fetch = ["timeout", "5", "wget", "-q", "-O-", f"http://server.{namespace}.svc.cluster.local/"]
    assert cluster.kubectl("exec", f"-n{namespace}", "client", "--", *fetch).stdout == "served\n"
    logs = cluster.kubectl("logs", f"-n{namespace}", "client")
    assert logs.returncode == 0
