"""Which NIC a configuration names: each condition, several together, and where none or too many fit."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

import pytest

from cni_plugin.addresses.named_nic import named_nic
from cni_plugin.cni.errors import InvalidNetconf, UplinkUnclear
from cni_plugin.cni.netconf import NetConf, parse_netconf
from cni_plugin.host.traffic import IMDS
from cni_plugin.kernel import encode
from cni_plugin.kernel.decode import Link
from ipam.mac import ANY_NIC
from ipam.model import ListedNic
from tests.unit.kernel_table import Kept, KernelTable, route_over

ONE, TWO, THREE = (f"00:0d:3a:00:00:0{number}" for number in (1, 2, 3))


def netconf(master: str = "", **ipam: Any) -> NetConf:
    document: dict[str, Any] = {"cniVersion": "1.1.0", "name": "azure", "type": "azvnet"}
    return parse_netconf(
        {
            **document,
            "ipam": {"type": "azvnet-ipam", **ipam},
            **({"master": master} if master else {}),
        }
    )


def nic(mac: str, *subnets: str, primary: bool | None = None) -> ListedNic:
    return ListedNic(mac, primary, (), tuple(map(ip_network, subnets)), None)


def link(index: int, name: str, mac: str, **more: Any) -> Link:
    return Link(index=index, name=name, mac=mac, mtu=1500, flags=1, **more)


NICS = (
    nic(ONE, "10.0.0.0/24", "fd00::/64", primary=True),
    nic(TWO, "10.0.1.0/24", primary=False),
    nic(THREE, "10.0.2.0/24", primary=False),
)
UNTOLD = (nic(ONE, "10.0.0.0/24"), nic(TWO, "10.0.1.0/24"))
"""As IMDS lists them."""


@pytest.fixture
def kernel() -> KernelTable:
    return KernelTable(
        link(1, "lo", ""),
        link(2, "eth0", ONE),
        link(3, "eth1", TWO, alt_names=("pods-Blue", "slot1")),
        link(4, "data0", THREE),
        link(5, "enP1", TWO, master=3),
    )


def named(conf: NetConf, kernel: KernelTable, nics: tuple[ListedNic, ...] = NICS) -> str:
    return named_nic(conf, lambda: nics, kernel.node)


@pytest.mark.parametrize(
    ("conditions", "mac"),
    [
        ({"subnet": "10.0.1.0/24"}, TWO),
        ({"subnet": "10.0.2.128/25"}, THREE),
        ({"subnet": "10.0.2.0/23"}, THREE),
        ({"subnet": "fd00::/48"}, ONE),
        ({"nic": {"primary": True}}, ONE),
        ({"nic": {"link": "data*"}}, THREE),
        ({"nic": {"link": "eth0"}}, ONE),
        ({"nic": {"link": "eth1"}}, TWO),
        ({"nic": {"link": "slot?"}}, TWO),
        ({"nic": {"link": "pods-B*"}}, TWO),
        ({"nic": {"mac": "00-0D-3A-00-00-02"}}, TWO),
        ({"nic": {"primary": False, "link": "eth*"}}, TWO),
        ({"nic": {"primary": False}, "subnet": "10.0.2.0/24"}, THREE),
    ],
    ids=str,
)
def test_the_nic_that_meets_all_conditions_is_named(
    kernel: KernelTable, conditions: dict[str, Any], mac: str
) -> None:
    assert named(netconf(**conditions), kernel) == mac


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"subnet": "10.9.0.0/16"}, "ipam.subnet 10.9.0.0/16 fits none"),
        ({"subnet": "fd99::/64"}, "ipam.subnet fd99::/64 fits none"),
        ({"nic": {"link": "PODS-*"}}, "ipam.nic.link 'PODS-*' fits none"),
        ({"nic": {"link": "enP1"}}, "ipam.nic.link 'enP1' fits none"),
        ({"nic": {"mac": "00:0d:3a:00:00:09"}}, "ipam.nic.mac 00:0d:3a:00:00:09 fits none"),
        (
            {"nic": {"primary": True, "mac": THREE}},
            f"ipam.nic.primary true fits {ONE}; ipam.nic.mac {THREE} fits {THREE}",
        ),
        ({"master": "eth0", "subnet": "10.0.1.0/24"}, f"master eth0 fits {ONE}"),
    ],
    ids=str,
)
def test_where_no_nic_fits_it_is_said_which_fits_what(
    kernel: KernelTable, conditions: dict[str, Any], words: str
) -> None:
    with pytest.raises(UplinkUnclear, match="no NIC fits") as refused:
        named(netconf(**conditions), kernel)
    assert words.replace("'", '"') in str(refused.value).replace("'", '"')
    listed = f"the source lists {ONE} (eth0 10.0.0.0/24 fd00::/64), {TWO} (eth1 10.0.1.0/24), {THREE} (data0"
    assert listed in str(refused.value)


def test_a_vf_that_is_not_enslaved_yet_is_told_from_its_nic_by_its_driver(
    kernel: KernelTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.all_links.append(link(6, "ethVF", ONE))

    def drivers_of(links: Iterable[Link]) -> dict[str, str]:
        return {each.name: "hv_netvsc" if each.name == "eth0" else "mlx5_core" for each in links}

    monkeypatch.setattr("cni_plugin.addresses.way_out.drivers_of", drivers_of)
    assert named(netconf(nic={"link": "eth0"}), kernel) == ONE
    with pytest.raises(UplinkUnclear):
        named(netconf(nic={"link": "ethV*"}), kernel)


def test_where_several_fit_they_are_listed(kernel: KernelTable) -> None:
    del kernel.all_links[2]
    with pytest.raises(UplinkUnclear) as refused:
        named(netconf(nic={"primary": False}), kernel)
    assert f"2 NICs fit the network's configuration, ipam.nic.primary false: {TWO}, {THREE}" in str(
        refused.value
    )
    assert f"{THREE} (data0 10.0.2.0/24)" in str(refused.value)


def test_master_alone_decides_without_the_source(kernel: KernelTable) -> None:
    def listed() -> tuple[ListedNic, ...]:
        raise AssertionError("it is not asked")

    assert named_nic(netconf("eth1"), listed, kernel.node) == TWO


def test_conditions_of_a_nic_that_are_left_out_leave_it_to_master(kernel: KernelTable) -> None:
    assert named(netconf("eth1", nic={}), kernel) == TWO
    assert named(netconf(nic={}), kernel) == ""
    assert named(netconf("eth1", nic={}), kernel, NICS[:1]) == TWO, "as master alone, listed or not"


def test_master_and_a_condition_hold_for_the_same_nic(kernel: KernelTable) -> None:
    assert named(netconf("eth1", subnet="10.0.1.0/24"), kernel) == TWO


def test_before_anything_is_listed_master_is_all_that_is_known(kernel: KernelTable) -> None:
    assert named(netconf(subnet="10.0.1.0/24"), kernel, ()) == ""
    assert named(netconf("eth1", subnet="10.0.1.0/24"), kernel, ()) == TWO


def test_addresses_of_any_nic_are_those_of_the_one_that_is_named(kernel: KernelTable) -> None:
    any_nic = (nic(ANY_NIC, "10.0.1.0/24"),)
    assert named(netconf("eth1", subnet="10.0.1.0/24"), kernel, any_nic) == TWO
    assert named(netconf(subnet="10.0.1.0/24"), kernel, any_nic) == ""


def test_where_the_source_does_not_say_which_is_primary_it_is_that_by_which_imds_is_reached(
    kernel: KernelTable,
) -> None:
    to_imds = encode.get_route(IMDS.network_address)
    kernel.route(to_imds, route_over(3, dst=IMDS))
    assert named(netconf(nic={"primary": True}), kernel, UNTOLD) == TWO
    assert named(netconf(nic={"primary": False}), kernel, UNTOLD) == ONE
    for answer in (OSError("prohibited"), route_over(99, dst=IMDS)):
        kernel.route(to_imds, answer)
        with pytest.raises(UplinkUnclear, match="no route to IMDS"):
            named(netconf(nic={"primary": True}), kernel, UNTOLD)
    kernel.answers.clear()
    with pytest.raises(UplinkUnclear, match="no route to IMDS"):
        named(netconf(nic={"primary": True}), kernel, UNTOLD)


def test_the_only_nic_is_the_primary_one_whatever_the_source_says_of_it(kernel: KernelTable) -> None:
    assert named(netconf(nic={"primary": True}), kernel, UNTOLD[:1]) == ONE


def test_a_source_that_tells_of_one_nic_that_it_is_secondary_is_believed(kernel: KernelTable) -> None:
    told = (nic(ONE, "10.0.0.0/24"), nic(TWO, "10.0.1.0/24", primary=False))
    assert named(netconf(nic={"primary": True}), kernel, told) == ONE


def test_a_subnet_that_is_none_is_refused(kernel: KernelTable) -> None:
    with pytest.raises(InvalidNetconf):
        named(netconf(subnet="10.0.0.0/240"), kernel)


@pytest.mark.parametrize("condition", [{"link": "eth1"}, {"primary": True}], ids=str)
def test_an_agent_asks_the_kernel_once(kernel: KernelTable, condition: dict[str, Any]) -> None:
    kernel.known_host = Kept()
    kernel.route(encode.get_route(IMDS.network_address), route_over(3, dst=IMDS))
    assert named(netconf(nic=condition), kernel, UNTOLD) == TWO
    asked = kernel.asked
    assert named(netconf(nic=condition), kernel, UNTOLD) == TWO
    assert kernel.asked == asked > 0
    other = (nic(ONE, "10.0.0.0/24"), nic(THREE, "10.0.2.0/24"))
    assert named(netconf(nic={"link": "data0"}), kernel, other) == THREE, "other NICs are another question"
