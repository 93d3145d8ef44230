"""The Container Runtime Interface, through ``criclient``, as the kubelet would speak it.

Owns the values that the runtime answers with. Must not know how the runtime was started.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from integration.tools import tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from integration.fabric import Machine


class CriError(Exception):
    """The runtime refused a call."""

    def __init__(self, call: str, message: str, code: str) -> None:
        super().__init__(f"{call}: {message} ({code})")
        self.message = message
        self.code = code
        """Name of the gRPC status code."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod sandbox as the runtime describes it."""

    id: str
    name: str
    namespace: str
    uid: str
    state: str
    """``ready`` or ``notready``."""
    ips: tuple[IPv4Address | IPv6Address, ...] = ()
    netns: str = ""
    """Path in the node's mount namespace."""
    pid: int = 0

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The pod's first address. Raises IndexError when it has none."""
        return self.ips[0]


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the runtime's conditions: ``RuntimeReady``, ``NetworkReady``."""

    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Executed:
    """What a command inside a container did."""

    stdout: str
    stderr: str
    exit_code: int


class Cri:
    """Calls of the CRI on one socket of one node; each method raises CriError."""

    def __init__(self, node: Machine, socket: str) -> None:
        self._node = node
        self._command = [str(tools() / "criclient"), "--socket", socket]

    def call(self, *arguments: str, deadline: float = 120.0) -> dict[str, Any]:
        """One criclient command and the document it printed."""
        done = self._node.run(
            [*self._command, "--deadline", str(deadline), *arguments], check=False, timeout=deadline + 30
        )
        try:
            document: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise CriError(arguments[0], f"criclient failed: {done.stderr.strip()}", "Unknown") from None
        if done.returncode:
            raise CriError(arguments[0], document["error"], document["code"])
        return document

    def run_pod(
        self,
        name: str,
        *,
        namespace: str = "default",
        uid: str = "",
        host_ports: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        dns_servers: Sequence[str] = (),
        cgroup_parent: str = "",
        host_network: bool = False,
        log_directory: str = "",
    ) -> Pod:
        """Create and start a sandbox.

        ``host_ports`` are written ``[IP:]HOST:POD[/PROTOCOL]``; ``annotations`` are the pod's, for
        example ``kubernetes.io/ingress-bandwidth``.
        """
        flags = ["--name", name, "--namespace", namespace, "--cgroup-parent", cgroup_parent]
        flags += ["--log-directory", log_directory, *(["--host-network"] if host_network else [])]
        flags += ["--uid", uid] if uid else []
        flags += [part for port in host_ports for part in ("--host-port", port)]
        flags += [
            part for key, value in (annotations or {}).items() for part in ("--annotation", f"{key}={value}")
        ]
        flags += [part for server in dns_servers for part in ("--dns-server", server)]
        return _pod(self.call("run-pod", *flags))

    def stop_pod(self, pod: Pod) -> None:
        """Stop a sandbox: its containers end, its network is taken down. Repeatable."""
        self.call("stop-pod", pod.id)

    def remove_pod(self, pod: Pod) -> None:
        """Remove a sandbox, stopped or not. Repeatable."""
        self.call("rm-pod", pod.id)

    def delete_pod(self, pod: Pod) -> None:
        """Stop and remove, as the kubelet does."""
        self.stop_pod(pod)
        self.remove_pod(pod)

    def pods(self) -> list[Pod]:
        """Every sandbox the runtime knows, without addresses and namespace."""
        return [_pod(found) for found in self.call("list")["pods"]]

    def pod_status(self, pod: Pod) -> Pod:
        """One sandbox with what is known of it."""
        return _pod(self.call("pod-status", pod.id))

    def run_container(self, pod: Pod, image: str, command: Sequence[str], *, name: str = "main") -> str:
        """Create and start a container in a sandbox; its id."""
        made = self.call("create-container", "--image", image, "--name", name, pod.id, *command)
        container = str(made["id"])
        self.call("start-container", container)
        return container

    def start_configured(self, pod: Pod, path: str) -> str:
        """Create and start a container from a ContainerConfig in a JSON file of the node; its id."""
        container = str(self.call("create-container", "--config", path, pod.id)["id"])
        self.call("start-container", container)
        return container

    def container_status(self, container: str) -> dict[str, Any]:
        """``state`` (created, running, exited), ``exit_code``, ``reason`` and ``message``."""
        return self.call("container-status", container)

    def stop_container(self, container: str, grace: int) -> None:
        """SIGTERM, and after ``grace`` seconds SIGKILL."""
        self.call("stop-container", "--grace", str(grace), container)

    def exec(self, container: str, command: Sequence[str], *, timeout: float = 30.0) -> Executed:
        """Run a command in a container to its end; ``timeout`` in whole seconds."""
        done = self.call("exec", "--timeout", str(int(timeout)), container, *command)
        return Executed(done["stdout"], done["stderr"], done["exit_code"])

    def conditions(self) -> dict[str, Condition]:
        """The runtime's conditions by name."""
        found = self.call("status", deadline=10)["conditions"]
        return {c["type"]: Condition(c["status"], c["reason"], c["message"]) for c in found}

    def image_present(self, image: str) -> bool:
        """Whether the runtime can start containers of an image without pulling it."""
        return bool(self.call("image-status", image)["present"])


def _pod(document: Mapping[str, Any]) -> Pod:
    return Pod(
        id=document["id"],
        name=document["name"],
        namespace=document["namespace"],
        uid=document["uid"],
        state=document["state"],
        ips=tuple(ip_address(ip) for ip in document.get("ips", ())),
        netns=document.get("netns", ""),
        pid=document.get("pid", 0),
    )
