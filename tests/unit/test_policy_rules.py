"""Which routing rule leads a packet to a table, and how a rule is written."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cni_plugin.kernel import encode
from cni_plugin.kernel.decode import KernelRoute
from cni_plugin.kernel.lookup import LOCAL, MAIN, PolicyRule

POD, TARGET = ip_address("10.1.0.5"), ip_address("192.0.2.7")
PODS = ip_network("10.1.0.5/32")


def rule(**selectors: Any) -> PolicyRule:
    return PolicyRule(**{"priority": 100, "table": MAIN, **selectors})


def route(prefix: str, protocol: int = 4) -> KernelRoute:
    return KernelRoute(ip_network(prefix), None, 3, protocol, 0, 1)


@pytest.mark.parametrize(
    ("selectors", "fits"),
    [
        ({}, True),
        ({"source": PODS}, True),
        ({"source": ip_network("10.1.0.6/32")}, False),
        ({"target": ip_network("192.0.2.0/24")}, True),
        ({"target": ip_network("198.51.100.0/24")}, False),
        ({"source": PODS, "target": ip_network("198.51.100.0/24")}, False),
        ({"in_link": "azv1"}, True),
        ({"in_link": "eth0"}, False),
        ({"out_link": "eth0"}, False),
        ({"mark": 1}, False),
    ],
)
def test_a_rule_fits_a_packet_that_meets_all_its_selectors(selectors: dict[str, Any], fits: bool) -> None:
    assert rule(**selectors).fits(TARGET, POD, "azv1") is fits


def test_a_rule_by_source_fits_no_packet_without_one() -> None:
    assert not rule(source=PODS).fits(TARGET, None, "azv1")
    assert rule().fits(TARGET, None, "azv1")


def test_a_rule_that_suppresses_short_prefixes_passes_over_the_default_route() -> None:
    suppressing = rule(suppressed=0)
    assert not suppressing.passes(route("0.0.0.0/0"))
    assert suppressing.passes(route("0.0.0.0/1"))
    assert rule().passes(route("0.0.0.0/0"))


def test_our_own_rule_takes_routes_to_pods_alone() -> None:
    ours = rule(suppressed=31, for_pods=True)
    assert ours.passes(route("10.1.0.5/32", encode.RTPROT_AZVNET))
    assert not ours.passes(route("10.1.0.5/32"))
    assert not ours.passes(route("10.1.0.0/31", encode.RTPROT_AZVNET))
    assert rule().passes(route("10.1.0.5/32")), "others take every route"


def test_a_rule_is_written_as_ip_rule_writes_it() -> None:
    assert str(rule()) == "100: from all lookup main"
    assert str(rule(table=LOCAL, priority=0)) == "0: from all lookup local"
    every = rule(
        table=15502,
        source=PODS,
        target=ip_network("192.0.2.0/24"),
        mark=255,
        in_link="azv1",
        out_link="eth0",
        suppressed=0,
    )
    assert str(every) == (
        "100: from 10.1.0.5/32 to 192.0.2.0/24 fwmark 0xff iif azv1 oif eth0 lookup 15502 "
        "suppress_prefixlength 0"
    )
