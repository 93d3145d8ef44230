"""Which addresses the IP configurations of a written NIC get, and what Azure refuses. Pure.

Sources: Azure, virtual-network-private-ip-address-blocks (size and place of blocks), networking limits;
codes and wordings as Azure answered them in recordings and in reports of its users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from typing import TYPE_CHECKING, Any

from integration.fabric.armdocuments import nic_id, subnet_id
from integration.fabric.changes import BLOCK_PREFIX, RefusedChange, free_addresses, free_block
from integration.fabric.model import MAX_CONFIGURATIONS, RESERVED_AT_START, IpConfiguration, State

if TYPE_CHECKING:
    from integration.fabric.model import Estate, Nic, Subnet, Vm

NO_BLOCK = "NoAvailableIPAddressesInSubnet"
"""The code for a subnet without room for a block; others are SubnetIsFull and PrefixUnavailable."""

MAX_IN_VNET = 65_536
"""IP configurations of all NICs in one virtual network; a block counts as one (networking limits)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One IP configuration as the body of a request wants it."""

    name: str
    primary: bool = False
    block: IPv4Network | None = None
    """The address or block that a static configuration asks for; None: the platform chooses."""
    length: int | None = None
    """``privateIPAddressPrefixLength``: 28 for a block, None for one address."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Scarcity:
    """What a test lets be scarce."""

    full: bool = False
    """The subnet has no address to give, whatever is free in it."""
    no_block: str = NO_BLOCK


def allocated(
    estate: Estate, vm: Vm, nic: Nic, wanted: Sequence[Wanted], scarcity: Scarcity, state: State
) -> tuple[IpConfiguration, ...]:
    """The configurations of the NIC after it was written: what is not wanted any more is gone.

    A configuration keeps its address under its name; new ones get the lowest that are free, and
    that may be one which the same request gives back.

    Raises:
        RefusedChange: Azure would refuse the request; nothing has happened.
    """
    _check_shape(estate, vm, nic, wanted)
    others = replace(nic, configurations=())
    rest = estate.with_vm(vm.with_nic(others))
    _check_vnet(rest, nic, len(wanted))
    fixed = _fixed(rest, vm, nic, wanted)
    chosen = {**fixed, **_chosen(rest, vm, others, wanted, fixed, scarcity)}
    primary = next(entry for entry in wanted if entry.primary)
    if chosen[primary.name] != IPv4Network(nic.primary_ip):
        raise RefusedChange(
            "PrimaryAddressChangeNotEmulated",
            f"The primary address of {nic.name} is {nic.primary_ip}; the emulator can't change it to "
            f"{chosen[primary.name].network_address}, which would take the machine off its network.",
        )
    of_model = {entry.name.casefold() for entry in nic.configurations if entry.of_model}
    return tuple(
        IpConfiguration(
            entry.name,
            chosen[entry.name],
            primary=entry.primary,
            state=state,
            static=entry.block is not None,
            settings=entry.settings,
            of_model=entry.name.casefold() in of_model,
        )
        for entry in sorted(wanted, key=lambda entry: not entry.primary)  # as Azure lists them
    )


def _check_shape(estate: Estate, vm: Vm, nic: Nic, wanted: Sequence[Wanted]) -> None:
    names = [entry.name.casefold() for entry in wanted]
    identifier = nic_id(estate, vm, nic)
    for entry in wanted:
        if names.count(entry.name.casefold()) > 1:
            raise RefusedChange(
                "DuplicateResourceName",
                f"Resource {identifier} has two child resources with the same name ({entry.name}).",
            )
    primaries = [entry for entry in wanted if entry.primary]
    if len(primaries) != 1:
        what = "none" if not primaries else "more than one"
        raise RefusedChange(
            "NetworkInterfaceMustHaveOneOneIPConfigAsPrimary",
            f"Network Interface {nic.name} specifies multiple IPConfigurations but {what} of the "
            "IPConfigurations is specified as Primary.",
        )
    if primaries[0].length is not None:
        raise RefusedChange(
            "PrimaryIPConfigurationCannotBeBlock",
            f"IP configuration {identifier}/ipConfigurations/{primaries[0].name} is primary, so it can't "
            "have a private IP address prefix.",
        )
    if len(wanted) > MAX_CONFIGURATIONS:
        raise RefusedChange(
            "IpConfigurationsPerNicLimitReached",
            f"Network Interface {nic.name} specifies {len(wanted)} IPConfigurations, and the limit is "
            f"{MAX_CONFIGURATIONS}.",
        )


def _check_vnet(rest: Estate, nic: Nic, count: int) -> None:
    present = sum(len(n.configurations) for vm in rest.vms for n in vm.nics if n.vnet == nic.vnet)
    if present + count > MAX_IN_VNET:
        raise RefusedChange(
            "PrivateIPAddressesPerVnetLimitReached",
            f"Virtual network {nic.vnet} can't have more than {MAX_IN_VNET} private IP addresses.",
        )


def _fixed(rest: Estate, vm: Vm, nic: Nic, wanted: Sequence[Wanted]) -> dict[str, IPv4Network]:
    """The blocks of those that bring or keep one."""
    present = {entry.name.casefold(): entry for entry in nic.configurations}
    fixed: dict[str, IPv4Network] = {}
    for entry in wanted:
        known = present.get(entry.name.casefold())
        if entry.block is not None:
            fixed[entry.name] = entry.block
        elif known is not None and known.single == (entry.length is None):
            fixed[entry.name] = known.block
        elif known is not None and entry.length is None:
            # The request comes from somebody who does not know the field: fifteen addresses are lost.
            fixed[entry.name] = IPv4Network(known.address)
    statics = {entry.name for entry in wanted if entry.block is not None}
    for name in statics:
        _check_place(nic.subnet, fixed[name])
        _check_free(rest, vm, nic, name, fixed)
    return fixed


def _check_place(subnet: Subnet, block: IPv4Network) -> None:
    if not block.subnet_of(subnet.prefix):
        raise RefusedChange(
            "PrivateIPAddressNotInSubnet",
            f"Private static IP address {block.network_address} does not belong to the range of subnet "
            f"prefix {subnet.prefix}.",
        )
    first = subnet.prefix.network_address + RESERVED_AT_START
    if block[0] < first or block[-1] == subnet.prefix.broadcast_address:
        raise RefusedChange(
            "PrivateIPAddressInReservedRange",
            f"Private static IP address {block.network_address} falls within reserved IP range of subnet "
            f"prefix {subnet.prefix}.",
        )


def _check_free(rest: Estate, vm: Vm, nic: Nic, name: str, fixed: Mapping[str, IPv4Network]) -> None:
    block = fixed[name]
    holders = [
        (other.overlaps(block), nic_id(rest, owner, owned))
        for owner in rest.vms
        for owned in owner.nics
        if owned.subnet == nic.subnet
        for other in (entry.block for entry in owned.configurations)
    ]
    own = nic_id(rest, vm, nic)
    holders += [(other.overlaps(block), own) for mine, other in fixed.items() if mine != name]
    holder = next((identifier for overlaps, identifier in holders if overlaps), None)
    if holder is not None:
        raise RefusedChange(
            "PrivateIPAddressIsAllocated",
            f"IP configuration {own}/ipConfigurations/{name} is using the private IP address "
            f"{block.network_address} which is already allocated to resource {holder}.",
        )


def _chosen(
    rest: Estate,
    vm: Vm,
    others: Nic,
    wanted: Sequence[Wanted],
    fixed: Mapping[str, IPv4Network],
    scarcity: Scarcity,
) -> dict[str, IPv4Network]:
    """What the platform gives to those that have nothing yet: addresses first, then blocks."""
    missing = [entry for entry in wanted if entry.name not in fixed]
    singles = [entry for entry in missing if entry.length is None]
    given = dict(fixed)

    def with_given() -> Estate:
        mine = tuple(IpConfiguration(name, block) for name, block in given.items())
        return rest.with_vm(vm.with_nic(replace(others, configurations=mine)))

    found: list[IPv4Address] = []
    if not scarcity.full:
        found = list(islice(free_addresses(with_given(), others.subnet), len(singles)))
    if len(found) < len(singles):
        raise subnet_full(rest, others, len(singles))
    given |= {entry.name: IPv4Network(ip) for entry, ip in zip(singles, found, strict=True)}
    for entry in missing:
        if entry.length is not None:
            given[entry.name] = _block(with_given(), others, scarcity)
    return given


def _block(estate: Estate, nic: Nic, scarcity: Scarcity) -> IPv4Network:
    try:
        if not scarcity.full:
            return free_block(estate, nic.subnet)
    except RefusedChange:
        pass
    raise RefusedChange(
        scarcity.no_block,
        f"Subnet {nic.subnet.name} with address prefix {nic.subnet.prefix} has no free block of length "
        f"{BLOCK_PREFIX}.",
    )


def subnet_full(estate: Estate, nic: Nic, count: int) -> RefusedChange:
    """The refusal of so many addresses for a NIC."""
    identifier = subnet_id(estate, nic.vnet, nic.subnet.name)
    return RefusedChange(
        "SubnetIsFull",
        f"Subnet {identifier} with address prefix {nic.subnet.prefix} does not have enough capacity for "
        f"{count} IP addresses.",
    )
