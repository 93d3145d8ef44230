"""What Azure keeps for itself in every subnet, at the sizes where the rule changes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from ipam.subnet import FABRIC_ROUTER_V6, gateway_of, reserved_addresses


@pytest.mark.parametrize(
    ("subnet", "gateway"),
    [
        ("10.0.0.0/16", "10.0.0.1"),
        ("10.0.0.8/29", "10.0.0.9"),
        ("10.0.0.8/31", "10.0.0.9"),
        ("10.0.0.8/32", "10.0.0.8"),
        ("fd00:0:0:1::/64", "fd00:0:0:1::1"),
        ("fd00::8/127", "fd00::9"),
        ("fd00::8/128", str(FABRIC_ROUTER_V6)),
    ],
)
def test_the_gateway_is_the_first_host_address(subnet: str, gateway: str) -> None:
    assert gateway_of(ip_network(subnet)) == ip_address(gateway)


@pytest.mark.parametrize(
    ("subnet", "reserved"),
    [
        ("10.0.0.0/24", "10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.255"),
        ("10.0.0.8/29", "10.0.0.8 10.0.0.9 10.0.0.10 10.0.0.11 10.0.0.15"),
        ("10.0.0.8/30", ""),
        ("10.0.0.8/32", ""),
        ("fd00::/63", "fd00:: fd00::1 fd00::2 fd00::3"),
        ("fd00::/64", "fd00:: fd00::1 fd00::2 fd00::3"),
        ("fd00::/65", ""),
        ("fd00::8/128", ""),
    ],
)
def test_the_first_four_and_the_last_are_reserved_where_a_subnet_is_large_enough(
    subnet: str, reserved: str
) -> None:
    assert reserved_addresses(ip_network(subnet)) == frozenset(map(ip_address, reserved.split()))
