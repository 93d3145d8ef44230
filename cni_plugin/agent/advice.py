"""What an operator should know of a node although pods get addresses on it: how it is set up, not how it is.

Owns the words. It must not know where they are told.
"""

from __future__ import annotations

from cni_plugin.conflist import ConflistFile
from cni_plugin.node import Node
from ipam.errors import IpamError


def preferred(conflist: ConflistFile | None) -> str:
    """Whether the runtime takes another file than ours."""
    before = conflist.sorts_before() if conflist else []
    if conflist is None or not before:
        return ""
    own, sort = conflist.destination, "sorts" if len(before) == 1 else "sort"
    return f"{', '.join(before)} {sort} before {own.name} in {own.parent}: the runtime uses {before[0]}"


def small_pool(node: Node, expected: int) -> str:
    """Whether pods may come that get no address; nothing is said where nothing is known."""
    try:
        known = node.view.overview().known if expected else 0
    except IpamError:
        return ""
    if not 0 < known < expected:
        return ""
    return (
        f"the pool has {known} addresses for {expected} pods that may run here: give the NIC more secondary "
        f"IP configurations, or lower the kubelet's maxPods by {expected - known}"
    )
