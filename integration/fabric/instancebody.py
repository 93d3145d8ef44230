"""The body of a PUT of a Uniform scale set's instance, as far as it concerns NICs. Pure.

Source: REST reference of virtualMachineScaleSetVMs. There are no addresses in it: the platform chooses all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from integration.fabric.allocation import Scarcity, Wanted, allocated
from integration.fabric.allocation_v6 import BLOCK_PREFIX_V6, WantedV6, allocated_v6
from integration.fabric.armdocuments import LENGTH, nic_id
from integration.fabric.changes import BLOCK_PREFIX, RefusedChange
from integration.fabric.model import State
from integration.fabric.nicbody import (
    OF_INSTANCE_CONFIGURATION,
    OF_NIC,
    check_names,
    check_subnets,
    is_v6,
    reduced,
    reference_ids,
    subnet_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from integration.fabric.model import Estate, Nic, Vm


def written_nics(
    estate: Estate,
    vm: Vm,
    document: Mapping[str, Any],
    scarcity: Callable[[str], Scarcity],
    *,
    blocks: bool,
) -> list[Nic]:
    """The NICs as the document wants them; none if it does not speak of them.

    Raises:
        RefusedChange: Azure would refuse the request.
    """
    entries = _nic_entries(document)
    if not entries:
        return []
    named = {str(entry.get("name")).casefold(): entry for entry in entries}
    if named.keys() != {nic.name.casefold() for nic in vm.nics}:
        raise RefusedChange(
            "NicChangeNotEmulated", f"The emulator can neither add NICs to {vm.name} nor remove any."
        )
    written = []
    for nic in vm.nics:
        properties = named[nic.name.casefold()].get("properties") or {}
        configurations = properties.get("ipConfigurations") or []
        identifier = nic_id(estate, vm, nic)
        wanted = [_wanted(entry, nic, blocks=blocks) for entry in configurations if not is_v6(entry)]
        wanted_v6 = [_wanted_v6(entry, nic, blocks=blocks) for entry in configurations if is_v6(entry)]
        check_names(identifier, [*(each.name for each in wanted), *(each.name for each in wanted_v6)])
        if len(wanted) == 1:
            wanted = [replace(wanted[0], primary=True)]
        if not wanted:
            raise RefusedChange(
                "InvalidParameter", f"Required parameter 'ipConfigurations' of {nic.name} is missing."
            )
        subnets = dict.fromkeys(subnet_of(entry, identifier).casefold() for entry in configurations)
        check_subnets(estate, vm, nic, tuple(subnets))
        chosen = allocated(estate, vm, nic, wanted, scarcity(nic.subnet.name), State.UPDATING)
        chosen_v6 = allocated_v6(estate, vm, nic, wanted_v6, State.UPDATING)
        settings = {name: reduced(properties[name]) for name in OF_NIC if properties.get(name) is not None}
        done = replace(nic, configurations=chosen, configurations_v6=chosen_v6, settings=settings)
        # The next NIC must not get the same addresses.
        vm = vm.with_nic(done)
        estate = estate.with_vm(vm)
        written.append(done)
    return written


def references(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every resource that an instance's document refers to: the property's name and the id."""
    storage = (document.get("properties") or {}).get("storageProfile") or {}
    yield from reference_ids("imageReference", storage.get("imageReference"))
    for nic in _nic_entries(document):
        properties = nic.get("properties") or {}
        yield from reference_ids("networkSecurityGroup", properties.get("networkSecurityGroup"))
        for entry in properties.get("ipConfigurations") or []:
            inner = entry.get("properties") or {}
            for name in ("subnet", *OF_INSTANCE_CONFIGURATION):
                yield from reference_ids(name, inner.get(name))


def _nic_entries(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    profile = (document.get("properties") or {}).get("networkProfileConfiguration") or {}
    return list(profile.get("networkInterfaceConfigurations") or [])


def _named(entry: Mapping[str, Any]) -> str:
    name = str(entry.get("name") or "")
    if not name:
        raise RefusedChange(
            "InvalidParameter", "Required parameter 'ipConfiguration.name' is missing (null)."
        )
    return name


def _wanted_v6(entry: Mapping[str, Any], nic: Nic, *, blocks: bool) -> WantedV6:
    """That an instance can get a block of IPv6 is not documented, and taken to be as for IPv4."""
    name, properties = _named(entry), entry.get("properties") or {}
    if properties.get("primary"):
        raise RefusedChange("InvalidParameter", f"IP configuration {name} is of IPv6: it can't be primary.")
    has_block = {e.name.casefold() for e in nic.configurations_v6 if not e.single}
    length = properties.get(LENGTH) if blocks else BLOCK_PREFIX_V6 if name.casefold() in has_block else None
    if length not in {None, BLOCK_PREFIX_V6}:
        raise RefusedChange("InvalidParameter", f"The value {length} of parameter '{LENGTH}' is invalid.")
    settings = {k: reduced(properties[k]) for k in OF_INSTANCE_CONFIGURATION if properties.get(k)}
    return WantedV6(name, None, length, settings)


def _wanted(entry: Mapping[str, Any], nic: Nic, *, blocks: bool) -> Wanted:
    name, properties = _named(entry), entry.get("properties") or {}
    if blocks:
        length = properties.get(LENGTH)
    else:
        # An older version can't say it: what has a block keeps it, what is new gets one address.
        has_block = {e.name.casefold() for e in nic.configurations if not e.single}
        length = BLOCK_PREFIX if name.casefold() in has_block else None
    if length not in {None, BLOCK_PREFIX}:
        raise RefusedChange("InvalidParameter", f"The value {length} of parameter '{LENGTH}' is invalid.")
    settings = {k: reduced(properties[k]) for k in OF_INSTANCE_CONFIGURATION if properties.get(k)}
    return Wanted(name, bool(properties.get("primary")), None, length, settings)
