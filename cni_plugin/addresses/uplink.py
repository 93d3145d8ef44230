"""Which link of the node is its NIC: a pure choice.

Owns the rule and its error. With accelerated networking two links carry the NIC's MAC, the synthetic one
and the VF that is enslaved to it; vlan and macvlan links on top carry it too. It is always the upper,
free-standing one that has the addresses and the routes. It must not do I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cni_plugin.cni.errors import UplinkUnclear
from cni_plugin.datapath.names import is_marked
from cni_plugin.kernel.decode import Link

SYNTHETIC_DRIVER = "hv_netvsc"
"""The driver of the synthetic NIC on Hyper-V; its VF has another one."""
LOOPBACK = "lo"


def select(
    links: Collection[Link],
    macs: Collection[str],
    *,
    master: str = "",
    drivers: Mapping[str, str] | None = None,
) -> Link:
    """The uplink: the link named ``master``, or the one that carries one of the NIC's MACs.

    ``drivers`` maps link names to kernel drivers where they are known.

    Raises:
        UplinkUnclear: there is no such link, or more than one; the candidates are listed.
    """
    if master:
        named = [link for link in links if link.name == master]
        if named:
            return named[0]
        raise UplinkUnclear(
            f"master {master} does not exist on this node",
            f"Links are {_list(links)}. Correct master in the netconf, or leave it out to have it detected.",
        )
    candidates = carrying(links, macs)
    synthetic = [link for link in candidates if (drivers or {}).get(link.name) == SYNTHETIC_DRIVER]
    for group in (synthetic, candidates):
        if len(group) == 1:
            return group[0]
    if candidates:
        raise UplinkUnclear(
            f"{len(candidates)} links carry the NIC's MAC {', '.join(sorted(macs))}: {_list(candidates)}",
            "Name the right one as master in the netconf.",
        )
    raise UplinkUnclear(
        f"no link of this node has the NIC's MAC {', '.join(sorted(macs)) or '(none is known)'}",
        f"Links are {_list(links)}. Name the uplink as master in the netconf, or check the source.",
    )


def carrying(links: Collection[Link], macs: Collection[str]) -> list[Link]:
    """The links that may be the NIC. A VF is one of them until it is enslaved, a moment after it appears."""
    fitting = [link for link in links if link.mac in macs]
    return [link for link in fitting if _stands_free(link, fitting)]


def is_uplink(link: Link | None, mac: str) -> bool:
    """Whether a link that is known by index is certainly the NIC with that MAC."""
    return link is not None and link.mac == mac and not link.master and not link.slave and not _on_top(link)


def _stands_free(link: Link, fitting: Collection[Link]) -> bool:
    """Not enslaved, not ours, and not made on top of another link that fits."""
    if link.master or link.slave or link.name == LOOPBACK or is_marked(link):
        return False
    return not (_on_top(link) and any(other.index == link.lower for other in fitting))


def _on_top(link: Link) -> bool:
    """A vlan, macvlan or ipvlan link. A veth has a lower link too, but in another namespace, or its peer."""
    return bool(link.lower) and not link.lower_elsewhere and link.kind != "veth" and link.lower != link.index


def _list(links: Collection[Link]) -> str:
    return (
        ", ".join(f"{link.name} ({link.mac or 'no MAC'})" for link in links if link.name != LOOPBACK)
        or "none"
    )
