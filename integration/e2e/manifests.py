"""Manifests of what end-to-end tests create, as objects: pods with agnhost, services, workloads.

Must not know a cluster; `space.Space` applies them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from integration.cluster import images
from integration.e2e.ends import HTTP, UDP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Manifest = dict[str, Any]


def agnhost(name: str = "main", *, http: int = HTTP, udp: int = UDP, **more: Any) -> Manifest:
    """A container that answers HTTP and UDP with its host name, who asked, and more; Ready when it does."""
    return {
        "name": name,
        "image": images.e2e_names()["agnhost"],
        "args": ["netexec", f"--http-port={http}", f"--udp-port={udp}"],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": http}, "periodSeconds": 1},
        **more,
    }


def shell(name: str, script: str, **more: Any) -> Manifest:
    """A container that runs a script of the same image."""
    image = images.e2e_names()["agnhost"]
    return {"name": name, "image": image, "command": ["sh", "-c", script], **more}


def pod(
    name: str,
    node: str = "",
    *containers: Manifest,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Manifest:
    """A pod, on a node when one is named; with one `agnhost` when no container is given."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **(labels or {})}},
        "spec": pod_spec(*containers, **({"nodeName": node} if node else {}), **spec),
    }


def pod_spec(*containers: Manifest, **spec: Any) -> Manifest:
    """What a pod's ``spec`` is, or that of a template."""
    return {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": list(containers) or [agnhost()],
        **spec,
    }


def host_pod(name: str, node: str, *, http: int, udp: int) -> Manifest:
    """A pod in the node's own network."""
    return pod(name, node, agnhost(http=http, udp=udp), hostNetwork=True)


def service(name: str, selector: Mapping[str, str], **spec: Any) -> Manifest:
    """A service in front of `agnhost`: HTTP at 80, UDP at 81; ``ports`` of ``spec`` replaces them."""
    ports = [
        {"name": "http", "port": 80, "targetPort": HTTP},
        {"name": "udp", "port": 81, "targetPort": UDP, "protocol": "UDP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": dict(selector), "ports": ports, **spec},
    }


def workload(kind: str, name: str, replicas: int, *containers: Manifest, **spec: Any) -> Manifest:
    """A Deployment or StatefulSet with ``template`` made of ``containers``; ``pod`` is its pods' spec."""
    labels = {"app": name}
    of_pods = spec.pop("pod", {})
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(*containers, **of_pods)},
            **spec,
        },
    }


def listed(items: Sequence[Manifest]) -> Manifest:
    """Many objects as one."""
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}
