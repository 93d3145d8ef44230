"""Writing NICs through ARM: PUT of a NIC, and the resource of the operation that it begins.

Sources: REST reference of networkInterfaces; recorded PUTs for states, headers and errors. An answer to a PUT
has no ETag header, and the tag in its body is stale as soon as the operation ends.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from integration.fabric import nicbody, nicwrites
from integration.fabric.allocation import allocated
from integration.fabric.allocation_v6 import allocated_v6
from integration.fabric.armanswers import error, network_error, with_headers
from integration.fabric.armdocuments import etag, nic_document, nic_id
from integration.fabric.armoperations import NETWORK, Operation
from integration.fabric.armreads import nics, same
from integration.fabric.changes import RefusedChange
from integration.fabric.model import State
from integration.fabric.web import json_response

if TYPE_CHECKING:
    import re

    from integration.fabric.armfaults import Edit
    from integration.fabric.armstate import ArmState
    from integration.fabric.model import Estate, Nic, Vm
    from integration.fabric.web import Request, Response

_STATUS = {"InvalidResourceLocation": 409}
"""Codes that do not come with 400."""


def put_nic(arm: ArmState, request: Request, _: Estate, match: re.Match[str]) -> Response:
    """``PUT networkInterfaces/<nic>``: a full replacement of a NIC that a machine has."""
    with arm.writing:
        found = _nic_named(arm.newest(), match["nic"])
        if found is None:
            message = f"There is no NIC {match['nic']}, and the emulator makes none."
            return network_error(400, "NicCreationNotEmulated", message)
        if arm.faults.other_writers:
            edit_nic(arm, match["nic"], arm.faults.other_writers.popleft())
            found = _nic_named(arm.newest(), match["nic"]) or found
        vm, nic = found
        refusal = busy(arm, nic_id(arm.newest(), vm, nic)) or _outdated(arm, vm, nic, request)
        if refusal is not None:
            return refusal
        try:
            written = _written(arm, vm, nic, nicbody.json_object(request.body))
        except RefusedChange as refused:
            return refused_answer(refused)
        arm.change(lambda estate: nicwrites.begun(estate, vm, nic, written))
        operation = begin(arm, vm, nic)
    shown = arm.newest().vm(vm.computer_name)
    document = nic_document(arm.newest(), shown, shown.nic(nic.name))
    return with_headers(
        json_response(200, document),
        *location(arm, request, operation),
        ("Retry-After", str(arm.operations.retry_after())),
    )


def refuse_direct(_: ArmState, __: Request, ___: Estate, ____: re.Match[str]) -> Response:
    """A PUT of the NIC of a Uniform instance, which is written through the instance alone."""
    kind = "virtualMachineScaleSets/virtualMachines/networkInterfaces"
    message = f"The operation 'write' on resource type '{kind}' is disallowed."
    return error(409, message, "OperationNotAllowed")


def get_operation(arm: ArmState, _: Request, __: Estate, match: re.Match[str]) -> Response:
    """How far an operation is."""
    operation = arm.operations.find(match["operation"])
    if operation is None:
        return error(404, f"The operation {match['operation']} was not found.", "NotFound")
    response = json_response(200, operation.document())
    if operation.ended is None and operation.provider == NETWORK:
        return with_headers(response, ("Retry-After", str(arm.operations.retry_after())))
    return response


def edit_nic(arm: ArmState, name: str, edit: Edit) -> None:
    """Let somebody else read a NIC, edit its document and write it back, done at once.

    Raises:
        RefusedChange: Azure would refuse the edited document.
        KeyError: there is no NIC of that name.
    """
    with arm.writing:
        found = _nic_named(arm.newest(), name)
        if found is None:
            raise KeyError(f"there is no NIC {name}")
        vm, nic = found
        document: dict[str, Any] = json.loads(json.dumps(nic_document(arm.newest(), vm, nic)))
        edit(document)
        written = _written(arm, vm, nic, document)

        def change(estate: Estate) -> Estate:
            begun = nicwrites.begun(estate, vm, nic, written)
            return nicwrites.settled(begun, vm.computer_name, nic.name, State.SUCCEEDED)

        arm.change(change)


def begin(arm: ArmState, vm: Vm, nic: Nic) -> Operation:
    """Begin the operation of a write that ARM shows already."""

    def settle(state: State) -> None:
        arm.change(lambda estate: nicwrites.settled(estate, vm.computer_name, nic.name, state))

    return arm.operations.begin(nic_id(arm.newest(), vm, nic), NETWORK, settle)


def busy(arm: ArmState, identifier: str) -> Response | None:
    """The refusal of a second write while an operation on the resource runs."""
    operation = arm.operations.running(identifier)
    if operation is None:
        return None
    if arm.faults.busy_conflict:
        message = (
            "Another operation on this or dependent resource is in progress. To retrieve status of the "
            f"operation use uri: {operation_url(arm, operation, '', '2024-05-01')}."
        )
        return network_error(409, "AnotherOperationInProgress", message)
    seconds = arm.operations.retry_after()
    detail = {
        "code": "RetryableErrorDueToAnotherOperation",
        "message": f"Operation PutNicOperation ({operation.identifier}) is updating resource {identifier}. "
        f"The call can be retried in {seconds} seconds.",
    }
    return network_error(
        429,
        "RetryableError",
        "A retryable error occured.",
        ("Retry-After", str(seconds)),
        details=(detail,),
    )


def refused_answer(refused: RefusedChange) -> Response:
    """The answer to a write that breaks a rule."""
    message = str(refused).removeprefix(f"{refused.code}: ")
    return network_error(_STATUS.get(refused.code, 400), refused.code, message)


def location(arm: ArmState, request: Request, operation: Operation) -> tuple[tuple[str, str], ...]:
    """The headers that lead to an operation."""
    version = request.parameter("api-version") or ""
    url = operation_url(arm, operation, request.host, version)
    return (("Azure-AsyncOperation", url), ("Azure-AsyncNotification", "Enabled"))


def operation_url(arm: ArmState, operation: Operation, host: str, version: str) -> str:
    """Where an operation can be polled; a client has to keep the whole query."""
    estate = arm.newest()
    where = f"/subscriptions/{estate.subscription}/providers/{operation.provider}/locations/{estate.location}"
    query = f"api-version={version}&t=t&c=c&s=s&h=h"
    return f"https://{host or 'management.azure.com'}{where}/operations/{operation.identifier}?{query}"


def _written(arm: ArmState, vm: Vm, nic: Nic, document: dict[str, Any]) -> Nic:
    """The NIC as the document wants it. Raises RefusedChange."""
    estate = arm.newest()
    body = nicbody.nic_body(estate, vm, nic, document)
    if body.location != estate.location:
        raise RefusedChange(
            "InvalidResourceLocation",
            f"The resource '{nic.name}' already exists in location '{estate.location}' in resource group "
            f"'{estate.resource_group}'. A resource with the same name cannot be created in location "
            f"'{body.location}'. Please select a new resource name.",
        )
    nicbody.check_subnets(estate, vm, nic, body.subnets)
    scarcity = arm.faults.scarcity(nic.subnet.name)
    entries = allocated(estate, vm, nic, body.configurations, scarcity, State.UPDATING)
    entries_v6 = allocated_v6(estate, vm, nic, body.configurations_v6, State.UPDATING)
    written = replace(nic, configurations=entries, configurations_v6=entries_v6)
    return replace(written, settings=body.settings, tags=body.tags)


def _nic_named(estate: Estate, name: str) -> tuple[Vm, Nic] | None:
    return next(((vm, nic) for vm, nic in nics(estate, uniform=False) if same(nic.name, name)), None)


def _outdated(arm: ArmState, vm: Vm, nic: Nic, request: Request) -> Response | None:
    if arm.faults.ignores_if_match:
        return None
    identifier = nic_id(arm.newest(), vm, nic)
    wanted, present = request.headers.get("if-match", "*"), etag(identifier, nic.revision)
    if wanted in {"*", present}:
        return None
    detail = {
        "code": "PreconditionFailedEtagMismatch",
        "message": f"Etag provided in if-match header {wanted} does not match etag {present} of resource "
        f"{identifier} in NRP data store.",
    }
    return network_error(412, "PreconditionFailed", "Precondition failed.", details=(detail,))
