"""Routes of a NIC: those in a routing table of its own, and by which router its link leads out.

Owns what is in each request. It must not know which table is whose. Layout: rtnetlink(7), struct rtmsg.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cni_plugin.kernel.encode import (
    LAST_METRIC,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTPROT_AZVNET,
)
from cni_plugin.kernel.family import family_of
from cni_plugin.kernel.messages import compiled, compiled_once
from cni_plugin.kernel.templates import Request
from ipam.value import Value

if TYPE_CHECKING:
    from cni_plugin.kernel.decode import KernelRoute
    from cni_plugin.kernel.family import Family
    from cni_plugin.kernel.netlink import Netlink
    from ipam.model import IPAddress, IPNetwork

RTM_DELROUTE = 25
RTN_UNREACHABLE, RTN_THROW = 7, 9
RTNH_F_ONLINK = 4
"""The gateway is on the link, whether the link has an address of its subnet or not."""
NO_SUCH_TABLE = errno.ENOENT


class TableRoute(Value):
    """One route of the table."""

    dst: IPNetwork
    kind: int = RTN_UNICAST
    index: int = 0
    """Index of the link; 0: it leads over none (``unreachable``, ``throw``)."""
    gateway: IPAddress | None = None

    @property
    def last(self) -> bool:
        """Whether every other route to its destination precedes it."""
        return self.kind == RTN_UNREACHABLE


def same(route: TableRoute, found: KernelRoute) -> bool:
    """Whether ``found`` is the route. The kernel shows an IPv6 route over no link as one over ``lo``."""
    index = found.index if found.kind == RTN_UNICAST else 0
    return (route.dst, route.kind, route.index, route.gateway) == (
        *(found.dst, found.kind, index, found.gateway),
    )


def routes_of(table: int, host: Netlink, family: Family) -> list[KernelRoute]:
    """The routes of a table; none where it does not exist. Raises OSError: the kernel does not list them."""
    attributes = [("RTA_TABLE", table)]
    fields = {"family": family.number}
    data = compiled_once("rtmsg", RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, fields, attributes)
    try:
        return host.routes(Request(data, lambda: [f"list the routes of table {table}"]))
    except OSError as error:
        if error.errno != NO_SUCH_TABLE:
            raise
        return []


def get_route_over(dst: IPAddress, index: int) -> Request:
    """Ask which next hop leads to an address over one link, even if a better route leads over another. The
    answer is not the route of the table (RTM_F_FIB_MATCH), which may lead over several links.
    """
    fields = {"family": family_of(dst).number, "dst_len": dst.max_prefixlen}
    attributes = [("RTA_DST", str(dst)), ("RTA_OIF", index)]
    return Request(
        compiled("rtmsg", RTM_GETROUTE, NLM_F_REQUEST, fields, attributes),
        lambda: [f"read the route to {dst} over link {index}"],
    )


def new_table_route(table: int, route: TableRoute) -> Request:
    """Add a route that is not there."""
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, table, route, "add")


def delete_table_route(table: int, found: KernelRoute) -> Request:
    """Delete a route of ours."""
    index = found.index if found.kind == RTN_UNICAST else 0
    route = TableRoute(found.dst, found.kind, index, found.gateway)
    return _route(RTM_DELROUTE, 0, table, route, "delete")


def _route(kind: int, flags: int, table: int, route: TableRoute, verb: str) -> Request:
    onlink = route.gateway is not None
    fields = {
        "family": family_of(route.dst.network_address).number,
        "dst_len": route.dst.prefixlen,
        "proto": RTPROT_AZVNET,
        "scope": RT_SCOPE_LINK if route.index and not onlink else RT_SCOPE_UNIVERSE,
        "type": route.kind,
        "flags": RTNH_F_ONLINK if onlink else 0,
    }
    attributes: list[tuple[str, object]] = [("RTA_TABLE", table)]
    if route.dst.prefixlen:
        attributes.append(("RTA_DST", str(route.dst.network_address)))
    if route.gateway is not None:
        attributes.append(("RTA_GATEWAY", str(route.gateway)))
    if route.index:
        attributes.append(("RTA_OIF", route.index))
    if route.last:
        attributes.append(("RTA_PRIORITY", LAST_METRIC))
    flags |= NLM_F_REQUEST | NLM_F_ACK
    what = f"{verb} the route to {route.dst} in table {table}"
    return Request(compiled("rtmsg", kind, flags, fields, attributes), lambda: [what])
