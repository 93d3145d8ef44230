"""What counts as a difference of an endpoint: one change at a time to one that is right."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Interface, ip_address, ip_interface, ip_network

import pytest

from cni_plugin.datapath import drift
from cni_plugin.datapath.drift import Difference, Expected, Found, FoundHost
from cni_plugin.datapath.names import HOST_MAC, names_of
from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress, Neighbour
from cni_plugin.kernel.encode import HOST_LINK_GROUP, NUD_PERMANENT, RTN_LOCAL
from cni_plugin.kernel.family import IPV4, IPV6
from cni_plugin.kernel.messages import HOST_SETTINGS
from cni_plugin.kernel.sysctl import HOST_IPV6
from ipam.model import Attachment, Owner, Reservation
from ipam.value import replace

NAMES = names_of(Attachment("c1", "eth0"), "default", "web")
ADDRESS, HOST_INDEX, POD_INDEX, NIC_INDEX = ip_interface("10.1.0.7/16"), 100, 101, 2
POD_MAC = "02:00:00:00:00:07"
UNICAST, REACHABLE = 1, 2


def settings(**changed: int) -> tuple[int, ...]:
    values = [0] * 32
    for name, number, value in HOST_SETTINGS:
        values[number - 1] = changed.get(name.lower(), value)
    return tuple(values)


def route(dst: str, index: int, gateway: str = "", kind: int = UNICAST) -> KernelRoute:
    return KernelRoute(ip_network(dst), ip_address(gateway) if gateway else None, index, 155, 253, kind)


HOST_LINK = Link(
    index=HOST_INDEX,
    name=NAMES.host_ifname,
    mac=HOST_MAC,
    mtu=1500,
    flags=1,
    kind="veth",
    alt_names=(NAMES.mark,),
    ipv4_settings=settings(),
    group=HOST_LINK_GROUP,
)
POD_LINK = Link(index=POD_INDEX, name="eth0", mac=POD_MAC, mtu=1500, flags=1, kind="veth")
GATEWAY = Neighbour(POD_INDEX, IPV4.gateway, HOST_MAC, NUD_PERMANENT)
HOST = FoundHost(HOST_LINK, (route("10.1.0.7/32", HOST_INDEX),))
RIGHT = Found(
    HOST,
    POD_LINK,
    (LinkAddress(POD_INDEX, ADDRESS.ip, 16),),
    (route("169.254.1.1/32", POD_INDEX), route("0.0.0.0/0", POD_INDEX, "169.254.1.1")),
    (GATEWAY,),
)
EXPECTED = Expected(
    NAMES, "eth0", (ADDRESS,), pod_mac=POD_MAC, mtu=1500, routed=(ADDRESS,), given_mac=POD_MAC
)


def kinds(expected: Expected, found: Found) -> list[str]:
    return [each.kind for each in drift.differences(expected, found)]


def with_host(**changed: object) -> Found:
    return replace(RIGHT, host=replace(HOST, link=replace(HOST_LINK, **changed)))


def with_pod(**changed: object) -> Found:
    return replace(RIGHT, pod_link=replace(POD_LINK, **changed))


def test_an_endpoint_that_is_as_it_was_made_differs_in_nothing() -> None:
    assert drift.differences(EXPECTED, RIGHT) == []


@pytest.mark.parametrize(
    ("found", "kind", "text"),
    [
        (with_host(flags=0), drift.HOST_DOWN, f"host veth {NAMES.host_ifname} is down"),
        (
            with_host(mac="02:00:00:00:00:01"),
            drift.HOST_MAC_CHANGED,
            f"host veth {NAMES.host_ifname} has MAC 02:00:00:00:00:01 instead of {HOST_MAC}",
        ),
        (
            with_host(alt_names=("azvnet-other",)),
            drift.HOST_MARK,
            f"host veth {NAMES.host_ifname} lacks its alternative name {NAMES.mark}",
        ),
        (
            with_host(group=0),
            drift.HOST_GROUP,
            f"host veth {NAMES.host_ifname} is in group 0 instead of {HOST_LINK_GROUP}",
        ),
        (
            with_host(ipv4_settings=settings(rp_filter=0)),
            drift.HOST_SETTINGS_CHANGED,
            f"net.ipv4.conf.{NAMES.host_ifname}.rp_filter is not 1",
        ),
        (
            with_host(ipv4_settings=settings(accept_redirects=1, forwarding=0)),
            drift.HOST_SETTINGS_CHANGED,
            ", ".join(
                f"net.ipv4.conf.{NAMES.host_ifname}.{each}"
                for each in ("forwarding is not 1", "accept_redirects is not 0")
            ),
        ),
        (
            with_host(has_ipv6=True),
            drift.HOST_IPV6,
            f"IPv6 is not disabled on host veth {NAMES.host_ifname}, whose pod has none",
        ),
        (
            with_host(mtu=1499),
            drift.HOST_MTU,
            f"host veth {NAMES.host_ifname} has MTU 1499, less than the pod's 1500",
        ),
        (with_pod(flags=0), drift.POD_DOWN, "interface eth0 is down"),
        (
            with_pod(mac="02:00:00:00:00:08"),
            drift.POD_MAC,
            f"interface eth0 has MAC 02:00:00:00:00:08 instead of {POD_MAC}",
        ),
        (with_pod(mtu=1400), drift.POD_MTU, "interface eth0 has MTU 1400 instead of 1500"),
    ],
)
def test_each_changed_property_of_a_link_is_one_difference(found: Found, kind: str, text: str) -> None:
    assert drift.differences(EXPECTED, found) == [Difference(kind, text)]


def test_without_the_settings_of_a_link_each_of_them_counts_as_changed() -> None:
    """The kernel may not report them: unknown is not as it should be."""
    (difference,) = drift.differences(EXPECTED, with_host(ipv4_settings=()))
    assert [name.lower() for name, *_ in HOST_SETTINGS] == [
        part.split(".")[-1].split(" ")[0] for part in difference.text.split(", ")
    ]


def test_what_prev_result_does_not_say_is_not_compared() -> None:
    assert kinds(replace(EXPECTED, pod_mac=""), with_pod(mac="02:00:00:00:00:08")) == []
    assert kinds(replace(EXPECTED, mtu=0), with_pod(mtu=1400)) == []


def test_a_mac_in_capitals_is_the_same_mac() -> None:
    upper = "02:00:00:00:00:AB"
    found = with_pod(mac=upper.lower())
    assert kinds(replace(EXPECTED, pod_mac=upper, given_mac=upper.lower()), found) == []


def test_a_larger_mtu_on_the_host_is_no_difference() -> None:
    assert kinds(EXPECTED, with_host(mtu=9000)) == []


def test_a_missing_interface_in_the_pod_is_all_that_is_said() -> None:
    found = replace(RIGHT, pod_link=None, host=FoundHost(None))
    assert drift.differences(EXPECTED, found) == [
        Difference(drift.POD_MISSING, "interface eth0 is missing in the pod")
    ]
    assert list(drift.of_pod(EXPECTED, found)) == drift.differences(EXPECTED, found)


def test_a_missing_host_veth_is_all_that_is_said_of_the_host() -> None:
    assert drift.differences(EXPECTED, replace(RIGHT, host=FoundHost(None, (None,)))) == [
        Difference(drift.HOST_MISSING, f"host veth {NAMES.host_ifname} is missing")
    ]


def test_a_host_veth_under_another_name_is_called_by_that() -> None:
    (difference,) = drift.differences(EXPECTED, with_host(name="moved", flags=0))
    assert difference.text == "host veth moved is down"


@pytest.mark.parametrize(
    ("best", "over"),
    [
        (None, "no route leads there"),
        (route("10.1.0.7/32", NIC_INDEX), "the best route is 10.1.0.7/32 over link 2"),
        (route("10.1.0.0/16", HOST_INDEX), "the best route is 10.1.0.0/16 over link 100"),
        (route("10.1.0.8/32", HOST_INDEX), "the best route is 10.1.0.8/32 over link 100"),
        (route("10.1.0.7/32", POD_INDEX, kind=UNICAST), "the best route is 10.1.0.7/32 over link 101"),
        (route("10.1.0.7/32", NIC_INDEX, kind=RTN_LOCAL), "the best route is 10.1.0.7/32 over link 2"),
    ],
)
def test_the_host_routes_exactly_the_address_over_the_host_veth(best: KernelRoute | None, over: str) -> None:
    found = replace(RIGHT, host=replace(HOST, routes=(best,)))
    text = f"host route to 10.1.0.7 over {NAMES.host_ifname} is missing ({over})"
    assert drift.differences(EXPECTED, found) == [Difference(drift.HOST_ROUTE, text, ADDRESS.ip)]


def test_a_route_to_the_address_and_its_neighbour_is_not_the_pods() -> None:
    even = ip_interface("10.1.0.8/16")
    expected = replace(EXPECTED, addresses=(even,), routed=(even,))
    (missing,) = drift.of_host(expected, FoundHost(HOST_LINK, (route("10.1.0.8/31", HOST_INDEX),)))
    assert (missing.kind, missing.ip) == (drift.HOST_ROUTE, even.ip)


def test_a_pod_in_the_hosts_own_namespace_has_the_address_as_a_local_one() -> None:
    local = route("10.1.0.7/32", POD_INDEX, kind=RTN_LOCAL)
    found = replace(RIGHT, host=replace(HOST, routes=(local,)))
    assert drift.differences(EXPECTED, found) == []
    assert [each.kind for each in drift.of_host(EXPECTED, found.host)] == [drift.HOST_ROUTE]


def test_of_several_routed_addresses_the_ones_without_a_route_are_named() -> None:
    second = ip_interface("10.1.0.9/16")
    expected = replace(EXPECTED, addresses=(ADDRESS, second), routed=(ADDRESS, second))
    found = FoundHost(HOST_LINK, (route("10.1.0.7/32", HOST_INDEX), None))
    assert [(each.kind, each.ip) for each in drift.of_host(expected, found)] == [
        (drift.HOST_ROUTE, second.ip)
    ]


@pytest.mark.parametrize(
    ("there", "has"),
    [
        ((), "none"),
        ((LinkAddress(POD_INDEX, ADDRESS.ip, 32),), "10.1.0.7/32"),
        ((LinkAddress(POD_INDEX + 1, ADDRESS.ip, 16),), "none"),
        (
            (
                LinkAddress(POD_INDEX, IPv4Address("10.1.0.9"), 16),
                LinkAddress(POD_INDEX, IPv4Address("10.1.0.8"), 24),
            ),
            "10.1.0.8/24, 10.1.0.9/16",
        ),
    ],
)
def test_the_pods_interface_has_the_address_with_its_prefix(there: tuple[LinkAddress, ...], has: str) -> None:
    text = f"address 10.1.0.7/16 is missing on eth0 (it has {has})"
    found = replace(RIGHT, pod_addresses=there)
    assert drift.differences(EXPECTED, found) == [Difference(drift.POD_ADDRESS, text, ADDRESS.ip)]


@pytest.mark.parametrize(
    ("left", "missing"),
    [
        ((), ["route to 169.254.1.1/32 over", "route to 0.0.0.0/0 via 169.254.1.1 over"]),
        (RIGHT.pod_routes[:1], ["route to 0.0.0.0/0 via 169.254.1.1 over"]),
        (RIGHT.pod_routes[1:], ["route to 169.254.1.1/32 over"]),
        (
            tuple(replace(each, index=POD_INDEX + 1) for each in RIGHT.pod_routes),
            ["route to 169.254.1.1/32 over", "route to 0.0.0.0/0 via 169.254.1.1 over"],
        ),
    ],
)
def test_the_pods_own_routes_lead_over_its_own_interface(
    left: tuple[KernelRoute, ...], missing: list[str]
) -> None:
    found = drift.differences(EXPECTED, replace(RIGHT, pod_routes=left))
    assert [each.text for each in found] == [f"{each} eth0 is missing in the pod" for each in missing]
    assert {each.kind for each in found} == {drift.POD_ROUTE}


def test_routes_of_later_plugins_may_lead_over_any_interface() -> None:
    expected = replace(
        EXPECTED, routes=(*IPV4.routes, (ip_network("10.9.0.0/16"), None), (ip_network("10.8.0.0/16"), None))
    )
    found = replace(RIGHT, pod_routes=(*RIGHT.pod_routes, route("10.9.0.0/16", POD_INDEX + 1)))
    assert drift.differences(expected, found) == [
        Difference(drift.POD_ROUTE, "route to 10.8.0.0/16 is missing in the pod")
    ]


def test_a_route_that_every_pod_needs_is_missed_once_though_prev_result_names_it_too() -> None:
    expected = replace(EXPECTED, routes=IPV4.routes)
    assert kinds(expected, replace(RIGHT, pod_routes=RIGHT.pod_routes[:1])) == [drift.POD_ROUTE]


@pytest.mark.parametrize(
    ("known", "has"),
    [
        ((), "there is none"),
        ((replace(GATEWAY, state=REACHABLE),), f"it is {HOST_MAC}"),
        ((replace(GATEWAY, mac="02:00:00:00:00:01"),), "it is 02:00:00:00:00:01"),
        ((replace(GATEWAY, mac=""),), "it is unresolved"),
        ((replace(GATEWAY, index=POD_INDEX + 1),), "there is none"),
        ((replace(GATEWAY, ip=IPv4Address("169.254.1.2")),), "there is none"),
    ],
)
def test_the_gateway_is_a_permanent_neighbour_on_the_pods_interface(
    known: tuple[Neighbour, ...], has: str
) -> None:
    text = f"permanent neighbour 169.254.1.1 with MAC {HOST_MAC} is missing in the pod ({has})"
    found = replace(RIGHT, pod_neighbours=known)
    assert drift.differences(EXPECTED, found) == [Difference(drift.POD_NEIGHBOUR, text)]


def test_where_a_later_plugin_changed_the_mac_the_gateway_may_be_learned() -> None:
    """The kernel flushes permanent neighbours of a link whose MAC changes."""
    other = "02:00:00:00:00:99"
    found = replace(with_pod(mac=other), pod_neighbours=())
    assert kinds(replace(EXPECTED, pod_mac=other), found) == []
    assert kinds(replace(EXPECTED, pod_mac=""), with_pod()) == []
    assert kinds(replace(EXPECTED, pod_mac=""), replace(RIGHT, pod_neighbours=())) == [drift.POD_NEIGHBOUR]


def test_a_pod_with_ipv6_needs_the_routes_and_the_gateway_of_both_families() -> None:
    six = IPv6Interface("fd00::7/64")
    expected = replace(EXPECTED, addresses=(ADDRESS, six), routed=(ADDRESS, six))
    host = replace(
        HOST,
        link=replace(HOST_LINK, has_ipv6=True),
        routes=(*HOST.routes, route("fd00::7/128", HOST_INDEX)),
    )
    found = replace(
        RIGHT,
        host=host,
        pod_addresses=(*RIGHT.pod_addresses, LinkAddress(POD_INDEX, six.ip, 64)),
        pod_routes=(
            *RIGHT.pod_routes,
            route("fe80::1/128", POD_INDEX),
            route("::/0", POD_INDEX, "fe80::1"),
        ),
        pod_neighbours=(GATEWAY, Neighbour(POD_INDEX, IPV6.gateway, HOST_MAC, NUD_PERMANENT)),
    )
    assert drift.differences(expected, found) == []
    four = replace(found, pod_routes=RIGHT.pod_routes, pod_neighbours=RIGHT.pod_neighbours)
    assert kinds(expected, four) == [drift.POD_ROUTE, drift.POD_ROUTE, drift.POD_NEIGHBOUR]


def ipv6_conf(*but: int) -> bytes:
    """IFLA_INET6_CONF of a host veth as it was made; the settings of these numbers are others."""
    values = [7] * 64
    for _, number, value in HOST_IPV6:
        if number >= 0:
            values[number] = int(value) + (number in but)
    return struct.pack("=64i", *values)


SIX_ONLY = replace(EXPECTED, routed=(IPv6Interface("fd00::7/64"),))
KNOWN = [(key, number) for key, number, _ in HOST_IPV6 if number >= 0]


def with_ipv6(**changed: object) -> FoundHost:
    link = replace(HOST_LINK, **{"has_ipv6": True, "ipv6_conf": ipv6_conf(), **changed})
    return FoundHost(link, (route("fd00::7/128", HOST_INDEX),))


def test_a_host_veth_of_a_pod_with_ipv6_has_ipv6() -> None:
    assert list(drift.of_host(SIX_ONLY, with_ipv6())) == []
    (missing,) = drift.of_host(SIX_ONLY, with_ipv6(has_ipv6=False))
    assert (missing.kind, missing.text) == (
        drift.HOST_IPV6,
        f"host veth {NAMES.host_ifname} has no IPv6",
    )


@pytest.mark.parametrize(("key", "number"), KNOWN)
def test_each_setting_of_ipv6_on_a_host_veth_counts(key: str, number: int) -> None:
    (changed,) = drift.of_host(SIX_ONLY, with_ipv6(ipv6_conf=ipv6_conf(number)))
    assert changed.kind == drift.HOST_IPV6
    assert f"net.ipv6.conf.{NAMES.host_ifname}.{key} is not" in changed.text


def test_settings_that_the_kernel_does_not_tell_are_no_difference() -> None:
    assert list(drift.of_host(SIX_ONLY, with_ipv6(ipv6_conf=b""))) == []


def test_where_prev_result_names_no_address_the_routes_of_ipv4_are_needed() -> None:
    expected = replace(EXPECTED, addresses=(), routed=())
    found = replace(RIGHT, host=FoundHost(HOST_LINK), pod_routes=())
    assert kinds(expected, found) == [drift.POD_ROUTE, drift.POD_ROUTE]


def test_causes_come_before_consequences() -> None:
    found = replace(
        RIGHT,
        host=FoundHost(replace(HOST_LINK, flags=0), (None,)),
        pod_link=replace(POD_LINK, flags=0),
        pod_addresses=(),
    )
    assert kinds(EXPECTED, found) == [drift.POD_DOWN, drift.POD_ADDRESS, drift.HOST_DOWN, drift.HOST_ROUTE]


def test_all_that_is_found_on_the_host_is_put_back_but_a_link_that_is_gone() -> None:
    ruined = replace(
        HOST_LINK, flags=0, mac="", alt_names=(), group=0, ipv4_settings=(), has_ipv6=True, mtu=9000
    )
    found = {each.kind for each in drift.of_host(EXPECTED, FoundHost(ruined, (None,)))}
    assert found == set(drift.PUT_BACK)


def test_what_the_store_knows_of_an_endpoint_is_its_address_and_where_it_is_routed() -> None:
    attachment = Attachment("c1", "eth0")
    owner = Owner("azvnet", pod_namespace="default", pod_name="web")
    gateway = IPv4Address("10.1.0.1")
    reservation = Reservation(attachment, owner, ADDRESS, gateway, "auto", 0.0, confirmed=True, generation="")
    own = (ip_interface(ADDRESS.ip),)
    expected = drift.expected_of(reservation)
    assert expected == Expected(NAMES, "eth0", own, routed=own, former=(ADDRESS,))


def test_pod_that_an_earlier_version_made_has_the_prefix_length_of_its_subnet() -> None:
    as_made = replace(EXPECTED, addresses=(ip_interface(ADDRESS.ip),), former=(ADDRESS,))
    assert list(drift.of_pod(as_made, RIGHT)) == []
    other = ip_interface(f"{ADDRESS.ip}/24")
    (found,) = drift.of_pod(replace(as_made, former=(other,)), RIGHT)
    assert found.text == f"address {ADDRESS.ip}/32 is missing on eth0 (it has {ADDRESS})"
