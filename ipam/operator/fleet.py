"""All nodes while this operator leads: what each needs next, its turn, and the work on it.

Owns the records of nodes and the threads that look at them. Whatever changes (the node's resource, its
pods, its Node, the time) leads to one question, what is to be done now, whose answer waits in the queue
until it is its turn and is then asked for again. It must not know how Azure or the API server are asked.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from ipam.operator.claims import Claims
from ipam.operator.decide import Around, decide
from ipam.operator.errors import ClusterError, NotThere
from ipam.operator.line import Urgency
from ipam.operator.nic_lookup import Nics
from ipam.operator.record import NodeRecord, Said, What, Wish
from ipam.operator.rounds import Rounds
from ipam.operator.shared_networks import SharedNetworks
from ipam.operator.turns import Sort, Stopped
from ipam.operator.work import Hands, Work
from ipam.provision import exchange, pace, progress
from ipam.provision.fields import FieldError
from ipam.provision.nic_document import NotANic
from ipam.provision.pace import SCARCE_SECONDS
from ipam.provision.refusals import FULL, Kind, Refusal
from ipam.value import Value, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipam.operator.arm_pipeline import Azure
    from ipam.operator.census import Nodes
    from ipam.operator.common import Common
    from ipam.operator.status_writer import StatusWriter
    from ipam.operator.turns import Turns
    from ipam.provision.bound_pods import BoundPods
    from ipam.provision.exchange import AzvnetNode

Json = dict[str, Any]

LOOK_SECONDS = 5.0
"""Seconds between two rounds over all nodes; changes are handled at once."""
QUEUED_SECONDS = 3.0
"""A node that has waited so many seconds for its turn gets the state ``queued``."""


class Heard(Value):
    """One AzvnetNode of a list or a watch."""

    name: str
    node: AzvnetNode | None
    """None: it is not valid."""
    why: str = ""


class Parts(Hands, Protocol):
    """The other parts of the term."""

    nodes: Nodes
    pods: BoundPods
    turns: Turns
    azure: Azure
    status_writer: StatusWriter

    @property
    def is_complete(self) -> bool:
        """Whether everything has been listed once."""


class Fleet:
    """``watching.Sink`` for AzvnetNodes. Safe for threads."""

    def __init__(self, common: Common, parts: Parts) -> None:
        self._common = common
        self._parts = parts
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._dirty: set[str] = set()
        self._rounds = Rounds(self.all_records, parts.pods.per_second)
        self._networks = SharedNetworks(self.all_records)
        self.claims = Claims(common.settings.resource_groups)
        self.records: dict[str, NodeRecord] = {}

    # Input

    def brief(self, document: Json) -> Heard:
        """See there."""
        name = str(document["metadata"]["name"])
        record = self.records.get(name)
        try:
            return Heard(name, read(document, record.node if record is not None else None))
        except FieldError as error:
            return Heard(name, None, str(error))

    def reset(self, objects: Iterable[Heard]) -> None:
        """See there."""
        found = {each.name: each for each in objects}
        with self._lock:
            for name in self.records.keys() - found.keys():
                self.deleted(Heard(name, None))
            for each in found.values():
                self.changed(each)

    def changed(self, each: Heard) -> None:
        """See there."""
        now = self._common.clock()
        with self._lock:
            record = self.records.get(each.name)
            if record is None:
                record = NodeRecord(each.node or exchange.AzvnetNode(each.name), now)
                self.records[each.name] = record
                if self._parts.nodes.get(each.name) is None:
                    record.gone_since = now
            elif each.node is not None and not record.take(each.node, now):
                return
            broken = f"its resource is not valid: {each.why}" if each.node is None else ""
            if broken and broken != record.broken:
                self._common.tell("warning", f"{each.name}: {broken}")
            record.broken = broken
            self._look_at(each.name, *self.claims.note(record.node))

    def taken(self, record: NodeRecord, document: Json) -> None:
        """The resource as the API server answered a write, or a read after one that failed.

        Raises:
            FieldError: it is not valid.
        """
        node = read(document, record.node)
        with self._lock:
            record.take(node, self._common.clock())
            self._look_at(node.name, *self.claims.note(record.node))

    def deleted(self, each: Heard) -> None:
        """See there."""
        with self._lock:
            self.records.pop(each.name, None)
            self._parts.turns.drop(each.name)
            self._look_at(*self.claims.drop(each.name))

    def moved(self, name: str) -> None:
        """The node's pods or its Node have changed."""
        with self._lock:
            record = self.records.get(name)
            if record is None:
                return
            if self._parts.nodes.get(name) is not None:
                record.gone_since = None
            elif record.gone_since is None:
                record.gone_since = self._common.clock()
            self._look_at(name)

    def _look_at(self, *names: str) -> None:
        self._dirty.update(names)
        self._changed.notify()

    # Decisions

    def run(self) -> None:
        """Look at nodes until the end of the term."""
        next_look = self._common.clock()
        while not self._common.over:
            with self._changed:
                if not self._dirty:
                    self._changed.wait(max(0.05, min(1.0, next_look - self._common.clock())))
                names, self._dirty = self._dirty, set()
            now = self._common.clock()
            if now >= next_look:
                next_look = now + LOOK_SECONDS
                names |= set(self.records)
            if self._parts.is_complete:
                for name in names:
                    self._try_to_look(name)

    def wake(self) -> None:
        """The term is over."""
        with self._changed:
            self._changed.notify_all()

    def _try_to_look(self, name: str) -> None:
        try:
            self._look(name)
        except Exception as error:  # noqa: BLE001 - other nodes are served whatever the resource of one contains
            self._common.tell("error", f"{name}: internal error: {type(error).__name__}: {error}")

    def _look(self, name: str) -> None:
        with self._lock:
            record = self.records.get(name)
            if record is None or record.working:
                return
            now = self._common.clock()
            wish = decide(record, self.around(record), now)
            said = wish.said
            if wish.what is What.NOTHING:
                record.queued_since = None
                self._parts.turns.drop(name)
            else:
                self._parts.turns.queue(name, record.region(), _sort(wish.what), wish.order, wish.lasts)
                since = record.queued_since = now if record.queued_since is None else record.queued_since
                if wish.order is not Urgency.REST and now - since >= QUEUED_SECONDS:
                    said = Said(progress.QUEUED, "it waits for its turn: requests to Azure are limited")
            if said is not None and not record.broken:  # what can't be read can't be written either
                self._parts.status_writer.put(record, said, keep=wish.what is What.SHRINK)

    def around(self, record: NodeRecord) -> Around:
        """See ``work.Hands``."""
        node, parts, region = record.node, self._parts, record.region()
        name, now = node.name, self._common.clock()
        allowed = parts.turns.account(region).meters[Sort.WRITE].allowed
        seen = parts.nodes.get(name)
        return Around(
            has_node=seen is not None,
            refused=self.claims.why_not(node, seen.provider_id if seen is not None else ""),
            coming=parts.pods.coming(name, node.spec.pool.held),
            arrivals=parts.pods.per_second(name),
            wait=max(
                parts.turns.expected_wait(region, Urgency.GROWTH), self._rounds.seconds(region, allowed, now)
            ),
            full=self._networks.full(record, now),
            room=self._networks.room(record, now),
            share=self._networks.share(record, now),
            grace=self._common.settings.grace,
        )

    def begin(self, name: str, sort: Sort) -> None:
        """It is a node's turn: work on it in a thread of its own."""
        threading.Thread(target=self._work, args=(name, sort), name=f"work {name}", daemon=True).start()

    def _work(self, name: str, sort: Sort) -> None:
        record: NodeRecord | None = None
        try:
            with self._lock:
                record = self.records.get(name)
                wish = Wish(What.NOTHING)
                if record is not None and not record.working:
                    wish = decide(record, self.around(record), self._common.clock())
                if record is None or wish.what is What.NOTHING or _sort(wish.what) is not sort:
                    self._unused(record, sort)
                    return
                record.working, record.queued_since = True, None
                if wish.what is What.GROW:
                    self._networks.note_request(record, wish.adds, self._common.clock())
            self._do(record, wish, sort)
        finally:
            with self._lock:
                if record is not None:
                    record.working = False
                self._look_at(name)
            self._parts.turns.ended()

    def _unused(self, record: NodeRecord | None, sort: Sort) -> None:
        if record is not None:
            self._parts.turns.give_back(record.region(), sort)

    def _do(self, record: NodeRecord, wish: Wish, sort: Sort) -> None:
        place, name = record.place(), record.node.name
        assert place is not None, "claims were looked at"
        try:
            talk = self._parts.azure.conversation(place, record.region(), wish.order, sort)
            try:
                settings = self._common.settings
                inventory = self._parts.azure.inventory
                nics = Nics(talk.arm, settings.first_poll, settings.resource_groups, inventory)
                Work(record, self._parts, nics, talk.writes).do(wish)
            finally:
                talk.end()
        except Stopped:
            return
        except NotThere:
            with self._lock:
                self.deleted(Heard(name, None))
        except Refusal as refusal:
            self._failed(record, refusal)
        except NotANic as error:
            self._failed(record, Refusal(Kind.REFUSED, f"the NIC that ARM returned can't be used: {error}"))
        except ClusterError as error:
            self._common.tell("warning", f"{name}: its status could not be written: {error}")
            record.failures, record.trouble = record.failures + 1, None
            record.not_before = self._common.clock() + pace.pause(record.failures, 0.0, pace.chance())
        except Exception as error:  # noqa: BLE001 - other nodes are served whatever happens with one
            self._failed(record, Refusal(Kind.REFUSED, f"internal error: {type(error).__name__}: {error}"))
        else:
            record.failures, record.not_before, record.trouble = 0, 0.0, None
            if wish.what is What.GROW:
                with self._lock:
                    self._networks.note_added(record, self._common.clock())

    def _failed(self, record: NodeRecord, refusal: Refusal) -> None:
        now = self._common.clock()
        if refusal.kind is not Kind.THROTTLED:  # that is nothing about this node, and all pause
            record.failures += 1
        if refusal.kind in FULL:
            self._networks.note_full(refusal.kind, record, now)
        elif refusal.kind is Kind.NO_BLOCK:
            record.no_block_until = now + SCARCE_SECONDS
        elif refusal.kind in {Kind.NOT_FOUND, Kind.NO_IDENTITY}:
            record.target = None
        record.unsure = True
        failures = 1 if refusal.kind in FULL else max(1, record.failures)  # then all its nodes pause together
        pause = pace.pause(failures, refusal.retry_after, pace.chance())
        record.not_before = now + pause
        record.trouble = Said(refusal.kind.value, str(refusal), refusal.remedy)
        self._common.tell("warning", f"{record.node.name}: {refusal.kind.value}: {refusal}")

    def note_room(self, record: NodeRecord, addresses: int) -> None:
        """See ``work.Hands``."""
        with self._lock:
            self._networks.note_room(record, addresses)

    def all_records(self) -> list[NodeRecord]:
        """The record of every node, at this moment."""
        with self._lock:
            return list(self.records.values())

    def counted(self, of: Callable[[NodeRecord], str]) -> dict[str, int]:
        """How many nodes have each value of something."""
        return dict(Counter(map(of, self.all_records())))


def read(document: Json, known: AzvnetNode | None) -> AzvnetNode:
    """A resource as the API server shows it. Raises FieldError.

    The configurations of a revision that is known are not read again: they are nearly all of a resource,
    agents write theirs every few seconds, and no two revisions have the same number.
    """
    status = document.get("status")
    if known is None or not isinstance(status, dict) or document["metadata"].get("uid") != known.uid:
        return exchange.read(document)
    if not known.status.revision or status.get("revision") != known.status.revision:
        return exchange.read(document)
    rest = {name: value for name, value in status.items() if name != "configurations"}
    node = exchange.read({**document, "status": rest})
    return replace(node, status=replace(node.status, configurations=known.status.configurations))


def _sort(what: What) -> Sort:
    return Sort.WRITE if what.writes else Sort.READ
