"""The conntrack entries of an address: finding and deleting them.

Owns the three messages of nfnetlink for that; they are packed here, since pyroute2's class for them loads
its whole asynchronous core, and no value in them but an address has to be filled in. It must not know
whose address it is. Layouts: include/uapi/linux/netfilter/nfnetlink_conntrack.h.

Kernels from 6.8 on delete by a filter, in one walk over their table. Older ones do not, so entries are
deleted in batches. For 20,000 connections the filter takes a tenth of the processor time.
"""

from __future__ import annotations

import errno
import struct
from ipaddress import ip_address
from itertools import islice

from cni_plugin.kernel import sysctl
from cni_plugin.kernel.decode import read_attributes
from cni_plugin.kernel.encode import AF_INET, AF_INET6, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST
from cni_plugin.kernel.netlink import HEADER, NETLINK_NETFILTER, Netlink
from cni_plugin.kernel.templates import Request
from ipam.model import IPAddress

CT_GET, CT_DELETE = 0x101, 0x102
"""IPCTNL_MSG_CT_GET and _DELETE of NFNL_SUBSYS_CTNETLINK."""
NESTED = 0x8000
TUPLE_ORIG, TUPLE_REPLY, ID, ZONE, FILTER = 1, 2, 12, 18, 25
TUPLE_IP, TUPLE_PROTO = 1, 2
V4_SRC, V4_DST, V6_SRC, V6_DST = 1, 2, 3, 4
PROTO_SRC_PORT, PROTO_ICMP_ID, PROTO_ICMPV6_ID = 2, 4, 7
FILTER_ORIG_FLAGS, FILTER_REPLY_FLAGS = 1, 2
MATCH_SOURCE = 1
NO_FILTER = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT})
"""Answers of kernels that can't delete by a filter."""
BATCH = 500
"""Deletions in one send: some 50 KiB, less than a socket's send buffer."""

_COUNT, _MOST = "netfilter/nf_conntrack_count", "netfilter/nf_conntrack_max"


def forget(address: IPAddress) -> None:
    """Delete every conntrack entry whose replies come from an address.

    Those lead to it, directly or by DNAT: a host port, a service. As long as a client keeps sending,
    datagrams of a tracked connection go to the address, whatever the rules say by then.

    Raises:
        OSError: the kernel refused to list them, or to delete one.
    """
    if not anything_tracked():
        return
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        if address.version == 4:
            _flush(netlink, address)
        # What is left: everything on an older kernel, and for IPv6.
        listed = (body for body in netlink.dump(_list(address)) if _source(body) == address.packed)
        while batch := [_forget(body, address) for body in islice(listed, BATCH)]:
            _delete(netlink, batch)


def usage() -> tuple[int, int]:
    """How many connections are tracked, and how many can be; 0: any number. Raises OSError: there is no
    tracking.
    """
    return int(sysctl.read(_COUNT)), int(sysctl.read(_MOST))


def translation(source: IPAddress, target: IPAddress, flow: int) -> tuple[IPAddress, IPAddress] | None:
    """What the node made of the addresses of a connection: the source that its far end saw, and where it was
    sent. None: it is not tracked.

    Args:
        source: as its first packet had it.
        target: the same.
        flow: its source port, or the identifier of an ICMP echo.

    Raises:
        OSError: the kernel does not list them.
    """
    if not anything_tracked():
        return None
    wanted = _attribute(TUPLE_ORIG | NESTED, _attribute(TUPLE_IP | NESTED, _ip_source(source)))
    flags = _number(FILTER_ORIG_FLAGS, MATCH_SOURCE) + _number(FILTER_REPLY_FLAGS, 0)
    body = _header(source) + (wanted + _attribute(FILTER | NESTED, flags) if source.version == 4 else b"")
    request = _request(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, body, f"list connections of {source}")
    number = struct.pack("!H", flow)
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        for listed in netlink.dump(request):
            ends, protocol = _ends(listed, TUPLE_ORIG)
            ids = {protocol.get(kind) for kind in (PROTO_SRC_PORT, PROTO_ICMP_ID, PROTO_ICMPV6_ID)}
            if ends == (source, target) and number in ids:
                (sent_to, seen_as), _ = _ends(listed, TUPLE_REPLY)
                return seen_as, sent_to
    return None


def _ends(listed: bytes, which: int) -> tuple[tuple[IPAddress, IPAddress], dict[int, bytes]]:
    """Source and target of one direction of a listed connection, and its protocol's fields."""
    found = dict(_nested(dict(read_attributes(listed, 4)), which))
    ends = dict(_nested(found, TUPLE_IP))
    pair = (V4_SRC, V4_DST) if V4_SRC in ends else (V6_SRC, V6_DST)
    source, target = (ip_address(ends[kind]) for kind in pair)
    return (source, target), dict(_nested(found, TUPLE_PROTO))


def _flush(netlink: Netlink, address: IPAddress) -> None:
    """Delete by the kernel's filter, if it has one."""
    try:
        netlink.change([_filtered_delete(address)])
    except OSError as error:
        if error.errno not in NO_FILTER:
            raise


def _delete(netlink: Netlink, batch: list[Request]) -> None:
    """Delete connections that were listed; one may have ended meanwhile."""
    try:
        netlink.change(batch)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        # Another failure may follow the first one.
        for request in batch if len(batch) > 1 else ():
            _delete(netlink, [request])


def anything_tracked() -> bool:
    """Whether this network namespace has any connection; asking nfnetlink would load the module for it."""
    try:
        return sysctl.read(_COUNT) != "0"
    except OSError:
        return False


def _list(address: IPAddress) -> Request:
    """List the connections whose replies come from an address, and maybe others.

    A kernel before 5.8 does not know the filter and lists all. None is used for IPv6: there the kernel
    compares addresses the wrong way round (``ctnetlink_filter_match_tuple``, at least up to 6.18), so that it
    lists, and would delete, just the others.
    """
    body = _header(address) + (_answered_by(address) if address.version == 4 else b"")
    return _request(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, body, f"list connections answered by {address}")


def _filtered_delete(address: IPAddress) -> Request:
    """Delete the connections whose replies come from an address, whatever their zone.

    A kernel before 6.8 takes this for the deletion of one connection and refuses it with EINVAL, since the
    tuple is not complete (``ctnetlink_del_conntrack``); none takes it for a deletion of everything.
    """
    body = _header(address, version=1) + _answered_by(address)
    return _request(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, body, f"forget connections answered by {address}")


def _answered_by(address: IPAddress) -> bytes:
    wanted = _attribute(TUPLE_REPLY | NESTED, _attribute(TUPLE_IP | NESTED, _ip_source(address)))
    flags = _number(FILTER_ORIG_FLAGS, 0) + _number(FILTER_REPLY_FLAGS, MATCH_SOURCE)
    return wanted + _attribute(FILTER | NESTED, flags)


def _forget(listed: bytes, address: IPAddress) -> Request:
    """Delete exactly that connection: the id distinguishes it from a later one between the same ends."""
    kept = {TUPLE_ORIG | NESTED: TUPLE_ORIG, ID: ID, ZONE: ZONE}
    found = dict(read_attributes(listed, 4))
    body = _header(address) + b"".join(
        _attribute(kind, found[number]) for kind, number in kept.items() if number in found
    )
    return _request(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, body, f"forget a connection answered by {address}")


def _source(listed: bytes) -> bytes:
    """Where replies of a listed connection come from."""
    ends = dict(_nested(dict(_nested(dict(read_attributes(listed, 4)), TUPLE_REPLY)), TUPLE_IP))
    return ends.get(V4_SRC) or ends.get(V6_SRC, b"")


def _nested(found: dict[int, bytes], kind: int) -> list[tuple[int, bytes]]:
    return read_attributes(found.get(kind, b""), 0)


def _header(address: IPAddress, version: int = 0) -> bytes:
    """Struct nfgenmsg. In a deletion of many the kernel heeds the family only in version 1."""
    family = AF_INET if address.version == 4 else AF_INET6
    return struct.pack("=BBH", family, version, 0)


def _ip_source(address: IPAddress) -> bytes:
    return _attribute(V4_SRC if address.version == 4 else V6_SRC, address.packed)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _request(kind: int, flags: int, body: bytes, what: str) -> Request:
    return Request(HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body, lambda: [what])
