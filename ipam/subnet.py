"""Which addresses pods cannot have because of Azure, IPv4 or IPv6: in every subnet, and in general.

It must not know where a subnet or an address comes from.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipam.model import IPAddress, IPNetwork

FABRIC_ROUTER_V6 = IPv6Address("fe80::1234:5678:9abc")
"""The router that Azure's fabric announces on every link: the gateway where no IPv6 subnet is known."""


PLATFORM = IPv4Address("168.63.129.16")
"""Azure's DNS, DHCP, health probes and wireserver ("What is IP address 168.63.129.16?"). A host route of a
pod to it would take all of them from the node."""
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
"""RFC 1122, section 3.2.1.3."""


def why_not_for_pods(ip: IPAddress) -> str:
    """Why no pod can have ``ip``, whoever says that it can; empty: it can."""
    if ip == PLATFORM:
        return "it is a platform address"
    for attribute, what in (
        ("is_unspecified", "the unspecified address"),
        ("is_loopback", "a loopback address"),
        ("is_link_local", "a link-local address"),
        ("is_multicast", "a multicast address"),
    ):
        if getattr(ip, attribute):
            return f"it is {what}"
    if isinstance(ip, IPv6Address):
        return "it is an IPv4-mapped address" if ip.ipv4_mapped is not None else ""
    if ip in _THIS_NETWORK or ip.is_reserved:  # 240.0.0.0/4, the broadcast address too
        return "it is not a unicast address"
    return ""


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
