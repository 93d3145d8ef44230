"""Rules that choose a routing table: asking for them, reading them, and those that are ours.

Owns what a rule means for packets to pods. It must not know when ours are needed. Layouts:
include/uapi/linux/fib_rules.h.
"""

from __future__ import annotations

import errno
import struct
from functools import cache
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni_plugin.kernel.decode import read_attributes, read_number
from cni_plugin.kernel.encode import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RT_TABLE_MAIN,
    RTPROT_AZVNET,
)
from cni_plugin.kernel.family import IPV4, IPV6, Family, family_of
from cni_plugin.kernel.messages import compiled, compiled_once
from cni_plugin.kernel.templates import Request
from ipam.value import Value

if TYPE_CHECKING:
    from cni_plugin.kernel.netlink import Netlink
    from ipam.model import IPNetwork

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RT_TABLE_LOCAL = 255
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7
DEFAULT_GROUP = 0
"""The group of the links whose routes our rule does not take."""
NIC_PRIORITY = 30155
"""Priority of all rules that lead what pods send to the table of their NIC. They precede rules that are added
without a priority, for which the kernel counts down from 32765."""
REFUSING_PRIORITY = NIC_PRIORITY + 1
"""Priority of the rules after them, which refuse what matches no route of that table."""
REFUSING = 0
"""Stands for the table of such a rule."""
FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK = 2, 3, 6, 10
FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_FWMASK = 13, 14, 15, 16
FRA_OIFNAME, FRA_L3MDEV, FRA_UID_RANGE, FRA_PROTOCOL = 17, 19, 20, 21
FIB_RULE_INVERT = 0x2
PLAIN = {FRA_PRIORITY, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_PROTOCOL}
"""Attributes of a rule that matches every packet."""
SELECTED = {FRA_FWMARK, FRA_FWMASK, FRA_OIFNAME}
"""Attributes of a rule for packets that somebody marked or bound to a link: that is a decision about these
packets, also if they are to a pod (a transparent proxy, a VRF)."""
NOTHING_SUPPRESSED = b"\xff" * 4, None
"""FRA_SUPPRESS_PREFIXLEN and FRA_SUPPRESS_IFGROUP, the second of which is left out if it is not set."""


class RoutingRule(Value):
    """One rule that chooses a routing table (struct fib_rule_hdr, FRA_*)."""

    by_sender: bool
    """It matches the source address, the incoming link, or the sender's uid; ``of_nic`` does not count."""
    priority: int = 0
    takes_pods: bool = False
    """It may lead packets to pods into another table."""
    ends: bool = False
    """It leads every packet into the main table, so rules behind it do not concern pods."""
    for_pods: bool = False
    """As ``new_rule`` makes it, whoever made it."""
    ours: bool = False
    """It has our protocol as well."""
    of_nic: bool = False
    """As ``new_nic_rule`` makes it."""
    source: IPNetwork | None = None
    table: int = 0
    """0: it leads to no table; one of ours then refuses (``REFUSING``)."""


@cache
def dump_rules(family: int) -> Request:
    """Ask for the rules of a family (AF_*)."""
    return Request(
        compiled_once("fibmsg", RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, {"family": family}, []),
        lambda: ["list the routing rules"],
    )


def new_rule(priority: int, family: Family) -> Request:
    """Add the rule that takes the routes to pods, and no others, in front of what follows it.

    It looks into the main table and passes over every route that is not to a single address, and every one
    over a link of the default group (fib4_rule_suppress, net/ipv4/fib_rules.c; fib6_rule_suppress,
    net/ipv6/fib6_rules.c).
    """
    return _rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, priority, family, "add")


def delete_rule(priority: int, family: Family) -> Request:
    """Delete what ``new_rule`` added."""
    return _rule(RTM_DELRULE, 0, priority, family, "delete")


def longest_of_networks(family: Family) -> int:
    """The prefix length of the longest prefix that is not a single address."""
    return family.default.max_prefixlen - 1


def _rule(kind: int, flags: int, priority: int, family: Family, verb: str) -> Request:
    fields = {"family": family.number, "table": RT_TABLE_MAIN, "action": FR_ACT_TO_TBL}
    attributes = [
        ("FRA_PRIORITY", priority),
        ("FRA_TABLE", RT_TABLE_MAIN),
        ("FRA_SUPPRESS_PREFIXLEN", longest_of_networks(family)),
        ("FRA_SUPPRESS_IFGROUP", DEFAULT_GROUP),
        ("FRA_PROTOCOL", RTPROT_AZVNET),
    ]
    what = f"{verb} the routing rule for pods with priority {priority}"
    flags |= NLM_F_REQUEST | NLM_F_ACK
    return Request(compiled("fibmsg", kind, flags, fields, attributes), lambda: [what])


def new_nic_rule(source: IPNetwork, table: int) -> Request:
    """Add the rule that leads what comes from some addresses of a NIC into the table of that NIC, or the one
    that refuses it (``REFUSING``).
    """
    return _nic_rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, source, table, "add")


def delete_nic_rule(source: IPNetwork, table: int) -> Request:
    """Delete what ``new_nic_rule`` added."""
    return _nic_rule(RTM_DELRULE, 0, source, table, "delete")


def _nic_rule(kind: int, flags: int, source: IPNetwork, table: int, verb: str) -> Request:
    family = family_of(source.network_address).number
    action = FR_ACT_UNREACHABLE if table == REFUSING else FR_ACT_TO_TBL
    fields = {"family": family, "src_len": source.prefixlen, "action": action}
    attributes = [
        ("FRA_PRIORITY", REFUSING_PRIORITY if table == REFUSING else NIC_PRIORITY),
        ("FRA_SRC", str(source.network_address)),
        *([] if table == REFUSING else [("FRA_TABLE", table)]),
        ("FRA_PROTOCOL", RTPROT_AZVNET),
    ]
    leads = "that refuses the rest" if table == REFUSING else f"to table {table}"
    what = f"{verb} the routing rule from {source} {leads}"
    flags |= NLM_F_REQUEST | NLM_F_ACK
    return Request(compiled("fibmsg", kind, flags, fields, attributes), lambda: [what])


def dumped(host: Netlink, family: Family) -> list[RoutingRule]:
    """The rules of a family in the order in which the kernel tries them; none where it has no such family
    (``ipv6.disable=1``). Raises OSError: it does not list them.
    """
    try:
        return [read_rule(body) for body in host.dump(dump_rules(family.number))]
    except OSError as error:
        if family is IPV4 or error.errno != errno.EAFNOSUPPORT:
            raise
        return []


def read_rule(body: bytes) -> RoutingRule:
    """Struct fib_rule_hdr and FRA_* (include/uapi/linux/fib_rules.h)."""
    number, dst_len, src_len, tos, _, _, _, action, flags = struct.unpack_from("=BBBBBBBBI", body)
    family = IPV6 if number == IPV6.number else IPV4
    attributes = dict(read_attributes(body, 12))
    source = ip_network((attributes[FRA_SRC], src_len)) if FRA_SRC in attributes else None
    as_ours = {(FR_ACT_TO_TBL, NIC_PRIORITY), (FR_ACT_UNREACHABLE, REFUSING_PRIORITY)}
    of_nic = (
        source is not None
        and (action, read_number(attributes, FRA_PRIORITY)) in as_ours
        and read_number(attributes, FRA_PROTOCOL) == RTPROT_AZVNET
    )
    by_sender = src_len > 0 or FRA_IIFNAME in attributes or FRA_UID_RANGE in attributes
    to_table = action == FR_ACT_TO_TBL
    table = read_number(attributes, FRA_TABLE)
    suppressed = attributes.get(FRA_SUPPRESS_PREFIXLEN), attributes.get(FRA_SUPPRESS_IFGROUP)
    inverted = bool(flags & FIB_RULE_INVERT)
    plain = not (dst_len or src_len or tos or inverted) and attributes.keys() <= PLAIN
    in_main = to_table and plain and table == RT_TABLE_MAIN
    pods_only = struct.pack("=I", longest_of_networks(family)), struct.pack("=I", DEFAULT_GROUP)
    for_pods = in_main and suppressed == pods_only
    selected = dst_len == family.default.max_prefixlen or not attributes.keys().isdisjoint(SELECTED)
    return RoutingRule(
        by_sender=by_sender and not of_nic,
        priority=read_number(attributes, FRA_PRIORITY),
        takes_pods=to_table
        and table not in {RT_TABLE_MAIN, RT_TABLE_LOCAL}
        and (inverted or not selected)
        and FRA_L3MDEV not in attributes,
        ends=in_main and suppressed == NOTHING_SUPPRESSED,
        for_pods=for_pods,
        ours=for_pods and read_number(attributes, FRA_PROTOCOL) == RTPROT_AZVNET,
        of_nic=of_nic,
        source=source,
        table=table if to_table else 0,
    )
