"""Pods' packets leave by the NIC that owns their address, where the node's own may leave by another one.

Azure drops what leaves by another NIC. So on a node with several, each with pods has a routing table of its
own where it needs one, and a rule for each network of its pods' addresses leads there; the addresses of the
node itself are in none of them. The rule for the routes to pods (``routing_rule``) precedes them: otherwise
pods' strict source checks would follow them.

Owns those rules and tables. Which NICs need them is decided elsewhere (``nics``). It must not know pods, nor
change a rule or route that is not ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.addresses import uplink
from cni_plugin.cni.errors import KernelRefused, UplinkUnclear
from cni_plugin.host import nics, routing_rule
from cni_plugin.host.traffic import LINK_LOCAL, WIRESERVER
from cni_plugin.kernel import encode, nic_table, rules
from cni_plugin.kernel.family import IPV4
from cni_plugin.kernel.nic_table import RTN_THROW, RTN_UNREACHABLE, TableRoute
from cni_plugin.kernel.rules import NIC_PRIORITY

if TYPE_CHECKING:
    from cni_plugin.host.nics import NicOfPods
    from cni_plugin.kernel.decode import KernelRoute, Link
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.kernel.rules import RoutingRule
    from cni_plugin.kernel.templates import Request
    from cni_plugin.node import Node
    from ipam.model import IPNetwork

KIND = "nic_routes"
SHARED = False
FIRST_TABLE, NEXT_TABLE, TABLES_TRIED = 15500, 100_000, 8
"""The table of a NIC is 15500 plus the index of its link; where somebody else uses that, 100000 more."""

Leading = set[tuple["IPNetwork", int]]
"""Rules: the source, and the table."""


def ensure(node: Node) -> str:
    """As ``HostState.ensure``. A NIC without a link keeps its rules, and a table that refuses: nothing leaves
    by another NIC meanwhile.
    """
    decided = nics.read_nics(node.run_dir)
    every = node.routing_rules() if decided else ()
    if not decided or not (done := _apply(decided, every, node)):
        return ""
    return f"routes of pods' NICs were missing or wrong: {', '.join(done)}"


def carry_out(wanted: Sequence[NicOfPods], node: Node) -> None:
    """Decide otherwise, and carry it out. Killed at any point, what was made is still written down.

    Raises:
        KernelRefused, OSError: as ``HostState.ensure``, or the decision can't be written.
    """
    run_dir = node.run_dir
    before = {each.mac: each for each in nics.read_nics(run_dir)}
    now = {each.mac: each for each in wanted}
    nics.write_nics(tuple({**before, **now}.values()), run_dir)
    gone = [each for mac, each in before.items() if mac not in now]
    _apply(wanted, node.routing_rules(again=True), node, gone)
    node.routing_rules(again=True)
    routing_rule.ensure(node)  # another priority may be right now, or none needed
    nics.write_nics(wanted, run_dir)


def table_of(mac: str, node: Node) -> int:
    """The table of a NIC; 0: it has none. Raises OSError: the kernel does not list its rules."""
    sources = {source for each in nics.read_nics(node.run_dir) if each.mac == mac for source in each.sources}
    return next((each.table for each in node.routing_rules() if each.of_nic and each.source in sources), 0)


def _apply(
    wanted: Sequence[NicOfPods],
    every: Sequence[RoutingRule],
    node: Node,
    gone: Sequence[NicOfPods] = (),
) -> list[str]:
    """Add what is missing and delete what is too much; what was done, in words. First routes, then the rules
    that lead to them. It is the same where both go: a rule names the table, also for who comes after us. Who
    was killed before the first rule has left a table of a NIC that is ``gone``.
    """
    host, links = node.host, node.host.links(encode.dump_links())
    existing = {(each.source, each.table) for each in every if each.of_nic and each.source is not None}
    leading: Leading = set()
    done: list[str] = []
    for nic in wanted:
        link = link_of(nic, links)
        if link is not None:
            table = _free_table(link.index, every, host)
            done += _put(table, _routes(nic, link), host)
        else:
            table = next((table for source, table in existing if source in nic.sources), 0)
        if table:
            leading |= {(source, table) for source in nic.sources}
    missing = sorted(leading - existing, key=str)
    if missing:
        in_front = takewhile(lambda each: each.priority < NIC_PRIORITY, every)
        first = [] if any(each.for_pods for each in in_front) else [rules.new_rule(NIC_PRIORITY - 1)]
        done += _change([*first, *(rules.new_nic_rule(*each) for each in missing)], host)
    left = [link for each in gone if (link := link_of(each, links)) is not None]
    tables = {table for _, table in existing} | {_free_table(each.index, every, host) for each in left}
    for table in sorted(tables - {table for _, table in leading}):
        done += _put(table, (), host)
    done += _change([rules.delete_nic_rule(*each) for each in sorted(existing - leading, key=str)], host)
    return done


def _routes(nic: NicOfPods, link: Link) -> tuple[TableRoute, ...]:
    """What is to be in the table of a NIC. What no route in it fits follows the node's own routes.

    So does what is sent to the platform's services, which answer the primary NIC alone, and it leaves with
    that NIC's address.
    """
    refused = TableRoute(IPV4.default, RTN_UNREACHABLE)
    own = TableRoute(nic.subnet, index=link.index)
    if not nic.everything:
        others = (each for each in nic.others if each != nic.subnet)
        elsewhere = (TableRoute(each, index=link.index, gateway=nic.gateway) for each in others)
        return (own, *elsewhere) if link.up else ()
    if not link.up:  # its routes are gone with it, and can't be added
        return (refused,)
    services = (TableRoute(each, RTN_THROW) for each in (WIRESERVER, LINK_LOCAL))
    return (*services, own, TableRoute(IPV4.default, index=link.index, gateway=nic.gateway), refused)


def _put(table: int, wanted: Sequence[TableRoute], host: Netlink) -> list[str]:
    """Have the routes in a table that is ours, and no others."""
    found = nic_table.routes_of(table, host)
    extra = [each for each in found if not any(nic_table.same(route, each) for route in wanted)]
    missing = [route for route in wanted if not any(nic_table.same(route, each) for each in found)]
    return [
        *_change([nic_table.delete_table_route(table, each) for each in extra if _is_ours(each)], host),
        *_change([nic_table.new_table_route(table, each) for each in missing], host),
    ]


def _change(requests: Sequence[Request], host: Netlink) -> list[str]:
    """Make changes; another call may just have made some of them."""
    for request in requests:
        try:
            with suppress(FileExistsError, FileNotFoundError, ProcessLookupError):
                host.change([request])
        except OSError as error:
            raise KernelRefused(
                f"the routes of a NIC of pods can't be set: {error.strerror}",
                "See `ip rule` and `ip route show table all proto 155`.",
            ) from error
    return [each.what for each in requests]


def _is_ours(route: KernelRoute) -> bool:
    return route.protocol == encode.RTPROT_AZVNET


def _free_table(index: int, every: Sequence[RoutingRule], host: Netlink) -> int:
    """The table for a link that nobody else has a rule to, or a route in."""
    theirs = {each.table for each in every if not each.of_nic}
    first = FIRST_TABLE + index
    for table in range(first, first + TABLES_TRIED * NEXT_TABLE, NEXT_TABLE):
        if table not in theirs and all(map(_is_ours, nic_table.routes_of(table, host))):
            return table
    raise KernelRefused(
        f"routing table {first} and {TABLES_TRIED - 1} others for link {index} belong to somebody else",
        "See `ip rule` and `ip route show table all`.",
    )


def link_of(nic: NicOfPods, links: Sequence[Link]) -> Link | None:
    """The link of a NIC; None: there is none, or which one it is is not clear."""
    with suppress(UplinkUnclear):
        return uplink.select(links, (nic.mac,))
    return None


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``."""
    decided = nics.read_nics(node.run_dir) if in_use else ()
    return list(_wrong(decided, node)) if decided else []


def _wrong(decided: Sequence[NicOfPods], node: Node) -> Iterator[str]:
    links, lost = node.host.links(encode.dump_links()), "what its pods send reaches nothing"
    leading = {(each.source, each.table) for each in node.routing_rules() if each.of_nic}
    for nic in decided:
        link = link_of(nic, links)
        lost = "what its pods send reaches nothing"
        if link is None or not link.up:
            yield (
                f"{link.name}, NIC {nic.mac}, is down: {lost}"
                if link
                else f"NIC {nic.mac} has no link: {lost}"
            )
            continue
        tables = {table for source, table in leading if source in nic.sources}
        found = [route for table in tables for route in nic_table.routes_of(table, node.host)]
        whole = all(any(nic_table.same(each, route) for route in found) for each in _routes(nic, link))
        if not whole or set(nic.sources) - {source for source, _ in leading}:
            yield f"the routing rules or the table of NIC {nic.mac} ({link.name}) are incomplete: {lost}"


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``: our tables by number, or by NIC where an ADD was killed before its rules."""
    tables = {str(each.table): "absent" for each in node.routing_rules() if each.of_nic}
    return tables or {f"of NIC {each.mac}": "absent" for each in nics.read_nics(node.run_dir)}


def kept(values: dict[str, str], users: str) -> str:
    """As ``HostState.kept``."""
    return f"routing table {', '.join(values)} stays, {users} may need it"


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``: remove rules and tables."""
    del place
    carry_out((), node)
    return f"routing table {', '.join(values)} was removed, with the rules that lead there"
