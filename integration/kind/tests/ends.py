"""Pods on a kind cluster that ask and answer: agnhost's ``netexec`` with a shell and curl.

Owns how a pod is asked to ask somebody. Must not know who ought to reach whom.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from integration.e2e import manifests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.kind.cluster import KindCluster

PORT = 8080
HOST_PORT = 8099
_ASK = 'for at; do printf "%s " "$at"; curl --silent --max-time 5 "http://$at/clientip" || echo; echo; done'


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod that runs."""

    name: str
    node: str
    address: str


def daemon_set(name: str, *, host_port: int = 0) -> dict[str, Any]:
    """A pod on every node."""
    ports = [{"containerPort": PORT, **({"hostPort": host_port} if host_port else {})}]
    spec = manifests.pod_spec(manifests.agnhost(ports=ports), tolerations=[{"operator": "Exists"}])
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def pods(cluster: KindCluster, name: str) -> list[Pod]:
    """Those of a daemon set that have an address and are to stay."""
    found = cluster.get("pods", f"--selector=app={name}")["items"]
    return [
        Pod(each["metadata"]["name"], each["spec"]["nodeName"], each["status"]["podIP"])
        for each in found
        if "deletionTimestamp" not in each["metadata"] and "podIP" in each["status"]
    ]


def seen_by(cluster: KindCluster, pod: Pod, targets: Sequence[str]) -> dict[str, str]:
    """The address under which each ``host:port`` sees this pod; empty where nobody answers."""
    said = cluster.kubectl("exec", pod.name, "--", "sh", "-c", _ASK, "ask", *targets, timeout=120).stdout
    answers = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    return {target: answers.get(target, "").rpartition(":")[0].strip("[]") for target in targets}


def ip(cluster: KindCluster, node: str, *arguments: str, netns: str = "") -> list[dict[str, Any]]:
    """What ``ip -json`` prints on a node, or in a namespace of it."""
    entered = ["nsenter", f"--net={netns}"] if netns else []
    printed = cluster.on_node(node, *entered, "ip", "-json", *arguments).strip()
    return [each for each in json.loads(printed) if each] if printed else []
