"""Reconciliation: repair of drifted endpoints, and reclaiming of dead ones.

Owns one pass over the node and what follows from it. Others may remove what a pod needs on the node (networkd
flushing unknown routes, a person, a script); what is missing is put back and counted. Inside a pod nothing is
touched: a change there, by a sandbox like gVisor or a VPN, is intended. It must not know when it is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from cni_plugin.addresses import allocate, recovery
from cni_plugin.datapath import drift, for_mode, names
from cni_plugin.datapath.drift import Difference, Expected, FoundHost
from cni_plugin.kernel import encode, locks
from cni_plugin.kernel.decode import KernelRoute, Link, read_link, read_route
from cni_plugin.kernel.family import IPV4, IPV6
from cni_plugin.kernel.watch import RTMGRP_LINK, Watch
from cni_plugin.node import Node
from ipam.model import Attachment, Holder, IPAddress, Reservation, by_attachment

Say = Callable[..., None]
T = TypeVar("T")


class Parsed(Generic[T]):
    """Parses the objects of a dump; those that are unchanged since the last one are not parsed again.

    On a full node that is a tenth of the work: there are hundreds, and hardly one differs.
    """

    def __init__(self, read: Callable[[bytes], T]) -> None:
        self._read = read
        self._known: dict[bytes, T] = {}

    def all_of(self, bodies: Iterable[bytes]) -> list[T]:
        """Every object of a dump."""
        known, self._known = self._known, {}
        for body in bodies:
            self._known[body] = known[body] if body in known else self._read(body)
        return list(self._known.values())


class Reconciler:
    """Checks the node's endpoints and repairs them; ``say`` logs each repair: level, text, fields."""

    def __init__(self, node: Node, say: Say) -> None:
        self._node = node
        self._say = say
        self._watch: Watch | None = None
        self._links: Parsed[Link] = Parsed(read_link)
        self._routes: Parsed[KernelRoute] = Parsed(read_route)
        self.repairs: Counter[str] = Counter()
        """Repairs by kind."""

    def look(self, *, thorough: bool, grace: float) -> None:
        """Look at the host's side of every endpoint.

        Without ``thorough`` nothing is checked unless the kernel notified of a change of a link or route: an
        idle node costs next to nothing.
        """
        if not self._has_changed() and not thorough:
            return
        links = self._links.all_of(self._node.host.dump(encode.dump_links()))
        held = self._node.ipam.reservations()
        bodies = self._node.host.dump(encode.dump_routes(IPV4.number))
        if any(each.ip.version == 6 for each in held):
            bodies += self._node.host.dump(encode.dump_routes(IPV6.number))
        routes = self._routes.all_of(bodies)
        self._adopt_strangers(links, held)
        by_name = names.by_name(links)
        self._reclaim(held, by_name, grace)
        self._repair_host(held, by_name, routes)

    def _has_changed(self) -> bool:
        """Called in the reconciling thread, whose namespace is the host's."""
        if self._watch is None:
            self._watch = Watch(RTMGRP_LINK | IPV4.route_group | IPV6.route_group)
        return self._watch.changed()

    def close(self) -> None:
        """Close what is open."""
        if self._watch is not None:
            self._watch.close()

    def _adopt_strangers(self, links: Iterable[Link], held: Iterable[Reservation]) -> None:
        """Adopt finished endpoints that the store does not know: it was lost meanwhile."""
        known = {each.attachment for each in held}
        named = (names.owner_of(link) for link in links)
        if (
            any(each is not None and each[0] not in known for each in named)
            or self._node.ipam.needs_adoption()
        ):
            recovery.adopt(self._node)
            recovery.adopt_endpoints(self._node)

    def _reclaim(self, held: Iterable[Reservation], links: Mapping[str, Link], grace: float) -> None:
        missing: list[Attachment] = []
        present: list[Attachment] = []
        for each in held:
            if each.owner.holder is Holder.ENDPOINT:
                alive = names.find(names.names_for(each.attachment, each.owner), links) is not None
            else:
                alive = allocate.is_alive(each, self._node)
            (present if alive else missing).append(each.attachment)
        self._node.ipam.note_present(present)
        allocate.free_missing(missing, self._node, grace)

    def _repair_host(
        self, held: Iterable[Reservation], links: Mapping[str, Link], routes: Iterable[KernelRoute]
    ) -> None:
        leading: dict[IPAddress, KernelRoute] = {}
        for route in routes:  # of several routes to one address the kernel lists the one in use first
            if route.dst.prefixlen == route.dst.max_prefixlen:
                leading.setdefault(route.dst.network_address, route)
        for each in by_attachment(held):
            expected = drift.expected_of(*each)
            link = names.find(expected.names, links)
            if names.is_finished(link, expected.names.attachment):
                found = FoundHost(link, tuple([leading.get(one.ip) for one in each]))
                if any(drift.of_host(expected, found)):
                    self._repair_one(each, expected)

    def _repair_one(self, held: Sequence[Reservation], expected: Expected) -> None:
        """Repair under the lock and after another check: a call may be creating or removing this endpoint."""
        with locks.locked(self._node.run_dir, expected.names.lock_offset, 0) as ours:
            if not ours:
                return
            try:
                repaired = for_mode().repair(expected, self._node.host)
            except OSError as error:
                self._say("error", f"repair of {expected.names.attachment} failed: {error.strerror}")
                return
        for each in repaired:
            self._repaired(each, held)

    def _repaired(self, difference: Difference, held: Sequence[Reservation]) -> None:
        self.repairs[difference.kind] += 1
        text = f"{difference.kind} of {held[0].attachment} was restored: {difference.text}"
        self._say("warning", text, address=str(difference.ip or held[0].ip))
