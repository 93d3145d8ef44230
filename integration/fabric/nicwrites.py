"""What a write makes of a NIC: at the request, and when the operation ends. Pure.

Between the two the host works with what it had: traffic flows as before, and nothing new is delivered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from integration.fabric.model import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.fabric.model import Estate, Nic, Vm


def begun(estate: Estate, vm: Vm, nic: Nic, written: Nic) -> Estate:
    """The estate after the request: ARM shows what was written, the host has what it had."""
    shown = replace(_in_state(written, State.UPDATING), on_host=nic.delivered, on_host_v6=nic.delivered_v6)
    return estate.with_vm(vm.with_nic(shown))


def _in_state(nic: Nic, state: State) -> Nic:
    """The NIC with all its configurations in a state, those of both families."""
    entries = tuple(replace(entry, state=state) for entry in nic.configurations)
    entries_v6 = tuple(replace(entry, state=state) for entry in nic.configurations_v6)
    return replace(nic, configurations=entries, configurations_v6=entries_v6, state=state)


def instance_begun(estate: Estate, vm: Vm, written: Sequence[Nic]) -> Estate:
    """The same for an instance of a scale set whose NICs were written."""
    for nic in written:
        current = estate.vm(vm.computer_name)
        estate = begun(estate, current, current.nic(nic.name), nic)
    shown = estate.vm(vm.computer_name)
    return estate.with_vm(replace(shown, state=State.UPDATING, revision=shown.revision + bool(written)))


def instance_settled(estate: Estate, computer_name: str, nics: Sequence[str], state: State) -> Estate:
    """The same when its operation has ended."""
    for name in nics:
        estate = settled(estate, computer_name, name, state)
    return estate.with_vm(replace(estate.vm(computer_name), state=state))


def reconciled(estate: Estate, vm: Vm) -> Estate:
    """What a reconciliation of the scale set's model leaves of an instance: nothing that it does not know."""
    for nic in vm.nics:
        left = tuple(entry for entry in nic.configurations if entry.of_model)
        left_v6 = tuple(entry for entry in nic.configurations_v6 if entry.of_model)
        if (left, left_v6) != (nic.configurations, nic.configurations_v6):
            current = estate.vm(vm.computer_name)
            bare = replace(current.nic(nic.name), configurations=left, on_host=None)
            bare = replace(bare, configurations_v6=left_v6, on_host_v6=None)
            estate = estate.with_vm(current.with_nic(bare))
    shown = estate.vm(vm.computer_name)
    return estate.with_vm(replace(shown, revision=shown.revision + 1))


def settled(estate: Estate, computer_name: str, nic_name: str, state: State) -> Estate:
    """The estate after the operation; only one that succeeded has reached the host."""
    vm = estate.vm(computer_name)
    nic = vm.nic(nic_name)
    succeeded = state is State.SUCCEEDED
    done = _in_state(nic, state)
    if succeeded:
        done = replace(done, on_host=None, on_host_v6=None)
    estate = estate.with_vm(vm.with_nic(done))
    return taken_over(estate, done) if succeeded else estate


def taken_over(estate: Estate, nic: Nic) -> Estate:
    """What the NIC has now is delivered to nobody else: ARM gave it away before the other host knew."""
    taken = {number for entry in nic.configurations for number in entry.numbers}

    def loses(other: Nic) -> bool:
        return (
            other.on_host is not None
            and other.mac != nic.mac
            and not all(taken.isdisjoint(entry.numbers) for entry in other.on_host)
        )

    def without(other: Nic) -> Nic:
        if other.on_host is None or not loses(other):
            return other
        return replace(other, on_host=tuple(e for e in other.on_host if taken.isdisjoint(e.numbers)))

    losers = [vm for vm in estate.vms if any(map(loses, vm.nics))]
    for vm in losers:
        estate = estate.with_vm(replace(vm, nics=tuple(map(without, vm.nics))))
    return estate
