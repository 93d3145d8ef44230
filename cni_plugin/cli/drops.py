"""Why the node does not pass a packet on: the checks of its source, of forwarding, and its routes.

Owns looking up what the kernel checks, and the words for it. It must not know where the packet would have
gone.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cni_plugin.host import forwarding_v6, packets
from cni_plugin.kernel import encode, lookup, sysctl
from cni_plugin.kernel.encode import HOST_LINK_GROUP

if TYPE_CHECKING:
    from cni_plugin.kernel.decode import Link
    from cni_plugin.kernel.netlink import Netlink
    from ipam.model import IPAddress


def by_source_check(host: Netlink, source: IPAddress, target: IPAddress, came_by: Link) -> str:
    """Why the rule of azvnet's table drops an IPv6 packet from a pod before it is routed; empty: it does not.

    The rule looks up the route of answers: from the target to the source (nft_fib6_flowi_init).

    Raises:
        OSError: the kernel does not answer.
    """
    if source.version == 4 or came_by.group != HOST_LINK_GROUP or not packets.checks_sources():
        return ""
    back = lookup.look_up(host, source, target).route
    if back is not None and (back.kind, back.index) == (encode.RTN_UNICAST, came_by.index):
        return ""
    return (
        f"the source check of table inet {packets.TABLE} drops it: answers to {source} would not leave by "
        f"{came_by.name}"
    )


def by_route(
    host: Netlink, error: OSError | None, source: IPAddress, target: IPAddress, came_by: Link | None
) -> str:
    """Why the kernel routes a packet nowhere (net/ipv4/route.c, ip_route_input_slow).

    Args:
        host: a socket of the node's namespace.
        error: of the lookup.
        source: of the packet.
        target: of the packet.
        came_by: the link that it came in by; None: the node sends it.
    """
    number = (error.errno if error else None) or errno.ENETUNREACH
    if came_by is not None and source.version == 4:
        if _leads_elsewhere(host, source, came_by):
            return f"the source check (rp_filter) of {came_by.name} refuses {source}"
        if not _forwards(came_by):
            return f"{came_by.name} does not forward (net.ipv4.conf.{came_by.name}.forwarding is 0)"
    reasons = {
        errno.ENETUNREACH: f"the node has no route to {target}",
        errno.EHOSTUNREACH: f"a route of the node makes {target} unreachable",
        errno.EACCES: f"a route or rule of the node prohibits {target}",
        errno.EINVAL: f"a route discards packets to {target}, or {source} can't be a source here",
    }
    return reasons.get(number, f"the kernel does not route it: {os.strerror(number)}")


def by_forwarding_v6(source: IPAddress, came_by: Link | None) -> str:
    """Why an IPv6 packet with a route is not forwarded; for IPv4 there is no route then. Empty: it is."""
    if source.version == 4 or came_by is None or forwarding_v6.forwards(came_by.name):
        return ""
    return f"{came_by.name} does not forward IPv6 (net.ipv6.conf.all.forwarding, force_forwarding)"


def _leads_elsewhere(host: Netlink, source: IPAddress, came_by: Link) -> bool:
    """Whether answers would leave by another link than the packet came by, and that is checked: the
    kernel refuses it then with the same errno as a packet to nowhere (ip-sysctl.rst, rp_filter). On a
    link without an address 2 is as strict as 1 (__fib_validate_source).
    """
    checks = (f"ipv4/conf/{name}/rp_filter" for name in ("all", came_by.name))
    if max(sysctl.read(each) for each in checks) == "0":
        return False
    back = host.one_route(encode.get_route(source))
    return back is None or back.index != came_by.index


def _forwards(link: Link) -> bool:
    try:
        return sysctl.read(f"ipv4/conf/{link.name}/forwarding") != "0"
    except OSError:
        return True
