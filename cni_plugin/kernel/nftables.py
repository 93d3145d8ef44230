"""One table of nf_tables: replaced as a whole in one transaction, looked at, deleted.

Owns the messages of nfnetlink for that; they are packed here, as conntrack's are: pyroute2's class for them
loads its whole asynchronous core. No other table is ever named in one. It must not know what the rules are
for. Layouts: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h.

Sets are anonymous and constant: the kernel lets nobody change one, so that the rules alone show whether the
table is as it was written.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from cni_plugin.kernel.decode import read_attributes
from cni_plugin.kernel.encode import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST
from cni_plugin.kernel.netlink import HEADER, NETLINK_NETFILTER, NLMSG_ERROR, Netlink, error_of
from cni_plugin.kernel.templates import Request
from ipam.value import Value

SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES."""
BATCH_BEGIN, BATCH_END = 16, 17
NEW_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_RULE, GET_RULE, NEW_SET, NEW_ELEMENTS = 0, 2, 3, 6, 7, 9, 12
GET_GENERATION = 16
INET = 1
"""NFPROTO_INET: IPv4 and IPv6."""
NESTED = 0x8000
PREROUTING, FORWARD, POSTROUTING = 0, 2, 4
ACCEPT = 1
RULE_USERDATA = 7
ANONYMOUS, CONSTANT, INTERVAL, INTERVAL_END = 1, 2, 4, 1
ANY_NAME = "__set%d"
"""The kernel numbers anonymous sets; in the transaction that makes one, its id names it."""
TYPE_ADDRESS, TYPE_ADDRESS_V6, TYPE_PORT, TYPE_LINK = 7, 8, 13, 20
"""For whoever prints a set; nft's own numbers (include/datatype.h)."""
NO_TABLES = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOENT})
"""Answers of a kernel without nf_tables, or without something that the table needs."""


class Membership(Value):
    """Whether the bytes that were loaded last are in a set."""

    kind: int
    ranges: tuple[tuple[bytes, bytes], ...]
    """First value of a range, and first value after it, which is empty if there is none. Sorted, not
    adjacent."""
    inverted: bool = False
    exact: bool = False
    """The set has single values instead of ranges: the first of each pair."""


Step = bytes | Membership
"""An expression, or several; the kernel stops at the first that does not hold."""


class Rule(Value):
    """What is done with a packet; ``comment`` is shown to people, and identifies the rule."""

    comment: str
    steps: tuple[Step, ...]


class Chain(Value):
    """Rules that every packet passes at a hook."""

    name: str
    kind: str
    """``filter`` or ``nat``."""
    hook: int
    priority: int
    rules: tuple[Rule, ...]


def replace_table(name: str, chains: Iterable[Chain]) -> None:
    """Write the whole table, whatever is in it now; all of it at once, or nothing.

    Raises:
        OSError: the kernel refused it.
    """
    table = _text(1, name)
    bodies = [(NEW_TABLE, table), (DELETE_TABLE, table), (NEW_TABLE, table)]
    number = 0
    for chain in chains:
        hook = _nested(4, _number(1, chain.hook) + _number(2, chain.priority))
        kind = _number(5, ACCEPT) + _text(7, chain.kind)
        bodies.append((NEW_CHAIN, table + _text(3, chain.name) + hook + kind))
        for rule in chain.rules:
            expressions = b""
            for step in rule.steps:
                if isinstance(step, Membership):
                    number += 1
                    bodies += _set(table, step, number)
                    expressions += _look_up(step, number)
                else:
                    expressions += step
            place = table + _text(2, chain.name)
            bodies.append((NEW_RULE, place + _nested(4, expressions) + _comment(rule.comment)))
    _transact([_message(kind, body) for kind, body in bodies], f"write nf_tables table {name}")


def delete_table(name: str) -> None:
    """Delete the table, if it is there.

    Raises:
        OSError: the kernel refused it.
    """
    table = _text(1, name)
    both = [_message(NEW_TABLE, table), _message(DELETE_TABLE, table)]
    _transact(both, f"delete nf_tables table {name}")


def comments_of(name: str) -> list[str]:
    """The comments of all rules of the table, chain by chain; none where there is no table.

    Raises:
        OSError: the kernel does not answer.
    """
    data = _message(GET_RULE, _text(1, name), NLM_F_DUMP)
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        bodies = netlink.dump(Request(data, lambda: (f"list the rules of nf_tables table {name}",)))
    found = (dict(read_attributes(body, 4)).get(RULE_USERDATA, b"") for body in bodies)
    return [each[2:].rstrip(b"\0").decode(errors="replace") for each in found]


def generation(netlink: Netlink) -> int:
    """A number that changes with every change of any table; ``netlink`` is a socket of NETLINK_NETFILTER.

    Raises:
        OSError: the kernel does not answer, or has no nf_tables.
    """
    what = "ask for the generation of nf_tables"
    found = netlink.ask(Request(_message(GET_GENERATION, b"", 0), lambda: (what,)))
    return int.from_bytes(dict(read_attributes(found[0], 4))[1], "big")


def _transact(messages: list[bytes], what: str) -> None:
    """The last message is the one that is acknowledged, since not every kernel acknowledges BATCH_END;
    failures are reported in any case.
    """
    last = len(messages)
    ends = [_batch_mark(kind) for kind in (BATCH_BEGIN, BATCH_END)]
    requests = [Request(each, lambda: (what,)) for each in (ends[0], *messages)]
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        batch = netlink.numbered(requests)
        netlink.send(batch + ends[1])
        first = netlink.sequence - last
        while True:
            for kind, flags, sequence, body in netlink.receive():
                if kind != NLMSG_ERROR or not first <= sequence <= netlink.sequence:
                    continue
                error = error_of(body, flags, requests, sequence - first)
                if error is not None:
                    raise error
                if sequence == netlink.sequence:
                    return


def _batch_mark(kind: int) -> bytes:
    body = struct.pack("!BBH", 0, 0, SUBSYSTEM)
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST, 0, 0) + body


def _message(kind: int, body: bytes, flags: int = NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND) -> bytes:
    """Struct nfgenmsg, then attributes. New rules are appended, in their order."""
    size = HEADER.size + 4 + len(body)
    if kind in {NEW_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_SET}:
        flags &= ~NLM_F_APPEND
    head = HEADER.pack(size, SUBSYSTEM << 8 | kind, NLM_F_REQUEST | flags, 0, 0)
    return head + struct.pack("!BBH", INET, 0, 0) + body


def _set(table: bytes, wanted: Membership, number: int) -> Iterator[tuple[int, bytes]]:
    """An anonymous set, and what is in it."""
    width = len(wanted.ranges[0][0])
    flags = _number(3, ANONYMOUS | CONSTANT | (0 if wanted.exact else INTERVAL))
    key = _number(4, wanted.kind) + _number(5, width)
    if wanted.exact:  # for whoever prints it: NFTNL_UDATA_SET_KEYBYTEORDER of libnftnl, the host's order
        key += _attribute(13, struct.pack("=BBI", 0, 4, 1))
    yield NEW_SET, table + _text(2, ANY_NAME) + flags + key + _number(10, number)
    zero = bytes(width)
    marks = [] if wanted.exact or wanted.ranges[0][0] == zero else [_element(zero, end=True)]
    for start, behind in wanted.ranges:
        marks.append(_element(start))
        marks += [_element(behind, end=True)] if behind else []
    yield NEW_ELEMENTS, table + _text(2, ANY_NAME) + _number(4, number) + _nested(3, b"".join(marks))


def _element(key: bytes, *, end: bool = False) -> bytes:
    flags = _number(3, INTERVAL_END) if end else b""
    return _nested(1, flags + _nested(1, _attribute(1, key)))


# Attributes: numbers in the network's order.


def _comment(text: str) -> bytes:
    """NFTNL_UDATA_RULE_COMMENT of libnftnl: type, length, text with its NUL."""
    value = text.encode() + b"\0"
    return _attribute(RULE_USERDATA, bytes((0, len(value))) + value)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!i", value))


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NESTED, value)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


# Expressions. All load into one register and compare it.


def _expression(name: str, data: bytes) -> bytes:
    return _nested(1, _text(1, name) + _nested(2, data))


def _look_up(step: Membership, number: int) -> bytes:
    names = _text(1, ANY_NAME) + _number(2, 1) + _number(4, number)
    return _expression("lookup", names + (_number(5, 1) if step.inverted else b""))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(1, 1) + _number(2, key))


def _payload(base: int, offset: int, length: int) -> bytes:
    where = _number(2, base) + _number(3, offset) + _number(4, length)
    return _expression("payload", _number(1, 1) + where)


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    return _expression(
        "cmp", _number(1, 1) + _number(2, 0 if equal else 1) + _nested(3, _attribute(1, value))
    )


def from_group(group: int) -> bytes:
    """The packet came in by a link of that group. At POSTROUTING from Linux 5.7 on."""
    return _meta(21) + _compare(struct.pack("=I", group))


def to_group(group: int) -> bytes:
    """The packet goes out by a link of that group."""
    return _meta(22) + _compare(struct.pack("=I", group))


def from_links(indexes: Iterable[int]) -> tuple[Step, ...]:
    """The packet came in by one of these links, of which there is at least one. At POSTROUTING as above."""
    return _meta(4), _one_of(indexes)


def to_links(indexes: Iterable[int]) -> tuple[Step, ...]:
    """The packet goes out by one of these links, of which there is at least one."""
    return _meta(5), _one_of(indexes)


def _one_of(indexes: Iterable[int]) -> Step:
    each = tuple(struct.pack("=I", index) for index in indexes)
    return (
        _compare(each[0])
        if len(each) == 1
        else Membership(TYPE_LINK, tuple((one, b"") for one in each), exact=True)
    )


IPV4_ONLY = _meta(15) + _compare(b"\x02")
"""NFPROTO_IPV4; before anything that looks into the header."""
IPV6_ONLY = _meta(15) + _compare(b"\x0a")
"""NFPROTO_IPV6."""
TCP = _meta(16) + _compare(b"\x06")
SOURCE, DESTINATION = _payload(1, 12, 4), _payload(1, 16, 4)
"""In the header of IPv4."""
SOURCE_V6, DESTINATION_V6 = _payload(1, 8, 16), _payload(1, 24, 16)
"""In the header of IPv6."""
FOREIGN_SOURCE = _expression("fib", _number(1, 1) + _number(2, 1) + _number(3, 0x29)) + _compare(bytes(4))
"""``fib saddr . iif oif missing``: what is sent to the packet's source would not leave by the link by which
the packet came in. NFT_FIB_RESULT_OIF of NFTA_FIB_F_SADDR, _IIF and _PRESENT (Linux 4.10)."""
DISCARD = _expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, 0))))
"""NF_DROP."""
DESTINATION_PORT = _payload(2, 2, 2)
RETURN = _expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, -5))))
REFUSE_TCP = _expression("reject", _number(1, 1) + _attribute(2, b"\0"))
"""NFT_REJECT_TCP_RST."""
UNREACHABLE = _expression("reject", _number(1, 2) + _attribute(2, b"\x02"))
"""NFT_REJECT_ICMPX_HOST_UNREACH."""


def masquerade(*, random_fully: bool) -> bytes:
    """Give the connection the primary address of the link that it leaves by."""
    return _expression("masq", _number(1, 16) if random_fully else b"")


def in_networks(networks: Iterable[IPv4Network] | Iterable[IPv6Network], *, inverted: bool = False) -> Step:
    """The address that was loaded is in one of these, of which there is at least one, all of one family."""
    collapsed: list[IPv4Network | IPv6Network] = [*collapse_addresses(networks)]  # type: ignore[type-var, list-item]
    bits = collapsed[0].max_prefixlen
    if len(collapsed) == 1 and collapsed[0].prefixlen == bits:
        return _compare(collapsed[0].network_address.packed, equal=not inverted)
    end, width = 1 << bits, bits // 8
    ranges: list[tuple[bytes, bytes]] = []
    for each in collapsed:
        behind = int(each.broadcast_address) + 1
        start = int(each.network_address)
        if ranges and ranges[-1][1] == start.to_bytes(width, "big"):
            start = int.from_bytes(ranges.pop()[0], "big")
        ranges.append((start.to_bytes(width, "big"), b"" if behind == end else behind.to_bytes(width, "big")))
    return Membership(TYPE_ADDRESS if bits == 32 else TYPE_ADDRESS_V6, tuple(ranges), inverted)


def in_ports(ports: Iterable[int]) -> Membership:
    """The port that was loaded is one of these, no two of which are neighbours."""
    ranges = tuple((each.to_bytes(2, "big"), (each + 1).to_bytes(2, "big")) for each in sorted(ports))
    return Membership(TYPE_PORT, ranges)
