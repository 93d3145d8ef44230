"""Which NIC of this machine is grown and shrunk, and by which resource it is written.

It must not know how a NIC is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipam.mac import normalize_mac
from ipam.provision import nic_document
from ipam.provision.nic_writer import INSTANCE_NICS_API, NETWORK_API, NicTarget
from ipam.provision.refusals import Kind, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ipam.provision.conversation import Conversation
    from ipam.provision.nic_document import Document
    from ipam.sources.placement import Placement

    Lookup = Callable[[Conversation, Placement], Iterable[Document]]

COMPUTE_API = "2024-07-01"


def find_nic(
    arm: Conversation, place: Placement, mac: str, subnet: str = "", lookup: Lookup | None = None
) -> NicTarget:
    """The NIC of the machine that has this MAC address; without one, the primary NIC.

    ``subnet``: name or id of the subnet that it has to be in; empty: any. ``lookup``: how the machine's NICs
    are found, by default ``nics_of``.

    Raises:
        Refusal: the machine can't be read, or has no such NIC.
    """
    nics = list((lookup or nics_of)(arm, place))
    found = [nic for nic in nics if _matches(nic, mac, alone=len(nics) == 1)]
    if len(found) != 1:
        wanted = f"with MAC {mac}" if mac else "marked as primary"
        names = ", ".join(f"{nic.get('name')} ({_mac(nic) or 'no MAC'})" for nic in nics) or "none"
        raise Refusal(Kind.NOT_FOUND, f"{place.resource_id}: {len(found)} NICs {wanted}; it has {names}")
    nic = found[0]
    there = nic_document.subnet_of(nic).casefold()
    if subnet and there != subnet.casefold() and there.rpartition("/")[2] != subnet.casefold():
        # All IP configurations of a NIC are in one subnet: another NIC is needed, not another setting.
        raise Refusal(Kind.REFUSED, f"NIC {nic.get('name')} is in {there}, but provision.subnet is {subnet}")
    instance = place.resource_id if place.scale_set else ""
    return NicTarget(str(nic.get("id", "")), str(nic.get("name", "")), instance)


def _matches(nic: Document, mac: str, *, alone: bool) -> bool:
    if mac:
        return _mac(nic) == mac
    return alone or bool(nic.get("properties", {}).get("primary"))


def _mac(nic: Document) -> str:
    try:
        return normalize_mac(nic_document.mac_of(nic))
    except ValueError:
        return ""


def nics_of(arm: Conversation, place: Placement) -> Iterator[Document]:
    """The NICs of a machine. Raises Refusal."""
    if place.scale_set:
        yield from _pages(arm, f"{place.resource_id}/networkInterfaces?api-version={INSTANCE_NICS_API}")
        return
    try:
        machine = arm.get(f"{place.resource_id}?api-version={COMPUTE_API}").document
    except Refusal as refusal:
        if refusal.kind is not Kind.FORBIDDEN:
            raise
        # Without the right to read the machine its NICs are found by what they say themselves.
        yield from (
            nic for owner, nic in nics_by_machine(arm, place) if owner == place.resource_id.casefold()
        )
        return
    profile: dict[str, Any] = machine.get("properties", {}).get("networkProfile") or {}
    for each in profile.get("networkInterfaces") or ():
        yield arm.get(f"{each['id']}?api-version={NETWORK_API}").document


def nics_by_machine(arm: Conversation, place: Placement) -> Iterator[tuple[str, Document]]:
    """Every NIC in the machine's resource group, with the id of its machine in lower case. Raises Refusal."""
    group = f"/subscriptions/{place.subscription}/resourceGroups/{place.resource_group}"
    where = f"{group}/providers/Microsoft.Network/networkInterfaces?api-version={NETWORK_API}"
    for nic in _pages(arm, where):
        machine = nic.get("properties", {}).get("virtualMachine") or {}
        yield str(machine.get("id", "")).casefold(), nic


def _pages(arm: Conversation, where: str) -> Iterator[Document]:
    while where:
        page = arm.get(where).document
        for each in page.get("value") or ():
            if isinstance(each, dict):
                yield each
        where = str(page.get("nextLink") or "")
