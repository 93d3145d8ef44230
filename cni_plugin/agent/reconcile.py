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

from cni_plugin import addressing, datapath, endpoint
from cni_plugin.endpoint import Found
from cni_plugin.errors import InvalidNetns
from cni_plugin.kernel import locks, netns, requests
from cni_plugin.kernel.netlink import KernelRoute, Link, NoSuchDevice, read_link, read_route
from cni_plugin.node import Node
from ipam.model import Attachment, Holder, Reservation

Say = Callable[..., None]


class Reconciler:
    """Looks at the node's endpoints and puts right what is not.

    Args:
        node: the node.
        say: told of each repair, for the log: level, text, fields.
    """

    def __init__(self, node: Node, say: Say) -> None:
        self._node = node
        self._say = say
        self._seen: int | None = None
        self.repairs: Counter[str] = Counter()
        """How often each kind of thing was put back."""

    def look(self, *, thorough: bool, grace: float) -> None:
        """Look at the host's side of every endpoint.

        Without ``thorough`` nothing is compared while links and routes are what they were at the last
        look: an idle node costs two dumps.
        """
        bodies = self._node.host.dump(requests.dump_links())
        route_bodies = self._node.host.dump(requests.dump_routes(requests.AF_INET))
        seen = hash((b"".join(bodies), b"".join(route_bodies)))
        if seen == self._seen and not thorough:
            return
        links = {link.name: link for link in map(read_link, bodies)}
        routes = [read_route(body) for body in route_bodies]
        held = self._node.ipam.reservations()
        self._adopt_strangers(links.values(), held)
        self._reclaim(held, links, grace)
        repaired = self._repair_host(held, links, routes)
        self._seen = None if repaired else seen

    def look_inside(self, reservation: Reservation) -> None:
        """Look at one pod's own side, where its namespace can be reached by the path the runtime gave."""
        who, attachment = reservation.owner, reservation.attachment
        if who.holder is not Holder.ENDPOINT or not who.netns or not who.netns_id:
            return
        with suppress(InvalidNetns), netns.opened(None, who.netns) as fd:
            if netns.identity(fd) != who.netns_id:
                return
            with locks.hold(self._node.run_dir, attachment, 0) as ours:
                if not ours or self._node.ipam.reservation(attachment) != reservation:
                    return
                found = datapath.inspect(
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
            self._node.ipam.adopt(addressing.alive(self._node))
            self._count("adopted", len(self._node.ipam.reservations()) - before)

    def _reclaim(self, held: Iterable[Reservation], links: dict[str, Link], grace: float) -> None:
        missing: list[Attachment] = []
        present: list[Attachment] = []
        for each in held:
            if each.owner.holder is Holder.ENDPOINT:
                alive = endpoint.host_ifname(each.attachment) in links
            else:
                alive = addressing.is_alive(each, self._node)
            (present if alive else missing).append(each.attachment)
        self._node.ipam.note_present(present)
        freed = addressing.free_missing(missing, self._node, grace)
        self._count("reclaimed", freed)

    def _repair_host(
        self, held: Iterable[Reservation], links: dict[str, Link], routes: Iterable[KernelRoute]
    ) -> bool:
        over = {(route.dst, route.index) for route in routes}
        repaired = False
        for each in held:
            link = links.get(endpoint.host_ifname(each.attachment))
            if link is None or not endpoint.is_finished(link, each.attachment):
                continue
            right = link.up and link.mac == endpoint.HOST_MAC and (ip_network(each.ip), link.index) in over
            if not right:
                repaired = True
                self._repair_one(each, link)
        return repaired

    def _repair_one(self, reservation: Reservation, seen: Link) -> None:
        """Under the lock, and after another look: a call may be making or removing this very endpoint."""
        with locks.hold(self._node.run_dir, reservation.attachment, 0) as ours:
            link = datapath.host_link(reservation.attachment, self._node.host) if ours else None
            if link is None or link.index != seen.index:
                return
            host = self._node.host
            route = host.one_route(requests.get_route(reservation.ip))
            try:
                if link.mac != endpoint.HOST_MAC:
                    host.change([requests.set_link(link.index, mac=endpoint.HOST_MAC)])
                    self._repaired("host_mac", reservation)
                if not link.up:
                    host.change([requests.set_link(link.index)])
                    self._repaired("host_down", reservation)
                    route = None  # the kernel drops the routes of a link that goes down
                if route is None or route.dst != ip_network(reservation.ip) or route.index != link.index:
                    host.change([requests.new_route(link.index, ip_network(reservation.ip))])
                    self._repaired("host_route", reservation)
            except (FileExistsError, NoSuchDevice):
                return
            except OSError as error:
                self._say("error", f"repair of {reservation.attachment} failed: {error.strerror}")

    def _repair_pod(self, reservation: Reservation, found: Found, pod: Link, fd: int) -> None:
        """Put back what a pod can't do without, and only what is not there at all."""
        steps: list[tuple[str, requests.Request]] = []
        if not pod.up:
            steps.append(("pod_down", requests.set_link(pod.index)))
        if not any(each.ip == reservation.ip for each in found.pod_addresses):
            steps.append(("pod_address", requests.new_address(pod.index, reservation.address)))
        present = {route.dst for route in found.pod_routes if route.index == pod.index} if pod.up else set()
        for dst, gateway in endpoint.ROUTES:
            if dst not in present:
                steps.append(("pod_route", requests.new_pod_route(pod.index, dst, gateway=gateway)))
        neighbour = [each for each in found.pod_neighbours if each.ip == endpoint.GATEWAY]
        if not any(
            each.state & endpoint.NUD_PERMANENT and each.mac == endpoint.HOST_MAC for each in neighbour
        ):
            request = requests.new_neighbour(pod.index, endpoint.GATEWAY, endpoint.HOST_MAC)
            steps.append(("pod_neighbour", request))
        if steps:
            self._carry_out(steps, reservation, fd)

    def _carry_out(
        self, steps: list[tuple[str, requests.Request]], reservation: Reservation, fd: int
    ) -> None:
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
