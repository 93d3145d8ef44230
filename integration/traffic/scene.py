"""Two nodes with pods and services on the emulated Azure, and everything else that a packet may be sent to.

Owns setting it up, who sends, and where to. It must not know what is measured, nor how it is shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from integration import plugins
from integration.fabric import Fabric
from integration.fabric.model import FABRIC_ROUTER, IMDS, WIRESERVER
from integration.tests.pods import Pod, use
from integration.traffic import proxy
from integration.traffic.ends import PORT, Kind, Witness
from integration.traffic.family import IPV4, IPV6, Family
from integration.traffic.wire import Wire
from integration.waiting import found_within

if TYPE_CHECKING:
    from integration.fabric import Machine
    from integration.traffic.proxy import Service
    from ipam.model import IPAddress

FAMILIES = (IPV4, IPV6)
"""Each has a scene of its own: pods of that of IPv6 have addresses of both."""
CONFLIST = plugins.BUNDLE.parents[1] / "conf" / "10-azvnet.conflist"
MODES = ("nftables", "iptables")
"""Of kube-proxy."""
POD, SECOND, NODE = "pod", "pod of a second NIC", "node"
OPEN, PLAIN = "pod, source `arm`, platform open", "the same, `ipMasq: false`"
PUBLIC = "the same, with a public address"
HOME = {POD: "node1", SECOND: "node1", NODE: "node1", OPEN: "node2", PLAIN: "node2", PUBLIC: "node2"}
BACKEND, PUBLISHED = "backend", "published"
SERVICE_PORT, HOST_PORT = 80, 9080
BOTH = (Kind.TCP, Kind.UDP)
HTTP = b"GET /?comp=versions HTTP/1.0\r\nMetadata: true\r\n\r\n"
QUERY = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\3vm1\0" + struct.pack("!HH", 1, 1)
SETTINGS = {
    "source": "arm",
    "platform": {"imds": "open", "wireserver": "open"},
    "refresh_seconds": 1,
    "reconcile_seconds": 0.5,
}
ON_PREMISES = {4: "192.168.7.0/24", 6: "fd00:192:168::/64"}
AGENT_PATIENCE = 60.0
LABELS = {"node1": "one", "node2": "two"}


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: a network namespace with an address."""

    title: str
    node: Machine
    netns: int
    family: Family
    address: str
    node_addresses: tuple[str, ...]
    """Of its node's NICs, the primary one first."""
    public: str = ""
    """The public address of its own."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where it is sent, as one sender sees it."""

    title: str
    address: str
    kinds: tuple[Kind, ...] = tuple(Kind)
    port: int = PORT
    questions: dict[Kind, bytes] = field(default_factory=dict)
    """For servers that are not ours."""
    translated: bool = False
    """Whether rules of others on the sender's node give it another target."""


@dataclass
class Scene:
    """Everything that is there."""

    family: Family
    fabric: Fabric
    witness: Witness
    wire: Wire
    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    senders: list[Sender] = field(default_factory=list)

    @property
    def services(self) -> list[Service]:
        """A service in front of a pod of each node, and one in front of each pod that sends."""
        endpoints = [self.address_of(node, BACKEND) for node in LABELS]
        endpoints += [each.address for each in self.senders if each.title != NODE]
        addresses = "10.96.0.{}" if self.family is IPV4 else "fd00:10:96::{}"
        return [
            proxy.Service(
                f"s{number}",
                addresses.format(10 + number),
                SERVICE_PORT,
                endpoint,
                PORT,
                node_port=30080 + number,
            )
            for number, endpoint in enumerate(endpoints)
        ]

    def address_of(self, node: str, role: str) -> str:
        """A pod's address."""
        pod = self.pods[node, role]
        return str(pod.endpoint.address if self.family is IPV4 else pod.ipv6)

    def targets(self, sender: Sender) -> Iterator[Target]:
        """Where a sender sends, but for services."""
        home, away = sender.node, self._other(sender.node)
        of, hosts = self.family.of_machine, self.fabric.vnet_hosts
        yield Target("a pod on the same node", self.address_of(home.name, BACKEND))
        yield Target("a pod on another node", self.address_of(away.name, BACKEND))
        yield Target("the node itself", of(home))
        yield Target("another node", of(away))
        yield Target("a host of the virtual network", of(hosts["vm1"]))
        yield Target("a host of a peered network", of(hosts["peer1"]))
        yield Target(f"a host on premises, {ON_PREMISES[self.family.version]}", of(hosts["onpremises1"]))
        yield Target("the Internet", of(hosts["internet"]))
        if self.family is IPV4:
            yield from self._platform()
        yield Target("a host port of the node itself", of(home), BOTH, HOST_PORT, translated=True)
        yield Target("a host port of another node", of(away), BOTH, HOST_PORT)

    def _platform(self) -> Iterator[Target]:
        """Services that have an IPv4 address alone."""
        stream = len(QUERY).to_bytes(2, "big") + QUERY
        dns = {Kind.UDP: QUERY, Kind.TCP: stream}
        yield Target("DNS of the platform, 168.63.129.16 port 53", str(WIRESERVER), BOTH, 53, dns)
        for port in (80, 32526):
            title = f"wireserver, 168.63.129.16 port {port}"
            yield Target(title, str(WIRESERVER), (Kind.TCP,), port, {Kind.TCP: HTTP})
        yield Target("IMDS, 169.254.169.254 port 80", str(IMDS), (Kind.TCP,), 80, {Kind.TCP: HTTP})

    def service_targets(self, sender: Sender) -> Iterator[Target]:
        """Addresses and node ports of services."""
        home, away = sender.node, self._other(sender.node)
        behind = {service.endpoint: service for service in self.services}
        near = behind[self.address_of(home.name, BACKEND)]
        far = behind[self.address_of(away.name, BACKEND)]
        own = behind.get(sender.address)

        def through(what: str, service: Service | None, address: str = "", port: int = 0) -> Iterator[Target]:
            if service is not None:
                target = address or service.cluster_ip
                yield Target(what, target, BOTH, port or service.port, translated=True)

        yield from through("a service, its pod on the same node", near)
        yield from through("a service, its pod on another node", far)
        yield from through("a service, its pod the sender itself", own)
        node, other = map(self.family.of_machine, (home, away))
        yield from through("a node port of the node itself, pod on it", near, node, near.node_port)
        yield from through("a node port of the node itself, pod on another", far, node, far.node_port)
        yield Target("a node port of another node, pod on that", other, BOTH, far.node_port)

    def use_proxy(self, mode: str) -> None:
        """Have the services by rules of this mode alone; iptables' stay, since it is the last."""
        for node in self.fabric.nodes.values():
            if mode == "nftables":
                script = proxy.nftables(self.services, self.family.of_machine(node))
                node.run(["nft", "-f", "-"], input=script)
            else:
                node.run(["nft", "delete", "table", self.family.table, "kube-proxy"])
                restore = [f"{self.family.table}tables-restore", "--noflush"]
                node.run(restore, input=proxy.iptables(self.services))

    def ports_of(self, node: Machine) -> set[str]:
        """The links of the host network at which a node's NICs are."""
        return {self.fabric.network.ports[nic.mac].name for nic in node.nics}

    def _other(self, node: Machine) -> Machine:
        return next(each for each in self.fabric.nodes.values() if each is not node)


@contextlib.contextmanager
def scene(family: Family) -> Iterator[Scene]:
    """All of it, up inside the block."""
    ipv6 = 8 if family is IPV6 else 0
    shape: dict[str, Any] = {"peered_hosts": 1, "on_premises_hosts": 1, "internet": True, "imds_limit": None}
    with contextlib.ExitStack() as undo:
        fabric = undo.enter_context(Fabric(nodes=2, addresses=8, nics=2, ipv6=ipv6, **shape))
        wire = undo.enter_context(Wire(fabric.network.netns, family))
        made = Scene(family, fabric, undo.enter_context(Witness(family)), wire)
        one, two = fabric.nodes.values()
        for node in (one, two):
            plugins.install_ours(node)
            plugins.install_reference(node)
            _route(node)
        _networks(one, "auto", family)
        _networks(two, "arm", family)
        undo.enter_context(_agent(two))
        for node in (one, two):
            own = [title for title in HOME if title != NODE and HOME[title] == node.name]
            for role in (*own, BACKEND, PUBLISHED):
                made.pods[node.name, role] = _pod(node, role)
        spaces = {key: undo.enter_context(_space(pod)) for key, pod in made.pods.items()}
        for title in HOME:
            node = fabric.nodes[HOME[title]]
            of_node = tuple(map(family.address_of, node.nics))
            where = (node.namespaces.net, family, of_node[0])
            if title != NODE:
                where = (spaces[node.name, title], family, made.address_of(node.name, title))
            public = _public(fabric, node, where[-1]) if title == PUBLIC else ""
            made.senders.append(Sender(title, node, *where, of_node, public))
        for netns in (*spaces.values(), *(each.namespaces.net for each in fabric.machines.values())):
            made.witness.listen(netns)
        yield made


def _networks(node: Machine, environment: str, family: Family) -> None:
    """The shipped network, one of the second NIC, and one without masquerading; with both families in the
    scene of IPv6.
    """
    azvnet, portmap = json.loads(CONFLIST.read_text())["plugins"]
    azvnet["ipam"]["environment"] = environment
    if family is IPV6:
        azvnet["ipam"]["families"] = ["IPv4", "IPv6"]
    use(node, azvnet, portmap)
    for name, keys in (("plain", {"ipMasq": False}), ("second", {"master": "eth1"})):
        network = {"cniVersion": "1.0.0", "name": name, "plugins": [{**azvnet, **keys}]}
        plugins.write_conflist(node, network, name=f"20-{name}.conflist")


def _route(node: Machine) -> None:
    """What the node itself sends leaves by its right NIC, as cloud-init has it on Azure."""
    for number, nic in enumerate(node.nics):
        ways: list[tuple[str, IPAddress, IPAddress]] = [("-4", nic.primary_ip, nic.subnet.gateway)]
        ways += [("-6", nic.ipv6[0], FABRIC_ROUTER)] if nic.ipv6 else []
        for option, own, gateway in ways:
            table = str(200 + number)
            route = ["default", "via", str(gateway), "dev", f"eth{number}", "table", table]
            node.run(["ip", option, "route", "add", *route])
            node.run(["ip", option, "rule", "add", "from", str(own), "lookup", table])


@contextlib.contextmanager
def _agent(node: Machine) -> Iterator[None]:
    """Masquerading as source ``arm`` has it, and the platform's services open."""
    path = "/etc/azvnet/agent.json"
    node.run(["sh", "-c", f"mkdir -p /etc/azvnet && cat > {path}"], input=json.dumps(SETTINGS))
    argv = ["/opt/cni/bin/azvnet", "agent", "--config", path]
    agent = node.popen(argv, stderr=subprocess.DEVNULL)
    try:
        ready = found_within(
            AGENT_PATIENCE,
            lambda: "10.10.0.0/16, 10.20.0.0/16" in node.run(["nft", "list", "ruleset"]).stdout,
        )
        assert ready, "the agent did not write what source arm lists"
        yield
    finally:
        agent.terminate()
        agent.wait()


def _pod(node: Machine, role: str) -> Pod:
    mappings = [{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": kind.value} for kind in BOTH]
    name = {POD: "first", SECOND: "second", PLAIN: "plain", OPEN: "open", PUBLIC: "public"}.get(role, role)
    more = {"capabilities": {"portMappings": mappings}} if role == PUBLISHED else {}
    pod = Pod.make(node, name, network=name if role in {PLAIN, SECOND} else "azvnet", **more)
    pod.add()
    return pod


def _public(fabric: Fabric, node: Machine, address: str) -> str:
    """Give an address of a node a public one of its own, which the agent there knows of then."""
    given = str(fabric.give_public(node.name, ip_address(address)))
    known = found_within(
        AGENT_PATIENCE,
        lambda: f"saddr {address} " in node.run(["nft", "list", "table", "inet", "azvnet"]).stdout,
    )
    assert known, f"the agent did not write that {address} is {given} outside"
    return given


@contextlib.contextmanager
def _space(pod: Pod) -> Iterator[int]:
    """A descriptor of a pod's network namespace."""
    fd = os.open(f"/proc/{pod.node.holder_pid}/root{pod.netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
