"""etcd and the API server alone: for what works with Kubernetes' API and needs no pods that run.

Owns their life in one machine of a fabric, an administrator's access from this machine, and tokens of
service accounts that are bound to a pod of a node, as a kubelet gets them. Up in about ten seconds; a
`Cluster` takes a minute. What is needed beside them (the fabric with its emulated Azure, programs that use
the API) is the caller's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from integration.cluster.api import Api, ApiError, Object
from integration.cluster.controlplane import PORT, ControlPlane
from integration.cluster.relay import Relay
from integration.tools import kubernetes

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from integration.fabric import Machine

DEFINITION = Path(__file__).parents[2] / "packaging/helm/azvnet/files/azvnetnodes.azvnet.io.yaml"
AZVNET_NODES = "/apis/azvnet.io/v1alpha1/azvnetnodes"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_CONFLICT = 409


class ApiServer:
    """A context manager.

    Args:
        machine: where they run; programs in the fabric reach it as ``control.url``.
        folder: on this machine, for the kubeconfig and logs.
        programs: folder with etcd and kube-apiserver; None: that of `tools.kubernetes`.
    """

    def __init__(self, machine: Machine, folder: Path, programs: Path | None = None) -> None:
        self.control = ControlPlane(machine, programs or kubernetes(), folder / "logs", verbosity=1)
        self.kubeconfig = folder / "kubeconfig"
        """An administrator's, which works on this machine."""
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for program in (self.control.etcd, self.control.api_server):
                undo.callback(program.stop, kill=True)
            self.control.start()
            machine = self.control.machine
            relay = Relay(machine, (str(machine.primary_ip), PORT))
            undo.callback(relay.close)
            self.control.write_kubeconfig(self.kubeconfig, relay.port)
            self.api = undo.enter_context(Api(self.kubeconfig))
            """Requests as an administrator; any number of threads."""
            self._wait_ready()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def stop(self) -> None:
        """Kill the API server; etcd keeps the state."""
        self.control.api_server.stop(kill=True)

    def start(self) -> None:
        """Start it again, and wait until it is ready. Raises ClusterError."""
        self.control.api_server.start()
        self._wait_ready()

    def define_azvnet_nodes(self) -> None:
        """Create the CustomResourceDefinition as the chart has it, and wait until it is served."""
        self.create(_DEFINITIONS, yaml.safe_load(DEFINITION.read_text(encoding="utf-8")))
        self.control.api_server.wait_until("serving AzvnetNodes", lambda: self._answers(AZVNET_NODES))

    def create(self, path: str, body: Object) -> None:
        """Create an object in a collection; one that exists already stays. Raises ApiError."""
        try:
            self.api.create(path, body)
        except ApiError as error:
            if error.status != _CONFLICT:
                raise

    def add_node(self, name: str, provider_id: str = "") -> None:
        """A Node object, without anything that runs."""
        spec = {"providerID": provider_id} if provider_id else {}
        self.create("/api/v1/nodes", {"kind": "Node", "metadata": {"name": name}, "spec": spec})

    def give_role(self, name: str, rules: list[dict[str, Any]], namespace: str, account: str) -> None:
        """Give a service account the rules of a ClusterRole of that name."""
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        self.create(f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        self.create(
            f"{rbac}/clusterrolebindings",
            {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": account}],
            },
        )

    def token(self, namespace: str, account: str, node: str, *, seconds: int = 3600) -> str:
        """A token of a service account, bound to a pod on that node: it names the node.

        Account and pod are made where they do not exist; the Node has to.
        """
        inside = f"/api/v1/namespaces/{namespace}"
        self.create(f"{inside}/serviceaccounts", {"metadata": {"name": account}})
        pod = f"{account}-{node}"
        self.create(f"{inside}/pods", _pod(pod, account, node))
        uid = self.api.get(f"{inside}/pods/{pod}")["metadata"]["uid"]
        asked = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "spec": {
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid},
            },
        }
        made = self.api.create(f"{inside}/serviceaccounts/{account}/token", asked)
        token: str = made["status"]["token"]
        return token

    def _wait_ready(self) -> None:
        self.control.api_server.wait_until(
            "ready", lambda: self._answers("/api/v1/namespaces/kube-system"), patience=120
        )

    def _answers(self, path: str) -> bool:
        try:
            self.api.get(path)
        except ApiError:
            return False
        return True


def _pod(name: str, account: str, node: str) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "serviceAccountName": account,
            "containers": [{"name": "agent", "image": "none.invalid/none"}],
        },
    }
