"""Writing instances of Uniform scale sets through ARM: the only way to their NICs.

Sources: REST reference of virtualMachineScaleSetVMs; recorded PUTs of cloud-provider-azure (2025-04-01) for
the ETag, headers and 412. Unlike a NIC's, the answer has an ETag header and no Retry-After.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from integration.fabric import instancebody, nicwrites
from integration.fabric.armanswers import error, not_found, with_headers
from integration.fabric.armdocuments import instance_document
from integration.fabric.armoperations import COMPUTE
from integration.fabric.armreads import knows_blocks, same
from integration.fabric.armwrites import location
from integration.fabric.changes import RefusedChange
from integration.fabric.documents import vm_id
from integration.fabric.model import Placement, State
from integration.fabric.nicbody import json_object
from integration.fabric.web import json_response

if TYPE_CHECKING:
    import re

    from integration.fabric.armfaults import Edit
    from integration.fabric.armstate import ArmState
    from integration.fabric.model import Estate, Vm
    from integration.fabric.web import Request, Response


def put_instance(arm: ArmState, request: Request, _: Estate, match: re.Match[str]) -> Response:
    """``PUT virtualMachineScaleSets/<vmss>/virtualMachines/<instance>``."""
    blocks = knows_blocks(request)
    with arm.writing:
        vm = _instance(arm.newest(), match["vmss"], match["instance"])
        if vm is None:
            name = f"{match['vmss']}/virtualMachines/{match['instance']}"
            return not_found("Microsoft.Compute/virtualMachineScaleSets", name, arm.newest())
        if arm.faults.other_writers:
            edit_instance(arm, vm.computer_name, arm.faults.other_writers.popleft())
            vm = arm.newest().vm(vm.computer_name)
        refusal = _busy(arm, vm) or _outdated(vm, request)
        if refusal is not None:
            return refusal
        try:
            document = json_object(request.body)
            nics = instancebody.written_nics(arm.newest(), vm, document, arm.faults.scarcity, blocks=blocks)
        except RefusedChange as refused:
            return error(400, str(refused).removeprefix(f"{refused.code}: "), refused.code)
        arm.change(lambda estate: nicwrites.instance_begun(estate, vm, nics))
        names = [nic.name for nic in nics]

        def settle(state: State) -> None:
            arm.change(lambda estate: nicwrites.instance_settled(estate, vm.computer_name, names, state))

        operation = arm.operations.begin(vm_id(arm.newest(), vm), COMPUTE, settle)
        shown = instance_document(arm.newest(), arm.newest().vm(vm.computer_name), blocks=blocks)
    return with_headers(
        json_response(200, shown), ("ETag", shown["etag"]), *location(arm, request, operation)
    )


def edit_instance(arm: ArmState, computer_name: str, edit: Edit) -> None:
    """Let somebody else read an instance, edit its document and write it back, done at once.

    Raises:
        RefusedChange: Azure would refuse the edited document.
    """
    with arm.writing:
        vm = arm.newest().vm(computer_name)
        document: dict[str, Any] = json.loads(json.dumps(instance_document(arm.newest(), vm, blocks=True)))
        edit(document)
        nics = instancebody.written_nics(arm.newest(), vm, document, arm.faults.scarcity, blocks=True)
        names = [nic.name for nic in nics]

        def change(estate: Estate) -> Estate:
            begun = nicwrites.instance_begun(estate, vm, nics)
            return nicwrites.instance_settled(begun, computer_name, names, State.SUCCEEDED)

        arm.change(change)


def reconcile(arm: ArmState) -> None:
    """Let the model of the Uniform scale sets be applied again: what was added to instances is gone."""

    def change(estate: Estate) -> Estate:
        for vm in estate.vms:
            if vm.placement is Placement.UNIFORM:
                estate = nicwrites.reconciled(estate, estate.vm(vm.computer_name))
        return estate

    with arm.writing:
        arm.change(change)


def _instance(estate: Estate, scale_set: str, instance: str) -> Vm | None:
    uniform = (vm for vm in estate.vms if vm.placement is Placement.UNIFORM)
    return next((vm for vm in uniform if same(vm.scale_set, scale_set) and vm.instance == instance), None)


def _busy(arm: ArmState, vm: Vm) -> Response | None:
    if arm.operations.running(vm_id(arm.newest(), vm)) is None:
        return None
    message = (
        "The request failed due to conflict with a concurrent request. To resolve it, please refer to "
        "https://aka.ms/activitylog to get more details on the conflicting requests."
    )
    return error(409, message, "Conflict")


def _outdated(vm: Vm, request: Request) -> Response | None:
    wanted, present = request.headers.get("if-match", "*"), f'"{vm.revision}"'
    if wanted in {"*", present}:
        return None
    message = f"Etag provided in if-match header {_quoted(wanted)} does not match etag {present} of resource."
    return error(412, message, "PreconditionFailed")


def _quoted(tag: str) -> str:
    return tag if tag.startswith('"') else f'"{tag}"'
