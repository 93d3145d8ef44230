"""An API server with the chart applied, and requests of agents and of the operator to it.

Owns tokens, requests with them, and the API server's audit log. It must not know what is tested with it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from integration.cluster.apiserver import AZVNET_NODES, ApiServer
from integration.cluster.client import Client
from integration.cluster.program import put
from integration.tools import kubernetes
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Fabric

ROOT = Path(__file__).parents[2]
CHART = ROOT / "packaging/helm/azvnet"
NAMESPACE = "kube-system"
AGENT = "azvnet"
OPERATOR = "azvnet-operator"
_POLICY = "/etc/kubernetes/audit.json"


def chart(*values: str) -> str:
    command = [str(kubernetes() / "helm"), "template", "azvnet", str(CHART), f"--namespace={NAMESPACE}"]
    command += ["--kube-version=1.34.0", "--set=agent.provision.mode=operator", *values]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def node_of(name: str, **spec: Any) -> dict[str, Any]:
    """An AzvnetNode as an agent writes it."""
    return {
        "apiVersion": "azvnet.io/v1alpha1",
        "kind": "AzvnetNode",
        "metadata": {"name": name},
        "spec": {"protocol": 1, "pool": {"held": 3, "free": 2, "waiting": 1}, **spec},
    }


class Bearer:
    """Requests with a token, as agents and the operator send them: why not; empty, it was done."""

    def __init__(self, kubeconfig: Path, folder: Path, token: str) -> None:
        cluster = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
        self._server = str(cluster["server"])
        self._authority = folder / "authority.pem"
        self._authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        self._session = requests.Session()
        self.token = token

    def ask(self, method: str, path: str, body: Any = None, content: str = "application/json") -> str:
        answer = self._session.request(
            method,
            f"{self._server}{path}",
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content},
            verify=str(self._authority),
            timeout=30,
        )
        return "" if answer.ok else str(answer.json()["message"])

    def create(self, document: dict[str, Any]) -> str:
        return self.ask("POST", AZVNET_NODES, document)

    def replace(self, document: dict[str, Any]) -> str:
        return self.ask("PUT", f"{AZVNET_NODES}/{document['metadata']['name']}", document)

    def patch(self, name: str, change: dict[str, Any]) -> str:
        return self.ask("PATCH", f"{AZVNET_NODES}/{name}", change, "application/merge-patch+json")


class Place:
    """The API server with the chart applied."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.admin = Client(server.kubeconfig)
        self._folder = folder

    def agent(self, node: str) -> Bearer:
        """The agent on a node."""
        return self._bearer(self.server.token(NAMESPACE, AGENT, node))

    def account(self, name: str) -> Bearer:
        """A service account with a token that is bound to nothing."""
        made = self.admin.kubectl("create", "token", name, f"--namespace={NAMESPACE}").stdout
        return self._bearer(made.strip())

    def writer(self) -> Bearer:
        """Somebody who may patch what agents may only replace."""
        self.admin.kubectl("create", "serviceaccount", "writer", f"--namespace={NAMESPACE}")
        rule = {"apiGroups": ["azvnet.io"], "resources": ["azvnetnodes"], "verbs": ["patch"]}
        self.server.give_role("writer", [rule], NAMESPACE, "writer")
        return self.account("writer")

    def put(self, name: str, **spec: Any) -> None:
        """An AzvnetNode, recreated by an administrator."""
        self.server.api.delete(f"{AZVNET_NODES}/{name}")
        self.server.api.create(AZVNET_NODES, node_of(name, **spec))

    def node(self, name: str) -> dict[str, Any]:
        return self.server.api.get(f"{AZVNET_NODES}/{name}")

    def with_spec(self, name: str, **spec: Any) -> dict[str, Any]:
        """An AzvnetNode as it is, with another spec, as an agent would write it."""
        found = self.node(name)
        return {**found, "spec": {**found["spec"], **spec}}

    def used(self, account: str) -> set[Use]:
        """What a service account was allowed to do until now, by the audit log."""
        log = self.server.control.api_server.log.read_text(errors="replace")
        return {use for line in log.splitlines() if (use := _use(line, account)) is not None}

    def _bearer(self, token: str) -> Bearer:
        return Bearer(self.server.kubeconfig, self._folder, token)


Use = tuple[str, str, str, str]
"""Verb, API group, resource with its subresource, namespace."""


def _use(line: str, account: str) -> Use | None:
    """A line of the audit log, if that account was allowed something about a resource."""
    if not line.startswith("{"):
        return None  # of the program's own log
    event = json.loads(line)
    about = event.get("objectRef")
    if event["user"]["username"] != f"system:serviceaccount:{NAMESPACE}:{account}" or not about:
        return None
    if event["annotations"]["authorization.k8s.io/decision"] != "allow":
        return None
    resource = "/".join(filter(None, [about["resource"], about.get("subresource")]))
    return event["verb"], about.get("apiGroup", ""), resource, about.get("namespace", "")


@contextlib.contextmanager
def applied(fabric: Fabric, folder: Path) -> Iterator[Place]:
    """An API server on ``vm1``, with the chart and an audit log, and its definition in force."""
    machine = fabric.vnet_hosts["vm1"]
    rule = {"level": "Metadata", "omitStages": ["RequestReceived"]}
    put(machine, _POLICY, json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]}))
    server = ApiServer(machine, folder)
    server.control.api_server.argv += [f"--audit-policy-file={_POLICY}", "--audit-log-path=-"]
    with server:
        made = Place(server, folder)
        # Unknown and doubled fields are errors.
        made.admin.kubectl("apply", "--server-side", "--validate=strict", "--filename=-", input=chart())
        definition = "customresourcedefinition/azvnetnodes.azvnet.io"
        made.admin.kubectl("wait", "--for=condition=Established", definition, "--timeout=60s")
        # Established it is before its storage is.
        eventually(
            lambda: not made.admin.kubectl("get", "azn", check=False).returncode, "AzvnetNodes are served"
        )
        yield made
