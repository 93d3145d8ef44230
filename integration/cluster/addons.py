"""What runs in every cluster: CoreDNS as a Deployment behind the cluster's DNS address.

Owns the manifests, as objects. Must not know how they are applied.
"""

from __future__ import annotations

from typing import Any

from integration.cluster.controlplane import DOMAIN
from integration.cluster.images import COREDNS_IMAGE
from integration.cluster.services import IPV4_ONLY, ServiceNetwork

_NAMESPACE = "kube-system"
_NAME = "coredns"
_LABELS = {"k8s-app": "kube-dns"}
_COREFILE = f"""\
.:53 {{
    errors
    health
    ready
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    cache 30
    loop
    reload
    loadbalance
}}
"""


def coredns(services: ServiceNetwork = IPV4_ONLY, replicas: int = 1) -> dict[str, Any]:
    """The list of objects that make CoreDNS answer at the addresses that are its own; it forwards nothing."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [*_identity(), _configuration(), _deployment(replicas), _service(services)],
    }


def _meta(name: str = _NAME) -> dict[str, Any]:
    return {"name": name, "namespace": _NAMESPACE, "labels": _LABELS}


def _identity() -> list[dict[str, Any]]:
    role = f"system:{_NAME}"
    watched = ["endpoints", "services", "pods", "namespaces"]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta()},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role},
            "rules": [
                {"apiGroups": [""], "resources": watched, "verbs": ["list", "watch"]},
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": _NAME, "namespace": _NAMESPACE}],
        },
    ]


def _configuration() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(), "data": {"Corefile": _COREFILE}}


def _deployment(replicas: int) -> dict[str, Any]:
    container = {
        "name": _NAME,
        "image": COREDNS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
        ],
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "failureThreshold": 5},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": _NAME}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


def _service(services: ServiceNetwork) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta("kube-dns"),
        "spec": {
            "clusterIP": services.dns[0],
            "clusterIPs": list(services.dns),
            "ipFamilyPolicy": "RequireDualStack" if len(services.dns) > 1 else "SingleStack",
            "selector": _LABELS,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    }
