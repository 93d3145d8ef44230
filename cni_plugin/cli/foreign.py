"""What the rules of other programs may do with a packet, which can't be queried from the kernel.

Owns naming their chains, by the hook that the packet passes. It must not know the packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_plugin.host import packets
from cni_plugin.kernel import packet_filter
from cni_plugin.kernel.family import family_of

if TYPE_CHECKING:
    from cni_plugin.node import Node
    from ipam.model import IPAddress

PREROUTING, OUTPUT, POSTROUTING = 0, 3, 4
"""Hooks of netfilter (NF_INET_*)."""


def filters(node: Node, target: IPAddress) -> list[str]:
    """For a packet that is forwarded to a target: chains that drop it unless a rule allows it, and what is
    wrong with azvnet's own table.
    """
    try:
        drops = packet_filter.forward_drops(family_of(target).number)
        return [
            *packets.check(node, in_use=True),
            *(f"{each} drops everything that its rules do not allow" for each in drops),
        ]
    except OSError as error:
        return [f"packet filters can't be read: {error}"]


def translations(hook: int, target: IPAddress) -> list[str]:
    """Chains of others at a hook that translate addresses, of the family of a target."""
    try:
        chains = packet_filter.base_chains(family_of(target).number)
        found = [each for each in chains if (each.kind, each.hook) == ("nat", hook)]
    except OSError as error:
        return [f"packet filters can't be read: {error}"]
    return [f"{each} may translate addresses" for each in found if each.table != packets.TABLE]
