"""Which nodes claim which machine and NIC, and who may have it: a node says what it likes. Pure.

A machine that Kubernetes itself says to be another one, in another resource group, or that two nodes claim,
is not touched. It must not know what would be done with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.provision.provider_id import is_id_of
from ipam.quoting import quoted
from ipam.sources.placement import placement_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.provision.exchange import AzvnetNode


class Claims:
    """Not for several threads."""

    def __init__(self, groups: tuple[str, ...]) -> None:
        self._groups = groups
        """Resource groups that are served, in lower case; empty: all."""
        self._of: dict[str, frozenset[str]] = {}
        self._by: dict[str, set[str]] = {}
        self._has_nic: set[str] = set()

    def note(self, node: AzvnetNode) -> frozenset[str]:
        """Record what a node claims now; returns the other nodes that this may affect."""
        touched = self.drop(node.name)
        ids = (node.spec.machine.resource_id, node.status.nic.id)
        claimed = frozenset(each.rstrip("/").casefold() for each in ids if each)
        self._of[node.name] = claimed
        if node.status.nic.id:
            self._has_nic.add(node.name)
        for each in claimed:
            touched |= self._by.setdefault(each, set())
            self._by[each].add(node.name)
        return touched - {node.name}

    def drop(self, name: str) -> frozenset[str]:
        """A node is gone; returns the other nodes that this may affect."""
        self._has_nic.discard(name)
        touched: set[str] = set()
        for each in self._of.pop(name, ()):
            self._by[each].discard(name)
            touched |= self._by[each]
            if not self._by[each]:
                del self._by[each]
        return frozenset(touched)

    def others(self, name: str) -> frozenset[str]:
        """Other nodes that claim the same machine or NIC."""
        return frozenset(
            other for each in self._of.get(name, ()) for other in self._by[each] if other != name
        )

    def why_not(self, node: AzvnetNode, provider_id: str) -> str:
        """Why nothing may be done for a node; empty: it may be served."""
        machine = node.spec.machine.resource_id
        place = placement_of(machine, node.spec.machine.environment)
        if place is None or not node.spec.machine.location:
            return f"spec.machine does not name a virtual machine and its region: {quoted(machine)}"
        if self._groups and place.resource_group.casefold() not in self._groups:
            return f"resource group {quoted(place.resource_group)} is not listed in resource_groups"
        if provider_id and not is_id_of(provider_id, machine):
            return f"spec.machine is {quoted(machine)}, but the Node's providerID is {quoted(provider_id)}"
        others = self.others(node.name)
        settled = node.name in self._has_nic and not others & self._has_nic
        if others and not settled:
            return f"another node claims the same machine or NIC: {_named(others)}"
        return ""


def _named(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return quoted(first) + (f" (and {len(more)} more)" if more else "")
