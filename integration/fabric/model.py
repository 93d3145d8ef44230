"""What exists in the emulated cloud: virtual networks, NICs, IP configurations, virtual machines.

One immutable `Estate` is the truth that IMDS, the wireserver, ARM and the source-address filter all
show, each in its own words. This module holds values only: it must not know time, HTTP or the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

FABRIC_MAC = "12:34:56:78:9a:bc"
"""The MAC that Azure's host answers every ARP request with."""
FABRIC_ROUTER = IPv6Address("fe80::1234:5678:9abc")
"""The router of IPv6, the same on every NIC."""

WIRESERVER = IPv4Address("168.63.129.16")
IMDS = IPv4Address("169.254.169.254")

RESERVED_AT_START = 4
"""Azure keeps .0 (network), .1 (gateway), .2 and .3 (DNS) of every subnet."""

MAX_CONFIGURATIONS = 256
"""Private addresses per NIC and per virtual machine (Azure networking limits)."""


class Surface(StrEnum):
    """A part of the platform through which the estate is seen; lags and faults are set per surface."""

    FABRIC = "fabric"
    IMDS = "imds"
    WIRESERVER = "wireserver"
    IDENTITY = "identity"
    ARM = "arm"
    DNS = "dns"


class State(StrEnum):
    """``provisioningState`` of a NIC or an IP configuration (Microsoft.Network)."""

    SUCCEEDED = "Succeeded"
    UPDATING = "Updating"
    FAILED = "Failed"
    CANCELED = "Canceled"
    DELETING = "Deleting"


class Placement(StrEnum):
    """How a virtual machine was made, which decides where ARM shows its NICs."""

    STANDALONE = "standalone"
    FLEXIBLE = "flexible"
    """Instance of a scale set in Flexible orchestration: an ordinary VM with ordinary NICs."""
    UNIFORM = "uniform"
    """Instance of a scale set in Uniform orchestration: NICs are children of the instance."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet; all IP configurations of one NIC are in one subnet."""

    name: str
    prefix: IPv4Network
    prefix_v6: IPv6Network | None = None
    """A /64; None: it has no IPv6."""

    @property
    def gateway(self) -> IPv4Address:
        """The address that DHCP gives as router: the first host address."""
        return self.prefix.network_address + 1


@dataclass(frozen=True, slots=True)
class Vnet:
    """A virtual network and the names of those it is peered with."""

    name: str
    prefix: IPv4Network
    subnets: tuple[Subnet, ...]
    peers: frozenset[str] = frozenset()
    behind_gateway: frozenset[str] = frozenset()
    """Names of networks outside of Azure that its VPN gateway leads to, and that lead back by it."""
    prefix_v6: IPv6Network | None = None
    """None: it has no IPv6."""

    def subnet(self, name: str) -> Subnet:
        """The subnet of that name; KeyError if there is none."""
        for subnet in self.subnets:
            if subnet.name == name:
                return subnet
        raise KeyError(f"virtual network {self.name} has no subnet {name}")


@dataclass(frozen=True, slots=True)
class IpConfiguration:
    """One IP configuration of a NIC: a single address, or a /28 block."""

    name: str
    block: IPv4Network
    primary: bool = False
    state: State = State.SUCCEEDED
    static: bool = False
    """Whether its owner chose the address (``privateIPAllocationMethod``)."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Its other properties as ARM takes and shows them, such as load balancer pools."""
    of_model: bool = True
    """False: it was added to one instance of a scale set, and the set's model knows nothing of it."""
    numbers: range = field(init=False, repr=False, compare=False)
    """The addresses as integers: comparing the values of ``ipaddress`` takes seconds with 30,000 of them."""

    def __post_init__(self) -> None:
        first = int(self.block.network_address)
        object.__setattr__(self, "numbers", range(first, first + (1 << (32 - self.block.prefixlen))))

    @property
    def address(self) -> IPv4Address:
        """The address, or the first one of the block."""
        return self.block.network_address

    @property
    def single(self) -> bool:
        """Whether it is one address and not a block."""
        return self.block.prefixlen == 32


@dataclass(frozen=True, slots=True)
class ConfigurationV6:
    """One IP configuration of IPv6: a single address, or a /112 block."""

    name: str
    block: IPv6Network
    state: State = State.SUCCEEDED
    static: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """As of ``IpConfiguration``."""
    of_model: bool = True
    """As of ``IpConfiguration``."""

    @property
    def address(self) -> IPv6Address:
        """The address, or the first one of the block."""
        return self.block.network_address

    @property
    def single(self) -> bool:
        """Whether it is one address and not a block."""
        return self.block.prefixlen == 128


@dataclass(frozen=True, slots=True)
class Nic:
    """A NIC with its IP configurations; the first one is the primary, as Azure keeps it."""

    name: str
    mac: str
    """Lower case with colons; the surfaces write it in their own ways."""
    vnet: str
    subnet: Subnet
    configurations: tuple[IpConfiguration, ...]
    primary: bool = True
    """Whether it is the virtual machine's primary NIC, the only one that may talk to the platform."""
    state: State = State.SUCCEEDED
    revision: int = 1
    """Counts changes; the ETag is made of it."""
    configurations_v6: tuple[ConfigurationV6, ...] = ()
    """Those of IPv6, the machine's own one first; none: it has no IPv6."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Its other properties as ARM takes and shows them, such as the network security group."""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    on_host: tuple[IpConfiguration, ...] | None = None
    """What the host still works with, while a write is under way or after one failed; None: what is here."""
    on_host_v6: tuple[ConfigurationV6, ...] | None = None
    """The same of IPv6."""

    @property
    def ipv6(self) -> tuple[IPv6Address, ...]:
        """The single IPv6 addresses that have reached the host, the machine's own one first."""
        return tuple(entry.address for entry in self.delivered_v6 if entry.single)

    @property
    def delivered_v6(self) -> tuple[ConfigurationV6, ...]:
        """As ``delivered``, of IPv6."""
        if self.on_host_v6 is not None:
            return self.on_host_v6
        return tuple(entry for entry in self.configurations_v6 if entry.state is State.SUCCEEDED)

    @property
    def primary_ip(self) -> IPv4Address:
        """The address that DHCP gives."""
        return next(entry.address for entry in self.configurations if entry.primary)

    @property
    def secondaries(self) -> tuple[IpConfiguration, ...]:
        """The IP configurations for pods."""
        return tuple(entry for entry in self.configurations if not entry.primary)

    @property
    def delivered(self) -> tuple[IpConfiguration, ...]:
        """Those that have reached the host: an unfinished or failed configuration carries no packet."""
        if self.on_host is not None:
            return self.on_host
        return tuple(entry for entry in self.configurations if entry.state is State.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class Vm:
    """A virtual machine: a node of a cluster, or any other host."""

    name: str
    """Its name in ARM and IMDS; of a Uniform instance ``<scale set>_<instance>``."""
    computer_name: str
    vm_id: str
    nics: tuple[Nic, ...]
    placement: Placement = Placement.STANDALONE
    scale_set: str = ""
    instance: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    state: State = State.SUCCEEDED
    """``provisioningState`` of an instance of a Uniform scale set."""
    revision: int = 1
    """Counts changes of such an instance; its ETag."""
    is_deleted: bool = False
    """The machine was deleted and its NICs were kept: they are attached to nothing."""

    @property
    def primary_nic(self) -> Nic:
        """The NIC whose primary address may talk to IMDS and the wireserver."""
        return next(nic for nic in self.nics if nic.primary)

    def nic(self, name: str) -> Nic:
        """The NIC of that name; KeyError if there is none."""
        for nic in self.nics:
            if nic.name == name:
                return nic
        raise KeyError(f"{self.name} has no NIC {name}; it has {', '.join(n.name for n in self.nics)}")

    def with_nic(self, nic: Nic) -> Vm:
        """The same machine with the NIC of that name replaced and its revision counted up."""
        changed = replace(nic, revision=nic.revision + 1)
        return replace(self, nics=tuple(changed if n.name == nic.name else n for n in self.nics))


@dataclass(frozen=True, slots=True)
class PublicIp:
    """A public IP address, which an IP configuration may have for itself."""

    name: str
    address: IPv4Address | IPv6Address
    basic: bool = False
    """Of the retired Basic SKU, which another document of IMDS shows."""


@dataclass(frozen=True, slots=True)
class Estate:
    """Everything that exists at one moment."""

    subscription: str
    resource_group: str
    location: str
    environment: str
    """``azEnvironment`` of IMDS, such as AzurePublicCloud."""
    tenant: str
    vnets: tuple[Vnet, ...]
    vms: tuple[Vm, ...] = field(default=())
    public_ips: tuple[PublicIp, ...] = ()

    def vm(self, name: str) -> Vm:
        """The machine with that computer name; KeyError if there is none."""
        for vm in self.vms:
            if vm.computer_name == name:
                return vm
        raise KeyError(f"no machine {name}; there are {', '.join(v.computer_name for v in self.vms)}")

    def vm_with(self, address: IPv4Address) -> Vm | None:
        """The machine whose primary NIC has that address, primary or secondary."""
        number = int(address)
        return self.vm_at(address) or next(
            (vm for vm in self.vms if any(number in e.numbers for e in vm.primary_nic.delivered)), None
        )

    def vm_at(self, address: IPv4Address) -> Vm | None:
        """The machine whose primary NIC has that primary address."""
        return next((vm for vm in self.vms if vm.primary_nic.primary_ip == address), None)

    def vnet(self, name: str) -> Vnet:
        """The virtual network of that name; KeyError if there is none."""
        for vnet in self.vnets:
            if vnet.name == name:
                return vnet
        raise KeyError(f"no virtual network {name}")

    def with_vm(self, vm: Vm) -> Estate:
        """The same estate with the machine of that computer name replaced."""
        return replace(self, vms=tuple(vm if v.computer_name == vm.computer_name else v for v in self.vms))

    def used(self, subnet: Subnet) -> list[range]:
        """Every address and block given out in the subnet, as numbers."""
        return [
            entry.numbers
            for vm in self.vms
            for nic in vm.nics
            if nic.subnet is subnet or nic.subnet == subnet
            for entry in nic.configurations
        ]
