"""The path of a packet through the node, computed from the kernel's own route lookups.

Owns the order of the steps: the pod's namespace, the node, the pod or the NIC at the other end. It sends
nothing (``probe`` does) and changes nothing. What can't be queried from the kernel, the rules of other
programs' tables, is reported as such. It must not know how a journey is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni_plugin.cli import drops, foreign
from cni_plugin.cli.drawing import route_text
from cni_plugin.cni.errors import CniError
from cni_plugin.host import packets, traffic
from cni_plugin.kernel import encode, lookup, netns
from cni_plugin.kernel.family import family_of
from cni_plugin.kernel.lookup import Lookup
from ipam.value import Value

if TYPE_CHECKING:
    from cni_plugin.cli.facts import Facts, Survey
    from cni_plugin.kernel.decode import KernelRoute, Link
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.node import Node
    from ipam.model import IPAddress

DELIVERED, DROPPED = "delivered", "dropped"


class Hop(Value):
    """One place on the way."""

    where: str
    """``pod NAMESPACE/NAME``, ``node``, ``network``."""
    interface: str
    action: str
    """What happens to the packet there."""
    rule: str = ""
    """The routing rule that selected the table, as ``ip rule`` shows it."""
    route: str = ""
    """As ``ip route`` shows it."""


class Journey(Value):
    """The whole way, and how it ends."""

    hops: tuple[Hop, ...]
    verdict: str
    """``delivered``: to the pod, to the node, or to the network of the NIC; ``dropped``."""
    source: IPAddress
    """The source address that the far end sees."""
    reason: str
    """Why it ends so."""
    notes: tuple[str, ...] = ()
    """What can't be found out from the kernel."""


class _Dropped(Exception):
    """The packet goes no further."""


class _Elsewhere(Exception):
    """It leaves by an interface that azvnet did not create."""


class Traveller:
    """Follows one packet.

    Args:
        node: the node.
        seen: its attachments and links.
        pods: the facts of every attachment that the packet may come from or go to, by address.
        protocol: ``tcp``, ``udp`` or ``icmp``.
        port: where it is sent; 0 with ``icmp``.
        translated: the source and the target that a real packet got on the node, by whatever rules; None:
            not known.
        link: the link of a link-local target, in the namespace that sends; empty: any.
    """

    def __init__(
        self,
        node: Node,
        seen: Survey,
        pods: Mapping[IPAddress, Facts],
        protocol: str,
        port: int,
        translated: tuple[IPAddress, IPAddress] | None = None,
        link: str = "",
    ) -> None:
        self._node = node
        self._protocol = protocol
        self._port = port
        self._pods = pods
        self._links = {each.index: each for each in seen.links}
        self._link = link
        self._hops: list[Hop] = []
        self._notes: list[str] = []
        self._translated = translated
        self._seen_as = translated[0] if translated else None
        """The source after translation; None: it is not translated."""

    def follow(self, source: IPAddress, target: IPAddress) -> Journey:
        """The way of a packet from ``source`` to ``target``."""
        try:
            reason = self._from_start(source, target)
        except _Dropped as end:
            return Journey(tuple(self._hops), DROPPED, source, str(end), tuple(self._notes))
        except _Elsewhere as end:
            reason = str(end)
        return Journey(tuple(self._hops), DELIVERED, self._seen_as or source, reason, tuple(self._notes))

    def _from_start(self, source: IPAddress, target: IPAddress) -> str:
        pod = self._pods.get(source)
        if pod is not None:
            if target == source:
                self._hops.append(Hop(f"pod {name_of(pod)}", "lo", "delivered to itself"))
                return "the pod has the address itself"
            return self._on_node(source, target, self._out_of_pod(pod, source, target))
        if source in self._node.host.own_addresses(family_of(source).number):
            return self._on_node(source, target, None)
        return self._on_node(source, target, self._uplink_from(source))

    def _out_of_pod(self, pod: Facts, source: IPAddress, target: IPAddress) -> Link:
        """Through the pod's namespace to the node; returns the host veth by which it arrives."""
        where = f"pod {name_of(pod)}"
        if pod.pod is None:
            raise _Dropped(f"the pod's interface is missing: {pod.unknown.get('podEnd', 'not found')}")
        ends = (each.pod.link for each in self._interfaces_of(pod) if each.pod)
        out = next((each.index for each in ends if each.name == self._link), 0)
        if self._link and not out:
            raise _Dropped(f"the pod has no interface {self._link}")
        found = self._inside(pod, lambda inside: lookup.look_up(inside, target, source, out=out))
        if found.route is None:
            self._hops.append(Hop(where, pod.pod.link.name, "dropped: no route in the pod's namespace"))
            raise _Dropped(f"the pod has no route to {target}")
        way = self._interface_of(pod, found.route.index)
        if way is None or way.pod is None:
            raise _Elsewhere(f"the pod sends it by link {found.route.index}, which azvnet did not create")
        route = route_text(found.route, way.pod.link.name)
        self._hops.append(Hop(where, way.pod.link.name, "sent to the node", str(found.rule or ""), route))
        if way.host is None:
            raise _Dropped(f"the host's end is missing: {way.unknown.get('hostEnd', 'not found')}")
        for link in (way.pod.link, way.host.link):
            if not link.up:
                raise _Dropped(f"interface {link.name} is down")
        return way.host.link

    def _interface_of(self, pod: Facts, index: int) -> Facts | None:
        """The attachment of the same pod whose interface has an index."""
        same = self._interfaces_of(pod)
        return next((each for each in same if each.pod and each.pod.link.index == index), None)

    def _interfaces_of(self, pod: Facts) -> list[Facts]:
        """All attachments of the same pod."""
        return [each for each in self._pods.values() if each.owner.netns == pod.owner.netns]

    def _on_node(self, source: IPAddress, target: IPAddress, came_by: Link | None) -> str:
        """Through the node: the route, what filters may do, and the way on."""
        arrival = (came_by.index, came_by.name) if came_by else (0, "lo")
        host = self._node.host
        if came_by and (why := drops.by_source_check(host, source, target, came_by)):
            self._hops.append(Hop("node", came_by.name, "dropped by the source check"))
            raise _Dropped(why)
        if self._translated and self._translated[1] != target:
            self._hops.append(Hop("node", arrival[1], f"sent to {self._translated[1]} instead of {target}"))
            target = self._translated[1]
        self._note_translations(target, foreign.OUTPUT if came_by is None else foreign.PREROUTING)
        out = 0
        if came_by is None and self._link:
            out = next((each.index for each in self._links.values() if each.name == self._link), 0)
            if not out:
                raise _Dropped(f"the node has no link {self._link}")
        found = lookup.look_up(host, target, source, arrival, out)
        if found.route is None:
            why = drops.by_route(host, found.error, source, target, came_by)
            self._hops.append(Hop("node", arrival[1], why, str(found.rule or "")))
            raise _Dropped(why)
        link = self._links.get(found.route.index)
        route = route_text(found.route, link.name if link else "")
        if found.route.kind == encode.RTN_LOCAL:
            self._hops.append(Hop("node", arrival[1], "delivered to the node", str(found.rule or ""), route))
            return "the node has the address itself"
        if found.route.kind != encode.RTN_UNICAST or link is None:
            self._hops.append(Hop("node", arrival[1], "dropped", str(found.rule or ""), route))
            raise _Dropped(f"{target} is not the address of one machine")
        if why := drops.by_forwarding_v6(source, came_by):
            self._hops.append(Hop("node", arrival[1], "dropped: not forwarded", str(found.rule or ""), route))
            raise _Dropped(why)
        if refused := self._refused_by_table(source, target, came_by, link):
            self._hops.append(Hop("node", arrival[1], f"refused: {refused}", str(found.rule or ""), route))
            raise _Dropped(refused)
        verb = "forwarded" if came_by else "sent"
        self._hops.append(Hop("node", arrival[1], f"{verb} by {link.name}", str(found.rule or ""), route))
        if not link.up:
            raise _Dropped(f"link {link.name} is down")
        if came_by is not None:
            self._note(foreign.filters(self._node, target))
        self._note_translations(target, foreign.POSTROUTING)
        return self._arrival(source, target, link, found)

    def _arrival(self, source: IPAddress, target: IPAddress, link: Link, found: Lookup) -> str:
        """At the pod behind a host veth, or at the network behind the NIC."""
        pod = self._pods.get(target)
        if pod is not None and pod.host is not None and pod.host.link.index == link.index:
            return self._into_pod(pod, self._seen_as or source, target)
        assert found.route is not None
        if not link.mac:
            self._hops.append(Hop("network", link.name, "leaves the node by a link that is not a NIC"))
            return f"it leaves the node by {link.name}"
        if self._translated is None:
            self._seen_as = self._masqueraded(source, target, found.route)
        source = self._seen_as or source
        if problem := self._not_of_nic(source, link):
            self._hops.append(Hop("network", link.name, f"dropped by Azure: {problem}"))
            raise _Dropped(problem)
        gateway = f" to gateway {found.route.gateway}" if found.route.gateway else ""
        if problem := self._note_azure(source, target):
            self._hops.append(Hop("network", link.name, f"dropped by Azure: {problem}"))
            raise _Dropped(problem)
        self._hops.append(Hop("network", link.name, f"leaves the node{gateway} as {source}"))
        return f"it leaves the node by {link.name} with source {source}"

    def _refused_by_table(
        self, source: IPAddress, target: IPAddress, came_by: Link | None, link: Link
    ) -> str:
        """Why azvnet's own table refuses it; empty: it does not."""
        run_dir = self._node.run_dir
        if source in self._pods:
            return packets.refused_to_pods(target, self._protocol, self._port, run_dir)
        turned = came_by is not None and came_by.index == link.index
        return f"no pod has {target}" if turned and packets.is_without_pod(target, run_dir) else ""

    def _masqueraded(self, source: IPAddress, target: IPAddress, route: KernelRoute) -> IPAddress | None:
        """The node's address, if azvnet's table of nf_tables gives it to a packet from a pod.

        Of several on the link IPv4 uses the one in the next hop's subnet, or the first (inet_select_addr);
        IPv6 the one that a socket bound to the link gets (ipv6_dev_get_saddr).
        """
        pod = self._pods.get(source)
        if pod is None or not packets.is_masqueraded(pod.owner.network, source, target, self._node.run_dir):
            return None
        if target.version == 6:
            with suppress(OSError):
                return lookup.source_for(target, self._links[route.index].name)
        addresses = self._node.host.addresses(encode.dump_addresses(family_of(target).number))
        own = [each for each in addresses if each.index == route.index and not each.ip.is_link_local]
        hop = route.gateway or target
        near = (each for each in own if hop in ip_network((each.ip, each.prefixlen), strict=False))
        return next((each.ip for each in (*near, *own)), None)

    def _into_pod(self, pod: Facts, source: IPAddress, target: IPAddress) -> str:
        where, end = f"pod {name_of(pod)}", pod.pod
        if end is None:
            raise _Dropped(f"the pod's interface is missing: {pod.unknown.get('podEnd', 'not found')}")
        if not end.link.up:
            raise _Dropped(f"the pod's interface {end.link.name} is down")
        arrival = (end.link.index, end.link.name)
        found = self._inside(pod, lambda inside: lookup.look_up(inside, target, source, arrival))
        if found.route is None or found.route.kind != encode.RTN_LOCAL:
            self._hops.append(Hop(where, end.link.name, "dropped: the pod does not have the address"))
            raise _Dropped(f"the pod does not have {target} (see `azvnet status`)")
        self._hops.append(
            Hop(where, end.link.name, "delivered", str(found.rule or ""), route_text(found.route, "lo"))
        )
        return f"pod {name_of(pod)} has the address"

    def _inside(self, pod: Facts, work: Callable[[Netlink], Lookup]) -> Lookup:
        path = pod.owner.netns
        try:
            with netns.opened(None, path) as fd, self._node.host.sibling_in(fd) as inside:
                return work(inside)
        except (CniError, OSError) as error:
            raise _Dropped(f"the pod's namespace {path} can't be entered: {error}") from error

    def _uplink_from(self, source: IPAddress) -> Link:
        """The link by which packets from outside arrive: the one by which answers to the source leave."""
        try:
            here = lookup.source_for(source)
            found = lookup.look_up(self._node.host, source, here)
        except OSError as error:
            raise _Dropped(f"no route leads to {source}: {error.strerror}") from error
        link = self._links.get(found.route.index) if found.route else None
        if link is None:
            raise _Dropped(f"no route leads to {source}, so nothing can arrive from there")
        self._hops.append(Hop("network", link.name, f"arrives from {source}"))
        return link

    def _not_of_nic(self, source: IPAddress, link: Link) -> str:
        """Why Azure drops it: its source does not belong to the NIC. Empty: it does, or it is not known."""
        pod = self._pods.get(source)
        macs = {each.nic_mac for each in pod.addresses if each.address.ip == source} if pod else set()
        known = macs - {"", link.mac}
        if known and link.mac not in macs:
            owner = ", ".join(sorted(known))
            return f"{source} belongs to NIC {owner}, and leaves by {link.name} ({link.mac})"
        return ""

    def _note_azure(self, source: IPAddress, target: IPAddress) -> str:
        """Why Azure does not answer a pod's own address; noted only where that is not certain."""
        if source not in self._pods:
            return ""
        if target in traffic.IMDS:
            return "the metadata service only answers the node's primary address"
        if packets.leaves_publicly(source, target, self._node.run_dir):
            self._notes.append(f"{source} has a public address of its own, under which the Internet sees it")
        if packets.is_outside(source, target, self._node.run_dir):
            self._notes.append(
                f"{source} is a secondary address: outside the virtual network it is answered only "
                "through a NAT gateway or a firewall"
            )
        return ""

    def _note_translations(self, target: IPAddress, hook: int) -> None:
        """What is not known unless a real packet showed it."""
        if self._translated is None:
            self._note(foreign.translations(hook, target))

    def _note(self, notes: Iterable[str]) -> None:
        """Each only once: an IPv4 table and one for both families may have the same name."""
        self._notes += [each for each in dict.fromkeys(notes) if each not in self._notes]


def name_of(facts: Facts) -> str:
    """A pod's name, or its container's."""
    return facts.owner.pod or facts.attachment.container_id
