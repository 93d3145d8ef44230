"""A namespace of a cluster and what a test does in it: apply, wait, look, ask.

Owns waiting and what an error says about the pods concerned. Must not know what is tested.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from integration.cluster import ClusterError
from integration.e2e import manifests
from integration.e2e.ends import HTTP, UDP, Host, Pod
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from integration.cluster import Cluster
    from integration.e2e.manifests import Manifest

ASKER = "vm2"
"""The machine that tells pods to ask; no node, and nothing of Kubernetes runs on it."""


@contextlib.contextmanager
def own_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that goes in the end, with all that is in it; nobody waits for that."""
    name = f"t-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    # No pod is admitted before; right after a start of the API server that takes some seconds.
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=60s")
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


class Space:
    """One namespace. Everything in it goes with the namespace."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.asker = Host.of(cluster.fabric.vnet_hosts[ASKER])

    def kubectl(self, *arguments: str, check: bool = True, timeout: float = 120.0) -> CompletedProcess[str]:
        """Run kubectl for this namespace. Raises KubectlFailed."""
        return self.cluster.kubectl(f"--namespace={self.name}", *arguments, check=check, timeout=timeout)

    def get(self, *arguments: str) -> dict[str, Any]:
        """What ``kubectl get`` finds here, as an object. Raises KubectlFailed."""
        return self.cluster.get(f"--namespace={self.name}", *arguments)

    def apply(self, *objects: Manifest) -> None:
        """Create or change objects here. Raises KubectlFailed."""
        for each in objects:
            each["metadata"]["namespace"] = self.name
        self.cluster.apply(manifests.listed(objects))

    def ready(self, *pods: Manifest, patience: float = 60.0) -> list[Pod]:
        """Create pods and wait until all of them are Ready; what they are then.

        Raises:
            ClusterError: one is not Ready in time; the message says what its events say.
        """
        self.apply(*pods)
        names = [each["metadata"]["name"] for each in pods]
        self.wait("condition=Ready", *(f"pod/{name}" for name in names), patience=patience)
        return [self.pod(name) for name in names]

    def pod(self, name: str) -> Pod:
        """A pod that has an address, as an end of a conversation."""
        return self.as_end(self.get("pod", name))

    def as_end(self, found: dict[str, Any]) -> Pod:
        """The same for a pod as the API server gives it."""
        on_host = found["spec"].get("hostNetwork", False)
        ports = [
            int(a.rpartition("=")[2]) for a in found["spec"]["containers"][0].get("args", []) if "-port=" in a
        ]
        http, udp = ports[:2] if len(ports) > 1 else (HTTP, UDP)
        return Pod(
            found["spec"]["nodeName"] if on_host else found["metadata"]["name"],
            found["status"]["podIP"],
            http,
            udp,
            asker=self.asker,
            node=found["spec"]["nodeName"],
            namespace=self.name,
        )

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        """All pods here, or those that a label selector chooses."""
        found = self.get("pods", *([f"--selector={selector}"] if selector else []))
        return list(found["items"])

    def is_ready(self, name: str) -> bool:
        """Whether a pod is Ready now."""
        conditions = self.get("pod", name)["status"].get("conditions", ())
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def wait(self, what: str, *objects: str, patience: float = 60.0) -> None:
        """Wait as ``kubectl wait --for`` does.

        Raises:
            ClusterError: in vain; the message says what the events of this namespace say.
        """
        done = self.kubectl(
            "wait",
            f"--for={what}",
            f"--timeout={patience:.0f}s",
            *objects,
            check=False,
            timeout=patience + 30,
        )
        if done.returncode:
            raise ClusterError(f"{done.stderr.strip()}\n{self.story()}")

    def eventually(self, what: str, condition: Callable[[], Any], *, patience: float = 30.0) -> Any:
        """Ask until the answer is true, and return it.

        Raises:
            ClusterError: it never was; the message says what the events of this namespace say.
        """
        if answer := found_within(patience, condition, pause=0.2):
            return answer
        raise ClusterError(f"not once within {patience:.0f} s: {what}\n{self.story()}")

    def delete(self, *objects: str, patience: float = 60.0) -> None:
        """Delete objects and wait until they are gone. Raises KubectlFailed."""
        self.kubectl("delete", f"--timeout={patience:.0f}s", *objects, timeout=patience + 30)

    def story(self) -> str:
        """The pods and the last events here, for a person who has to find out what went wrong."""
        pods = self.kubectl("get", "pods", "--output=wide", check=False).stdout
        columns = "TIME:.lastTimestamp,OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message"
        listing = ["get", "events", "--sort-by=.lastTimestamp", f"--output=custom-columns={columns}"]
        events = self.kubectl(*listing, check=False).stdout.splitlines()
        return "\n".join([f"namespace {self.name}", pods.rstrip(), *events[:1], *events[1:][-25:]])
