"""Pods' packets leave by the NIC that owns their address, where the node's own may leave by another one.

Azure drops what leaves by another NIC. So on a node with several, a NIC with pods has a routing table of its
own for each address family that needs one, and a rule for each network of its pods' addresses leads there; no
rule matches the node's own addresses. The rule for the routes to pods (``routing_rule``) precedes these
rules: otherwise pods' strict source checks would follow them.

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
from cni_plugin.kernel.family import IPV4, IPV6
from cni_plugin.kernel.nic_table import RTN_THROW, RTN_UNREACHABLE, TableRoute
from cni_plugin.kernel.rules import NIC_PRIORITY, REFUSING

if TYPE_CHECKING:
    from cni_plugin.host.nics import NicOfPods
    from cni_plugin.kernel.decode import KernelRoute, Link
    from cni_plugin.kernel.family import Family
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.kernel.rules import RoutingRule
    from cni_plugin.kernel.templates import Request
    from cni_plugin.node import Node
    from ipam.model import IPNetwork

KIND = "nic_routes"
SHARED = False
KEPT = "routing table {} stays"
FAMILIES = (IPV4, IPV6)
FIRST_TABLE, NEXT_TABLE, TABLES_TRIED = 15500, 100_000, 8
"""The table of a NIC is 15500 plus the index of its link; if something else uses that, 100000 more."""

Leading = set[tuple["IPNetwork", int]]
"""Rules: the source, and the table."""


def ensure(node: Node) -> str:
    """As ``HostState.ensure``. A NIC without a link keeps its rules and a table that refuses packets, so that
    none leaves by another NIC meanwhile.
    """
    done: list[str] = []
    for family in FAMILIES:
        if decided := nics.read_nics(node.run_dir, family):
            done += _apply(decided, node.routing_rules(family), family, node)
    return f"routes of pods' NICs were missing or wrong: {', '.join(done)}" if done else ""


def carry_out(wanted: Sequence[NicOfPods], family: Family, node: Node) -> None:
    """Record another decision, and carry it out. If it is killed at any point, what it made is on record.

    Raises:
        KernelRefused, OSError: as ``HostState.ensure``, or the decision can't be written.
    """
    run_dir = node.run_dir
    before = {each.mac: each for each in nics.read_nics(run_dir, family)}
    now = {each.mac: each for each in wanted}
    nics.write_nics(tuple({**before, **now}.values()), run_dir, family)
    gone = [each for mac, each in before.items() if mac not in now]
    _apply(wanted, node.routing_rules(family, again=True), family, node, gone)
    node.routing_rules(family, again=True)
    routing_rule.ensure_of(family, node)  # another priority may be right now, or none needed
    nics.write_nics(wanted, run_dir, family)


def table_of(mac: str, family: Family, node: Node) -> int:
    """The table of a NIC; 0: it has none. Raises OSError: the kernel does not list its rules."""
    decided = nics.read_nics(node.run_dir, family)
    sources = {source for each in decided if each.mac == mac for source in each.sources}
    of_nics = _of_nics(family, node) if sources else ()
    return next((each.table for each in of_nics if each.table and each.source in sources), 0)


def _apply(
    wanted: Sequence[NicOfPods],
    every: Sequence[RoutingRule],
    family: Family,
    node: Node,
    gone: Sequence[NicOfPods] = (),
) -> list[str]:
    """Add what is missing and delete what is no longer wanted; returns what was done, in words.

    Routes come before the rules that lead to them, also when both are deleted: if this is killed, the rules
    still name the tables. A process that was killed before its first rule has left the table of a NIC that
    is ``gone``.
    """
    host, links = node.host, node.host.links(encode.dump_links())
    existing = {(each.source, each.table) for each in every if each.of_nic and each.source is not None}
    leading: Leading = set()
    done: list[str] = []
    for nic in wanted:
        link = link_of(nic, links)
        if link is not None:
            table = _free_table(link.index, every, family, host)
            done += _put(table, _routes(nic, link, family), family, host)
        else:
            table = next((table for source, table in existing if table and source in nic.sources), 0)
        if table:
            leading |= {(source, table) for source in nic.sources}
            leading |= {(source, REFUSING) for source in nic.sources if _refuses(nic, family)}
    missing = sorted(leading - existing, key=lambda each: (each[1] == REFUSING, str(each)))
    if missing:
        in_front = takewhile(lambda each: each.priority < NIC_PRIORITY, every)
        for_pods = any(each.for_pods for each in in_front)
        first = [] if for_pods else [rules.new_rule(NIC_PRIORITY - 1, family)]
        done += _change([*first, *(rules.new_nic_rule(*each) for each in missing)], host)
    left = [link for each in gone if (link := link_of(each, links)) is not None]
    free = {_free_table(each.index, every, family, host) for each in left}
    tables = {table for _, table in existing} | free
    for table in sorted(tables - {table for _, table in leading} - {REFUSING}):
        done += _put(table, (), family, host)
    done += _change([rules.delete_nic_rule(*each) for each in sorted(existing - leading, key=str)], host)
    return done


def _routes(nic: NicOfPods, link: Link, family: Family) -> tuple[TableRoute, ...]:
    """The routes that a NIC's table has to have. What matches none of them follows the node's own routes.

    So do packets to the platform's services, which answer the primary NIC alone; they leave with that NIC's
    address. These services have IPv4 addresses only. For IPv6 only the router is on the link: Azure gives a
    NIC its addresses as /128, and does not answer for any neighbour.
    """
    v4 = family is IPV4
    own = (TableRoute(nic.subnet, index=link.index),) if v4 else ()
    if not nic.everything:
        others = (each for each in nic.others if each != nic.subnet or not v4)
        elsewhere = (TableRoute(each, index=link.index, gateway=nic.gateway) for each in others)
        return (*own, *elsewhere) if link.up else ()
    refused = (TableRoute(family.default, RTN_UNREACHABLE),) if v4 else ()
    if not link.up:  # its routes are gone with it, and can't be added
        return refused
    services = [TableRoute(each, RTN_THROW) for each in (WIRESERVER, LINK_LOCAL)] if v4 else []
    return (*services, *own, TableRoute(family.default, index=link.index, gateway=nic.gateway), *refused)


def _refuses(nic: NicOfPods, family: Family) -> bool:
    """Whether rules refuse what the table has no route for, for example because its link is down. For IPv4 a
    route in the table does. For IPv6 the kernel would use such a route as soon as the router's neighbour
    entry has failed, for up to a minute (rt6_score_route, ``router_probe_interval``), without asking for the
    router again.
    """
    return nic.everything and family is IPV6


def _put(table: int, wanted: Sequence[TableRoute], family: Family, host: Netlink) -> list[str]:
    """Make a table of ours contain these routes and no others; returns what was changed, in words."""
    found = nic_table.routes_of(table, host, family)
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
                f"the routes of pods' NICs can't be set: {error.strerror}",
                "See `ip rule` and `ip route show table all proto 155`.",
            ) from error
    return [each.what for each in requests]


def _is_ours(route: KernelRoute) -> bool:
    return route.protocol == encode.RTPROT_AZVNET


def _free_table(index: int, every: Sequence[RoutingRule], family: Family, host: Netlink) -> int:
    """A table for a link to which no rule of others leads, and which has no route of others."""
    theirs = {each.table for each in every if not each.of_nic}
    first = FIRST_TABLE + index
    for table in range(first, first + TABLES_TRIED * NEXT_TABLE, NEXT_TABLE):
        if table not in theirs and all(map(_is_ours, nic_table.routes_of(table, host, family))):
            return table
    option = "" if family is IPV4 else "-6 "
    raise KernelRefused(
        f"routing table {first} and {TABLES_TRIED - 1} others for link {index} are in use by something else",
        f"See `ip {option}rule` and `ip {option}route show table all`.",
    )


def link_of(nic: NicOfPods, links: Sequence[Link]) -> Link | None:
    """The link of a NIC; None: it has none, or it is not clear which."""
    with suppress(UplinkUnclear):
        return uplink.select(links, (nic.mac,))
    return None


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``."""
    if not in_use:
        return []
    decided = ((nics.read_nics(node.run_dir, family), family) for family in FAMILIES)
    # A NIC that is down or missing carries neither family: it is named once.
    return list(
        dict.fromkeys(each for some, family in decided if some for each in _wrong(some, family, node))
    )


def _wrong(decided: Sequence[NicOfPods], family: Family, node: Node) -> Iterator[str]:
    links, lost = node.host.links(encode.dump_links()), "its pods reach nothing"
    leading = {(each.source, each.table) for each in _of_nics(family, node)}
    for nic in decided:
        link = link_of(nic, links)
        if link is None and (several := uplink.carrying(links, (nic.mac,))):
            names = ", ".join(each.name for each in several)
            yield f"{names} have the MAC of NIC {nic.mac}: the routes of its pods are left as they are"
            continue
        if link is None or not link.up:
            yield (
                f"{link.name}, NIC {nic.mac}, is down: {lost}"
                if link
                else f"NIC {nic.mac} has no link: {lost}"
            )
            continue
        tables = {table for source, table in leading if table and source in nic.sources}
        found = [route for table in tables for route in nic_table.routes_of(table, node.host, family)]
        whole = all(
            any(nic_table.same(each, route) for route in found) for each in _routes(nic, link, family)
        )
        led = {source for source, table in leading if table}
        refused = {source for source, table in leading if table == REFUSING}
        if not whole or set(nic.sources) - (led & refused if _refuses(nic, family) else led):
            kind = "" if family is IPV4 else "IPv6 "
            named = f"the {kind}routing rules or the {kind}table of NIC {nic.mac} ({link.name})"
            yield f"{named} are incomplete: {lost}"


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``: our tables by number, or by NIC where an ADD was killed before its rules."""
    found: dict[str, str] = {}
    for family in FAMILIES:
        of = "" if family is IPV4 else " (IPv6)"
        tables = {f"{each.table}{of}": "absent" for each in _of_nics(family, node) if each.table}
        decided = nics.read_nics(node.run_dir, family)
        found |= tables or {f"of NIC {each.mac}{of}": "absent" for each in decided}
    return found


def _of_nics(family: Family, node: Node) -> Iterator[RoutingRule]:
    return (each for each in node.routing_rules(family) if each.of_nic)


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``: remove rules and tables."""
    del place
    for family in FAMILIES:
        carry_out((), family, node)
    return f"routing table {', '.join(values)} was removed, with the rules that lead there"
