"""What is alive on this node, for a store that does not know it: first start, reboot, lost or corrupt file.

Owns finding out from the kernel what carries which address. It must not make or remove links, nor know of
calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_interface, ip_network

from cni_plugin.cni.errors import InvalidNetns
from cni_plugin.datapath import names
from cni_plugin.kernel import encode, netns
from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress
from cni_plugin.node import Node
from ipam.filelock import file_lock
from ipam.model import Attachment, Holder, IPAddress, IPInterface, IPNetwork, Owner, Reservation
from ipam.subnet import gateway_of, reserved_addresses

LOCK = "adoption.lock"
LOCK_SECONDS = 5.0
STRANGER = "netns-"
FAMILIES = (encode.AF_INET, encode.AF_INET6)


def adopt(node: Node) -> None:
    """Adopt what is alive unless another call did: of a hundred calls that find a new store, one does so."""
    node.ensure_run_dir()
    try:
        with file_lock(node.run_dir / LOCK, time.monotonic() + LOCK_SECONDS):
            _adopt(node)
    except TimeoutError:  # the process that holds the lock was stopped
        _adopt(node)


def _adopt(node: Node) -> None:
    if node.ipam.needs_adoption():
        links, routes = _links_and_routes(node)
        found = _endpoints(links, routes)
        known = {each.ip for each in found}
        _write(node, [*found, *_in_namespaces(node, links, routes, known)])


def adopt_endpoints(node: Node) -> None:
    """Adopt our own endpoints: host veths whose alias names an attachment and whose route has its address."""
    _write(node, _endpoints(*_links_and_routes(node)))


def _write(node: Node, found: list[Reservation]) -> None:
    """Write what was found, and release what is gone by now: a DEL in between had nothing to free."""
    node.ipam.adopt(found)
    links = names.by_name(node.host.links(encode.dump_links()))
    for each in found:
        own = each.owner.holder is Holder.ENDPOINT
        if own and names.find(names.names_of(each.attachment), links) is None:
            node.ipam.release(each.attachment, expected=each)


def stranger(netns_id: str, ifname: str) -> Attachment:
    """The holder of an address that a namespace carries when nothing else is known: a plugin that delegates
    to us made it, and only the store knew for which container.
    """
    return Attachment(f"{STRANGER}{netns_id.rpartition(':')[2]}", ifname)


def stranger_is_gone(reservation: Reservation, node: Node) -> bool:
    """Whether a namespace that was held to carry an address certainly does not any more."""
    who = reservation.owner
    if not reservation.attachment.container_id.startswith(STRANGER):
        return False
    with suppress(InvalidNetns, OSError), netns.opened(None, who.netns) as fd:
        if netns.identity(fd) == who.netns_id:
            return all(address.ip != reservation.ip for _, address in _carried(node, fd))
    return False


def _links_and_routes(node: Node) -> tuple[dict[int, Link], list[KernelRoute]]:
    links = {link.index: link for link in node.host.links(encode.dump_links())}
    return links, [route for each in FAMILIES for route in node.host.routes(encode.dump_routes(each))]


def _endpoints(links: Mapping[int, Link], routes: list[KernelRoute]) -> list[Reservation]:
    found = []
    for route in routes:
        link = links.get(route.index)
        named = names.owner_of(link) if link else None
        if link is None or named is None or route.dst.prefixlen != route.dst.max_prefixlen:
            continue
        attachment, network, call_id = named
        owner = Owner(network=network, call_id=call_id)
        found.append(_reservation(attachment, owner, ip_interface(route.dst.network_address)))
    return found


def _in_namespaces(
    node: Node, links: Mapping[int, Link], routes: list[KernelRoute], known: set[IPAddress]
) -> Iterator[Reservation]:
    """Addresses that other network namespaces carry: pods of a plugin that delegates to us, pods of the
    plugin that was here before, pods of ours whose host route is lost.

    Their subnets don't matter: which of them Azure lists is not known yet, and may change. Those that it does
    not list are held, but not counted as part of the pool.
    """
    uplinks = {route.index for route in routes if not route.dst.prefixlen}
    known = known.union(*map(reserved_addresses, _subnets_of(uplinks, node)))
    inner = {index: link for index, link in links.items() if index not in uplinks or link.kind != "veth"}
    for path in netns.mounted():
        with suppress(InvalidNetns, OSError), netns.opened(None, path) as fd:
            identity = netns.identity(fd)
            if identity == netns.own_identity():
                continue
            for link, address in _carried(node, fd):
                if address.ip in known or not _leads_to_host(link, inner):
                    continue
                known.add(address.ip)
                holder = _holder(link, links, path, identity)
                yield _reservation(*holder, ip_interface(f"{address.ip}/{address.prefixlen}"))


def _subnets_of(uplinks: set[int], node: Node) -> list[IPNetwork]:
    """Azure lists a NIC's addresses in the subnet of its primary one, which the host has."""
    every = [each for family in FAMILIES for each in node.host.addresses(encode.dump_addresses(family))]
    own = [each for each in every if each.index in uplinks and each.prefixlen < each.ip.max_prefixlen]
    return [ip_network(f"{each.ip}/{each.prefixlen}", strict=False) for each in own]


def _carried(node: Node, fd: int) -> list[tuple[Link, LinkAddress]]:
    """The addresses of a namespace that a NIC could have, and the links that carry them."""
    with node.host.sibling_in(fd) as inside:
        links = {link.index: link for link in inside.links(encode.dump_links())}
        addresses = [each for family in FAMILIES for each in inside.addresses(encode.dump_addresses(family))]
    return [(links[each.index], each) for each in addresses if each.index in links and _is_usual(each.ip)]


def _is_usual(ip: IPAddress) -> bool:
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)


def _leads_to_host(link: Link, links: Mapping[int, Link]) -> bool:
    """Whether packets of a pod's link reach the host or a NIC, by signs that the pod can't forge.

    A pod with NET_ADMIN makes as many links as it likes and gives them addresses of the pool; they lead
    nowhere. It can't make hardware, which has no kind, nor an end of a veth pair in the host's namespace.

    Args:
        link: one of another namespace.
        links: those of the host, but for an uplink that is a veth: behind that is the network, and no pod.
    """
    if not link.kind:
        return not link.loopback
    below = links.get(link.lower) if link.lower_elsewhere else None
    if below is None:
        return False
    return link.kind != "veth" or (below.lower_elsewhere and below.lower == link.index)


def _holder(inside: Link, links: Mapping[int, Link], path: str, identity: str) -> tuple[Attachment, Owner]:
    """Who holds what a link carries: our own endpoint, or a stranger, until its namespace is gone."""
    peer = links.get(inside.lower)
    named = names.owner_of(peer) if peer is not None and inside.kind == "veth" else None
    if named is None:
        owner = Owner(network="", holder=Holder.DELEGATED, netns=path, netns_id=identity)
        return stranger(identity, inside.name), owner
    return named[0], Owner(network=named[1], netns=path, netns_id=identity, call_id=named[2])


def _reservation(attachment: Attachment, owner: Owner, address: IPInterface) -> Reservation:
    return Reservation(
        attachment=attachment,
        owner=owner,
        address=address,
        gateway=gateway_of(address.network),
        source="kernel",
        created_at=0.0,
        confirmed=True,
        generation="",
    )
