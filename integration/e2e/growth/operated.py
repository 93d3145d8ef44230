"""A cluster whose NICs `azvnet operator` grows and shrinks: the chart, what Azure saw, what nodes say.

Owns how the operator is installed here and how what happened is asked for. Must not know what is tested.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from integration.cluster import rollout
from integration.containerd import TRAFFIC_IMAGE
from integration.fabric.armdocuments import nic_document
from integration.fabric.armroles import NIC_WRITER
from integration.fabric.documents import vm_id
from integration.fabric.identity import Principal
from integration.fabric.machine import CA_FILE
from integration.fabric.nicdiff import foreign_changes
from ipam.provision.nic_document import named_by_us

if TYPE_CHECKING:
    from integration.cluster import Cluster
    from integration.cluster.api import Api

WORKLOAD = Principal("c0000000-0000-4000-8000-0000000000aa", "0b000000-0000-4000-8000-0000000000aa")
"""The operator's identity; while it is the only one there is, no node can get a token."""
_NODES = Principal("5e000000-0000-4000-8000-0000000000aa", "0b000000-0000-4000-8000-0000000000ab")
"""An identity that all nodes have, where they are to write their NICs themselves."""
OPERATOR = "deployment/azvnet-operator"
LEASE = "azvnet-operator"
_RESOURCES = "/apis/azvnet.io/v1alpha1/azvnetnodes"
_TRUST = [{"name": "ca", "mountPath": CA_FILE, "readOnly": True}]
_HOST = [{"name": "ca", "hostPath": {"path": CA_FILE, "type": "File"}}]
# The kubelet here gives pods of the node's network no name server (its resolvConf is /dev/null).
_NAMES = {"name": "names", "mountPath": "/etc/resolv.conf", "readOnly": True}
_NAME_SERVER = {"name": "names", "hostPath": {"path": "/etc/resolv.conf", "type": "File"}}


class Operated:
    """The cluster, from the moment at which every node is Ready."""

    def __init__(self, cluster: Cluster, api: Api) -> None:
        self.cluster = cluster
        self.api = api
        self.arm = cluster.fabric.arm
        self.machines = {name: node.machine for name, node in cluster.nodes.items()}
        self._before = {name: self._document(name) for name in self.machines}

    def install(self, *, patience: float = 180.0) -> None:
        """Install agents and operator by the chart; nodes become Ready when they have been given addresses.

        Raises:
            HelmFailed, ClusterError: something did not work out.
        """
        self.arm.roles.give(NIC_WRITER)
        self.cluster.fabric.identity.system_assigned = None
        self.cluster.fabric.identity.user_assigned = [WORKLOAD]
        for name, machine in self.machines.items():
            where = f"azure://{vm_id(self.cluster.fabric.estate, machine.vm)}"
            patch = json.dumps({"spec": {"providerID": where}})
            self.cluster.kubectl("patch", "node", name, f"--patch={patch}")
        rollout.load(self.cluster)
        rollout.load_operator(self.cluster)
        self._helm("install", "operator")
        self.cluster.wait_nodes_ready(patience=patience)
        self.settle(patience=patience)

    def switch(self, mode: str, *, patience: float = 180.0) -> None:
        """Let somebody else grow the NICs: ``operator``, ``node`` or ``off``. Raises as `install`."""
        self._helm("upgrade", mode)
        self.settle(mode, patience=patience)

    def settle(self, mode: str = "operator", *, patience: float = 180.0) -> None:
        """Wait until agents and operators of the last change run. Raises ClusterError."""
        for workload in [rollout.WORKLOAD] + [OPERATOR] * (mode == "operator"):
            self.cluster.wait_available(workload, namespace=rollout.NAMESPACE, patience=patience)

    def _helm(self, verb: str, mode: str) -> None:
        values = {
            "network": {"source": "imds", "cooldown": 1},
            "agent": {
                "refreshSeconds": 1,
                "reconcileSeconds": 2,
                "arm": {"credential": "managed-identity", "caFile": CA_FILE},
                "provision": {"mode": mode, "low": 4, "batch": 8, "high": 16, "shrinkAfterSeconds": 15},
            },
            "extraVolumes": _HOST,
            "extraVolumeMounts": _TRUST,
            "operator": {
                "arm": {
                    "credential": "workload-identity",
                    "clientId": WORKLOAD.client_id,
                    "tenantId": self.cluster.fabric.estate.tenant,
                    "caFile": CA_FILE,
                },
                # Operations take a sixtieth of their time here.
                "budget": {"firstPollSeconds": 1},
                "extraVolumes": [*_HOST, _NAME_SERVER],
                "extraVolumeMounts": [*_TRUST, _NAMES],
            },
        }
        settings = self.cluster.kubeconfig.parent / "values.json"
        settings.write_text(json.dumps(values), encoding="utf-8")
        rollout.helm(self.cluster, verb, "azvnet", str(rollout.CHART), f"--values={settings}")

    # What the nodes say

    def resources(self) -> dict[str, dict[str, Any]]:
        """Every AzvnetNode by its name."""
        return {each["metadata"]["name"]: each for each in self.api.get(_RESOURCES)["items"]}

    def table(self) -> str:
        """What ``kubectl get azn`` shows."""
        return self.cluster.kubectl("get", "azn").stdout

    def states(self) -> set[str]:
        """What the operator is doing for nodes."""
        return {str(each.get("status", {}).get("state", "")) for each in self.resources().values()}

    def addresses(self) -> dict[str, int]:
        """How many addresses for pods the NIC of each node has in Azure."""
        return {name: len(machine.pod_addresses) for name, machine in self.machines.items()}

    @property
    def identity(self) -> str:
        """Client id of the operator."""
        return WORKLOAD.client_id

    def allow_nodes(self, *, allow: bool) -> None:
        """Give the nodes an identity of their own with the role, or none."""
        self.cluster.fabric.identity.system_assigned = _NODES if allow else None

    def kill_operator(self, node: str) -> None:
        """End the operator's process on a node without giving it time. Raises LookupError: it runs none."""
        machine = self.machines[node]
        found = machine.run(["pgrep", "-f", "azvnet operator --config="], check=False).stdout.split()
        if not found:
            raise LookupError(f"no operator runs on {node}")
        machine.run(["kill", "-9", *found])

    def leader(self) -> str:
        """Who holds the lease: the host, and what tells processes apart."""
        lease = self.cluster.get("lease", LEASE, f"--namespace={rollout.NAMESPACE}")
        return str(lease["spec"].get("holderIdentity") or "")

    def blind(self) -> list[str]:
        """Nodes whose agents do not know which pods are scheduled to them."""
        page = ["curl", "-sf", "--unix-socket", "/run/azvnet/http.sock", "http://node/metrics"]
        said = {name: machine.run(page, check=False).stdout for name, machine in self.machines.items()}
        known = re.compile(r"^azvnet_provision_coming_pods [0-9]", re.MULTILINE)
        return [name for name, text in said.items() if known.search(text) is None]

    def changed_by_others(self) -> list[str]:
        """What is different on a NIC beside the IP configurations that azvnet makes."""
        return [
            f"{name}: {change}"
            for name, before in self._before.items()
            for change in foreign_changes(before, self._document(name), named_by_us)
        ]

    def _document(self, name: str) -> dict[str, Any]:
        vm = self.machines[name].vm
        return nic_document(self.cluster.fabric.estate, vm, vm.primary_nic)

    # Pods that send

    def talkers(self, namespace: str, name: str, number: int) -> None:
        """A Deployment of so many pods that send to a host of the virtual network all the time.

        A pod's container ends, and is started again, when the host does not answer its first packet.
        """
        outside = self.cluster.fabric.vnet_hosts["vm2"].primary_ip
        script = f"ping -c 1 -W 20 {outside} || exit 1; exec ping -q -i 3 {outside}"
        labels = {"app": name}
        self.cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "replicas": number,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "terminationGracePeriodSeconds": 0,
                            "automountServiceAccountToken": False,
                            "enableServiceLinks": False,
                            "topologySpreadConstraints": [
                                {
                                    "maxSkew": 1,
                                    "topologyKey": "kubernetes.io/hostname",
                                    "whenUnsatisfiable": "DoNotSchedule",
                                    "labelSelector": {"matchLabels": labels},
                                }
                            ],
                            "containers": [
                                {
                                    "name": "main",
                                    "image": TRAFFIC_IMAGE,
                                    "command": ["/bin/sh", "-c", script],
                                }
                            ],
                        },
                    },
                },
            }
        )

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        """Its pods, those that end left out."""
        found = self.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]
