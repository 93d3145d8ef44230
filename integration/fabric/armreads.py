"""What ARM answers to reads: NICs and what leads to them.

Sources: REST references of Microsoft.Network and Microsoft.Compute.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from integration.fabric import armdocuments as documents
from integration.fabric.armanswers import found, not_found
from integration.fabric.hostnetwork import INTERNET
from integration.fabric.model import Placement

if TYPE_CHECKING:
    import re

    from integration.fabric.armstate import ArmState
    from integration.fabric.model import Estate, Nic, Vm
    from integration.fabric.web import Request, Response


BLOCKS_SINCE = "2026-04-01"
"""The api-version of Microsoft.Compute that brought blocks to instances; older ones ignore the field."""


def knows_blocks(request: Request) -> bool:
    """Whether a request about an instance knows of blocks."""
    return (request.parameter("api-version") or "") >= BLOCKS_SINCE


def same(one: str, other: str) -> bool:
    """Whether two names mean the same resource: ARM ignores case."""
    return one.casefold() == other.casefold()


def nics(estate: Estate, *, uniform: bool) -> list[tuple[Vm, Nic]]:
    """The NICs of Uniform instances, or all others."""
    return [
        (vm, nic)
        for vm in estate.vms
        if vm.computer_name != INTERNET and (vm.placement is Placement.UNIFORM) == uniform
        for nic in vm.nics
    ]


def get_nic(_: ArmState, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    expand = "subnet" in (request.parameter("$expand") or "").casefold()
    for vm, nic in nics(estate, uniform=False):
        if same(nic.name, match["nic"]):
            return found(documents.nic_document(estate, vm, nic, expand_subnet=expand))
    return not_found("Microsoft.Network/networkInterfaces", match["nic"], estate)


def list_nics(arm: ArmState, request: Request, estate: Estate, _: re.Match[str]) -> Response:
    return arm.paged(request, nics(estate, uniform=False), lambda each: documents.nic_document(estate, *each))


def scale_set_nics(estate: Estate, match: re.Match[str]) -> list[tuple[Vm, Nic]]:
    """The NICs of the Uniform scale set that a path names, or of the instance if it names one."""
    instance = match.groupdict().get("instance")
    return [
        (vm, nic)
        for vm, nic in nics(estate, uniform=True)
        if same(vm.scale_set, match["vmss"]) and instance in (None, vm.instance)
    ]


def list_scale_set_nics(arm: ArmState, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    entries = scale_set_nics(estate, match)
    if not entries:
        return not_found("Microsoft.Compute/virtualMachineScaleSets", match["vmss"], estate)
    return arm.paged(request, entries, lambda each: documents.nic_document(estate, *each))


def get_scale_set_nic(_: ArmState, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    expand = "subnet" in (request.parameter("$expand") or "").casefold()
    for vm, nic in scale_set_nics(estate, match):
        if same(nic.name, match["nic"]):
            return found(documents.nic_document(estate, vm, nic, expand_subnet=expand))
    name = f"{match['vmss']}/virtualMachines/{match['instance']}/networkInterfaces/{match['nic']}"
    return not_found("Microsoft.Compute/virtualMachineScaleSets", name, estate)


def list_configurations(arm: ArmState, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vm, nic in scale_set_nics(estate, match):
        if same(nic.name, match["nic"]):
            shown = functools.partial(documents.configuration_document, estate, vm, nic)
            return arm.paged(request, nic.configurations, shown)
    return not_found("Microsoft.Compute/virtualMachineScaleSets", match["vmss"], estate)


def get_instance(_: ArmState, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vm in estate.vms:
        if same(vm.scale_set, match["vmss"]) and vm.instance == match["instance"]:
            return found(documents.instance_document(estate, vm, blocks=knows_blocks(request)))
    name = f"{match['vmss']}/virtualMachines/{match['instance']}"
    return not_found("Microsoft.Compute/virtualMachineScaleSets", name, estate)


def get_vm(_: ArmState, __: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vm in estate.vms:
        if same(vm.name, match["vm"]) and vm.placement is not Placement.UNIFORM and not vm.is_deleted:
            return found(documents.vm_document(estate, vm))
    return not_found("Microsoft.Compute/virtualMachines", match["vm"], estate)


_ELSEWHERE = {INTERNET, "onpremises"}
"""Networks that are not in Azure."""


def get_vnet(_: ArmState, __: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vnet in estate.vnets:
        if same(vnet.name, match["vnet"]) and vnet.name not in _ELSEWHERE:
            return found(documents.vnet_document(estate, vnet))
    return not_found("Microsoft.Network/virtualNetworks", match["vnet"], estate)


def get_subnet(_: ArmState, __: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vnet in estate.vnets:
        for subnet in vnet.subnets:
            if same(vnet.name, match["vnet"]) and same(subnet.name, match["subnet"]):
                return found(documents.subnet_document(estate, vnet, subnet))
    name = f"{match['vnet']}/subnets/{match['subnet']}"
    return not_found("Microsoft.Network/virtualNetworks", name, estate)
