"""Looking after what pods have: repair of drift, and what nobody holds any more.

Owns one look at the node and what follows from it. Something else on a node may take away what a pod needs
(networkd flushing routes it does not know, a person, a script); what is missing is put back and counted.
What a pod or a later plugin has put there is left alone. It must not know when it is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_network
from typing import Generic, TypeVar

from cni_plugin.addresses import allocate, recovery
from cni_plugin.cni.errors import InvalidNetns
from cni_plugin.datapath import endpoint, transparent
from cni_plugin.datapath.endpoint import Found
from cni_plugin.kernel import encode, locks, netns
from cni_plugin.kernel.decode import KernelRoute, Link, read_link, read_route
from cni_plugin.kernel.netlink import NoSuchDevice
from cni_plugin.kernel.watch import RTMGRP_IPV4_ROUTE, RTMGRP_LINK, Watch
from cni_plugin.node import Node
from ipam.model import Attachment, Holder, Reservation

Say = Callable[..., None]
T = TypeVar("T")
NOT_ENTERED = 12
"""Looks inside pods in a row that found no namespace: single ones are on their way out."""


class Parsed(Generic[T]):
    """Reads the objects of a dump; those that are what they were in the last one are not read again.

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
    """Looks at the node's endpoints and puts right what is not.

    Args:
        node: the node.
        say: told of each repair, for the log: level, text, fields.
    """

    def __init__(self, node: Node, say: Say) -> None:
        self._node = node
        self._say = say
        self._watch: Watch | None = None
        self._links: Parsed[Link] = Parsed(read_link)
        self._routes: Parsed[KernelRoute] = Parsed(read_route)
        self._held: tuple[Reservation, ...] = ()
        self._next_inside = 0
        self._not_entered: tuple[int, str] = (0, "")
        self.repairs: Counter[str] = Counter()
        """How often each kind of thing was put back."""

    @property
    def why_not_inside(self) -> str:
        """Why what is missing inside pods is not put back; empty when it is."""
        times, path = self._not_entered
        if times < NOT_ENTERED:
            return ""
        return (
            f"no pod's network namespace can be entered by the runtime's path, {path} for one: what is "
            "missing inside pods is not put back. In a container, mount /run/netns with HostToContainer"
        )

    def look(self, *, thorough: bool, grace: float) -> None:
        """Look at the host's side of every endpoint.

        Without ``thorough`` nothing is looked at while the kernel has told of no change of a link or route:
        an idle node costs next to nothing.
        """
        if not self._has_changed() and not thorough:
            return
        bodies = self._node.host.dump(encode.dump_links())
        links = {link.name: link for link in self._links.all_of(bodies)}
        routes = self._routes.all_of(self._node.host.dump(encode.dump_routes(encode.AF_INET)))
        held = self._held = self._node.ipam.reservations()
        self._adopt_strangers(links.values(), held)
        self._reclaim(held, links, grace)
        self._repair_host(held, links, routes)

    def _has_changed(self) -> bool:
        """Asked in the thread that looks, whose namespace is the host's."""
        if self._watch is None:
            self._watch = Watch(RTMGRP_LINK | RTMGRP_IPV4_ROUTE)
        return self._watch.changed()

    def close(self) -> None:
        """Close what is open."""
        if self._watch is not None:
            self._watch.close()

    def look_inside_some(self, number: int) -> None:
        """Look at so many pods' own sides, the next time at the next ones."""
        for offset in range(min(number, len(self._held))):
            self.look_inside(self._held[(self._next_inside + offset) % len(self._held)])
        self._next_inside += number

    def look_inside(self, reservation: Reservation) -> None:
        """Look at one pod's own side, where its namespace can be reached by the path the runtime gave."""
        who, attachment = reservation.owner, reservation.attachment
        if who.holder is not Holder.ENDPOINT or not who.netns or not who.netns_id:
            return
        self._not_entered = (self._not_entered[0] + 1, who.netns)
        with suppress(InvalidNetns), netns.opened(None, who.netns) as fd:
            if netns.identity(fd) != who.netns_id:
                return
            self._not_entered = (0, "")
            with locks.hold(self._node.run_dir, attachment, 0) as ours:
                if not ours or self._node.ipam.reservation(attachment) != reservation:
                    return
                found = transparent.inspect(
                    attachment, attachment.ifname, (reservation.address,), self._node.host, fd
                )
                if found.pod_link is not None and found.host_link is not None:
                    self._repair_pod(reservation, found, found.pod_link, fd)

    def _adopt_strangers(self, links: Iterable[Link], held: Iterable[Reservation]) -> None:
        """Endpoints that are finished, but that the store does not know: it was lost meanwhile."""
        known = {each.attachment for each in held}
        named = (endpoint.read_alias(link.alias) for link in links)
        if (
            any(each is not None and each[0] not in known for each in named)
            or self._node.ipam.needs_adoption()
        ):
            before = len(self._node.ipam.reservations())
            recovery.adopt(self._node)
            recovery.adopt_endpoints(self._node)
            self._count("adopted", len(self._node.ipam.reservations()) - before)

    def _reclaim(self, held: Iterable[Reservation], links: dict[str, Link], grace: float) -> None:
        missing: list[Attachment] = []
        present: list[Attachment] = []
        for each in held:
            if each.owner.holder is Holder.ENDPOINT:
                alive = endpoint.host_ifname(each.attachment) in links
            else:
                alive = allocate.is_alive(each, self._node)
            (present if alive else missing).append(each.attachment)
        self._node.ipam.note_present(present)
        freed = allocate.free_missing(missing, self._node, grace)
        self._count("reclaimed", freed)

    def _repair_host(
        self, held: Iterable[Reservation], links: dict[str, Link], routes: Iterable[KernelRoute]
    ) -> None:
        # Not ip_network(each.ip): it takes longer than everything else here.
        over = {
            (route.dst.network_address, route.index)
            for route in routes
            if route.dst.prefixlen == route.dst.max_prefixlen
        }
        for each in held:
            link = links.get(endpoint.host_ifname(each.attachment))
            if link is None or not endpoint.is_finished(link, each.attachment):
                continue
            right = link.up and link.mac == endpoint.HOST_MAC and (each.ip, link.index) in over
            if not right:
                self._repair_one(each, link)

    def _repair_one(self, reservation: Reservation, seen: Link) -> None:
        """Under the lock, and after another look: a call may be making or removing this very endpoint."""
        with locks.hold(self._node.run_dir, reservation.attachment, 0) as ours:
            link = transparent.host_link(reservation.attachment, self._node.host) if ours else None
            if link is None or link.index != seen.index:
                return
            host = self._node.host
            route = host.one_route(encode.get_route(reservation.ip))
            try:
                if link.mac != endpoint.HOST_MAC:
                    host.change([encode.set_link(link.index, mac=endpoint.HOST_MAC)])
                    self._repaired("host_mac", reservation)
                if not link.up:
                    host.change([encode.set_link(link.index)])
                    self._repaired("host_down", reservation)
                    route = None  # the kernel drops the routes of a link that goes down
                if route is None or route.dst != ip_network(reservation.ip) or route.index != link.index:
                    host.change([encode.new_route(link.index, ip_network(reservation.ip))])
                    self._repaired("host_route", reservation)
            except (FileExistsError, NoSuchDevice):
                return
            except OSError as error:
                self._say("error", f"repair of {reservation.attachment} failed: {error.strerror}")

    def _repair_pod(self, reservation: Reservation, found: Found, pod: Link, fd: int) -> None:
        """Put back what a pod can't do without, and only what is not there at all."""
        steps: list[tuple[str, encode.Request]] = []
        if not pod.up:
            steps.append(("pod_down", encode.set_link(pod.index)))
        if not any(each.ip == reservation.ip for each in found.pod_addresses):
            steps.append(("pod_address", encode.new_address(pod.index, reservation.address)))
        present = {route.dst for route in found.pod_routes if route.index == pod.index} if pod.up else set()
        for dst, gateway in endpoint.ROUTES:
            if dst not in present:
                steps.append(("pod_route", encode.new_pod_route(pod.index, dst, gateway=gateway)))
        neighbour = [each for each in found.pod_neighbours if each.ip == endpoint.GATEWAY]
        if not any(
            each.state & endpoint.NUD_PERMANENT and each.mac == endpoint.HOST_MAC for each in neighbour
        ):
            request = encode.new_neighbour(pod.index, endpoint.GATEWAY, endpoint.HOST_MAC)
            steps.append(("pod_neighbour", request))
        if steps:
            self._carry_out(steps, reservation, fd)

    def _carry_out(self, steps: list[tuple[str, encode.Request]], reservation: Reservation, fd: int) -> None:
        with netns.call_in(fd, self._node.host.sibling) as pod:
            for kind, request in steps:
                try:
                    pod.change([request])
                except FileExistsError:
                    continue
                except OSError as error:
                    self._say("error", f"repair of {reservation.attachment} failed: {error.strerror}")
                    return
                self._repaired(kind, reservation)

    def _repaired(self, kind: str, reservation: Reservation) -> None:
        self._count(kind, 1)
        self._say("warning", f"{kind} of {reservation.attachment} was put back", address=str(reservation.ip))

    def _count(self, kind: str, number: int) -> None:
        if number > 0:
            self.repairs[kind] += number
