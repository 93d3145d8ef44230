"""Which NIC is a node's, and whether it still is: looked up, verified with every read.

Owns how a node's claims about itself are verified against Azure. It must not know plans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.mac import normalize_mac
from ipam.provision import nic_document
from ipam.provision.exchange import NicShown
from ipam.provision.nic_writer import NicTarget, NicWriter
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.which_nic import find_nic
from ipam.quoting import quoted

if TYPE_CHECKING:
    from ipam.operator.inventory import Inventory
    from ipam.operator.record import NodeRecord
    from ipam.provision.conversation import Conversation
    from ipam.provision.nic_document import Document

INSTANCE_FIRST_POLL = 30.0
"""Seconds that writes to an instance of a Uniform scale set take (four recorded ones)."""


class Nics:
    """For one piece of work on one node. Not for several threads."""

    def __init__(
        self, arm: Conversation, first_poll: float, groups: tuple[str, ...], inventory: Inventory
    ) -> None:
        self._arm = arm
        self._inventory = inventory
        self._first_poll = first_poll
        self._groups = groups
        """Resource groups in lower case; none: any."""

    def writer(self, record: NodeRecord) -> NicWriter:
        """What writes the node's NIC, as it was found before. Raises Refusal."""
        if record.target is None or record.target_of != record.identity:
            return self.find(record)[0]
        return self._to(record.target)

    def find(self, record: NodeRecord) -> tuple[NicWriter, Document]:
        """The node's NIC, read when no operation on it is in progress.

        Raises:
            Refusal: there is none, or it is not that of the machine that the node says.
        """
        known = record.target if record.target_of == record.identity else None
        known = known or _of_status(record)
        if known is not None:
            try:
                nic = self._to(known).read()
            except Refusal as refusal:
                if refusal.kind is not Kind.NOT_FOUND:
                    raise
            else:
                if _belongs(nic, known, record):
                    return self._found(record, known, nic)
                self._leave(known, nic)
        record.target = None
        place = record.place()
        assert place is not None, "it was checked before anything is done"
        machine = record.node.spec.machine
        target = find_nic(self._arm, place, machine.mac, record.node.spec.subnet, self._inventory.nics)
        self._check_group(target.nic)
        nic = self._to(target).read()
        if not _belongs(nic, target, record):
            raise Refusal(Kind.REFUSED, f"NIC {target.name} is not attached to {machine.resource_id}")
        return self._found(record, target, nic)

    def clear(self, record: NodeRecord) -> int:
        """Take everything that we gave the NIC of a node that is gone; how many addresses.

        Raises:
            Refusal: NOT_FOUND: there is no such NIC or machine any more, or the NIC is another machine's now.
        """
        target = _of_status(record)
        if target is None:
            return 0
        self._check_group(target.nic)
        writer = self._to(target)
        nic = writer.read()
        owner = nic_document.machine_of(nic)
        if owner and not target.instance and owner.casefold() != _machine_of(record):
            # Names do not tell whose pods have these addresses now: azvnet may run there, too.
            raise Refusal(Kind.NOT_FOUND, f"NIC {target.name} is attached to {owner} now")
        ours = [each for each in nic_document.configurations(nic) if each.is_ours]
        if ours:
            writer.remove([each.name for each in ours])
        return sum(len(each.addresses) for each in ours)

    def shown(self, nic: Document, target: NicTarget) -> NicShown:
        """The NIC as it is shown in the status."""
        try:
            mac = normalize_mac(nic_document.mac_of(nic))
        except ValueError:  # a machine that is off has none
            mac = ""
        return NicShown(target.nic, target.name, target.instance, mac, nic_document.subnet_of(nic))

    def _to(self, target: NicTarget) -> NicWriter:
        first = min(self._first_poll, INSTANCE_FIRST_POLL) if target.instance else self._first_poll
        return NicWriter(self._arm, target, first)

    def _found(self, record: NodeRecord, target: NicTarget, nic: Document) -> tuple[NicWriter, Document]:
        there, said = nic_document.location_of(nic), record.node.spec.machine.location
        if there and there.casefold() != said.casefold():
            # The budget is that of a region, and a node that names another one would have one of its own.
            raise Refusal(
                Kind.REFUSED, f"NIC {target.name} is in {there}, but spec.machine says {quoted(said)}"
            )
        record.target, record.target_of = target, record.identity
        return self._to(target), nic

    def _leave(self, target: NicTarget, nic: Document) -> None:
        """The machine was replaced: what we gave its predecessor's NIC goes, where nobody else has that."""
        machine = nic_document.machine_of(nic)
        ours = [each.name for each in nic_document.configurations(nic) if each.is_ours]
        if ours and not machine and not target.instance:
            self._check_group(target.nic)
            self._to(target).remove(ours)

    def _check_group(self, nic: str) -> None:
        group = nic.casefold().partition("/resourcegroups/")[2].partition("/")[0]
        if self._groups and group not in self._groups:
            raise Refusal(Kind.REFUSED, f"resource group {group} is not listed in resource_groups")


def _of_status(record: NodeRecord) -> NicTarget | None:
    """The NIC that an operator wrote before, which nobody else can have put there."""
    nic = record.node.status.nic
    return NicTarget(nic.id, nic.name, nic.instance) if nic.id else None


def _machine_of(record: NodeRecord) -> str:
    return record.node.spec.machine.resource_id.rstrip("/").casefold()


def _belongs(nic: Document, target: NicTarget, record: NodeRecord) -> bool:
    """Whether a NIC is that of the node's machine, and the one by which its pods leave."""
    spec = record.node.spec
    owner = target.instance or nic_document.machine_of(nic)
    if owner.casefold() != _machine_of(record):
        return False
    mac = nic_document.mac_of(nic)
    if spec.machine.mac and mac and normalize_mac(mac) != spec.machine.mac:
        return False
    there = nic_document.subnet_of(nic).casefold()
    return not spec.subnet or spec.subnet.casefold() in {there, there.rpartition("/")[2]}
