"""Pure changes of the estate: what ARM would do to a NIC. No time, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from integration.fabric.model import (
    MAX_CONFIGURATIONS,
    RESERVED_AT_START,
    Estate,
    IpConfiguration,
    Nic,
    State,
    Subnet,
)
from integration.fabric.nicwrites import taken_over

BLOCK_PREFIX = 28
"""The only size of a block on a NIC (private IP address blocks, preview)."""


class RefusedChange(ValueError):
    """Azure would refuse this change; carries the code that ARM answers."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def free_addresses(estate: Estate, subnet: Subnet) -> Iterator[IPv4Address]:
    """The free addresses of a subnet, lowest first, without the five that Azure reserves."""
    taken = set(chain.from_iterable(estate.used(subnet)))
    first = int(subnet.prefix.network_address) + RESERVED_AT_START
    for candidate in range(first, int(subnet.prefix.broadcast_address)):
        if candidate not in taken:
            yield IPv4Address(candidate)


def free_block(estate: Estate, subnet: Subnet) -> IPv4Network:
    """The lowest free aligned /28 of the subnet.

    Raises:
        RefusedChange: there is none.
    """
    size = 1 << (32 - BLOCK_PREFIX)
    # Nothing larger than a block is ever given out, so each used one spoils exactly one candidate.
    spoilt = {numbers[0] // size for numbers in estate.used(subnet)}
    spoilt |= {int(address) // size for address in (subnet.prefix[0], subnet.prefix[-1])}
    for candidate in range(int(subnet.prefix[0]) // size, int(subnet.prefix[-1]) // size + 1):
        if candidate not in spoilt:
            return IPv4Network((candidate * size, BLOCK_PREFIX))
    raise _subnet_full(subnet)


def add_addresses(
    estate: Estate,
    vm_name: str,
    addresses: int | Sequence[IPv4Address],
    *,
    nic: str | None = None,
    state: State = State.SUCCEEDED,
) -> Estate:
    """Give a NIC secondary addresses: so many of the platform's choice, or certain ones.

    Raises:
        RefusedChange: the subnet is full, an address is taken or outside, or the NIC has its 256.
    """
    vm = estate.vm(vm_name)
    target = vm.primary_nic if nic is None else vm.nic(nic)
    if isinstance(addresses, int):
        chosen = _choose(estate, target.subnet, addresses)
    else:
        chosen = list(addresses)
        _check_static(estate, target.subnet, chosen)
    extended = _extend(target, [IPv4Network(address) for address in chosen], state)
    return taken_over(estate.with_vm(vm.with_nic(extended)), extended)


def add_block(
    estate: Estate, vm_name: str, *, nic: str | None = None, state: State = State.SUCCEEDED
) -> Estate:
    """Give a NIC one /28 block.

    Raises:
        RefusedChange: no free block, or the NIC has its 256 configurations.
    """
    vm = estate.vm(vm_name)
    target = vm.primary_nic if nic is None else vm.nic(nic)
    block = free_block(estate, target.subnet)
    extended = _extend(target, [block], state)
    return taken_over(estate.with_vm(vm.with_nic(extended)), extended)


def remove_addresses(
    estate: Estate, vm_name: str, addresses: int | Iterable[IPv4Address], *, nic: str | None = None
) -> Estate:
    """Take secondary configurations away: the last so many, or those that begin with these addresses.

    Raises:
        RefusedChange: an address is none of the NIC's secondaries, or there are not so many.
    """
    vm = estate.vm(vm_name)
    target = vm.primary_nic if nic is None else vm.nic(nic)
    present = [entry.address for entry in target.secondaries]
    if isinstance(addresses, int):
        if addresses > len(present):
            raise RefusedChange(
                "InvalidRequest", f"{target.name} has only {len(present)} secondary addresses"
            )
        gone = set(present[len(present) - addresses :])
    else:
        gone = set(addresses)
        if missing := gone - set(present):
            names = ", ".join(sorted(map(str, missing)))
            raise RefusedChange("InvalidRequest", f"{names}: no secondary configuration of {target.name}")
    kept = tuple(e for e in target.configurations if e.primary or e.address not in gone)
    return estate.with_vm(vm.with_nic(replace(target, configurations=kept)))


def set_state(
    estate: Estate, vm_name: str, addresses: Iterable[IPv4Address], state: State, *, nic: str | None = None
) -> Estate:
    """Set ``provisioningState`` of certain configurations; the NIC itself follows the worst of them."""
    vm = estate.vm(vm_name)
    target = vm.primary_nic if nic is None else vm.nic(nic)
    chosen = set(addresses)
    entries = tuple(replace(e, state=state) if e.address in chosen else e for e in target.configurations)
    states = {entry.state for entry in entries}
    overall = next(
        (s for s in (State.FAILED, State.UPDATING, State.DELETING) if s in states), State.SUCCEEDED
    )
    return estate.with_vm(vm.with_nic(replace(target, configurations=entries, state=overall)))


def _choose(estate: Estate, subnet: Subnet, count: int) -> list[IPv4Address]:
    chosen = [address for address, _ in zip(free_addresses(estate, subnet), range(count), strict=False)]
    if len(chosen) < count:
        raise _subnet_full(subnet)
    return chosen


def _check_static(estate: Estate, subnet: Subnet, chosen: Sequence[IPv4Address]) -> None:
    used = set(chain.from_iterable(estate.used(subnet)))
    first = subnet.prefix.network_address + RESERVED_AT_START
    for address in chosen:
        if address not in subnet.prefix:
            raise RefusedChange("PrivateIPAddressNotInSubnet", f"{address} is not in {subnet.prefix}")
        if address < first or address == subnet.prefix.broadcast_address:
            raise RefusedChange(
                "PrivateIPAddressInReservedRange", f"{address} is reserved in {subnet.prefix}"
            )
        if int(address) in used:
            raise RefusedChange("PrivateIPAddressInUse", f"{address} is in use already")


def _extend(nic: Nic, blocks: Sequence[IPv4Network], state: State) -> Nic:
    if len(nic.configurations) + len(blocks) > MAX_CONFIGURATIONS:
        raise RefusedChange(
            "IpConfigurationsPerNicLimitReached",
            f"{nic.name} would exceed {MAX_CONFIGURATIONS} configurations",
        )
    taken = {entry.name for entry in nic.configurations}
    names = (name for n in range(1, 2 * MAX_CONFIGURATIONS) if (name := f"ipconfig{n}") not in taken)
    added = tuple(
        IpConfiguration(name, block, primary=False, state=state)
        for name, block in zip(names, blocks, strict=False)
    )
    overall = nic.state if state is State.SUCCEEDED else state
    return replace(nic, configurations=nic.configurations + added, state=overall)


def _subnet_full(subnet: Subnet) -> RefusedChange:
    return RefusedChange(
        "SubnetIsFull", f"Subnet {subnet.name} with address prefix {subnet.prefix} is already full."
    )
