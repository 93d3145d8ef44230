"""A node whose agent lets its NIC's addresses follow demand: started, killed, asked, given pods."""

from __future__ import annotations

import json
import math
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from integration.calls import Outcome, call
from integration.cluster.program import put
from integration.fabric.armdocuments import nic_document
from integration.fabric.machine import CA_FILE
from integration.plugins import BIN, install_ours

if TYPE_CHECKING:
    from integration.cluster.apiserver import ApiServer
    from integration.fabric import Fabric, Machine

NETCONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "azvnet",
    "type": "azvnet",
    "ipam": {"type": "azvnet-ipam", "environment": "imds", "queryInterval": 0.2, "cooldown": 0.1},
}
SIZES: dict[str, Any] = {"mode": "node", "low": 2, "batch": 4, "high": 6, "shrink_after_seconds": 3600}
CONFIG = "/etc/azvnet-agent.json"
_TOKEN, _AUTHORITY = "/etc/azvnet/token", "/etc/azvnet/cluster-ca.crt"


class ProvisionedNode:
    """A node and its agent, which can be killed and started again."""

    def __init__(self, fabric: Fabric, name: str = "node1") -> None:
        self.fabric = fabric
        self.machine: Machine = fabric.nodes[name]
        self.pods: dict[str, str] = {}
        """Names of pods with their addresses."""
        self._agent: subprocess.Popen[str] | None = None
        install_ours(self.machine)

    def configure(self, **provision: Any) -> None:
        """Write the agent's settings, which it reads when they change."""
        settings = {
            "source": "imds",
            "refresh_seconds": 0.5,
            "reconcile_seconds": 1,
            "arm": {"ca_file": CA_FILE, "credential": "managed-identity"},
            "provision": {**SIZES, **provision},
        }
        self.machine.run(["tee", CONFIG], input=json.dumps(settings))

    def start(self, **provision: Any) -> None:
        self.configure(**provision)
        self._agent = self.machine.popen(
            [f"{BIN}/azvnet", "agent", "--config", CONFIG],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.send_signal(how)
            agent.wait(60)

    def add(self, name: str, ip: str = "") -> Outcome:
        """ADD for a pod of that name, in a namespace of its own; ``ip``: the address that it asks for."""
        if self.machine.run(["ip", "netns", "pids", name], check=False).returncode != 0:
            self.machine.run(["ip", "netns", "add", name])
        args = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}{f';IP={ip}' if ip else ''}"
        done = call(self.machine, "ADD", NETCONF, container_id=name, netns=f"/run/netns/{name}", args=args)
        if done.ok:
            self.pods[name] = done.result["ips"][0]["address"].split("/")[0]
        return done

    def delete(self, name: str) -> None:
        call(self.machine, "DEL", NETCONF, container_id=name, netns=f"/run/netns/{name}").done()
        del self.pods[name]

    def reaches_the_network(self, name: str) -> bool:
        """Whether a pod's ping to another machine is answered."""
        other = str(self.fabric.vnet_hosts["vm1"].primary_ip)
        argv = ["ip", "netns", "exec", name, "ping", "-c", "1", "-W", "5", other]
        return self.machine.run(argv, check=False).returncode == 0

    def status(self) -> dict[str, Any]:
        printed = self.machine.run([f"{BIN}/azvnet", "status", "--output", "json"], check=False).stdout
        document: dict[str, Any] = json.loads(printed or "{}")
        return document

    def says(self, word: str) -> bool:
        """Whether ``azvnet status`` tells this of the NIC's growth."""
        return word in str((self.status().get("agent") or {}).get("provision", ""))

    def page(self, name: str) -> str:
        """What the agent's page of that name says; empty: it has no answer, or not a good one."""
        page = ["curl", "-sf", "--unix-socket", "/run/azvnet/http.sock", f"http://node/{name}"]
        return self.machine.run(page, check=False).stdout

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says that a pod gets an address."""
        return bool(self.page("readyz"))

    def metric(self, name: str) -> float:
        """One sample, named with its labels; not a number: there is none."""
        lines = self.page("metrics").splitlines()
        found = [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]
        return float(found[0]) if found else math.nan

    def logged(self, word: str) -> bool:
        """Whether the agent's log has it."""
        log = self.machine.run(["cat", "/var/log/azvnet/agent.log"], check=False).stdout
        return word in log

    @property
    def free(self) -> int:
        return int((self.status().get("pool") or {}).get("free", 0))

    @property
    def names(self) -> list[str]:
        """The IP configurations of the NIC, as the emulated Azure has them."""
        return [each.name for each in self.machine.vm.primary_nic.configurations]

    def document(self) -> dict[str, Any]:
        """The NIC as Resource Manager shows it."""
        vm = self.machine.vm
        return nic_document(self.fabric.estate, vm, vm.primary_nic)

    @property
    def ours(self) -> list[str]:
        return [name for name in self.names if name.startswith("azvnet-")]

    @property
    def writes(self) -> int:
        """PUTs that were accepted."""
        return self.fabric.arm.log.count(kind="PUT", status=200)

    @property
    def resident_bytes(self) -> int:
        """The most memory that the agent ever had."""
        lines = self.machine.run(["cat", f"/proc/{self.status()['agent']['pid']}/status"]).stdout.splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024

    def nothing_was_dropped(self) -> bool:
        """No pod ever sent from an address that the NIC did not own."""
        return self.fabric.drop_counters().spoofed.get(self.machine.name, 0) == 0


class NodeOfCluster(ProvisionedNode):
    """A node whose agent may ask an API server, with the token of a service account.

    Args:
        server: it has no Node of that name yet.
        account: in ``kube-system``; what it may do is up to the caller.
        provider_id: of the Node.
    """

    def __init__(
        self, fabric: Fabric, server: ApiServer, name: str, *, account: str = "azvnet", provider_id: str = ""
    ) -> None:
        super().__init__(fabric, name)
        self.server = server
        self.name = name
        server.add_node(name, provider_id)
        put(self.machine, _TOKEN, server.token("kube-system", account, name))
        put(self.machine, _AUTHORITY, server.control.authority.certificate)

    def configure(self, **provision: Any) -> None:
        api = {"server": self.server.control.url, "token_file": _TOKEN, "ca_file": _AUTHORITY}
        super().configure(**{"node_name": self.name, "api": api, **provision})
