"""The network namespace that plays Azure's host network: ports, delivery by address, the filter.

Delivery is routed and never asks by ARP: each NIC is a next hop with a permanent neighbour entry, each
address of it a route to that next hop. Towards the nodes every ARP request is answered with one MAC.
It must not know processes of nodes or HTTP.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from integration.fabric import namespaces as ns
from integration.fabric import ruleset
from integration.fabric.hostnetwork_v6 import HostNetworkV6
from integration.fabric.model import FABRIC_MAC, IMDS, WIRESERVER
from integration.fabric.publicips import translated

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv6Address

    from integration.fabric.model import Estate, Nic, Vm

INTERNET = "internet"
"""Name of the network that plays the Internet, and of the machine in it."""

_NEXT_HOPS = IPv4Network("198.18.0.0/15")
"""Names of ports for the routing table only; never seen in a packet (RFC 2544)."""

_SYSCTLS = {
    "net/ipv6/conf/all/disable_ipv6": 1,
    "net/ipv6/conf/default/disable_ipv6": 1,
    "net/ipv4/ip_forward": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
    # Every request is answered, also for addresses that nobody has; _pvlan adds those that would be
    # delivered through the port the request came from (kernel: ip-sysctl, proxy_arp_pvlan).
    "net/ipv4/conf/default/proxy_arp": 1,
    "net/ipv4/conf/default/proxy_arp_pvlan": 1,
}


@dataclass(frozen=True, slots=True)
class Port:
    """The fabric's end of one NIC's cable."""

    name: str
    machine: str
    mac: str
    next_hop: IPv4Address
    primary: IPv4Address


@dataclass(frozen=True, slots=True)
class Spoof:
    """Packets dropped because their source is not the NIC's."""

    machine: str
    source: str
    destination: str
    packets: int


@dataclass(frozen=True, slots=True)
class DropCounters:
    """What the fabric dropped since it came up, in packets."""

    spoofed: dict[str, int] = field(default_factory=dict)
    """By machine: source address not owned by the NIC."""
    platform: dict[str, int] = field(default_factory=dict)
    """By machine: to IMDS from another address than the primary one, or to the platform by another NIC."""
    general: dict[str, int] = field(default_factory=dict)
    """By reason, see `ruleset.GENERAL_COUNTERS`."""
    spoofs: tuple[Spoof, ...] = ()
    """Which sources were spoofed towards whom; at most 4096 kinds are kept."""

    @property
    def spoofed_total(self) -> int:
        """Packets with a source that their NIC does not own, over all machines."""
        return sum(self.spoofed.values())

    @property
    def platform_total(self) -> int:
        """Packets to the platform from a wrong address, over all machines."""
        return sum(self.platform.values())


class HostNetwork:
    """The fabric's namespace and what is in it. Methods may be called from any thread."""

    def __init__(self, *, mtu: int, services: Iterable[IPv4Address]) -> None:
        self.netns = ns.new_network_namespace()
        self.ports: dict[str, Port] = {}
        """By MAC of the NIC."""
        self._mtu = mtu
        self._routes: dict[str, set[IPv4Network]] = {}
        self._owned: dict[str, frozenset[IPv4Network]] = {}
        self._reached = ""
        self._lock = threading.RLock()
        self._v6 = HostNetworkV6(self.netns)
        ns.write_sysctls(self.netns, _SYSCTLS)
        addresses = [f"address add {address}/32 dev lo" for address in (WIRESERVER, IMDS, *services)]
        # ARP is answered only for what has a route; what goes to lo is dropped by the filter.
        ns.ip_batch(self.netns, ["link set lo up", *addresses, "route add default dev lo"])
        ns.nft(self.netns, ruleset.base())

    def close(self) -> None:
        """Let the namespace go, and with it everything in it."""
        self._v6.close()
        os.close(self.netns)

    def plug_in(self, machines: Iterable[tuple[Vm, int, tuple[str, ...]]]) -> None:
        """Lay the cables of machines: each with a pid in its network namespace and its links' names.

        The NIC's end is made in the machine's namespace with the NIC's MAC; delivery begins with the
        next `apply`. Raises ToolError.
        """
        with self._lock:
            batch: list[str] = []
            plugged: list[str] = []
            script = ""
            for vm, pid, links in machines:
                for nic, link in zip(vm.nics, links, strict=True):
                    port, added = self._port(vm, nic)
                    plugged.append(port.name)
                    script += added
                    batch += self._cable(port, link, pid)
            if script:
                ns.nft(self.netns, script)
            ns.ip_batch(self.netns, batch)
            self._routes.update({name: set() for name in plugged})
            for nic in (nic for vm, *_ in machines for nic in vm.nics if nic.ipv6):
                self._v6.plugged_in(self.ports[nic.mac].name, nic.mac)

    def await_carrier(self) -> None:
        """Wait until every plugged-in port can send. Raises ToolError."""
        with self._lock:
            names = [port.name for port in self.ports.values() if port.name in self._routes]
        ns.await_links(self.netns, names)

    def announce_routers(self, vm: Vm) -> None:
        """Send router advertisements to a machine, on the NICs that have IPv6."""
        with self._lock:
            self._v6.announce(self.ports[nic.mac].name for nic in vm.nics if nic.ipv6)

    def move_router(self, mac: str, address: IPv6Address, lifetime: int) -> None:
        """Have another router of IPv6 on a NIC's port, which announces itself. Raises ToolError."""
        with self._lock:
            self._v6.move_router(self.ports[mac].name, address, lifetime)

    def unplug(self, vm: Vm) -> None:
        """Take a machine's cables away; its counters stay."""
        with self._lock:
            gone = [self.ports[nic.mac] for nic in vm.nics if nic.mac in self.ports]
            ns.ip_batch(
                self.netns, [f"link delete {n}" for p in gone for n in (p.name, f"vf-{p.name}")], force=True
            )
            for port in gone:
                self._routes.pop(port.name, None)
                self._v6.forget(port.name)

    def apply(self, estate: Estate) -> None:
        """Deliver and accept exactly what the estate says; what stays the same is not touched."""
        with self._lock:
            removals: list[str] = []
            additions: list[str] = []
            script = _who_reaches_whom(estate)
            script, self._reached = (script if script != self._reached else ""), script
            for nic in (nic for vm in estate.vms for nic in vm.nics if nic.mac in self.ports):
                port = self.ports[nic.mac]
                wanted = frozenset(entry.block for entry in nic.delivered)
                routed = self._routes.get(port.name)
                if routed is None:
                    continue  # its cable is not plugged in
                removals += [f"route delete {block}" for block in sorted(routed - wanted)]
                additions += [
                    f"route add {block} via {port.next_hop} dev {port.name} onlink"
                    for block in sorted(wanted - routed)
                ]
                self._routes[port.name] = set(wanted)
                if self._owned.get(port.name) != wanted:
                    script += ruleset.owned(port.name, wanted)
                    self._owned[port.name] = wanted
            ns.ip_batch(self.netns, removals + additions)
            if script:
                ns.nft(self.netns, script)
            self._v6.apply(estate, {mac: port.name for mac, port in self.ports.items()})

    def plug_in_vf(self, mac: str, pid: int, link: str) -> None:
        """Make a second link with the NIC's MAC, as the VF of accelerated networking is.

        It carries nothing: the other end stays silent. Raises ToolError.
        """
        name = self._vf_name(mac)
        ends = f"type veth peer name {link} address {mac} mtu {self._mtu} netns {pid}"
        with self._lock:
            ns.ip_batch(self.netns, [f"link add {name} mtu {self._mtu} {ends}"])
            silent = {f"net/ipv4/conf/{name}/{key}": 0 for key in ("proxy_arp", "proxy_arp_pvlan")}
            ns.write_sysctls(self.netns, silent)
            ns.ip_batch(self.netns, [f"link set {name} up"])

    def unplug_vf(self, mac: str) -> None:
        """Take the second link away. Raises ToolError if there is none."""
        with self._lock:
            ns.ip_batch(self.netns, [f"link delete {self._vf_name(mac)}"])

    def _vf_name(self, mac: str) -> str:
        return f"vf-{self.ports[mac].name}"

    def set_faults(self, outages: Iterable[str], losses: dict[str, int]) -> None:
        """Cut machines off, or lose so many of their packets in a hundred; replaces what was set."""
        names = {port.machine: port.name for port in self.ports.values()}
        ns.nft(
            self.netns,
            ruleset.faults([names[m] for m in outages], {names[m]: share for m, share in losses.items()}),
        )

    def set_refused(self, entries: Iterable[tuple[str, IPv4Address, int]]) -> None:
        """Refuse TCP connections: (source or 0.0.0.0/0, address, port); replaces what was set."""
        ns.nft(self.netns, ruleset.refused(entries))

    def drop_counters(self) -> DropCounters:
        """Read all counters."""
        items: list[dict[str, dict[str, Any]]] = []
        for table in (ruleset.TABLE, *self._v6.tables):
            done = ns.run_in_network(self.netns, ["nft", "-j", "list", "table", *table.split()])
            if done.returncode != 0:
                raise ns.ToolError(f"nft: {done.stderr.strip()}")
            items += json.loads(done.stdout)["nftables"]
        return self._counters(items)

    def _port(self, vm: Vm, nic: Nic) -> tuple[Port, str]:
        known = self.ports.get(nic.mac)
        if known is not None:
            return known, ""
        number = len(self.ports) + 1
        name = ruleset.INTERNET_PORT if vm.computer_name == INTERNET else f"p{number}"
        port = Port(name, vm.computer_name, nic.mac, _NEXT_HOPS[number], nic.primary_ip)
        self.ports[nic.mac] = port
        platform = nic.primary and vm.computer_name != INTERNET
        return port, ruleset.port(name, nic.primary_ip, platform=platform)

    def _cable(self, port: Port, link: str, pid: int) -> list[str]:
        # A bridge in front (accelerated networking) carries the NIC's MAC itself, so its port must not.
        mac = f"address {port.mac} " if link.startswith("eth") else ""
        mtu = f"mtu {self._mtu}"
        far_end = f"{mac}{mtu} netns {pid}"
        return [
            f"link add {port.name} address {FABRIC_MAC} {mtu} type veth peer name {link} {far_end}",
            f"ntable change name arp_cache dev {port.name} proxy_delay 0",
            f"link set {port.name} up",
            f"neighbour replace {port.next_hop} lladdr {port.mac} dev {port.name} nud permanent",
        ]

    def _counters(self, items: list[dict[str, dict[str, Any]]]) -> DropCounters:
        machines = {port.name: port.machine for port in self.ports.values()}
        found = DropCounters(
            spoofed=dict.fromkeys(machines.values(), 0), platform=dict.fromkeys(machines.values(), 0)
        )
        spoofs: list[Spoof] = []
        for item in items:
            if "counter" in item:
                _count(found, machines, item["counter"]["name"], item["counter"]["packets"])
            elif item.get("set", {}).get("name") == "spoofed":
                spoofs += _spoofs(item["set"], machines)
        return DropCounters(found.spoofed, found.platform, found.general, tuple(spoofs))


def _count(found: DropCounters, machines: dict[str, str], name: str, packets: int) -> None:
    kind, _, port = name.partition("_")
    per_machine = {"spoofed": found.spoofed, "platform": found.platform}.get(kind)
    if per_machine is not None and port in machines:
        per_machine[machines[port]] += packets
    else:
        found.general[name] = packets


def _spoofs(found: dict[str, Any], machines: dict[str, str]) -> list[Spoof]:
    spoofs = []
    for element in found.get("elem", []):
        port, source, destination = element["elem"]["val"]["concat"]
        packets = element["elem"]["counter"]["packets"]
        spoofs.append(Spoof(machines.get(port, port), source, destination, packets))
    return spoofs


def _who_reaches_whom(estate: Estate) -> str:
    private = [vnet for vnet in estate.vnets if vnet.name != INTERNET]
    pairs = [(a, b) for a in private for b in private]
    reachable = [
        (a.prefix, b.prefix)
        for a, b in pairs
        if a is b or b.name in a.peers | a.behind_gateway or a.name in b.behind_gateway
    ]
    gateways = [subnet.gateway for vnet in estate.vnets for subnet in vnet.subnets]
    outside = {INTERNET, *(name for vnet in estate.vnets for name in vnet.behind_gateway)}
    egress = [nic.primary_ip for vm in estate.vms for nic in vm.nics if nic.vnet not in outside]
    given = ((private, own.address) for private, own in translated(estate, estate.vms).items())
    public = [(a, b) for a, b in given if isinstance(a, IPv4Address) and isinstance(b, IPv4Address)]
    return ruleset.networks(reachable, gateways, egress, public)
