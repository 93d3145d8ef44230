"""Netlink requests, compiled to bytes.

Owns what is in each request. It must not know how one becomes bytes (``messages``), nor send any
(``netlink``). Layouts: rtnetlink(7), Documentation/netlink/specs/rt-*.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from ipaddress import ip_network

from cni_plugin.kernel.family import family_of
from cni_plugin.kernel.messages import HOST_SETTINGS, compiled, compiled_once
from cni_plugin.kernel.templates import Request, filled_in, together
from ipam.model import IPAddress, IPInterface, IPNetwork

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTM_NEWLINKPROP = 108

NLM_F_REQUEST, NLM_F_ACK, NLM_F_ECHO, NLM_F_DUMP = 0x1, 0x4, 0x8, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_APPEND = 0x200, 0x400, 0x100, 0x800

AF_INET, AF_INET6 = 2, 10
IFF_UP = 1
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
NUD_REACHABLE, NUD_PERMANENT = 0x02, 0x80
NTF_EXT_LEARNED = 0x10
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST, RTN_LOCAL = 1, 2
LAST_METRIC = 0xFFFFFFFF
"""Behind every other route to the same destination, whatever its metric is."""
RTM_F_LOOKUP_TABLE, RTM_F_FIB_MATCH = 0x1000, 0x2000
RTEXT_FILTER_SKIP_STATS = 0x8
RTPROT_AZVNET = 155
"""Marks our routes, so that an operator can tell them apart (``ip route show proto 155``); unassigned in
include/uapi/linux/rtnetlink.h and iproute2's rt_protos."""
HOST_LINK_GROUP = RTPROT_AZVNET
"""The group (IFLA_GROUP) of the host's ends, so that a routing rule can select the routes over them."""


_CREATE = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
_CHANGE = NLM_F_REQUEST | NLM_F_ACK


@filled_in
def new_veth(
    *,
    host_name: str,
    host_index: int,
    host_mac: str,
    pod_name: str,
    pod_index: int,
    pod_mac: str,
    mtu: int,
    netns_fd: int,
) -> Request:
    """Create a veth pair in one message, its pod end directly in the pod's namespace.

    Names, MACs, MTU and indexes are given at once: renaming and moving a link later waits for RCU, and a
    MAC that is given at creation is left alone by udev. The host end is created up; the pod end can't be
    (veth answers ENOTCONN while its peer does not exist yet).

    By default veth makes a queue in each direction for every processor the node could have, each with a place
    in sysfs (drivers/net/veth.c): hundreds on a large node. A packet of a pod uses none of them unless XDP or
    GRO is switched on for the link; one is enough for those.
    """
    queues = [("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1)]
    peer = {
        "index": pod_index,
        "attrs": [
            ("IFLA_IFNAME", pod_name),
            ("IFLA_MTU", mtu),
            ("IFLA_ADDRESS", pod_mac),
            ("IFLA_NET_NS_FD", netns_fd),
            *queues,
        ],
    }
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    fields = {"index": host_index, "flags": IFF_UP, "change": IFF_UP}
    attributes = [
        ("IFLA_IFNAME", host_name),
        ("IFLA_MTU", mtu),
        ("IFLA_ADDRESS", host_mac),
        ("IFLA_GROUP", HOST_LINK_GROUP),
        ("IFLA_LINKINFO", info),
        *queues,
    ]
    return Request(
        compiled("ifinfmsg", RTM_NEWLINK, _CREATE, fields, attributes),
        lambda: [f"create the veth pair {host_name} (host) and {pod_name} (pod)"],
    )


@filled_in
def set_link(index: int, *, alias: str | None = None, mac: str = "", group: int = 0) -> Request:
    """Set a link up and, where given, its alias, MAC and group."""
    attributes: list[tuple[str, object]] = []
    if group:
        attributes.append(("IFLA_GROUP", group))
    if alias is not None:
        attributes.append(("IFLA_IFALIAS", alias))
    if mac:
        attributes.append(("IFLA_ADDRESS", mac))
    fields = {"index": index, "flags": IFF_UP, "change": IFF_UP}
    return Request(
        compiled("ifinfmsg", RTM_NEWLINK, _CHANGE, fields, attributes),
        lambda: [f"configure link {index}"],
    )


@filled_in
def set_mark(index: int, alt_name: str) -> Request:
    """Give a link an alternative name (from Linux 5.5 on), by which it can be asked for as by its own.

    A message of its own: the kernel does not take one in the message that creates a link (rtnl_newlink_create
    reads no IFLA_PROP_LIST).
    """
    attributes = [("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", alt_name)]})]
    flags = _CREATE | NLM_F_APPEND
    return Request(
        compiled("ifinfmsg", RTM_NEWLINKPROP, flags, {"index": index}, attributes),
        lambda: [f"give link {index} the alternative name {alt_name}"],
    )


@filled_in
def secure_link(index: int) -> Request:
    """Apply ``HOST_SETTINGS`` to a link. Unlike the files in /proc/sys, which are read-only in a container,
    netlink accepts them wherever links can be created (inet_set_link_af, net/ipv4/devinet.c).
    """
    conf = {"attrs": [(name, value) for name, _, value in HOST_SETTINGS]}
    attributes = [("IFLA_AF_SPEC", {"attrs": [("AF_INET", {"attrs": [("IFLA_INET_CONF", conf)]})]})]
    return Request(
        compiled("linkconf", RTM_SETLINK, _CHANGE, {"index": index}, attributes),
        lambda: [f"set rp_filter, forwarding, proxy_arp and accept_redirects of link {index}"],
    )


@filled_in
def own_link(index: int, alt_name: str, address: IPAddress | None = None) -> Request:
    """Make a link ours, before anything comes in by it: ``secure_link``, ``set_mark``, and ``new_route``."""
    routes = [] if address is None else [new_route(index, address)]
    return together(secure_link(index), set_mark(index, alt_name), *routes)


@filled_in
def finish_link(index: int, alias: str) -> Request:
    """Set the alias of a link whose other end has gone up, and read the link.

    Reading makes the kernel check its carrier now (linkwatch_sync_dev), not up to a second later; until then
    it drops what the host sends to the pod. It comes last, as its answer is then the only one.
    """
    return together(set_link(index, alias=alias), get_link(index=index))


@filled_in
def delete_link(name: str = "", *, alt_name: str = "", index: int = 0) -> Request:
    """Delete a link by name, alternative name or index; its peer and the routes over it go with it."""
    return Request(
        compiled("ifinfmsg", RTM_DELLINK, _CHANGE, {"index": index}, _link_name(name, alt_name)),
        lambda: [f"delete link {name or alt_name or index}"],
    )


@filled_in
def get_link(*, name: str = "", alt_name: str = "", index: int = 0) -> Request:
    """Ask for one link, by name, alternative name or index; without its statistics, half of the answer."""
    attributes = [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS), *_link_name(name, alt_name)]
    return Request(
        compiled("ifinfmsg", RTM_GETLINK, NLM_F_REQUEST, {"index": index}, attributes),
        lambda: [f"read link {name or alt_name or index}"],
    )


def _link_name(name: str, alt_name: str) -> list[tuple[str, object]]:
    if alt_name:
        return [("IFLA_ALT_IFNAME", alt_name)]
    return [("IFLA_IFNAME", name)] if name else []


@filled_in
def new_address(index: int, address: IPInterface) -> Request:
    """Give an address to a link without the connected route the kernel would add for its subnet.

    Everything goes through the gateway: on Azure there is no layer 2 to reach a neighbour on. So there can be
    no duplicate IPv6 address on the link, and it can be used at once, without a second of detection.
    """
    flags = IFA_F_NOPREFIXROUTE if address.version == 4 else IFA_F_NOPREFIXROUTE | IFA_F_NODAD
    fields = {
        "family": family_of(address.ip).number,
        "prefixlen": address.network.prefixlen,
        "index": index,
        "scope": 0,
    }
    attributes = [
        ("IFA_LOCAL", str(address.ip)),
        ("IFA_ADDRESS", str(address.ip)),
        ("IFA_FLAGS", flags),
    ]
    return Request(
        compiled("ifaddrmsg", RTM_NEWADDR, _CREATE, fields, attributes),
        lambda: [f"add address {address}"],
    )


@filled_in
def new_route(index: int, address: IPAddress) -> Request:
    """Add the host's route to a pod's address.

    Exclusive: the caller needs to know that a route to the address exists already.
    """
    return _route(_CREATE, index, ip_network(address), None)


def new_pod_route(
    index: int, dst: IPNetwork, *, gateway: IPAddress | None = None, metric: int = 0
) -> Request:
    """Add a route of a pod, behind the ones to the same destination that are there already.

    An IPv4 default route without a metric is exclusive: the kernel would use two of them in turn, whatever
    the source (fib_select_default, net/ipv4/fib_semantics.c).
    """
    exclusive = gateway is not None and gateway.version == 4 and not metric
    return _route(
        _CREATE if exclusive else _CHANGE | NLM_F_CREATE | NLM_F_APPEND, index, dst, gateway, metric
    )


@filled_in
def new_pod_address(index: int, address: IPInterface, mac: str, metric: int = 0) -> Request:
    """Set the link of a pod up, and give it an address with the routes of its family. ``mac`` is that of the
    host's end, which stands for the gateway, ``metric`` that of the route through it. FileExistsError: the
    pod has such a route of IPv4 already; everything else took effect.
    """
    family = family_of(address.ip)
    routes = [
        new_pod_route(index, dst, gateway=gateway, metric=metric if gateway else 0)
        for dst, gateway in family.routes
    ]
    neighbour = new_neighbour(index, family.gateway, mac)
    return together(set_link(index), new_address(index, address), *routes, neighbour)


def _route(flags: int, index: int, dst: IPNetwork, gateway: IPAddress | None, metric: int = 0) -> Request:
    fields = {
        "family": AF_INET if dst.version == 4 else AF_INET6,
        "dst_len": dst.prefixlen,
        "table": RT_TABLE_MAIN,
        "proto": RTPROT_AZVNET,
        "scope": RT_SCOPE_UNIVERSE if gateway else RT_SCOPE_LINK,
        "type": RTN_UNICAST,
    }
    attributes: list[tuple[str, object]] = [("RTA_DST", str(dst.network_address))] if dst.prefixlen else []
    if gateway:
        attributes.append(("RTA_GATEWAY", str(gateway)))
    attributes.append(("RTA_OIF", index))
    if metric:
        attributes.append(("RTA_PRIORITY", metric))
    return Request(
        compiled("rtmsg", RTM_NEWROUTE, flags, fields, attributes), lambda: [f"add the route to {dst}"]
    )


@filled_in
def get_route(dst: IPAddress) -> Request:
    """Ask for the route of the table that matches an address best."""
    fields = {"family": family_of(dst).number, "dst_len": dst.max_prefixlen, "flags": RTM_F_FIB_MATCH}
    return Request(
        compiled("rtmsg", RTM_GETROUTE, NLM_F_REQUEST, fields, [("RTA_DST", str(dst))]),
        lambda: [f"read the route to {dst}"],
    )


@filled_in
def get_forwarded_route(dst: IPAddress, source: IPAddress, index: int) -> Request:
    """Ask for the route of a packet from ``source`` that comes in by link ``index``. For IPv6 the kernel
    names the table anyway, and refuses the flag that asks for it (inet6_rtm_valid_getroute_req).
    """
    fields = {
        "family": family_of(dst).number,
        "dst_len": dst.max_prefixlen,
        "src_len": source.max_prefixlen,
        "flags": RTM_F_FIB_MATCH | (RTM_F_LOOKUP_TABLE if dst.version == 4 else 0),
    }
    attributes = [("RTA_DST", str(dst)), ("RTA_SRC", str(source)), ("RTA_IIF", index)]
    return Request(
        compiled("rtmsg", RTM_GETROUTE, NLM_F_REQUEST, fields, attributes),
        lambda: [f"read the route from {source} to {dst}"],
    )


@filled_in
def new_neighbour(index: int, address: IPAddress, mac: str) -> Request:
    """Add a permanent neighbour, so that nothing has to resolve the address."""
    return _neighbour(index, address, mac, NUD_PERMANENT)


@filled_in
def learn_neighbour(index: int, address: IPAddress, mac: str) -> Request:
    """Add a neighbour, so that the first packet need not wait for ARP.

    It is added as externally learned (NTF_EXT_LEARNED): such an entry is not garbage collected, and is made
    even when the table is full. Unlike a permanent one it follows a pod whose MAC is changed.
    """
    return _neighbour(index, address, mac, NUD_REACHABLE, NTF_EXT_LEARNED)


def _neighbour(index: int, address: IPAddress, mac: str, state: int, flags: int = 0) -> Request:
    fields = {"family": family_of(address).number, "ifindex": index, "state": state, "flags": flags}
    attributes = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    return Request(
        compiled("ndmsg", RTM_NEWNEIGH, _CHANGE | NLM_F_CREATE | NLM_F_REPLACE, fields, attributes),
        lambda: [f"add the neighbour {address}"],
    )


@cache
def dump_links() -> Request:
    """Ask for every link of the namespace, without its statistics, which are half of each answer."""
    return _dump("the links", "ifinfmsg", RTM_GETLINK, {}, [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)])


@cache
def dump_addresses(family: int) -> Request:
    """Ask for the addresses of one family."""
    return _dump("the addresses", "ifaddrmsg", RTM_GETADDR, {"family": family})


@cache
def dump_routes(family: int) -> Request:
    """Ask for the routes of the main table, of one family."""
    return _dump("the routes", "rtmsg", RTM_GETROUTE, {"family": family, "table": RT_TABLE_MAIN})


@cache
def dump_neighbours(family: int) -> Request:
    """Ask for the neighbours of one family."""
    return _dump("the neighbours", "ndmsg", RTM_GETNEIGH, {"family": family})


def _dump(
    what: str, message: str, kind: int, fields: dict[str, int], attributes: Sequence[tuple[str, int]] = ()
) -> Request:
    data = compiled_once(message, kind, NLM_F_REQUEST | NLM_F_DUMP, fields, list(attributes))
    return Request(data, lambda: [f"list {what}"])
