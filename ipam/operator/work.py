"""Work on one node, in a thread of its own: its NIC is read and written, then the status of its resource.

Owns the order that is safe at any interruption. An operation is recorded in the resource before it is
sent to Azure, so that the next leader reads the NIC first. IP configurations are removed only when the
agent has published that it assigns none of their addresses, in the very version of the resource in which
the removal is recorded; from then on the agent may not assign them, and the record stays until no write
can be in progress any more. It must not know budgets, nor what is next.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from ipam import nic_counts as counts
from ipam.azure_limits import BLOCK
from ipam.operator.decide import UNNOTICED, counts_of, may_remove
from ipam.operator.errors import Conflict
from ipam.operator.nic_lookup import Nics
from ipam.operator.record import Said, What
from ipam.provision import exchange, nic_document, progress
from ipam.provision.exchange import NodeStatus, Operation
from ipam.provision.pace import AT_REST_SECONDS, SCARCE_SECONDS
from ipam.provision.plan import plan
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.timestamps import rfc3339
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ipam.operator.decide import Around
    from ipam.operator.record import NodeRecord, Wish
    from ipam.provision.nic_document import Document
    from ipam.provision.nic_writer import NicWriter

ANSWER_SECONDS = 20.0
"""An agent that was asked to release addresses answers within so many seconds, or is considered gone."""
LOOK_SECONDS = 0.2
MOST_CONFLICTS = 8


class Hands(Protocol):
    """What work on a node needs from the rest of the operator."""

    def clock(self) -> float:
        """Seconds of a clock that does not jump."""

    def wait(self, seconds: float) -> None:
        """Wait for so long. Raises turns.Stopped."""

    def around(self, record: NodeRecord) -> Around:
        """What is known about the node in the rest of the cluster."""

    def publish(self, record: NodeRecord, change: Callable[[NodeStatus], NodeStatus]) -> None:
        """Change the status at the version in the record, which is the newer one afterwards.

        Raises:
            Conflict: something else wrote in the meantime; the record has the new version.
            ClusterError: see there.
        """

    def claimed_elsewhere(self, name: str) -> bool:
        """Whether another node has the machine or the NIC of this one."""

    def forget(self, record: NodeRecord) -> None:
        """Delete the resource of a node that is gone. Raises ClusterError."""

    def note_room(self, record: NodeRecord, addresses: int) -> None:
        """So many addresses of the node's NIC are free in its subnet now."""

    def count(self, events: Mapping[str, int]) -> None:
        """Add to counters."""

    def tell(self, level: str, text: str) -> None:
        """Write to the log."""


class Writes(Protocol):
    """Turns for writes."""

    check: Callable[[], None]
    """What has to be so at the very moment of a write; raises if it is not."""


class Work:
    """One piece of it."""

    def __init__(self, record: NodeRecord, hands: Hands, nics: Nics, writes: Writes) -> None:
        self._record = record
        self._hands = hands
        self._nics = nics
        self._writes = writes
        self._said: Said | None = None
        """The state to report if the NIC is unchanged."""

    def do(self, wish: Wish) -> None:
        """Do what was decided.

        Raises:
            Refusal, NotANic: Azure did not do it, or it is not known whether it did.
            ClusterError: the status could not be written.
            turns.Stopped: this operator no longer leads, or ends.
        """
        self._said = wish.said
        if wish.what is What.LEAVE:
            self._leave()
        elif wish.what is What.READ:
            self._read()
        elif wish.what is What.GROW:
            self._grow(wish.adds)
        else:
            self._shrink()

    # Reading

    def _read(self) -> None:
        """Find out what the NIC has, when no operation on it is in progress; and finish what was begun."""
        writer, nic = self._nics.find(self._record)
        names = self._record.node.status.releasing
        left = frozenset(names) & {each.name for each in nic_document.configurations(nic)}
        if not left:
            self._note(nic)
        elif not left <= frozenset(self._record.node.spec.releasing):
            # The agent no longer holds them back, so they stay. A write that somebody else has
            # prepared to remove them must not arrive after that.
            self._hands.tell(
                "warning",
                f"{self._record.node.name}: a removal was abandoned: the agent no longer marks the addresses",
            )
            self._note(writer.rewrite())
        else:
            self._note(self._remove(writer, left))

    def _remove(self, writer: NicWriter, names: Collection[str]) -> Document:
        """Take these from the NIC, if the agent is known to hold them back at the very moment of the write:
        an operation that has to be waited for first may take minutes.
        """

        def check() -> None:
            held = frozenset(self._record.node.spec.releasing)
            if not may_remove(self._record, self._hands.clock()) or not held.issuperset(names):
                raise Refusal(Kind.BUSY, "an unfinished removal is waiting for the node's agent")

        self._writes.check = check
        return writer.remove(names)

    def _note(self, nic: Document) -> None:
        """Write what the NIC has to the status; no operation is in progress."""
        found = nic_document.configurations(nic)
        target = self._record.target
        assert target is not None
        now = self._hands.clock()
        self._record.unsure = self._record.is_another_machine = False
        self._record.read_at, self._record.read_due = now, now + AT_REST_SECONDS

        def change(status: NodeStatus) -> NodeStatus:
            changed = (found, target.nic) != (status.configurations, status.nic.id) or not status.revision
            said = UNNOTICED
            if not changed:
                said = self._said or Said(progress.IDLE, f"the NIC has {len(found)} IP configurations")
            return replace(
                status,
                revision=status.revision + changed,
                nic=self._nics.shown(nic, target),
                configurations=found,
                addresses=sum(len(each.addresses) for each in found if _is_for_pods(each)),
                state=said.state,
                text=said.text,
                remedy=said.remedy,
                surplus=0,
                releasing=(),
                operation=None,
                last_read_time=rfc3339(time.time()),
            )

        self._publish(change)

    # Growing

    def _grow(self, granted: int) -> None:
        """Add what is wanted now; in a network that was full no more than was ``granted`` with the turn."""
        record = self._record
        around = self._hands.around(record)
        counted = counts_of(record, around, self._hands.clock())
        if around.room is not None:
            counted = replace(counted, most=granted)
        wanted = plan(record.node.spec.sizes, counted)
        if not wanted.grows:
            return
        number = wanted.add or wanted.blocks
        text = f"adding {f'{number} blocks of {BLOCK}' if wanted.blocks else number} addresses to the NIC"
        writer = self._nics.writer(record)
        self._begin(progress.GROWING, text, wanted.added)
        if any(each.is_ours and each.state == "Failed" for each in record.node.status.configurations):
            # An operation that failed marks everything on the NIC; the next one that succeeds sets it up.
            self._note(writer.rewrite())
            return
        names = nic_document.new_names(number)
        record.asked = wanted.added
        nic = writer.add(names, blocks=bool(wanted.blocks))
        made = [each for each in nic_document.configurations(nic) if each.name in names]
        self._hands.count({counts.ADDED: sum(len(each.addresses) for each in made)})
        if wanted.blocks and any(len(each.addresses) < BLOCK for each in made):
            # An API that does not know blocks silently ignores the field (azure-cli#32553).
            record.no_block_until = self._hands.clock() + SCARCE_SECONDS
        self._note(nic)

    def _begin(self, kind: str, text: str, addresses: int) -> None:
        operation = Operation(kind, addresses, rfc3339(time.time()))
        self._record.unsure = True
        self._publish(
            lambda status: replace(status, state=kind, text=text, remedy="", surplus=0, operation=operation)
        )
        self._hands.tell("info", f"{self._record.node.name}: {text}")

    # Shrinking

    def _shrink(self) -> None:
        record = self._record
        writer = self._nics.writer(record)
        if not record.node.spec.releasing and not self._ask():
            return
        names = self._promised()
        if not names:
            self._publish(lambda status: replace(status, surplus=0))
            raise Refusal(Kind.BUSY, "what the node's agent offers can't be removed from its NIC now")
        nic = self._remove(writer, names)
        left = {each.name for each in nic_document.configurations(nic)}
        gone = sum(len(e.addresses) for e in record.node.status.configurations if e.name in names - left)
        self._hands.count({counts.REMOVED: gone})
        self._hands.note_room(self._record, gone)
        self._note(nic)

    def _ask(self) -> bool:
        """Ask the agent to release addresses; returns whether it named some."""
        record, hands = self._record, self._hands
        wanted = plan(
            record.node.spec.sizes, counts_of(record, hands.around(record), hands.clock()), float("inf")
        )
        if not wanted.remove:
            return False
        text = f"the node is asked to release up to {wanted.remove} addresses"
        self._publish(
            lambda status: replace(
                status, surplus=wanted.remove, state=progress.SHRINKING, text=text, remedy=""
            )
        )
        until = hands.clock() + ANSWER_SECONDS
        while not record.node.spec.releasing and hands.clock() < until:
            hands.wait(LOOK_SECONDS)
        if not record.node.spec.releasing:
            record.surplus_since = hands.clock()
            self._publish(lambda status: replace(status, surplus=0))
        return bool(record.node.spec.releasing)

    def _promised(self) -> frozenset[str]:
        """What the agent holds back now, noted as being removed: from here on it may not give it out."""
        record = self._record
        for _ in range(MOST_CONFLICTS):
            node = record.node
            ours = {each.name for each in node.status.configurations if each.is_ours and not each.primary}
            names = frozenset(node.spec.releasing) & ours
            if not names or not may_remove(record, self._hands.clock()):
                return frozenset()
            size = sum(len(e.addresses) for e in node.status.configurations if e.name in names)
            operation = Operation(exchange.SHRINKING, size, rfc3339(time.time()))
            text = f"removing {size} addresses from the NIC"
            noted = tuple(sorted(names))
            record.unsure = True
            try:
                self._hands.publish(
                    record,
                    lambda status, noted=noted, text=text, operation=operation: replace(  # type: ignore[misc]
                        status,
                        releasing=noted,
                        surplus=0,
                        state=progress.SHRINKING,
                        text=text,
                        remedy="",
                        operation=operation,
                    ),
                )
            except Conflict:
                record.unsure = False
                continue  # it wrote in the meantime: its new resource counts
            self._hands.tell("info", f"{node.name}: {text}")
            return names
        return frozenset()

    # Nodes that are gone

    def _leave(self) -> None:
        """Remove what we added to the NIC of a node that is gone, and delete its resource."""
        record = self._record
        name = record.node.name
        if not self._hands.claimed_elsewhere(name):
            try:
                removed = self._nics.clear(record)
                if removed:
                    self._hands.count({counts.REMOVED: removed})
                    self._hands.note_room(record, removed)
                    self._hands.tell("info", f"{name} is gone: {removed} addresses were removed from its NIC")
            except Refusal as refusal:
                if refusal.kind is not Kind.NOT_FOUND:
                    raise
                self._hands.tell("info", f"{name} is gone, and nothing is taken from its NIC: {refusal}")
        self._hands.forget(record)
        self._hands.tell("info", f"{name} is gone, and its resource was deleted")

    def _publish(self, change: Callable[[NodeStatus], NodeStatus]) -> None:
        """As ``Hands.publish``, repeated if the agent writes in the meantime."""
        for _ in range(MOST_CONFLICTS):
            try:
                self._hands.publish(self._record, change)
            except Conflict:
                continue
            return
        raise Conflict(
            f"{self._record.node.name}: its resource was changed {MOST_CONFLICTS} times in the meantime"
        )


def _is_for_pods(each: nic_document.Configuration) -> bool:
    return not each.primary and each.block is not None and each.block.version == 4
