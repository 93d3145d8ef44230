"""What the store, and the kernel on both sides, know about an attachment.

Owns finding attachments by what people know of them, and gathering the facts of each. Namespaces are entered
by their path and only read. Facts that can't be found are in ``Facts.unknown``, with the reason. It must not
know how facts are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from cni_plugin.addresses import uplink
from cni_plugin.cli.looking import STORE_OK, read_store
from cni_plugin.cni.errors import CniError
from cni_plugin.datapath import names
from cni_plugin.host import nic_routes
from cni_plugin.kernel import encode, netns
from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress, Neighbour
from cni_plugin.kernel.encode import AF_INET, AF_INET6, RTN_UNICAST
from cni_plugin.kernel.family import family_of
from ipam.errors import IpamError
from ipam.model import (
    DEFAULT_COOLDOWN_SECONDS,
    Attachment,
    Holder,
    IPAddress,
    IPInterface,
    Owner,
    Reservation,
)
from ipam.value import Value, field, replace

if TYPE_CHECKING:
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.node import Node

NUD_NOARP = 0x40
"""Multicast and the like: the kernel's own entries, which ``ip neighbour`` does not show."""


class Attached(Value):
    """An attachment as it is known before its namespace is entered."""

    attachment: Attachment
    owner: Owner
    held: tuple[Reservation, ...] = ()
    """What it holds according to the store; empty: only its host veth's alias names it."""
    host_link: Link | None = None


class Survey(Value):
    """What the node has, read once."""

    taken_at: float
    known: tuple[Attached, ...]
    links: tuple[Link, ...]
    """The node's own."""
    unheld: tuple[tuple[IPAddress, str], ...] = ()
    """Addresses of the pool that nobody holds, with the reason why one is in quarantine."""
    store_error: str = ""
    """Why the store can't be read; empty: it can."""


class End(Value):
    """One end of an attachment as the kernel has it."""

    link: Link
    addresses: tuple[LinkAddress, ...] = ()
    routes: tuple[KernelRoute, ...] = ()
    """Those of the main table that lead over it."""
    neighbours: tuple[Neighbour, ...] = ()
    master: str = ""
    """Name of the bridge that it is a port of."""


class Provision(Value):
    """One address as the store has it, and its IP configuration in the cloud."""

    address: IPInterface
    gateway: IPAddress
    source: str = ""
    nic_mac: str = ""
    nic_link: Link | None = None
    configuration: str = ""
    """Name of the NIC's IP configuration."""
    table: int = 0
    """Routing table that the NIC has for pods' packets; 0: it has none of its own."""


class Facts(Value):
    """Everything that is known of one attachment."""

    attachment: Attachment
    owner: Owner
    confirmed: bool | None
    """Whether its ADD finished; None: the store does not know it."""
    since: float
    """Seconds since the epoch; 0: not known."""
    addresses: tuple[Provision, ...] = ()
    host: End | None = None
    pod: End | None = None
    paired: bool | None = None
    """Whether each end names the other's index; None: not both are known."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a fact is not known, by its key in JSON."""


def survey(node: Node) -> Survey:
    """Read the store and the node's links. Raises OSError when the kernel does not list its links."""
    state, store_error, _, addresses = read_store(node, DEFAULT_COOLDOWN_SECONDS)
    links = tuple(node.host.links(encode.dump_links()))
    held: dict[Attachment, list[Reservation]] = {}
    for each in addresses:
        if each.reservation is not None:
            held.setdefault(each.reservation.attachment, []).append(each.reservation)
    by_name = names.by_name(links)
    known = [
        Attached(attachment, some[0].owner, tuple(some), _host_link(attachment, some[0].owner, by_name))
        for attachment, some in held.items()
    ]
    for link in links:
        found = names.owner_of(link)
        if found is not None and found[0] not in held:
            owner = Owner(found[1], call_id=found[2])
            known.append(Attached(found[0], owner, host_link=link))
    unheld = tuple((each.address.ip, each.reason) for each in addresses if each.reservation is None)
    why = store_error if state == STORE_OK or store_error else "the store is from before the node was started"
    return Survey(time.time(), tuple(known), links, unheld, why)


def _host_link(attachment: Attachment, owner: Owner, by_name: Mapping[str, Link]) -> Link | None:
    """The host veth, where our own datapath makes it."""
    if owner.holder is not Holder.ENDPOINT:
        return None
    return names.find(names.names_for(attachment, owner), by_name)


def find_attached(target: str, seen: Survey, node: Node) -> list[Attached]:
    """The attachments that ``target`` names: a pod, an address, a link of the node, or a container.

    An exact match comes before a prefix of a container id.
    """
    ip = ip_of(target)
    exact = [
        each for each in seen.known if target in _names_of(each) or ip in {held.ip for held in each.held}
    ]
    link = names.by_name(seen.links).get(target)
    if link is not None:
        exact += [
            each
            for each in seen.known
            if each not in exact and each.host_link is None and _leads_to(link, each, seen, node)
        ]
    return exact or [each for each in seen.known if each.attachment.container_id.startswith(target)]


def _names_of(known: Attached) -> Iterator[str]:
    yield known.attachment.container_id
    if known.owner.pod:
        yield from (known.owner.pod_name, known.owner.pod)
    if known.host_link is not None:
        yield from (known.host_link.name, *known.host_link.alt_names)


def _leads_to(link: Link, known: Attached, seen: Survey, node: Node) -> bool:
    """Whether a link that another plugin made is the host end of an attachment."""
    host = gather(known, seen, node).host
    return host is not None and host.link.index == link.index


def unheld_reason(target: str, seen: Survey) -> str:
    """Why no pod has an address of the pool; empty: it is not such an address."""
    ip = ip_of(target)
    for address, reason in seen.unheld:
        if address == ip:
            return f"the pool has it, and no pod holds it{f' ({reason})' if reason else ''}"
    return ""


def ip_of(target: str) -> IPAddress | None:
    """The address in the text, with or without a prefix length; None: it is something else."""
    try:
        return ip_interface(target).ip
    except ValueError:
        return None


def gather(known: Attached, seen: Survey, node: Node) -> Facts:
    """Everything about one attachment."""
    unknown: dict[str, str] = {}
    owner = known.owner
    why = seen.store_error or "it was lost"
    lost = f"this attachment is not in the store: {why}, or another IPAM plugin gave its addresses"
    first = known.held[0] if known.held else None
    if not owner.pod_name:
        unknown["pod"] = (
            "the runtime did not pass its name, or the store has been lost since" if first else lost
        )
    if first is None or not first.created_at:
        unknown["since"] = "it was adopted from the kernel, which does not have it" if first else lost
    if not owner.call_id:
        unknown["callID"] = "it was adopted from the kernel, which does not have it" if first else lost
    path, pod = _pod_end(known, node, unknown)
    host = _host_end(known, pod, seen, node.host, unknown)
    paired = None
    if host is not None and pod is not None:
        paired = (host.link.lower, pod.link.lower) == (pod.link.index, host.link.index)
    if not known.held:
        unknown["addresses"] = lost
    return Facts(
        attachment=known.attachment,
        owner=replace(owner, netns=path),
        confirmed=first.confirmed if first is not None else None,
        since=first.created_at if first is not None else 0.0,
        addresses=tuple(_provision(each, seen, node, unknown) for each in known.held),
        host=host,
        pod=pod,
        paired=paired,
        unknown=unknown,
    )


def _pod_end(known: Attached, node: Node, unknown: dict[str, str]) -> tuple[str, End | None]:
    """The path of the pod's namespace, and its end in there."""
    owner = known.owner
    why = "its path is not known"
    for path in [owner.netns] if owner.netns else netns.mounted():
        try:
            with netns.opened(None, path) as fd:
                if owner.netns_id and netns.identity(fd) != owner.netns_id:
                    why = f"{path} is another namespace now: the pod's is gone"
                    continue
                with closing(node.host.sibling_in(fd)) as inside:
                    end = _inside(known, inside)
        except (CniError, OSError) as error:
            why = (getattr(error, "strerror", None) or str(error)) if owner.netns else why
            continue
        if end is not None:
            return path, end
        if owner.netns:
            why = f"there is no interface {known.attachment.ifname} in {path}"
    if not owner.netns:
        unknown["netns"] = f"{why}, and no mounted namespace has its interface"
    unknown["podEnd"] = why
    return owner.netns, None


def _inside(known: Attached, inside: Netlink) -> End | None:
    """The pod's end among the links of a namespace: the peer of the host veth, or by its name."""
    links = inside.links(encode.dump_links())
    host = known.host_link
    peers = [
        link for link in links if host and (link.lower, link.index) == (host.index, host.lower) and host.lower
    ]
    named = [link for link in links if link.name == known.attachment.ifname] if known.owner.netns else []
    return next((_end(link, inside, links) for link in (*peers, *named)), None)


def _host_end(
    known: Attached, pod: End | None, seen: Survey, host: Netlink, unknown: dict[str, str]
) -> End | None:
    link = known.host_link
    if link is None and pod is not None and known.owner.holder is not Holder.ENDPOINT:
        parent = next((each for each in seen.links if each.index == pod.link.lower), None)
        if pod.link.kind != "veth":
            over = f" on {parent.name} ({parent.index})" if parent is not None else ""
            unknown["hostEnd"] = f"{pod.link.kind or 'the link'}{over} has no end of its own on the node"
            return None
        link = parent
    if link is None:
        reason = "its host veth is missing"
        if known.owner.holder is not Holder.ENDPOINT:
            reason = "another plugin made it, and only the pod's end names it"
        unknown["hostEnd"] = reason
        return None
    try:
        return _end(link, host, seen.links)
    except OSError as error:
        unknown["hostEnd"] = str(error.strerror or error)
        return None


def _end(link: Link, socket: Netlink, links: Sequence[Link]) -> End:
    families = (AF_INET, AF_INET6)
    addresses = [each for family in families for each in socket.addresses(encode.dump_addresses(family))]
    routes = [each for family in families for each in socket.routes(encode.dump_routes(family))]
    neighbours = [each for family in families for each in socket.neighbours(encode.dump_neighbours(family))]
    return End(
        link,
        tuple(each for each in addresses if each.index == link.index),
        tuple(each for each in routes if each.index == link.index and each.kind == RTN_UNICAST),
        tuple(each for each in neighbours if each.index == link.index and each.state & ~NUD_NOARP),
        next((each.name for each in links if link.master and each.index == link.master), ""),
    )


def _provision(held: Reservation, seen: Survey, node: Node, unknown: dict[str, str]) -> Provision:
    nic, table = None, 0
    try:
        table = nic_routes.table_of(held.nic_mac, family_of(held.ip), node)
        if held.nic_mac:
            nic = uplink.select(seen.links, [held.nic_mac])
        else:
            unknown["nic"] = "the address was adopted from the kernel, which does not have it"
    except (CniError, OSError) as error:
        unknown["nic"] = str(error)
    try:
        name = node.view.configuration_of(held.ip)
    except IpamError as error:
        name, unknown["ipConfiguration"] = "", str(error)
    else:
        if not name:
            unknown["ipConfiguration"] = _nameless(held.source)
    return Provision(held.address, held.gateway, held.source, held.nic_mac, nic, name, table)


def _nameless(source: str) -> str:
    if source == "arm":
        return "source arm has not named it yet"
    return f"not known to source {source}" if source else "no source has listed the address yet"
