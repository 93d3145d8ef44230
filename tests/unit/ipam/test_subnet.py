"""What Azure keeps for itself in every subnet, at the sizes where the rule changes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from ipam.subnet import FABRIC_ROUTER_V6, gateway_of, reserved_addresses, why_not_for_pods


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


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("168.63.129.16", "platform"),
        ("168.63.129.17", ""),
        ("0.0.0.0", "unspecified"),
        ("0.0.0.1", "unicast"),
        ("1.0.0.0", ""),
        ("127.0.0.1", "loopback"),
        ("169.254.1.1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "unicast"),
        ("255.255.255.255", "unicast"),
        ("10.0.0.5", ""),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("::ffff:10.0.0.5", "IPv4-mapped"),
        ("fd00::5", ""),
        ("2001:db8::5", ""),
    ],
)
def test_what_no_pod_can_have_is_refused_with_the_reason_and_all_else_is_not(address: str, why: str) -> None:
    said = why_not_for_pods(ip_address(address))
    assert bool(said) == bool(why)
    assert why in said
