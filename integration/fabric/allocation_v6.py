"""Which addresses the IPv6 configurations of a written NIC get, and what Azure refuses. Pure.

Source: Microsoft in AKS#5722: a NIC has one primary IPv6 address, up to 254 secondary ones, and at most one
block of /112. The wording of refusals is not documented. Addresses that are given back are free when the host
has let go of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Any

from integration.fabric.armdocuments import nic_id
from integration.fabric.changes import RefusedChange
from integration.fabric.model import RESERVED_AT_START, ConfigurationV6, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric.model import Estate, Nic, Vm

BLOCK_PREFIX_V6 = 112
MOST_SINGLES, MOST_BLOCKS = 255, 1


@dataclass(frozen=True, slots=True)
class WantedV6:
    """One IPv6 configuration as the body of a request wants it."""

    name: str
    block: IPv6Network | None = None
    """The address or block that a static configuration asks for; None: the platform chooses."""
    length: int | None = None
    """``privateIPAddressPrefixLength``: 112 for a block, None for one address."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


def allocated_v6(
    estate: Estate, vm: Vm, nic: Nic, wanted: Sequence[WantedV6], state: State
) -> tuple[ConfigurationV6, ...]:
    """The IPv6 configurations of the NIC after it was written. One keeps its address under its name; new ones
    get the lowest that are free.

    Raises:
        RefusedChange: Azure would refuse the request; nothing has happened.
    """
    prefix = nic.subnet.prefix_v6
    if not wanted and not nic.configurations_v6:
        return ()
    if prefix is None or not nic.configurations_v6:
        raise RefusedChange("IPv6NotEmulated", f"The emulator can't give {nic.name} its first IPv6 address.")
    _check_numbers(nic, wanted)
    present = {entry.name.casefold(): entry for entry in nic.configurations_v6}
    chosen: dict[str, IPv6Network] = {}
    for entry in wanted:
        known = present.get(entry.name.casefold())
        if entry.block is not None:
            chosen[entry.name] = entry.block
        elif known is not None and known.single == (entry.length is None):
            chosen[entry.name] = known.block
    used = list(_used_by_others(estate, nic))
    for entry in wanted:
        if entry.block is not None:
            others = [block for name, block in chosen.items() if name != entry.name]
            _check_static(nic_id(estate, vm, nic), prefix, entry, [*used, *others])
    for entry in wanted:
        if entry.name not in chosen:
            length = 128 if entry.length is None else entry.length
            chosen[entry.name] = _lowest_free(prefix, length, [*used, *chosen.values()])
    own = nic.configurations_v6[0]
    if own.block not in chosen.values():
        raise RefusedChange(
            "PrimaryAddressChangeNotEmulated",
            f"The first IPv6 address of {nic.name} is {own.address}; the emulator can't take it away from "
            "the machine.",
        )
    of_model = {entry.name.casefold() for entry in nic.configurations_v6 if entry.of_model}
    entries = (
        ConfigurationV6(
            each.name,
            chosen[each.name],
            state,
            each.block is not None,
            each.settings,
            each.name.casefold() in of_model,
        )
        for each in wanted
    )
    return tuple(sorted(entries, key=lambda each: each.block != own.block))


def _check_numbers(nic: Nic, wanted: Sequence[WantedV6]) -> None:
    blocks = sum(each.length is not None for each in wanted)
    if blocks > MOST_BLOCKS or len(wanted) - blocks > MOST_SINGLES:
        raise RefusedChange(
            "IpConfigurationsPerNicLimitReached",
            f"Network Interface {nic.name} specifies {len(wanted) - blocks} IPv6 addresses and {blocks} IPv6 "
            f"prefixes, and the limits are {MOST_SINGLES} and {MOST_BLOCKS}.",
        )


def _used_by_others(estate: Estate, nic: Nic) -> Iterator[IPv6Network]:
    for other in (each for vm in estate.vms for each in vm.nics if each.mac != nic.mac):
        for entry in (*other.configurations_v6, *(other.on_host_v6 or ())):
            yield entry.block


def _check_static(owner: str, prefix: IPv6Network, entry: WantedV6, used: Sequence[IPv6Network]) -> None:
    block = entry.block
    assert block is not None
    if not block.subnet_of(prefix):
        raise RefusedChange(
            "PrivateIPAddressNotInSubnet",
            f"Private static IP address {block.network_address} does not belong to the range of subnet "
            f"prefix {prefix}.",
        )
    if int(block[0]) < int(prefix[0]) + RESERVED_AT_START:
        raise RefusedChange(
            "PrivateIPAddressInReservedRange",
            f"Private static IP address {block.network_address} falls within reserved IP range of subnet "
            f"prefix {prefix}.",
        )
    if any(block.overlaps(each) for each in used):
        raise RefusedChange(
            "PrivateIPAddressIsAllocated",
            f"IP configuration {owner}/ipConfigurations/{entry.name} is using the private IP address "
            f"{block.network_address} which is already allocated.",
        )


def _lowest_free(prefix: IPv6Network, length: int, used: Sequence[IPv6Network]) -> IPv6Network:
    """The lowest free aligned block of a /64: never out of room, since no test fills 65,536 blocks."""
    size = 1 << (128 - length)
    spoilt = {number for each in used for number in _covered(each, size)}
    first = int(prefix[0])
    candidate = first // size if length < 128 else first + RESERVED_AT_START
    candidate += length < 128  # the first block has the addresses that Azure reserves
    while candidate in spoilt:
        candidate += 1
    return IPv6Network((candidate * size, length))


def _covered(block: IPv6Network, size: int) -> range:
    return range(int(block[0]) // size, int(block[-1]) // size + 1)
