"""The control plane of a cluster in one machine: etcd, API server, controller manager, scheduler.

Owns their arguments, their files in /etc/kubernetes, and their order. Must not know the nodes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.access import Authority
from integration.cluster.program import Program, put
from integration.cluster.services import IPV4_ONLY, ServiceNetwork

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from integration.fabric import Machine

PORT = 6443
ADMINISTRATORS = "system:masters"
DOMAIN = "cluster.local"

_FILES = "/etc/kubernetes"
_ETCD = "http://127.0.0.1:2379"


class ControlPlane:
    """etcd and the three programs of Kubernetes, with a certificate authority of their own.

    Args:
        machine: where they run; reached by its VNet address.
        programs: folder with the executables.
        logs: folder for their output.
        services: which addresses services get.
        verbosity: ``-v`` of Kubernetes' programs.
    """

    def __init__(
        self,
        machine: Machine,
        programs: Path,
        logs: Path,
        *,
        services: ServiceNetwork = IPV4_ONLY,
        verbosity: int = 2,
    ) -> None:
        self.machine = machine
        self._services = services
        self.authority = Authority("cluster")
        self._front_proxy = Authority("front proxy")
        self._common = [f"--v={verbosity}"]

        def program(name: str, *argv: str) -> Program:
            return Program(machine, name, [str(programs / name), *argv], logs / f"{name}.log")

        self.etcd = program("etcd", *_etcd_arguments())
        self.api_server = program(
            "kube-apiserver", *_api_server_arguments(machine.primary_ip, services), *self._common
        )
        self.controller_manager = program(
            "kube-controller-manager", *_controller_manager_arguments(), *self._common
        )
        self.scheduler = program("kube-scheduler", *_client_arguments("scheduler"), *self._common)

    @property
    def address(self) -> IPv4Address:
        """VNet address of the API server."""
        return self.machine.primary_ip

    @property
    def url(self) -> str:
        """Of the API server, for whoever is in the virtual network."""
        return f"https://{self.address}:{PORT}"

    @property
    def programs(self) -> tuple[Program, ...]:
        """All of them, in the order in which they start."""
        return self.etcd, self.api_server, self.controller_manager, self.scheduler

    def start(self) -> None:
        """Write the files, start etcd and the API server. Does not wait until it answers."""
        self._write_files()
        self.etcd.start()
        self.api_server.start()

    def start_controllers(self) -> None:
        """Start the others, if they do not run: they end when the API server is not there or does not
        know their roles yet.
        """
        self.controller_manager.start()
        self.scheduler.start()

    def kubeconfig(self, user: str, group: str = "", *, server: str = "") -> str:
        """A kubeconfig of a user; ``server``: its URL when not that in the virtual network."""
        credential = self.authority.issue(user, group)
        return self.authority.kubeconfig(server or self.url, credential, user=user)

    def write_kubeconfig(self, path: Path, port: int) -> None:
        """Write an administrator's, for this machine, where the API server is reached at that port."""
        content = self.kubeconfig("kubernetes-admin", ADMINISTRATORS, server=f"https://127.0.0.1:{port}")
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)

    def _write_files(self) -> None:
        issue = self.authority.issue
        pairs = {
            "apiserver": issue(
                "kube-apiserver",
                "",
                str(self.address),
                "127.0.0.1",
                *self._services.api_server,
                "localhost",
                self.machine.name,
                *("kubernetes.default.svc"[:end] for end in (10, 18, 22)),
                f"kubernetes.default.svc.{DOMAIN}",
            ),
            "kubelet-client": issue("kube-apiserver-kubelet-client", ADMINISTRATORS),
            "service-accounts": issue("service-accounts"),
            "front-proxy-client": self._front_proxy.issue("front-proxy-client"),
        }
        files = {
            "ca.crt": self.authority.certificate,
            "ca.key": self.authority.key,
            "front-proxy-ca.crt": self._front_proxy.certificate,
            "controller-manager.conf": self.kubeconfig("system:kube-controller-manager"),
            "scheduler.conf": self.kubeconfig("system:kube-scheduler"),
            "admin.conf": self.kubeconfig("kubernetes-admin", ADMINISTRATORS),
        }
        for name, pair in pairs.items():
            files |= {f"{name}.crt": pair.certificate, f"{name}.key": pair.key}
        for name, content in files.items():
            put(self.machine, f"{_FILES}/{name}", content)


def _etcd_arguments() -> list[str]:
    peers = "http://127.0.0.1:2380"
    return [
        "--name=etcd",
        "--data-dir=/var/lib/etcd",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=etcd={peers}",
        "--log-level=warn",
        # The disk is memory, and a cluster that ends is thrown away.
        "--unsafe-no-fsync",
    ]


def _api_server_arguments(address: IPv4Address, services: ServiceNetwork) -> list[str]:
    return [
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={address}",
        f"--secure-port={PORT}",
        f"--service-cluster-ip-range={','.join(services.ranges)}",
        f"--client-ca-file={_FILES}/ca.crt",
        f"--tls-cert-file={_FILES}/apiserver.crt",
        f"--tls-private-key-file={_FILES}/apiserver.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={_FILES}/service-accounts.crt",
        f"--service-account-signing-key-file={_FILES}/service-accounts.key",
        f"--kubelet-certificate-authority={_FILES}/ca.crt",
        f"--kubelet-client-certificate={_FILES}/kubelet-client.crt",
        f"--kubelet-client-key={_FILES}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={_FILES}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={_FILES}/front-proxy-client.crt",
        f"--proxy-client-key-file={_FILES}/front-proxy-client.key",
        # There is no kube-proxy beside it: webhooks and aggregated servers are called at their pods.
        "--enable-aggregator-routing=true",
        "--profiling=false",
    ]


def _client_arguments(name: str) -> list[str]:
    file = f"{_FILES}/{name}.conf"
    return [
        f"--kubeconfig={file}",
        f"--authentication-kubeconfig={file}",
        f"--authorization-kubeconfig={file}",
        "--leader-elect=false",
        "--profiling=false",
    ]


def _controller_manager_arguments() -> list[str]:
    return [
        *_client_arguments("controller-manager"),
        f"--root-ca-file={_FILES}/ca.crt",
        f"--service-account-private-key-file={_FILES}/service-accounts.key",
        f"--cluster-signing-cert-file={_FILES}/ca.crt",
        f"--cluster-signing-key-file={_FILES}/ca.key",
        "--use-service-account-credentials=true",
        # Pods have addresses of the virtual network; nodes need no range of their own.
        "--allocate-node-cidrs=false",
    ]
