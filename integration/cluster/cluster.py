"""A real Kubernetes on the emulated Azure: control plane, nodes, access; put together and taken down.

This is what tests and the command line use; everything else in this package is a part of it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.cluster import addons, images
from integration.cluster import cni as network
from integration.cluster.client import Client
from integration.cluster.controlplane import PORT, ControlPlane
from integration.cluster.node import PROXY_MODES, Node
from integration.cluster.program import ClusterError, Program, wait_until
from integration.cluster.relay import Relay
from integration.cluster.services import DUAL_STACK, IPV4_ONLY
from integration.fabric import Fabric, records, standalone
from integration.tools import containerd, kubernetes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from integration.fabric import Machine

CONTROL = "vm1"
"""The machine of the control plane; the fabric's other ``vm``s are ordinary hosts."""

MOST_IPV6 = 254
"""Secondary IPv6 addresses of a NIC (Azure's documentation, "IPv6 for Azure virtual network")."""
_KEPT = 5
_KEPT_LOGS = Path(__file__).parents[2] / ".cache" / "cluster"


class Cluster(Client):
    """A cluster; a context manager that is up inside the block, and leaves nothing behind.

    Args:
        nodes: how many, ``node1`` and so on.
        addresses: secondary addresses of every node's NIC.
        dual_stack: nodes, pods and services have addresses of both families, IPv4 first. Every node's NIC has
            as many secondary IPv6 addresses as of IPv4, up to the 254 that Azure gives it.
        proxy: mode of kube-proxy on every node.
        cni: the plugin that nodes have from the start: ``azvnet``, ``ptp``, or none, and they stay
            NotReady until somebody installs one.
        dns: run CoreDNS. Its pod is Pending until a node is Ready.
        max_pods: of every kubelet.
        zones: availability zones over which the nodes are spread; 0: their labels name none.
        newest_containerd: nodes that run it instead of Debian's 1.6.
        name: of the fabric, unique on this machine; random when left out.
        api_port: where the API server is reached on this machine's loopback; 0: any free port.
        verbosity: ``-v`` of Kubernetes' programs.
        progress: what is told, in a few words, each time something begins.
        fabric: more arguments of `Fabric`.
    """

    def __init__(
        self,
        nodes: int = 2,
        addresses: int = 64,
        *,
        dual_stack: bool = False,
        proxy: str = "nftables",
        cni: str | None = None,
        dns: bool = True,
        max_pods: int = 110,
        zones: int = 0,
        newest_containerd: Collection[str] = (),
        name: str | None = None,
        api_port: int = 0,
        verbosity: int = 2,
        progress: Callable[[str], None] = lambda _: None,
        fabric: Mapping[str, Any] | None = None,
    ) -> None:
        if proxy not in PROXY_MODES:
            raise ValueError(f"kube-proxy has no mode {proxy}; it has {', '.join(PROXY_MODES)}")
        network.check(cni)
        ipv6 = min(addresses, MOST_IPV6) if dual_stack else 0
        wanted = {"vnet_hosts": 2, "name": name, "ipv6": ipv6, **(fabric or {})}
        self.fabric = Fabric(nodes=nodes, addresses=addresses, **wanted)
        """The emulated Azure below."""
        self.name = self.fabric.name
        super().__init__(records.root() / self.name / "kubeconfig")
        self.nodes: dict[str, Node] = {}
        """By name; none before the cluster was up."""
        self.logs_folder = _KEPT_LOGS / self.name
        """Logs of every program; they stay until a cluster of the same name starts."""
        self.dual_stack = dual_stack
        self.services = DUAL_STACK if dual_stack else IPV4_ONLY
        """Which addresses services get."""
        self._proxy = proxy
        self._max_pods = max_pods
        self._zones = zones
        self._newest_containerd = newest_containerd
        self._verbosity = verbosity
        self._cni = cni
        self._dns = dns
        self._api_port = api_port
        self._progress = progress
        self._undo = contextlib.ExitStack()
        self._control: ControlPlane | None = None
        self._programs = Path()

    @property
    def control(self) -> ControlPlane:
        """The control plane. Raises RuntimeError when the cluster is down."""
        if self._control is None:
            raise RuntimeError(f"cluster {self.name} is not up")
        return self._control

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Bring everything up; returns when the API server is ready and all nodes have registered.

        Raises:
            ClusterError: something did not start; on failure nothing is left.
            records.FabricExists: the name is taken.
        """
        self._programs = kubernetes()
        archives = [images.coredns()] if self._dns else []
        self._make_logs_folder()
        with contextlib.ExitStack() as undo:
            self._progress("the emulated Azure")
            undo.enter_context(self.fabric)
            self._progress("control plane")
            machine = self.fabric.vnet_hosts[CONTROL]
            self._control = ControlPlane(
                machine,
                self._programs,
                self.logs_folder,
                services=self.services,
                verbosity=self._verbosity,
            )
            self._control.start()
            relay = Relay(machine, (str(machine.primary_ip), PORT), self._api_port)
            undo.callback(relay.close)
            self._control.write_kubeconfig(self.kubeconfig, relay.port)
            self._make_nodes(archives)
            self.wait_api_server()
            self._control.start_controllers()
            for node in self.nodes.values():
                self._progress(f"{node.name}: containerd, kubelet, kube-proxy")
                node.start()
            self._await_registered()
            if self._dns:
                self.apply(addons.coredns(self.services))
            for program in self.programs():
                _ = program.pid  # raises when it has ended
            self._undo = undo.pop_all()

    def down(self) -> None:
        """End everything. The machines end as by pulling the plug, which takes all programs with them."""
        self._undo.close()
        self._control = None
        self.nodes = {}

    def load_image(self, archive: Path) -> None:
        """Import a docker or OCI archive into every node. Raises ProgramFailed."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.load_image(archive), self.nodes.values()))

    def start_api_server(self) -> None:
        """Start the API server again and wait until it is ready; restart what ended without it."""
        self.control.api_server.start()
        self.wait_api_server()
        self.control.start_controllers()

    def stop_api_server(self) -> None:
        """Kill the API server; etcd keeps the state, kubelets and pods go on."""
        self.control.api_server.stop(kill=True)

    def set_proxy_mode(self, mode: str) -> None:
        """Restart kube-proxy on all nodes in another mode. Raises ValueError."""
        for node in self.nodes.values():
            node.set_proxy_mode(mode)

    def install_cni(self, choice: str) -> None:
        """Give every node a CNI plugin, as the argument ``cni`` does from the start."""
        for node in self.nodes.values():
            network.install(node.machine, choice)

    def ready_nodes(self) -> list[str]:
        """The names of the nodes that are Ready; what was said before a node's last boot does not count."""
        return [
            name
            for item in self.get("nodes")["items"]
            if (name := item["metadata"]["name"]) in self.nodes
            and item["status"]["nodeInfo"]["bootID"] == self.nodes[name].machine.boot_id
            and any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"])
        ]

    def wait_nodes_ready(self, *, patience: float = 90.0) -> float:
        """Wait until every node is Ready; returns the seconds it took. Raises ClusterError."""
        return self._await(
            f"all nodes of {', '.join(self.nodes)} are Ready",
            lambda: set(self.ready_nodes()) >= set(self.nodes),
            patience,
        )

    def wait_dns(self, *, patience: float = 120.0) -> float:
        """Wait until CoreDNS answers; returns the seconds it took. Raises ClusterError."""
        return self.wait_available("deployment/coredns", namespace="kube-system", patience=patience)

    def wait_api_server(self, *, patience: float = 120.0) -> None:
        """Wait until the API server says that it is ready. Raises ClusterError."""
        self.control.api_server.wait_until(
            "ready",
            lambda: self.kubectl("get", "--raw=/readyz", check=False, timeout=30).returncode == 0,
            patience=patience,
        )

    def log(self, program: str) -> str:
        """The log of a program: ``kube-apiserver``, ``kubelet-node1``… Raises ClusterError."""
        path = self.logs_folder / f"{program}.log"
        if not path.exists():
            known = ", ".join(sorted(each.stem for each in self.logs_folder.glob("*.log")))
            raise ClusterError(f"there is no log of {program}; there are {known}")
        return path.read_text(encoding="utf-8", errors="replace")

    def programs(self) -> Iterator[Program]:
        """Every program of Kubernetes that belongs to the cluster."""
        yield from self.control.programs
        for node in self.nodes.values():
            yield from (node.kubelet, node.proxy)

    @property
    def tools(self) -> Path:
        """The folder with kubectl, helm, ginkgo and e2e.test."""
        return self._programs

    @property
    def control_machine(self) -> Machine:
        """The machine of the control plane; programs in it reach nodes, pods and the API server."""
        return self.control.machine

    def _make_logs_folder(self) -> None:
        """Make it anew; of clusters that are gone only the last few keep theirs."""
        shutil.rmtree(self.logs_folder, ignore_errors=True)
        self.logs_folder.mkdir(parents=True)
        up = {self.name, *standalone.running()}
        gone = [folder for folder in _KEPT_LOGS.iterdir() if folder.name not in up]
        for folder in sorted(gone, key=lambda each: each.stat().st_mtime)[:-_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_nodes(self, archives: list[Path]) -> None:
        location = self.fabric.estate.location
        for number, machine in enumerate(self.fabric.nodes.values()):
            self.nodes[machine.name] = Node(
                machine,
                self.control,
                self._programs,
                self.logs_folder,
                images=archives,
                services=self.services,
                proxy=self._proxy,
                max_pods=self._max_pods,
                verbosity=self._verbosity,
                runtime=containerd() if machine.name in self._newest_containerd else None,
                zone=f"{location}-{number % self._zones + 1}" if self._zones else "",
            )
            network.install(machine, self._cni)

    def _await_registered(self, patience: float = 120.0) -> None:
        for node in self.nodes.values():
            node.kubelet.wait_until(
                "registered",
                lambda name=node.name: self.kubectl("get", "node", name, check=False).returncode == 0,  # type: ignore[misc]
                patience=patience,
            )

    def _await(self, what: str, condition: Callable[[], bool], patience: float) -> float:
        started = time.monotonic()
        try:
            wait_until(what, condition, patience=patience)
        except ClusterError as error:
            nodes = self.kubectl("describe", "nodes", check=False).stdout
            raise ClusterError(f"{error}\n{nodes}") from None
        return time.monotonic() - started
