"""The NIC that a network's configuration names: by ``master``, ``ipam.subnet``, conditions of ``ipam.nic``.

Owns what these mean together, and the error if no NIC matches them, or several do. Link names and MACs differ
between the machines of a scale set, so some conditions hold on every machine. It must not reserve anything.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from cni_plugin.addresses import uplink, way_out
from cni_plugin.addresses.requested import requested_subnet
from cni_plugin.cni.errors import UplinkUnclear
from cni_plugin.host.traffic import IMDS
from cni_plugin.kernel import encode
from ipam.mac import ANY_NIC, normalize_mac
from ipam.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cni_plugin.cni.netconf import NetConf
    from cni_plugin.kernel.decode import Link
    from cni_plugin.node import Node
    from ipam.model import ListedNic

T = TypeVar("T")

Fitting = dict[str, frozenset[str]]
"""The MACs of the NICs that meet each condition, by the condition as the configuration has it."""


def named_nic(netconf: NetConf, listed: Callable[[], Sequence[ListedNic]], node: Node) -> str:
    """The MAC of the NIC that a configuration names; empty where it may be any, or none is listed yet.

    Args:
        netconf: its ``names_nic`` is true.
        listed: returns the NICs that the source lists, none before it was read. It is not called where
            ``master`` alone decides.
        node: the node.

    Raises:
        InvalidNetconf: ``ipam.subnet`` is not a network.
        UplinkUnclear: no NIC matches, or several do.
    """
    master = way_out.named_link(netconf.master, node).mac if netconf.master else ""
    conditions = netconf.our_ipam.subnet or netconf.our_ipam.nic
    nics = listed() if conditions else ()
    if not nics:
        return master
    fitting = _fitting(netconf, master, nics, node)
    found = frozenset.intersection(*fitting.values()) if fitting else frozenset({master})
    if len(found) != 1:
        raise _unclear(fitting, found, nics, node)
    (mac,) = found
    return master if mac == ANY_NIC else mac


def _fitting(netconf: NetConf, master: str, nics: Sequence[ListedNic], node: Node) -> Fitting:
    ipam, nic = netconf.our_ipam, netconf.our_ipam.nic
    found: Fitting = {}
    if ipam.subnet:
        subnet = requested_subnet(netconf)
        inside = (each.mac for each in nics if any(map(subnet.overlaps, each.subnets)))
        found[f"ipam.subnet {subnet}"] = frozenset(inside)
    if nic is not None and nic.primary is not None:
        macs = _primary(nics, node)
        found[f"ipam.nic.primary {str(nic.primary).lower()}"] = (
            macs if nic.primary else frozenset(each.mac for each in nics) - macs
        )
    if nic is not None and nic.link:
        found[f"ipam.nic.link {quoted(nic.link)}"] = _with_link(nic.link, nics, node)
    if nic is not None and nic.mac:
        wanted = normalize_mac(nic.mac)
        found[f"ipam.nic.mac {wanted}"] = frozenset(each.mac for each in nics if each.mac == wanted)
    if netconf.master and found:
        own = (each.mac for each in nics if each.mac in {master, ANY_NIC})
        found[f"master {netconf.master}"] = frozenset(own)
    return found


def _primary(nics: Sequence[ListedNic], node: Node) -> frozenset[str]:
    """The primary NIC, as the source says.

    IMDS does not say, but answers only the primary NIC: it is the one by which the node reaches IMDS.
    """
    if any(each.primary is not None for each in nics) or len(nics) == 1:
        return frozenset(each.mac for each in nics if each.primary is not False)
    return frozenset({_kept("NIC to IMDS", lambda: _towards_imds(node), node)})


def _towards_imds(node: Node) -> str:
    link = None
    with suppress(OSError):  # a rule or route that prohibits
        route = node.host.one_route(encode.get_route(IMDS.network_address))
        link = node.host.one_link(encode.get_link(index=route.index)) if route is not None else None
    if link is None:
        raise UplinkUnclear(
            "the source does not say which NIC is primary, and the node has no route to IMDS, which only "
            "answers that NIC",
            "Add the route to 169.254.169.254 that Azure's DHCP names, or choose the NIC by another "
            "condition than `ipam.nic.primary`.",
        )
    return link.mac


def _with_link(pattern: str, nics: Sequence[ListedNic], node: Node) -> frozenset[str]:
    """The NICs whose link has such a name, or such an alternative name."""
    from fnmatch import fnmatchcase

    macs = tuple(each.mac for each in nics)
    links = _kept(("links of NICs", macs), lambda: _links_of(macs, node), node)
    return frozenset(
        mac
        for mac, link in links.items()
        if any(fnmatchcase(name, pattern) for name in (link.name, *link.alt_names))
    )


def _links_of(macs: Iterable[str], node: Node) -> Mapping[str, Link]:
    """The links of NICs by MAC. A NIC that has no link, or no clear one, is left out."""
    links = node.host.links(encode.dump_links())
    found: dict[str, Link] = {}
    for mac in macs:
        with suppress(UplinkUnclear):
            found[mac] = uplink.select(
                links, (mac,), drivers=way_out.drivers_of(each for each in links if each.mac == mac)
            )
    return found


def _kept(key: object, ask: Callable[[], T], node: Node) -> T:
    """What the kernel says; an agent asks it again only when links, rules or routes have changed."""
    return ask() if node.known_host is None else node.known_host.answer(key, ask)


def _unclear(fitting: Fitting, found: frozenset[str], nics: Sequence[ListedNic], node: Node) -> UplinkUnclear:
    links = _links_of((each.mac for each in nics), node)
    names = {mac: link.name for mac, link in links.items()}
    listed = ", ".join(
        f"{each.mac} ({' '.join([names.get(each.mac, 'no link'), *map(str, each.subnets)])})" for each in nics
    )
    if found:
        return UplinkUnclear(
            f"{len(found)} NICs fit the network's configuration, {' and '.join(fitting)}: "
            f"{', '.join(sorted(found))}; the source lists {listed}",
            "Add a condition that only one of them meets: `ipam.nic` with `primary`, `link` or `mac`, "
            "`ipam.subnet`, or `master`.",
        )
    each_fits = "; ".join(
        f"{what} fits {', '.join(sorted(macs)) or 'none'}" for what, macs in fitting.items()
    )
    return UplinkUnclear(
        f"no NIC fits the network's configuration: {each_fits}; the source lists {listed}",
        "All conditions have to hold for one NIC of the node: correct them, or attach such a NIC.",
    )
