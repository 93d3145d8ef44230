"""By which NIC packets of pods leave, from what the kernel answers: links, routes and rules as a table."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from cni_plugin.addresses import way_out
from cni_plugin.addresses.way_out import BEYOND, BEYOND_V6
from cni_plugin.cni.errors import UplinkUnclear
from cni_plugin.cni.netconf import NetConf, parse_netconf
from cni_plugin.kernel import encode, nic_table
from cni_plugin.kernel.decode import KernelRoute, Link, WayOut
from cni_plugin.kernel.rules import RoutingRule
from ipam.mac import ANY_NIC
from ipam.model import Attachment, IPAddress, ListedNic, Owner, Reservation
from tests.unit.kernel_table import Kept, KernelTable, route_over

ONE, TWO, VRF = "00:0d:3a:00:00:01", "00:0d:3a:00:00:02", "02:00:00:00:00:01"
DEFAULT, DEFAULT_V6 = ip_network("0.0.0.0/0"), ip_network("::/0")
FIRST, SECOND = ip_address("10.0.0.9"), ip_address("10.0.1.9")
GATEWAY, V6_GATEWAY = ip_address("10.0.0.1"), ip_address("fe80::1")


def link(index: int, name: str, mac: str, **more: Any) -> Link:
    return Link(index=index, name=name, mac=mac, flags=1, **{"mtu": 1500, **more})


ETH0, ETH1 = link(2, "eth0", ONE), link(3, "eth1", TWO, mtu=9000)
TUNNEL, VIRTUAL, IN_VRF, OF_VRF = (
    link(4, "tun0", ""),
    link(5, "enP1", ONE, master=2),
    link(6, "red0", "00:0d:3a:00:00:03", master=7),
    link(7, "red", VRF),
)


def by(*links: int, kind: int = encode.RTN_UNICAST) -> KernelRoute:
    return route_over(*links, dst=DEFAULT, kind=kind)


def listed(mac: str, example: IPAddress | None, *, primary: bool | None = None) -> ListedNic:
    return ListedNic(mac, primary, (), (), example)


def reservation(ip: str = "10.0.0.9/24", mac: str = ONE, gateway: IPAddress = GATEWAY) -> Reservation:
    address = ip_interface(ip)
    return Reservation(
        Attachment("c1", "eth0"), Owner("azure"), address, gateway, "imds", 0.0, True, "g", mac
    )


def netconf(master: str = "") -> NetConf:
    document: dict[str, Any] = {"cniVersion": "1.1.0", "name": "azure", "type": "azvnet"}
    return parse_netconf({**document, **({"master": master} if master else {})})


@pytest.fixture
def kernel() -> KernelTable:
    return KernelTable(link(1, "lo", ""), ETH0, ETH1, TUNNEL, VIRTUAL, IN_VRF, OF_VRF)


def forwards(kernel: KernelTable, source: IPAddress, came_by: Link, answer: KernelRoute | OSError) -> None:
    """What comes from an address by a link goes where ``answer`` says."""
    kernel.route(encode.get_forwarded_route(BEYOND, source, came_by.index), answer)


# The way out of the node


def test_packets_leave_by_the_link_of_the_route_to_what_is_beyond_the_network(kernel: KernelTable) -> None:
    assert way_out.way_out(kernel.node) == WayOut(None, by_sender=False)
    kernel.route(encode.get_route(BEYOND), by(3))
    kernel.rules = [RoutingRule(by_sender=False)]
    assert way_out.way_out(kernel.node) == WayOut(ETH1, by_sender=False)
    kernel.rules += [RoutingRule(by_sender=True)]
    assert way_out.way_out(kernel.node) == WayOut(ETH1, by_sender=True)
    kernel.route(encode.get_route(BEYOND), OSError("prohibited"))
    assert way_out.way_out(kernel.node) == WayOut(None, by_sender=True)


def test_several_links_are_one_way_out_only_where_they_are_one_nic(kernel: KernelTable) -> None:
    kernel.route(encode.get_route(BEYOND), by(99, 2, 5))
    assert way_out.way_out(kernel.node).link == ETH0
    kernel.route(encode.get_route(BEYOND), by(2, 3))
    with pytest.raises(UplinkUnclear, match=rf"several NICs: eth0 \({ONE}\), eth1 \({TWO}\)"):
        way_out.way_out(kernel.node)


# The NIC whose addresses pods may have


def test_where_the_way_out_is_one_for_all_its_nic_is_that_of_pods(kernel: KernelTable) -> None:
    def unread() -> list[ListedNic]:
        raise AssertionError("the source is not asked")

    assert way_out.nic_of_pods(WayOut(ETH1, by_sender=False), unread, kernel.node) == TWO
    assert way_out.nic_of_pods(WayOut(None, by_sender=False), unread, kernel.node) == ""
    with pytest.raises(UplinkUnclear, match="leave by tun0, which is not a NIC"):
        way_out.nic_of_pods(WayOut(TUNNEL, by_sender=False), unread, kernel.node)


BY_SENDER = WayOut(ETH0, by_sender=True)


def of_pods(kernel: KernelTable, *nics: ListedNic, out: WayOut = BY_SENDER) -> str:
    return way_out.nic_of_pods(out, lambda: nics, kernel.node)


def test_where_it_depends_on_the_address_the_nic_is_one_that_its_own_addresses_leave_by(
    kernel: KernelTable,
) -> None:
    first, second = listed(ONE, FIRST), listed(TWO, SECOND)
    forwards(kernel, FIRST, ETH0, by(3))
    forwards(kernel, SECOND, ETH1, by(3))
    assert of_pods(kernel, first, second) == TWO
    assert of_pods(kernel, first, second, out=WayOut(None, by_sender=True)) == TWO
    forwards(kernel, FIRST, ETH0, by(2))
    assert of_pods(kernel, first, second) == ONE, "of several, that of the way out"
    assert of_pods(kernel, listed(ONE, None), second) == TWO, "what has no address can't be asked about"


def test_of_several_nics_none_of_which_is_the_way_out_the_primary_one_is_taken(kernel: KernelTable) -> None:
    forwards(kernel, FIRST, ETH0, by(2))
    forwards(kernel, SECOND, ETH1, by(3))
    out = WayOut(None, by_sender=True)
    first, second = listed(ONE, FIRST, primary=False), listed(TWO, SECOND, primary=True)
    assert of_pods(kernel, first, second, out=out) == TWO
    with pytest.raises(UplinkUnclear, match=f"several of the NICs {ONE}, {TWO} would carry"):
        of_pods(kernel, first, listed(TWO, SECOND), out=out)


def test_where_no_nic_carries_what_its_addresses_send_that_is_said(kernel: KernelTable) -> None:
    for answer in (by(3), by()):
        forwards(kernel, FIRST, ETH0, answer)
        with pytest.raises(UplinkUnclear, match=f"none of the NICs {ONE} would carry"):
            of_pods(kernel, listed(ONE, FIRST))


def test_without_an_address_to_ask_about_it_is_not_known(kernel: KernelTable) -> None:
    assert of_pods(kernel) == ""
    assert of_pods(kernel, listed(ONE, None)) == ""


def test_addresses_of_any_nic_are_those_of_the_way_out(kernel: KernelTable) -> None:
    forwards(kernel, FIRST, ETH0, by(3))
    assert of_pods(kernel, listed(ANY_NIC, FIRST)) == ONE
    with pytest.raises(UplinkUnclear, match="none of the NICs"):
        of_pods(kernel, listed(ANY_NIC, FIRST), out=WayOut(None, by_sender=True))


# An address that has been chosen


@pytest.mark.parametrize("mac", [ONE, ANY_NIC, ""], ids=["own", "any", "unknown"])
def test_an_address_that_leaves_by_its_nic_is_fine(kernel: KernelTable, mac: str) -> None:
    forwards(kernel, FIRST, ETH0, by(2))
    way_out.require_own_nic(reservation(mac=mac), BY_SENDER, kernel.node)


def test_an_address_that_leaves_by_another_link_or_by_none_is_refused(kernel: KernelTable) -> None:
    for answer, words in (
        (by(3), rf"10\.0\.0\.9 leaves by eth1 \({TWO}\), not by its NIC {ONE}"),
        (by(4), r"leaves by tun0 \(no MAC\)"),
        (by(), "leaves by no link"),
        (OSError("prohibited"), "leaves by no link"),
    ):
        forwards(kernel, FIRST, ETH0, answer)
        with pytest.raises(UplinkUnclear, match=words):
            way_out.require_own_nic(reservation(), BY_SENDER, kernel.node)


def test_what_leaves_by_nothing_and_what_is_ipv6_is_not_asked_about(kernel: KernelTable) -> None:
    way_out.require_own_nic(reservation(), WayOut(None, by_sender=True), kernel.node)
    way_out.require_own_nic(reservation("fd00::9/64"), BY_SENDER, kernel.node)


def test_a_packet_that_a_source_check_refuses_is_asked_about_by_the_link_that_leads_back(
    kernel: KernelTable,
) -> None:
    forwards(kernel, FIRST, ETH0, OSError("martian"))
    kernel.route(encode.get_route(FIRST), by(3))
    forwards(kernel, FIRST, ETH1, by(2))
    assert way_out.leaves_by(ETH0, FIRST, BEYOND, kernel.node)
    for back in (by(3, kind=encode.RTN_UNICAST + 1), by(2), OSError("no")):
        kernel.route(encode.get_route(FIRST), back)
        assert not way_out.leaves_by(ETH0, FIRST, BEYOND, kernel.node)


def test_a_route_over_a_link_is_one_over_that_link_alone(kernel: KernelTable) -> None:
    for answer, found in ((by(2), True), (by(3), False), (by(2, 3), False)):
        forwards(kernel, FIRST, ETH0, answer)
        assert way_out.route_by(ETH0, FIRST, BEYOND, kernel.node) == (answer if found else None)
        assert way_out.leaves_by(ETH0, FIRST, BEYOND, kernel.node) is found


# IPv6 routers


def test_the_router_of_a_link_is_that_of_the_default_route_over_it(kernel: KernelTable) -> None:
    request = nic_table.get_route_over(BEYOND_V6, 2)
    assert way_out.router_of(ETH0, kernel.node) is None
    for links, router in ((2,), V6_GATEWAY), ((3,), None), ((2, 3), None):
        kernel.route(request, route_over(*links, dst=DEFAULT_V6, gateway=V6_GATEWAY))
        assert way_out.router_of(ETH0, kernel.node) == router
    kernel.route(request, OSError("prohibited"))
    assert way_out.router_of(ETH0, kernel.node) is None


@pytest.mark.parametrize(
    ("routes", "elsewhere"),
    [
        ([], False),
        ([by(2)], False),
        ([by(2), by(3)], True),
        ([by(2, 3)], True),
        ([by(3, kind=encode.RTN_UNICAST + 1)], False),
    ],
    ids=str,
)
def test_routers_on_other_links_are_noticed(
    kernel: KernelTable, routes: list[KernelRoute], elsewhere: bool
) -> None:
    kernel.defaults = routes
    assert way_out.routers_elsewhere(ETH0, kernel.node) is elsewhere


# Links by name and by address


def test_a_master_is_a_link_of_that_name_and_no_lower_link_of_the_same_nic(kernel: KernelTable) -> None:
    assert way_out.named_link("eth1", kernel.node) == ETH1
    assert way_out.named_link("red0", kernel.node) == IN_VRF, "a VRF has another MAC"
    with pytest.raises(UplinkUnclear, match="master enP1 is a lower link of eth0"):
        way_out.named_link("enP1", kernel.node)
    with pytest.raises(UplinkUnclear, match="master eth9 does not exist"):
        way_out.named_link("eth9", kernel.node)


def test_the_longest_name_that_a_link_can_have_is_looked_for_and_no_longer_one(kernel: KernelTable) -> None:
    longest = link(8, "e" * 15, TWO)
    kernel.all_links.append(longest)
    assert way_out.named_link("e" * 15, kernel.node) == longest
    with pytest.raises(UplinkUnclear, match="does not exist"):
        way_out.named_link("e" * 16, kernel.node)


def test_the_link_of_an_address_is_that_by_which_its_gateway_is_reached(kernel: KernelTable) -> None:
    kernel.route(encode.get_route(GATEWAY), by(2))
    assert way_out.find_uplink(reservation(), netconf(), kernel.node) == ETH0
    assert kernel.asked == 2, "the route and its link, and not all links"
    for mac in (ANY_NIC, ""):
        kernel.route(encode.get_route(GATEWAY), by(3))
        assert way_out.find_uplink(reservation(mac=mac), netconf(), kernel.node) == ETH1


def test_the_link_of_an_address_is_found_by_its_mac_where_its_gateway_is_elsewhere(
    kernel: KernelTable,
) -> None:
    for answer in (by(2), by(99), OSError):
        if isinstance(answer, KernelRoute):
            kernel.route(encode.get_route(GATEWAY), answer)
        else:
            kernel.answers.clear()
        assert way_out.find_uplink(reservation(mac=TWO), netconf(), kernel.node) == ETH1


def test_a_gateway_that_is_the_same_on_every_link_says_nothing_and_the_way_out_does(
    kernel: KernelTable,
) -> None:
    kernel.route(encode.get_route(BEYOND), by(3))
    kernel.route(encode.get_route(V6_GATEWAY), by(2))
    both = reservation("fd00::9/64", ANY_NIC, V6_GATEWAY)
    assert way_out.find_uplink(both, netconf(), kernel.node) == ETH1


def test_the_link_that_is_named_as_master_comes_before_all(kernel: KernelTable) -> None:
    kernel.route(encode.get_route(GATEWAY), by(2))
    assert way_out.find_uplink(reservation(), netconf("eth1"), kernel.node) == ETH1
    assert way_out.uplink_mtu(reservation(), netconf("eth1"), kernel.node) == 9000
    assert way_out.any_uplink(ONE, netconf("eth1"), kernel.node) == ETH1


def test_an_address_of_no_known_nic_has_no_link_where_nothing_leads_to_its_gateway(
    kernel: KernelTable,
) -> None:
    with pytest.raises(UplinkUnclear, match="none is known"):
        way_out.uplink_mtu(reservation(mac=""), netconf(), kernel.node)


def test_of_two_links_that_may_be_the_nic_the_driver_tells_which_it_is(
    kernel: KernelTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.all_links += [link(8, "ethVF", ONE), link(9, "none-such", ONE, master=2)]
    drivers = {"eth0": "hv_netvsc", "ethVF": "mlx5_core", "eth1": "hv_netvsc"}

    def readlink(path: str) -> str:
        name = path.removeprefix("/sys/class/net/").removesuffix("/device/driver")
        if name not in drivers:
            raise FileNotFoundError(path)
        return f"../../../../bus/some/drivers/{drivers[name]}"

    monkeypatch.setattr("cni_plugin.addresses.way_out.os.readlink", readlink)
    assert way_out.drivers_of(kernel.all_links) == drivers
    assert way_out.any_uplink(ONE, netconf(), kernel.node) == ETH0
    drivers["ethVF"] = "hv_netvsc"
    with pytest.raises(UplinkUnclear, match="2 links carry"):
        way_out.any_uplink(ONE, netconf(), kernel.node)


def test_an_agent_asks_the_kernel_once_for_each_question(kernel: KernelTable) -> None:
    kernel.known_host = Kept()
    kernel.route(encode.get_route(BEYOND), by(3))
    kernel.route(encode.get_route(GATEWAY), by(2))
    asked: list[int] = []
    for _ in range(2):
        assert way_out.way_out(kernel.node).link == ETH1
        assert way_out.uplink_mtu(reservation(), netconf(), kernel.node) == 1500
        assert way_out.uplink_mtu(reservation(), netconf("eth1"), kernel.node) == 9000
        assert way_out.uplink_mtu(reservation(mac=TWO), netconf(), kernel.node) == 9000
        asked.append(kernel.asked)
    assert asked[0] == asked[1] > 0
