"""What Azure keeps for itself in every subnet.

It must not know where a subnet comes from.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipam.model import IPAddress, IPNetwork

FABRIC_ROUTER_V6 = IPv6Address("fe80::1234:5678:9abc")
"""The router that Azure's fabric announces on every link: the gateway where no IPv6 subnet is known."""


def gateway_of(subnet: IPNetwork) -> IPAddress:
    """The subnet's first host address, which Azure keeps for its gateway ("Are there any restrictions on
    using IP addresses within these subnets?", Azure virtual network FAQ).
    """
    if isinstance(subnet, IPv6Network):
        return FABRIC_ROUTER_V6 if subnet.prefixlen == 128 else subnet[1]
    return subnet[min(1, subnet.num_addresses - 1)]


def reserved_addresses(subnet: IPNetwork) -> frozenset[IPAddress]:
    """What no NIC can have: network address, .1 (gateway), .2 and .3 (DNS), broadcast (the same FAQ)."""
    if isinstance(subnet, IPv4Network) and subnet.prefixlen <= 29:
        return frozenset({*(subnet[i] for i in range(4)), subnet[-1]})
    if isinstance(subnet, IPv6Network) and subnet.prefixlen <= 64:
        return frozenset(subnet[i] for i in range(4))
    return frozenset()
