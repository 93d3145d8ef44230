"""Pods for tests: network namespaces attached through cnitool, as endpoints that can talk."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from integration import calls, plugins, reach, witness
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from integration.calls import Outcome
    from integration.fabric import DropCounters, Fabric, Machine


@dataclass(frozen=True)
class Pod:
    """A network namespace of a node on one network; nothing is attached until `add`."""

    node: Machine
    name: str
    network: str = "azvnet"
    ifname: str = "eth0"
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, node: Machine, name: str, **more: Any) -> Pod:
        """A new namespace with its loopback up, as a runtime makes it."""
        node.run(["ip", "netns", "add", name])
        node.run(["ip", "-netns", name, "link", "set", "lo", "up"])
        return cls(node, name, **more)

    @property
    def netns(self) -> str:
        """Its path in the node."""
        return f"/run/netns/{self.name}"

    def cnitool(self, command: str) -> Outcome:
        """One command of cnitool for this pod."""
        return calls.cnitool(
            self.node, command, self.network, self.netns, ifname=self.ifname, capabilities=self.capabilities
        )

    def add(self) -> dict[str, Any]:
        """Attach; the result. Raises CallError."""
        return self.cnitool("add").result

    def delete(self) -> None:
        """Detach. Raises CallError."""
        self.cnitool("del").done()

    def destroy(self) -> None:
        """Remove the namespace with everything in it."""
        self.node.run(["ip", "netns", "delete", self.name])

    def run(self, *argv: str, check: bool = True) -> str:
        """What a program in the pod prints. Raises CalledProcessError when ``check``."""
        return self.node.run(["nsenter", f"--net={self.netns}", "--", *argv], check=check).stdout

    def links(self) -> dict[str, dict[str, Any]]:
        """The pod's interfaces by name, with addresses, from the kernel."""
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-json", "address"))}

    def addresses(self) -> list[str]:
        """IPv4 addresses of the pod's interface with prefix length, from the kernel."""
        found = self.links().get(self.ifname, {}).get("addr_info", [])
        return [f"{a['local']}/{a['prefixlen']}" for a in found if a["family"] == "inet"]

    @property
    def ipv6(self) -> str:
        """The pod's IPv6 address, from the kernel."""
        found = self.links()[self.ifname]["addr_info"]
        (address,) = [a["local"] for a in found if (a["family"], a["scope"]) == ("inet6", "global")]
        return str(address)

    @property
    def endpoint(self) -> reach.Endpoint:
        """Where its traffic comes from and goes to."""
        return reach.Endpoint(self.name, self.node, ip_interface(self.addresses()[0]).ip, self.netns)


def attached(node: Machine, *names: str, **more: Any) -> list[Pod]:
    """New pods, added one after the other."""
    made = [Pod.make(node, name, **more) for name in names]
    for pod in made:
        pod.add()
    return made


def machine(of: Machine) -> reach.Endpoint:
    """A machine of the fabric as the end of a conversation."""
    return reach.Endpoint(of.name, of, of.primary_ip)


def use(node: Machine, *chain: dict[str, Any], name: str = "azvnet", version: str = "1.0.0") -> None:
    """Make these plugins the node's only network."""
    plugins.write_conflist(node, {"cniVersion": version, "name": name, "plugins": list(chain)})


def unreached(sources: Sequence[reach.Endpoint], targets: Sequence[reach.Endpoint]) -> list[str]:
    """Which source does not reach which target; empty when all is well."""
    with reach.serving(targets):
        rows = reach.matrix(sources, targets)
    return [f"{p.source} -> {p.target}: {p}" for row in rows for p in row if not p.ok]


def dropped(fabric: Fabric) -> dict[str, int]:
    """What the fabric dropped by reason; empty when all is well."""
    counters: DropCounters = fabric.drop_counters()
    found = {"spoofed": counters.spoofed_total, "platform": counters.platform_total, **counters.general}
    return {reason: packets for reason, packets in found.items() if packets}


def without_files(facts: Iterable[str]) -> list[str]:
    """Facts of a snapshot without files: a delegate such as host-local keeps its folders for good."""
    return [fact for fact in facts if not fact.startswith("file ")]


WITNESS_PORT = 5300


@contextlib.contextmanager
def listening(machine: Machine, address: str, netns: str = "") -> Iterator[None]:
    """A server at an address and ``WITNESS_PORT`` that answers with the client's address, TCP and UDP.

    Args:
        machine: where it runs.
        address: of the machine, or of the namespace.
        netns: path of a namespace in the machine; empty: the machine's own.
    """
    ready = f"/run/listens{netns.replace('/', '-')}-{address.replace(':', '-')}"
    argv = ["python3", "-c", witness.SERVER, ready, f"{address}:{WITNESS_PORT}"]
    inside = ["nsenter", f"--net={netns}", "--"] if netns else []
    process = machine.popen([*inside, *argv], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: not machine.run(["test", "-e", ready], check=False).returncode, "it listens")
        yield
    finally:
        process.kill()
        process.wait()
        machine.run(["rm", "-f", ready], check=False)
