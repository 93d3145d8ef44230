"""From a few numbers to an estate: names, MACs and addresses of a small Azure environment. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from integration.fabric import changes
from integration.fabric.hostnetwork import INTERNET
from integration.fabric.model import (
    RESERVED_AT_START,
    ConfigurationV6,
    Estate,
    IpConfiguration,
    Nic,
    Placement,
    Subnet,
    Vm,
    Vnet,
)
from integration.fabric.ruleset import PUBLIC
from integration.fabric.ruleset_v6 import PUBLIC_V6

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMESPACE = uuid.UUID("6d1f3a52-8f0e-4a67-9a34-0d0f5ce51cc0")

MAIN = Vnet(
    "vnet1",
    IPv4Network("10.10.0.0/16"),
    (
        Subnet("nodes", IPv4Network("10.10.0.0/20")),
        Subnet("second", IPv4Network("10.10.16.0/20")),
    ),
    peers=frozenset({"peered"}),
    behind_gateway=frozenset({"onpremises"}),
)
PEERED = Vnet(
    "peered",
    IPv4Network("10.20.0.0/16"),
    (Subnet("hosts", IPv4Network("10.20.0.0/24")),),
    peers=frozenset({"vnet1"}),
)
STRANGER = Vnet("stranger", IPv4Network("10.30.0.0/16"), (Subnet("hosts", IPv4Network("10.30.0.0/24")),))
"""A network that is not peered with anybody."""
ON_PREMISES = Vnet(
    "onpremises", IPv4Network("192.168.0.0/16"), (Subnet("hosts", IPv4Network("192.168.7.0/24")),)
)
"""A network of the customer's own, behind the virtual network's VPN gateway."""
OUTSIDE = Vnet(INTERNET, PUBLIC, (Subnet("hosts", PUBLIC),))
INTERNET_ADDRESS = PUBLIC[100]
IPV6 = {
    "vnet1": IPv6Network("fd00:10:10::/48"),
    "peered": IPv6Network("fd00:10:20::/48"),
    "stranger": IPv6Network("fd00:10:30::/48"),
    "onpremises": IPv6Network("fd00:192:168::/48"),
    INTERNET: PUBLIC_V6,
}
"""The address spaces of a fabric with IPv6; the subnets are /64 of them, as on Azure."""


@dataclass(frozen=True, slots=True)
class Topology:
    """What to build."""

    nodes: int = 2
    addresses: int = 16
    """Secondary addresses of every node's primary NIC."""
    nics: int = 1
    """NICs of every node; each further one is in the subnet ``second`` with as many secondaries."""
    one_subnet: bool = False
    """The further ones are in the subnet of the first."""
    blocks: int = 0
    """/28 blocks of every node's primary NIC."""
    vnet_hosts: int = 1
    peered_hosts: int = 0
    stranger_hosts: int = 0
    on_premises_hosts: int = 0
    internet: bool = False
    ipv6: int = 0
    """Secondary IPv6 addresses of every node NIC; 0: there is no IPv6."""
    placement: Placement = Placement.STANDALONE
    environment: str = "AzurePublicCloud"
    location: str = "westeurope"


def build(topology: Topology, seed: str) -> Estate:
    """The estate; MACs and ids follow from ``seed`` and the names, so two fabrics differ.

    Raises:
        changes.RefusedChange: more addresses than the subnet or a NIC can have.
    """
    estate = Estate(
        subscription=_guid(seed, "subscription"),
        resource_group="rg-fabric",
        location=topology.location,
        environment=topology.environment,
        tenant=_guid(seed, "tenant"),
        vnets=(MAIN, PEERED, STRANGER, ON_PREMISES, OUTSIDE),
    )
    if topology.ipv6:
        estate = replace(estate, vnets=tuple(map(_with_ipv6, estate.vnets)))
    estate = _populated(estate, topology, seed)
    return replace(estate, vms=tuple(_numbered(estate, topology))) if topology.ipv6 else estate


def many(nodes: int, addresses: int, vnet: Vnet, seed: str = "many") -> Estate:
    """So many nodes in the first subnet of a network, and nothing else, in a time that grows with their
    number. Their secondary addresses are in IP configurations with names that azvnet gives.
    """
    subnet = vnet.subnets[0]
    free = iter(subnet.prefix[RESERVED_AT_START + number] for number in range(nodes * (addresses + 1)))
    vms = []
    for number in range(1, nodes + 1):
        vm = _machine(f"node{number}", seed)
        nic = _nic(vm, seed, 0, vnet, subnet, next(free))
        added = tuple(
            IpConfiguration(f"azvnet-{number:08x}{index:08x}", IPv4Network(next(free)))
            for index in range(addresses)
        )
        vms.append(replace(vm, nics=(replace(nic, configurations=(*nic.configurations, *added)),)))
    return Estate(
        subscription=_guid(seed, "subscription"),
        resource_group="rg-fabric",
        location="westeurope",
        environment="AzurePublicCloud",
        tenant=_guid(seed, "tenant"),
        vnets=(vnet,),
        vms=tuple(vms),
    )


def _with_ipv6(vnet: Vnet) -> Vnet:
    prefix = IPV6[vnet.name]
    each = zip(vnet.subnets, prefix.subnets(new_prefix=64), strict=False)
    return replace(
        vnet, prefix_v6=prefix, subnets=tuple(replace(subnet, prefix_v6=of) for subnet, of in each)
    )


def _numbered(estate: Estate, topology: Topology) -> Iterator[Vm]:
    """The machines with IPv6 addresses: one each, and the nodes' NICs those for pods."""
    taken: dict[IPv6Network, int] = {}
    for vm in estate.vms:
        nics = []
        for nic in vm.nics:
            prefix = nic.subnet.prefix_v6
            assert prefix is not None
            count = 1 + (topology.ipv6 if vm.computer_name.startswith("node") else 0)
            first = taken.get(prefix, RESERVED_AT_START)
            taken[prefix] = first + count
            blocks = (IPv6Network(prefix[first + number]) for number in range(count))
            entries = (ConfigurationV6(f"ipv6config{n}", block) for n, block in enumerate(blocks, 1))
            nics.append(replace(nic, configurations_v6=tuple(entries)))
        yield replace(vm, nics=tuple(nics))


def _populated(estate: Estate, topology: Topology, seed: str) -> Estate:
    """With its machines."""
    main, peered, stranger, on_premises, outside = estate.vnets
    for number in range(1, topology.nodes + 1):
        estate = _add_node(estate, topology, seed, number)
    for vnet, prefix, count in (
        (main, "vm", topology.vnet_hosts),
        (peered, "peer", topology.peered_hosts),
        (stranger, "stranger", topology.stranger_hosts),
        (on_premises, "onpremises", topology.on_premises_hosts),
    ):
        for number in range(1, count + 1):
            estate = _add(estate, seed, _machine(f"{prefix}{number}", seed), [(vnet, vnet.subnets[0])])
    if topology.internet:
        estate = _add(estate, seed, _machine(INTERNET, seed), [(outside, outside.subnets[0])])
    return estate


def _add_node(estate: Estate, topology: Topology, seed: str, number: int) -> Estate:
    computer_name = f"node{number}"
    main = estate.vnets[0]
    further = main.subnets[0 if topology.one_subnet else 1]
    networks = [(main, main.subnets[0]), *[(main, further)] * (topology.nics - 1)]
    estate = _add(estate, seed, _machine(computer_name, seed, topology.placement, number - 1), networks)
    for nic in estate.vm(computer_name).nics:
        if topology.addresses:
            estate = changes.add_addresses(estate, computer_name, topology.addresses, nic=nic.name)
    for _ in range(topology.blocks):
        estate = changes.add_block(estate, computer_name)
    return estate


def _machine(
    computer_name: str, seed: str, placement: Placement = Placement.STANDALONE, instance: int = 0
) -> Vm:
    scale_set = "" if placement is Placement.STANDALONE else "vmss-fabric"
    uniform = placement is Placement.UNIFORM
    return Vm(
        name=f"{scale_set}_{instance}" if uniform else computer_name,
        computer_name=computer_name,
        vm_id=_guid(seed, computer_name),
        nics=(),
        placement=placement,
        scale_set=scale_set,
        instance=str(instance) if uniform else "",
        tags=(("emulated", "true"),),
    )


def _add(estate: Estate, seed: str, vm: Vm, networks: list[tuple[Vnet, Subnet]]) -> Estate:
    """Put a machine with one NIC per network into the estate, with the next free primary addresses."""
    nics: list[Nic] = []
    for index, (vnet, subnet) in enumerate(networks):
        taken = {nic.primary_ip for nic in nics}
        free = (a for a in changes.free_addresses(estate, subnet) if a not in taken)
        address = INTERNET_ADDRESS if vnet.name == INTERNET else next(free, None)
        if address is None:
            raise changes.RefusedChange("SubnetIsFull", f"Subnet {subnet.name} is already full.")
        nics.append(_nic(vm, seed, index, vnet, subnet, address))
    return replace(estate, vms=(*estate.vms, replace(vm, nics=tuple(nics))))


def _nic(vm: Vm, seed: str, index: int, vnet: Vnet, subnet: Subnet, address: IPv4Address) -> Nic:
    raw = uuid.uuid5(_NAMESPACE, f"{seed}/{vm.computer_name}/{index}").bytes
    mac = "00:0d:3a:" + raw[:3].hex(":")
    name = f"nic{index}" if vm.placement is Placement.UNIFORM else f"{vm.computer_name}-nic{index}"
    primary = IpConfiguration("ipconfig1", IPv4Network(address), primary=True)
    return Nic(name, mac, vnet.name, subnet, (primary,), primary=index == 0)


def _guid(seed: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{seed}/{name}"))
