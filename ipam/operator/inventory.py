"""Which NICs the machines of a resource group have: listed once for all nodes whose NIC is looked up.

A machine's NICs are found by the machine that each NIC names, so no right to read machines is needed. A
list of a thousand NICs is tens of megabytes, and every node needs this once: so one list serves all of
them, and of each NIC only what identifies it is kept. It must not know what a NIC is looked up for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ipam.provision import which_nic
from ipam.provision.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipam.provision.conversation import Conversation
    from ipam.provision.nic_document import Document
    from ipam.sources.placement import Placement

FRESH_SECONDS = 30.0
"""A machine that is not in a list as old as that, or was found in it before, is looked for in a new one: who
asks again does so because what was found did not fit, or could not be read."""
_IDENTITY = ("id", "name", "location")


class Inventory:
    """Safe for threads: those who need the same list wait for the one who reads it.

    Args:
        clock: seconds of a clock that does not jump.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}

    def nics(self, arm: Conversation, place: Placement) -> Iterable[Document]:
        """The NICs of a machine, in extracts; of an instance of a scale set, whole. Raises Refusal."""
        if place.scale_set:
            return which_nic.nics_of(arm, place)
        group = f"{place.subscription}/{place.resource_group}".casefold()
        with self._lock:
            known = self._groups.setdefault(group, _Group())
        return known.nics(arm, place, self._clock)


class _Group:
    """One resource group."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_machine: dict[str, list[Document]] = {}
        self._asked: set[str] = set()
        """Machines that were found in this list before."""
        self._read_at = float("-inf")
        self._refused: Refusal | None = None
        """Why the last list could not be read; those who waited for it do not ask for another one."""
        self._refused_at = float("-inf")

    def nics(self, arm: Conversation, place: Placement, clock: Callable[[], float]) -> list[Document]:
        machine, came = place.resource_id.casefold(), clock()
        with self._lock:
            if self._refused is not None and came < self._refused_at:
                raise Refusal(self._refused.kind, str(self._refused), self._refused.retry_after)
            is_used = machine in self._asked or machine not in self._by_machine
            if is_used and came - self._read_at > FRESH_SECONDS:
                self._read(arm, place, clock)
            self._asked.add(machine)
            return self._by_machine.get(machine, [])

    def _read(self, arm: Conversation, place: Placement, clock: Callable[[], float]) -> None:
        found: dict[str, list[Document]] = {}
        try:
            for owner, nic in which_nic.nics_by_machine(arm, place):
                found.setdefault(owner, []).append(_extract(nic))
        except Refusal as refusal:
            self._refused, self._refused_at = refusal, clock()
            raise
        self._by_machine, self._read_at, self._refused = found, clock(), None
        self._asked.clear()


def _extract(nic: Document) -> Document:
    properties = nic.get("properties", {})
    primary = [
        each for each in properties.get("ipConfigurations") or () if each.get("properties", {}).get("primary")
    ]
    return {
        **{name: nic[name] for name in _IDENTITY if name in nic},
        "properties": {
            "macAddress": properties.get("macAddress"),
            "primary": properties.get("primary"),
            "virtualMachine": properties.get("virtualMachine"),
            "ipConfigurations": primary,
        },
    }
