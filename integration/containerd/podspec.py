"""A pod of a manifest as the kubelet would hand it to the runtime, without a kubelet.

Owns the translation of what the kubelet does (pkg/kubelet/kuberuntime): security context, mounts, volumes of
the host and of ConfigMaps. Must not know what the pod is for. Probes, restarts and resources are left out.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from integration.containerd.cri import CriError
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from integration.containerd.cri import Pod
    from integration.containerd.daemon import Containerd
    from integration.fabric import Machine

Manifest = dict[str, Any]

MASKED = [
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
"""What a container that is not privileged may not see or write, as the kubelet tells every runtime."""
PROPAGATION = {"None": 0, "HostToContainer": 1, "Bidirectional": 2}
NODE, CONTAINER = 2, 1
"""NamespaceMode of the CRI."""
VOLUMES = "/run/volumes"


def read(manifest: Path, kind: str) -> Manifest:
    """The one object of a kind in a manifest."""
    with manifest.open(encoding="utf-8") as file:
        found = [each for each in yaml.safe_load_all(file) if each and each["kind"] == kind]
    (one,) = found
    loaded: Manifest = one
    return loaded


@dataclass(frozen=True, slots=True)
class PodSpec:
    """``spec`` of a pod with hostNetwork, on one node."""

    spec: Manifest
    config_maps: Mapping[str, Mapping[str, str]]
    """Their data by name."""

    def container(self, name: str) -> Manifest:
        """One of its containers, an initial one or not."""
        every = (*self.spec.get("initContainers", ()), *self.spec["containers"])
        (found,) = (each for each in every if each["name"] == name)
        container: Manifest = found
        return container

    def prepare(self, node: Machine) -> None:
        """Make the volumes on the node."""
        for volume in self.spec.get("volumes", ()):
            if volume.get("hostPath", {}).get("type") == "DirectoryOrCreate":
                node.run(["mkdir", "-p", volume["hostPath"]["path"]])
            if "configMap" in volume:
                write_config_map(node, volume["name"], self.config_maps[volume["configMap"]["name"]])

    def config(self, name: str) -> Manifest:
        """ContainerConfig of the CRI for one container."""
        container = self.container(name)
        own = container.get("securityContext", {})
        capabilities = own.get("capabilities", {})
        return {
            "metadata": {"name": name},
            "image": {"image": container["image"]},
            "command": container.get("command", []),
            "args": container.get("args", []),
            "envs": [{"key": each["name"], "value": each["value"]} for each in container.get("env", ())],
            "mounts": [self._mount(each) for each in container.get("volumeMounts", ())],
            "log_path": f"{name}.log",
            "linux": {
                "security_context": {
                    "capabilities": {
                        "add_capabilities": capabilities.get("add", []),
                        "drop_capabilities": capabilities.get("drop", []),
                    },
                    "no_new_privs": own.get("allowPrivilegeEscalation") is False,
                    "readonly_rootfs": own.get("readOnlyRootFilesystem", False),
                    "namespace_options": {"network": NODE, "pid": CONTAINER},
                    "seccomp": {"profile_type": self._seccomp()},
                    "masked_paths": MASKED,
                    "readonly_paths": READ_ONLY,
                }
            },
        }

    def _seccomp(self) -> int:
        kind = self.spec["securityContext"]["seccompProfile"]["type"]
        return {"RuntimeDefault": 0, "Unconfined": 1}[kind]

    def _mount(self, mount: Mapping[str, Any]) -> Manifest:
        (volume,) = (each for each in self.spec["volumes"] if each["name"] == mount["name"])
        host_path = volume.get("hostPath", {}).get("path", f"{VOLUMES}/{mount['name']}")
        return {
            "container_path": mount["mountPath"],
            "host_path": host_path,
            "readonly": mount.get("readOnly", False),
            "propagation": PROPAGATION[mount.get("mountPropagation", "None")],
        }


def write_config_map(node: Machine, volume: str, data: Mapping[str, str]) -> None:
    """As the kubelet does (atomic_writer.go): files are links through ``..data``, switched by one rename."""
    folder = f"{VOLUMES}/{volume}"
    stamp = f"..{time.monotonic_ns()}"
    node.run(["mkdir", "-p", f"{folder}/{stamp}"])
    for name, content in data.items():
        node.run(["tee", f"{folder}/{stamp}/{name}"], input=content)
        node.run(["ln", "-sfn", f"..data/{name}", f"{folder}/{name}"])
    node.run(["ln", "-sfn", stamp, f"{folder}/..data_tmp"])
    node.run(["mv", "-T", f"{folder}/..data_tmp", f"{folder}/..data"])


class HostPod:
    """A pod with hostNetwork on a containerd, whose containers are started one by one."""

    def __init__(self, containerd: Containerd, name: str, spec: PodSpec) -> None:
        self._containerd = containerd
        self._spec = spec
        self._logs = f"/run/pods/{name}"
        self._attempts: Counter[str] = Counter()
        spec.prepare(containerd.node)
        containerd.node.run(["mkdir", "-p", self._logs])
        self._pod: Pod = containerd.cri.run_pod(
            name,
            namespace="kube-system",
            cgroup_parent=containerd.cgroup,
            host_network=True,
            log_directory=self._logs,
        )

    def start(self, name: str) -> str:
        """Start one of its containers; its id. Raises CriError."""
        path = f"/run/pods/{self._pod.uid}-{name}.json"
        config = self._spec.config(name)
        config["metadata"]["attempt"] = self._attempts[name]
        self._attempts[name] += 1
        self._containerd.node.run(["tee", path], input=json.dumps(config))
        return self._containerd.cri.start_configured(self._pod, path)

    def run_to_end(self, name: str, patience: float = 60.0) -> int:
        """Run one of its containers until it ends; its exit code."""
        container = self.start(name)

        def exited() -> dict[str, Any] | None:
            status = self._containerd.cri.container_status(container)
            return status if status["state"] == "exited" else None

        if (status := found_within(patience, exited, pause=0.1)) is None:
            raise TimeoutError(f"{name} has not ended after {patience:.0f} s: {self.log(name)}")
        return int(status["exit_code"])

    def exec(self, container: str, command: Sequence[str]) -> tuple[int, str]:
        """Exit code and output of a command in a container, as a probe runs it. Raises CriError."""
        try:
            done = self._containerd.cri.exec(container, command)
        except CriError as error:
            error.add_note("".join(self.log(each["name"]) for each in self._spec.spec["containers"]))
            raise
        return done.exit_code, done.stdout + done.stderr

    def stop(self, container: str, grace: int = 30) -> None:
        """End a container with SIGTERM, and after ``grace`` seconds with SIGKILL."""
        self._containerd.cri.stop_container(container, grace)

    def log(self, name: str) -> str:
        """What a container has written, in the lines of the CRI."""
        return self._containerd.node.run(["cat", f"{self._logs}/{name}.log"], check=False).stdout

    def remove(self) -> None:
        """End all of it."""
        self._containerd.delete_pod(self._pod)
