"""What is alive on this node, for a store that does not know it: first start, reboot, lost or spoilt file.

Owns finding in the kernel who carries which address. It must not make or remove links, nor know of calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_interface, ip_network

from cni_plugin.cni.errors import InvalidNetns
from cni_plugin.datapath import endpoint
from cni_plugin.kernel import encode, netns
from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress
from cni_plugin.node import Node
from ipam.filelock import file_lock
from ipam.model import Attachment, Holder, IPAddress, IPInterface, IPNetwork, Owner, Reservation
from ipam.subnet import gateway_of, reserved_addresses

LOCK = "adoption.lock"
LOCK_SECONDS = 5.0


def adopt(node: Node) -> None:
    """Tell the store what is alive, unless it knows by now. Of a hundred calls that find it new one looks."""
    node.ensure_run_dir()
    try:
        with file_lock(node.run_dir / LOCK, time.monotonic() + LOCK_SECONDS):
            _adopt(node)
    except TimeoutError:  # whoever looks was stopped
        _adopt(node)


def _adopt(node: Node) -> None:
    if node.ipam.needs_adoption():
        links, routes = _links_and_routes(node)
        found = _endpoints(links, routes)
        known = {each.ip for each in found}
        _write(node, [*found, *_in_namespaces(node, links, routes, known)])


def adopt_endpoints(node: Node) -> None:
    """Tell the store of our own endpoints: host veths whose alias names an attachment and whose route names
    its address.
    """
    _write(node, _endpoints(*_links_and_routes(node)))


def _write(node: Node, found: list[Reservation]) -> None:
    """Write what was found, and let go what is gone by now: the DEL that came between had nothing to free."""
    node.ipam.adopt(found)
    links = {link.name for link in node.host.links(encode.dump_links())}
    for each in found:
        if each.owner.host_ifname and each.owner.host_ifname not in links:
            node.ipam.release(each.attachment, expected=each)


def stranger(netns_id: str, ifname: str) -> Attachment:
    """What holds an address that a namespace carries, and nothing more is known of: a plugin that delegates
    to us made it, and only the store knew for which container.
    """
    return Attachment(f"netns-{netns_id.rpartition(':')[2]}", ifname)


def _links_and_routes(node: Node) -> tuple[dict[int, Link], list[KernelRoute]]:
    links = {link.index: link for link in node.host.links(encode.dump_links())}
    return links, node.host.routes(encode.dump_routes(encode.AF_INET))


def _endpoints(links: Mapping[int, Link], routes: list[KernelRoute]) -> list[Reservation]:
    found = []
    for route in routes:
        link = links.get(route.index)
        named = endpoint.read_alias(link.alias) if link else None
        if link is None or named is None or route.dst.prefixlen != route.dst.max_prefixlen:
            continue
        attachment, network = named
        owner = Owner(network=network, host_ifname=link.name)
        found.append(_reservation(attachment, owner, ip_interface(route.dst.network_address)))
    return found


def _in_namespaces(
    node: Node, links: Mapping[int, Link], routes: list[KernelRoute], known: set[IPAddress]
) -> Iterator[Reservation]:
    """Addresses of the uplink's subnets that other network namespaces carry: pods of a plugin that delegates
    to us, or pods of ours whose host route is lost.
    """
    subnets = _uplink_subnets(node, routes)
    known = known.union(*map(reserved_addresses, subnets))
    for path in netns.mounted() if subnets else ():
        with suppress(InvalidNetns, OSError), netns.opened(None, path) as fd:
            identity = netns.identity(fd)
            if identity == netns.own_identity():
                continue
            for link, address in _carried(node, fd):
                if address.ip in known or not any(address.ip in subnet for subnet in subnets):
                    continue
                holder = _holder(link, links, path, identity)
                if holder is not None:
                    known.add(address.ip)
                    yield _reservation(*holder, ip_interface(f"{address.ip}/{address.prefixlen}"))


def _uplink_subnets(node: Node, routes: list[KernelRoute]) -> list[IPNetwork]:
    """Azure lists a NIC's addresses in the subnet of its primary one, which the host has."""
    over = {route.index for route in routes if not route.dst.prefixlen}
    own = [each for each in node.host.addresses(encode.dump_addresses(encode.AF_INET)) if each.index in over]
    return [ip_network(f"{each.ip}/{each.prefixlen}", strict=False) for each in own if each.prefixlen < 32]


def _carried(node: Node, fd: int) -> list[tuple[Link, LinkAddress]]:
    with netns.call_in(fd, node.host.sibling) as inside:
        links = {link.index: link for link in inside.links(encode.dump_links())}
        addresses = inside.addresses(encode.dump_addresses(encode.AF_INET))
    return [(links[each.index], each) for each in addresses if each.index in links]


def _holder(
    inside: Link, links: Mapping[int, Link], path: str, identity: str
) -> tuple[Attachment, Owner] | None:
    """Who holds what a link carries; None for a pod of ours that is not finished: its route guards it."""
    peer = links.get(inside.lower)
    if peer is None or not peer.name.startswith(endpoint.HOST_PREFIX) or peer.lower != inside.index:
        owner = Owner(network="", holder=Holder.DELEGATED, netns=path, netns_id=identity)
        return stranger(identity, inside.name), owner
    named = endpoint.read_alias(peer.alias)
    if named is None:
        return None
    owner = Owner(network=named[1], netns=path, netns_id=identity, host_ifname=peer.name)
    return named[0], owner


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
