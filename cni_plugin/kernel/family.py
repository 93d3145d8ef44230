"""How IPv4 and IPv6 differ on a routed link.

Owns the numbers, the gateway and the default route of each, so that no other code depends on the family. It
must not know what the link is for.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface, ip_network

from ipam.model import IPAddress, IPInterface, IPNetwork
from ipam.value import Value

Routes = tuple[tuple[IPNetwork, IPAddress | None], ...]


class Family(Value):
    """An address family, as a routed veth uses it."""

    version: int
    """4 or 6, as in ``ipaddress``."""
    number: int
    """AF_INET or AF_INET6."""
    gateway: IPAddress
    """The pod's gateway: a permanent neighbour maps it to the host veth. No link has that of IPv4; every host
    veth has that of IPv6, so that it answers a pod that has lost the neighbour (as ``proxy_arp`` does)."""
    default: IPNetwork
    address_group: int
    """RTMGRP_*_IFADDR: notifications of address changes (rtnetlink(7))."""
    route_group: int
    """RTMGRP_*_ROUTE."""
    gateway_address: IPInterface
    """The gateway as an address of a link."""
    routes: Routes
    """A pod's routes, in the order in which they can be added: destination and gateway."""


def _family(
    version: int, number: int, gateway: IPAddress, default: IPNetwork, groups: tuple[int, int]
) -> Family:
    routes: Routes = ((ip_network(gateway), None), (default, gateway))
    return Family(version, number, gateway, default, *groups, ip_interface(gateway), routes)


IPV4 = _family(4, 2, IPv4Address("169.254.1.1"), IPv4Network("0.0.0.0/0"), (0x10, 0x40))
IPV6 = _family(6, 10, IPv6Address("fe80::1"), IPv6Network("::/0"), (0x100, 0x400))


def family_of(address: IPAddress) -> Family:
    """The family of an address."""
    return IPV4 if address.version == 4 else IPV6
