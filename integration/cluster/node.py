"""A node of a cluster: its containerd, kubelet and kube-proxy on a machine of the fabric.

Owns their arguments and files and what a boot starts. Must not know which CNI plugin is installed.
"""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

from integration import plugins
from integration.cluster.controlplane import DOMAIN
from integration.cluster.program import Program, put
from integration.cluster.services import IPV4_ONLY, ServiceNetwork
from integration.containerd import Containerd, cgroups
from integration.containerd.daemon import SOCKET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from subprocess import CompletedProcess

    from integration.cluster.controlplane import ControlPlane
    from integration.fabric import Machine

PROXY_MODES = ("nftables", "iptables", "ipvs")

_FILES = "/etc/kubernetes"
KERNEL_SETTINGS = {
    # What the kubelet wants of the whole machine (its --protect-kernel-defaults). The node sees these
    # values as files of its own, so that the kubelet writes nothing into the machine's kernel.
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


class Node:
    """One node; `start` brings it up, `reboot` restarts the machine with everything on it.

    Args:
        machine: the node of the fabric.
        control: the control plane it belongs to.
        programs: folder with kubelet and kube-proxy.
        logs: folder for their output.
        images: archives that are imported into its containerd.
        services: which addresses services get.
        proxy: mode of kube-proxy.
        max_pods: how many pods the kubelet takes.
        verbosity: ``-v`` of Kubernetes' programs.
        runtime: folder with another containerd than Debian's.
        zone: availability zone that the kubelet labels its Node with; empty: none.
    """

    def __init__(
        self,
        machine: Machine,
        control: ControlPlane,
        programs: Path,
        logs: Path,
        *,
        images: Sequence[Path] = (),
        services: ServiceNetwork = IPV4_ONLY,
        proxy: str = "nftables",
        max_pods: int = 110,
        verbosity: int = 2,
        runtime: Path | None = None,
        zone: str = "",
    ) -> None:
        self.machine = machine
        self.runtime = runtime
        self.name = machine.name
        self._control = control
        self._images = list(images)
        self._logs = logs
        self._max_pods = max_pods
        self._services = services
        self.kubelet = Program(
            machine,
            "kubelet",
            [str(programs / "kubelet"), *_kubelet_arguments(machine, zone), f"--v={verbosity}"],
            logs / f"kubelet-{self.name}.log",
        )
        self._proxy_argv = [
            str(programs / "kube-proxy"),
            f"--config={_FILES}/kube-proxy.yaml",
            f"--hostname-override={self.name}",
            f"--v={verbosity}",
        ]
        self.proxy = Program(machine, "kube-proxy", self._proxy_argv, logs / f"kube-proxy-{self.name}.log")
        self.proxy_mode = proxy
        self._containerd: Containerd | None = None

    @property
    def containerd(self) -> Containerd:
        """The containerd of the current boot."""
        if self._containerd is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._containerd

    def run(self, argv: Sequence[str], *, check: bool = True) -> CompletedProcess[str]:
        """Run a program on the node; see `Machine.run`."""
        return self.machine.run(argv, check=check)

    def start(self) -> None:
        """Write the files, start containerd, kubelet and kube-proxy. Does not wait until it is Ready."""
        plugins.install_reference(self.machine)  # Kubernetes' packages bring them too: kubernetes-cni
        self._write_files()
        self._make_cgroup()
        self._bind_kernel_settings()
        self._start_containerd()
        self.kubelet.start()
        self.proxy.start()

    def reboot(self) -> None:
        """Pull the plug and boot: every process ends, /run and the network are new; then all starts."""
        self.machine.reboot()
        self._containerd = None
        for program in (self.kubelet, self.proxy):
            program.stop(kill=True)
        self.start()

    def load_image(self, archive: Path) -> None:
        """Import a docker or OCI archive; it is there after a reboot too."""
        self.containerd.import_image(archive)

    def set_proxy_mode(self, mode: str) -> None:
        """Restart kube-proxy in another mode, after it removed what the old mode had set up; wait for it.

        Raises:
            ValueError: there is no such mode.
            ClusterError: it ended, which is what it does when the kernel lacks the mode.
        """
        if mode not in PROXY_MODES:
            raise ValueError(f"kube-proxy has no mode {mode}; it has {', '.join(PROXY_MODES)}")
        self.proxy.stop()
        self.machine.run([*self._proxy_argv, "--cleanup"], check=False)
        self.proxy_mode = mode
        self._write_proxy_configuration()
        self.proxy.start()
        self.proxy.wait_until("healthy", self._proxy_is_healthy, patience=30)

    def _proxy_is_healthy(self) -> bool:
        def ask() -> bool:
            with urllib.request.urlopen("http://127.0.0.1:10256/healthz", timeout=5) as answer:
                return bool(answer.status == 200)

        try:
            return self.machine.in_network(ask)
        except OSError:
            return False

    def _start_containerd(self) -> None:
        self._containerd = Containerd(
            self.machine,
            images=self._images,
            cgroup=f"/{self.machine.cgroup}",
            log=self._logs / f"containerd-{self.name}.log",
            programs=self.runtime,
        )
        self._containerd.start()

    def _write_files(self) -> None:
        issue = self._control.authority.issue
        serving = issue(f"system:node:{self.name}", "system:nodes", *addresses_of(self.machine), self.name)
        files = {
            "ca.crt": self._control.authority.certificate,
            "kubelet.crt": serving.certificate,
            "kubelet.key": serving.key,
            "kubelet.conf": self._control.kubeconfig(f"system:node:{self.name}", "system:nodes"),
            "kubelet.yaml": _kubelet_configuration(self.machine, self._max_pods, self._services),
            "kube-proxy.conf": self._control.kubeconfig("system:kube-proxy"),
        }
        for name, content in files.items():
            put(self.machine, f"{_FILES}/{name}", content)
        self._write_proxy_configuration()
        self.machine.run(["mkdir", "-p", f"{_FILES}/manifests"])

    def _write_proxy_configuration(self) -> None:
        put(self.machine, f"{_FILES}/kube-proxy.yaml", _proxy_configuration(self.proxy_mode))

    def _make_cgroup(self) -> None:
        """The kubelet wants its root group to exist; version 1 has empty sets of cores in a new one."""
        for hierarchy in cgroups.hierarchies():
            group = hierarchy / self.machine.cgroup
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                above = hierarchy / name
                if above.exists() and not (group / name).read_text().strip():
                    (group / name).write_text(above.read_text())

    def _bind_kernel_settings(self) -> None:
        for name, value in KERNEL_SETTINGS.items():
            own = f"/run/kernel-settings/{name}"
            put(self.machine, own, value + "\n", mode="644")
            self.machine.run(["mount", "--bind", own, f"/proc/sys/{name}"])


def addresses_of(machine: Machine) -> list[str]:
    """The node's own addresses, IPv4 first: what its NIC calls primary."""
    return [str(machine.primary_ip), *map(str, machine.vm.primary_nic.ipv6[:1])]


def _kubelet_arguments(machine: Machine, zone: str) -> list[str]:
    labels = [f"--node-labels=topology.kubernetes.io/zone={zone}"] if zone else []
    return [
        f"--config={_FILES}/kubelet.yaml",
        f"--kubeconfig={_FILES}/kubelet.conf",
        f"--hostname-override={machine.name}",
        f"--node-ip={','.join(addresses_of(machine))}",
        *labels,
    ]


def _kubelet_configuration(machine: Machine, max_pods: int, services: ServiceNetwork) -> str:
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{_FILES}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{_FILES}/kubelet.crt",
            "tlsPrivateKeyFile": f"{_FILES}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{machine.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "protectKernelDefaults": True,
            "clusterDNS": list(services.dns[:1]),
            "clusterDomain": DOMAIN,
            # No name server outside of the cluster: what a test asks for stays on this machine.
            "resolvConf": "/dev/null",
            "staticPodPath": f"{_FILES}/manifests",
            "maxPods": max_pods,
            # The disk is this machine's, and nobody should be evicted because it is nearly full.
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "registerNode": True,
        },
        indent=1,
    )


def _proxy_configuration(mode: str) -> str:
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{_FILES}/kube-proxy.conf"},
            "mode": mode,
            # nf_conntrack_max is the whole machine's.
            "conntrack": {"maxPerCore": 0},
        },
        indent=1,
    )
