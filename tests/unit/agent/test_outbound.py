"""Which destinations see pods' own addresses: what the cloud, the files and the settings say together."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.agent.outbound import Outbound
from cni_plugin.agent.settings import Settings
from cni_plugin.host import traffic
from cni_plugin.host.traffic import RFC_1918, Traffic
from ipam.model import Listing, Nic, PoolAddress
from ipam.value import replace

SUBNET = IPv4Network("100.64.0.0/16")
NIC = Nic("00:0d:3a:00:00:01", True, (IPv4Address("100.64.0.4"),), (), (SUBNET,))
KNOWN = Listing("imds", (NIC,))
VNET = (IPv4Network("100.64.0.0/10"), IPv4Network("10.20.0.0/16"), IPv6Network("fd00::/48"))


def decide(run_dir: Path, listings: Sequence[Listing] = (KNOWN,), **masquerade: Any) -> Traffic:
    """The decision, after which nothing is to be complained of."""
    settings = Settings.of({"masquerade": {"file": f"{run_dir}/ip-masq*", **masquerade}})
    assert Outbound(run_dir, lambda: listings).decide(settings.outbound) == []
    decided = traffic.read_decision(run_dir)
    assert decided is not None
    return decided


def inside(run_dir: Path, listings: Sequence[Listing] = (KNOWN,), **masquerade: Any) -> set[str]:
    return {str(each) for each in decide(run_dir, listings, **masquerade).non_masquerade}


def test_without_the_address_space_it_is_rfc_1918_and_the_nics_own_subnets(tmp_path: Path) -> None:
    assert inside(tmp_path) == {*map(str, RFC_1918), str(SUBNET)}


def test_the_address_space_of_network_and_peerings_replaces_the_guess(tmp_path: Path) -> None:
    assert inside(tmp_path, [Listing("arm", (NIC,), inside=VNET)]) == {*map(str, VNET)}


def test_a_file_replaces_the_guess_and_adds_to_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "ip-masq-agent").write_text("nonMasqueradeCIDRs: [192.168.0.0/24]\n")
    assert inside(tmp_path) == {"192.168.0.0/24", str(SUBNET)}
    known = [Listing("arm", (NIC,), inside=VNET)]
    assert inside(tmp_path, known) == {*map(str, VNET), "192.168.0.0/24"}


def test_ipv6_has_unique_local_addresses_and_the_subnets_of_what_is_listed(tmp_path: Path) -> None:
    """IMDS lists IPv6 addresses without their subnet, which is a /64 on Azure."""
    given = PoolAddress(IPv6Interface("2001:db8:1:2::5/128"), IPv6Address("fe80::1"), NIC.mac)
    listed = Listing("imds", (replace(NIC, addresses=(given,)),))
    assert inside(tmp_path, [listed]) == {*map(str, RFC_1918), str(SUBNET), "2001:db8:1:2::/64", "fc00::/7"}
    assert decide(tmp_path, [listed]).pool == (IPv6Network("2001:db8:1:2::5/128"),)


def test_a_file_says_whether_link_local_ipv6_leaves_with_the_nodes_address(tmp_path: Path) -> None:
    assert not decide(tmp_path, [KNOWN]).link_local_v6
    (tmp_path / "ip-masq-agent").write_text("masqLinkLocalIPv6: true\n")
    assert decide(tmp_path, [KNOWN]).link_local_v6


def test_settings_add_to_everything(tmp_path: Path) -> None:
    assert "198.18.0.0/15" in inside(tmp_path, non_masquerade_cidrs=["198.18.0.0/15"])


@pytest.mark.parametrize(
    ("setting", "file", "together"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_link_local_is_masqueraded_where_either_says_so(
    tmp_path: Path, setting: bool, file: bool, together: bool
) -> None:
    (tmp_path / "ip-masq-agent").write_text(f"masqLinkLocal: {str(file).lower()}\n")
    assert decide(tmp_path, link_local=setting).link_local is together


def test_a_file_that_is_not_valid_changes_nothing_and_is_named(tmp_path: Path) -> None:
    before = decide(tmp_path, random_fully=True)
    (tmp_path / "ip-masq-agent").write_text("nonMasqueradeCIDRs: [10.1.0.1/16]\n")
    settings = Settings.of({"masquerade": {"file": f"{tmp_path}/ip-masq*"}})
    (said,) = Outbound(tmp_path, lambda: [KNOWN]).decide(settings.outbound)
    assert f"{tmp_path}/ip-masq-agent is not valid, the rules stay as they are" in said
    assert traffic.read_decision(tmp_path) == before


def test_what_an_earlier_process_decided_holds_until_a_source_was_read(tmp_path: Path) -> None:
    before = decide(tmp_path, [Listing("arm", (NIC,), inside=VNET)])
    assert decide(tmp_path, []) == before


def test_addresses_with_a_public_one_of_their_own_are_known(tmp_path: Path) -> None:
    nic = Nic("00:0d:3a:00:00:01", True, (), (), (SUBNET,), public=(IPv4Address("100.64.0.7"),))
    assert decide(tmp_path, [Listing("imds", (nic,))]).public == (IPv4Address("100.64.0.7"),)


def with_addresses(*addresses: str, public: Sequence[str] | None) -> Nic:
    known = None if public is None else tuple(map(IPv4Address, public))
    given = tuple(
        PoolAddress(IPv4Interface(f"{each}/16"), IPv4Address("100.64.0.1"), NIC.mac) for each in addresses
    )
    return replace(NIC, addresses=given, public=known)


def test_an_address_of_which_nobody_says_whether_it_is_public_stays_as_it_was_and_that_is_said(
    tmp_path: Path,
) -> None:
    """The wireserver, for example, has no public addresses in its document."""
    before = decide(
        tmp_path, [Listing("imds", (with_addresses("100.64.0.7", "100.64.0.8", public=["100.64.0.7"]),))]
    )
    silent = Listing("wireserver", (with_addresses("100.64.0.7", "100.64.0.8", public=None),))
    settings = Settings.of({"masquerade": {"file": f"{tmp_path}/ip-masq*"}})
    for _ in range(2):
        (said,) = Outbound(tmp_path, lambda: [silent]).decide(settings.outbound)
        assert "whether 100.64.0.7 still has a public address is not known" in said
        assert traffic.read_decision(tmp_path) == before


@pytest.mark.parametrize(
    "nic",
    [
        pytest.param(with_addresses("100.64.0.7", public=[]), id="it has none any more"),
        pytest.param(with_addresses("100.64.0.8", public=None), id="the NIC does not have it any more"),
    ],
)
def test_an_address_that_is_known_not_to_be_public_is_masqueraded(tmp_path: Path, nic: Nic) -> None:
    decide(tmp_path, [Listing("imds", (with_addresses("100.64.0.7", public=["100.64.0.7"]),))])
    assert decide(tmp_path, [Listing("imds", (nic,))]).public == ()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"non_masquerade": ["x"]}', "nonsense"])
def test_a_damaged_file_is_no_decision(tmp_path: Path, content: str) -> None:
    (tmp_path / traffic.DECISION).write_text(content)
    (tmp_path / traffic.NETWORKS).write_text(content)
    assert traffic.read_decision(tmp_path) is None
    of_others = traffic.PodNetwork(masqueraded=False)
    assert traffic.note_network("azvnet", of_others, tmp_path)["azvnet"] == of_others
    assert traffic.read_networks(tmp_path)["azvnet"] == of_others
