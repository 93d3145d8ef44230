"""The state of a node: its store, its kernel and its agent, compared and not changed.

Owns comparing them for the command line. Each part is read independently, so a broken one does not hide the
others. It must not know how the result is shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cni_plugin import checks, host
from cni_plugin.cli.asking import AgentSeen, ask_agent
from cni_plugin.cni.errors import CniError
from cni_plugin.datapath import drift, for_mode, names
from cni_plugin.datapath.drift import Difference, FoundHost
from cni_plugin.kernel import encode, netns
from cni_plugin.kernel.decode import KernelRoute, Link
from cni_plugin.kernel.family import IPV4, IPV6
from cni_plugin.node import Node
from ipam.errors import IpamError, StoreMissing
from ipam.model import (
    AddressStatus,
    Attachment,
    Holder,
    IPAddress,
    Overview,
    Owner,
    Reservation,
    by_attachment,
)
from ipam.value import Value

OK, MISSING, UNCONFIRMED, UNKNOWN = "ok", "missing", "unconfirmed", "unknown"
DOWN, NO_ROUTE, CHANGED = "down", "no-route", "changed"
STATES = {drift.HOST_MISSING: MISSING, drift.HOST_DOWN: DOWN, drift.HOST_ROUTE: NO_ROUTE}
"""What a difference makes of an attachment; every other one makes it ``changed``."""
STORE_OK, STORE_MISSING, STORE_UNREADABLE, STORE_OLD = "ok", "missing", "unreadable", "other-boot"


class Seen(Value):
    """One attachment, as store and kernel have it."""

    attachment: Attachment
    address: str
    owner: Owner
    state: str
    """``ok``; ``unconfirmed``: its ADD is under way or was killed; ``missing``: its endpoint is gone;
    ``down``, ``no-route``: of the endpoint's host side; ``changed``: something else differs, mostly inside
    the pod; ``unknown``: it is alive, but not in the store.
    """
    host_veth: str = ""
    host_index: int = 0
    pod_index: int = 0
    """Interface index inside the pod: what the host veth names as its peer (IFLA_LINK)."""
    since: float = 0.0
    """Seconds since the epoch; 0: not known, it was adopted from the kernel."""
    addresses: tuple[str, ...] = ()
    """``address``, and that of the other family if the pod has one."""
    differs: tuple[str, ...] = ()
    """Differences from what ADD made, in words."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "podNamespace": self.owner.pod_namespace,
            "podName": self.owner.pod_name,
            "containerID": self.attachment.container_id,
            "ifname": self.attachment.ifname,
            "address": self.address,
            "addresses": list(self.addresses),
            "network": self.owner.network,
            "holder": self.owner.holder.value,
            "hostVeth": self.host_veth,
            "hostIndex": self.host_index or None,
            "podIndex": self.pod_index or None,
            "since": self.since or None,
            "state": self.state,
            "differs": list(self.differs),
        }


class Picture(Value):
    """Everything that was read, and when."""

    taken_at: float
    run_dir: str
    agent: AgentSeen
    store: str
    store_error: str
    overview: Overview | None
    addresses: tuple[AddressStatus, ...]
    attachments: tuple[Seen, ...]
    kernel_error: str = ""
    in_the_way: tuple[str, ...] = ()
    """What on the host blocks pods' traffic."""
    on_host: frozenset[IPAddress] = frozenset()
    """Addresses that the host itself carries."""

    @property
    def counts(self) -> Counter[str]:
        """The pool by state, as ``addresses`` has it."""
        return checks.pool_states(self.addresses, self.on_host)

    @property
    def pool(self) -> dict[int, Counter[str]]:
        """The same for each IP version of which it has addresses."""
        return checks.pool_by_family(self.addresses, self.on_host)


def look(node: Node) -> Picture:
    """Read the state of a node. A bad state does not raise: it is part of the result."""
    agent = ask_agent(node.run_dir)
    store, store_error, overview, addresses = read_store(node, agent.cooldown)
    links: list[Link] = []
    routes: list[KernelRoute] = []
    kernel_error = ""
    on_host: frozenset[IPAddress] = frozenset()
    try:
        links = node.host.links(encode.dump_links())
        routes = [
            route for family in (IPV4, IPV6) for route in node.host.routes(encode.dump_routes(family.number))
        ]
        on_host = node.host.own_addresses() | node.host.own_addresses(IPV6.number)
    except OSError as error:
        kernel_error = f"links, routes and addresses can't be read: {error.strerror}"
    held = [each.reservation for each in addresses if each.reservation is not None]
    inside = {each[0].attachment: _inside(each, node) for each in by_attachment(held)}
    return Picture(
        taken_at=time.time(),
        run_dir=str(node.run_dir),
        agent=agent,
        store=store,
        store_error=store_error,
        overview=overview,
        addresses=addresses,
        attachments=tuple(compare(held, links, routes, inside)),
        kernel_error=kernel_error,
        in_the_way=tuple(host.check(node, in_use=bool(held))),
        on_host=on_host,
    )


def read_store(node: Node, cooldown: float) -> tuple[str, str, Overview | None, tuple[AddressStatus, ...]]:
    """The state of the store, why it can't be read, and what it holds. ``cooldown``: in seconds."""
    try:
        overview = node.view.overview(cooldown)
        addresses = node.view.addresses(cooldown)
    except StoreMissing as error:
        return STORE_MISSING, str(error), None, ()
    except IpamError as error:
        return STORE_UNREADABLE, f"{error}. {error.remedy}", None, ()
    return STORE_OK if overview.same_boot else STORE_OLD, "", overview, addresses


def _inside(held: Sequence[Reservation], node: Node) -> list[Difference]:
    """What differs inside the pod, if its namespace can be reached by the path that the runtime gave; if it
    can't be, that.
    """
    who, expected = held[0].owner, drift.expected_of(*held)
    if who.holder is not Holder.ENDPOINT or not who.netns or not who.netns_id:
        return []
    try:
        with netns.opened(None, who.netns) as fd:
            if netns.identity(fd) != who.netns_id:
                return []
            found = for_mode().inspect(expected.names, expected.ifname, expected.routed, node.host, fd)
    except (CniError, OSError) as error:
        hint = "in a container, mount its directory with HostToContainer"
        return [Difference("pod_unseen", f"the pod's side was not checked: {error} ({hint})")]
    return [each for each in drift.differences(expected, found) if each.kind.startswith("pod_")]


def compare(
    held: Iterable[Reservation],
    links: Iterable[Link],
    routes: Iterable[KernelRoute],
    inside: Mapping[Attachment, Iterable[Difference]] | None = None,
) -> list[Seen]:
    """Attachments of the store beside their endpoints, then endpoints that the store does not know."""
    links, routes = list(links), list(routes)
    by_name = names.by_name(links)
    leading = {
        route.dst.network_address: route
        for route in reversed(routes)
        if route.dst.prefixlen == route.dst.max_prefixlen
    }
    seen = [
        _of_store(each, by_name, leading, (inside or {}).get(each[0].attachment, ()))
        for each in by_attachment(held)
    ]
    known = {each.attachment for each in seen}
    for link in links:
        named = names.owner_of(link)
        if named is not None and named[0] not in known:
            carried = [str(ip) for ip, route in leading.items() if route.index == link.index]
            seen.append(
                Seen(
                    attachment=named[0],
                    address=carried[0] if carried else "",
                    addresses=tuple(carried),
                    owner=Owner(named[1]),
                    state=UNKNOWN,
                    **_of_link(link),
                )
            )
    return seen


def _of_store(
    held: Sequence[Reservation],
    links: dict[str, Link],
    leading: Mapping[Any, KernelRoute],
    inside: Iterable[Difference],
) -> Seen:
    reservation, who = held[0], held[0].owner
    link = None
    found: list[Difference] = []
    if who.holder is Holder.ENDPOINT:
        expected = drift.expected_of(*held)
        link = names.find(expected.names, links)
        routes = tuple(leading.get(each.ip) for each in held)
        found = [*drift.of_host(expected, FoundHost(link, routes)), *inside]
    elif who.netns and who.netns_id and netns.is_replaced(who.netns, who.netns_id):
        found = [Difference(drift.HOST_MISSING, f"its network namespace {who.netns} is gone")]
    found = found if reservation.confirmed else []
    usual = (STATES[each.kind] for each in found if each.kind in STATES)
    state = next(usual, CHANGED) if found else OK
    return Seen(
        attachment=reservation.attachment,
        address=str(reservation.ip),
        addresses=tuple(str(each.ip) for each in held),
        owner=who,
        state=state if reservation.confirmed else UNCONFIRMED,
        since=reservation.created_at,
        differs=tuple(each.text for each in found),
        **_of_link(link),
    )


def _of_link(link: Link | None) -> dict[str, Any]:
    if link is None:
        return {}
    return {"host_veth": link.name, "host_index": link.index, "pod_index": link.lower}
