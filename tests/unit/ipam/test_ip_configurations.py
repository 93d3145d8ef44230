"""The names that the cloud gives to addresses: as the last listing of each source has them, for people."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest

from ipam.ipam import Ipam
from ipam.model import Listing
from ipam.sources.nic import MOST_SUBNETS, Entry, builder, listing
from ipam.value import replace
from tests.unit.ipam.node import ANY, Node, attachment, ips, listing_of, owner, refresh
from tests.unit.ipam.test_store_versions import of_version_1

FIVE, SIX = ips(5, 6)


def named(source: str = "arm", **names: str) -> Listing:
    """A listing of 10.0.0.5 and 10.0.0.6, whose configurations have these names."""
    plain = listing_of(FIVE, SIX, source=source)
    pairs = tuple((IPv4Address(f"10.0.0.{ip[1:]}"), name) for ip, name in names.items())
    return Listing(source, (replace(plain.nics[0], configurations=pairs),))


def test_a_name_is_kept_beside_the_address_held_or_not(node: Node) -> None:
    ipam = node.ready(5, 6)
    ipam.reserve(attachment("a"), owner(), ANY)
    node.says = named(_5="ipconfig2", _6="ipconfig3")
    refresh(ipam)
    assert ipam.configuration_of(FIVE) == "ipconfig2"
    assert ipam.configuration_of(SIX) == "ipconfig3"


def test_the_last_listing_counts(node: Node) -> None:
    ipam = node.ready(5, 6)
    node.says = named(_5="ipconfig2", _6="ipconfig3")
    refresh(ipam)
    node.says = named(_6="renamed")
    refresh(ipam)
    assert (ipam.configuration_of(FIVE), ipam.configuration_of(SIX)) == ("", "renamed")


def test_a_source_without_names_leaves_those_of_another(node: Node) -> None:
    ipam = node.ready(5, 6)
    node.says = named(_5="ipconfig2")
    refresh(ipam)
    node.says = named("imds")
    refresh(ipam)
    assert ipam.configuration_of(FIVE) == "ipconfig2"


def test_a_store_of_the_first_version_gets_the_table(node: Node) -> None:
    of_version_1(node)
    view = Ipam(
        node.run_dir, boot_id_file=node.boot_id_file, clock=node.clock, wall_clock=node.wall, read_only=True
    )
    assert view.configuration_of(FIVE) == "", "looking does not change the file, and finds no name"
    ipam = node.process()
    node.says = named(_5="ipconfig2")
    refresh(ipam)
    assert ipam.configuration_of(FIVE) == "ipconfig2"
    assert [each.ip for each in ipam.held_by(attachment("pod-1"))] == [FIVE]


def test_every_address_of_a_block_has_the_name_of_its_configuration() -> None:
    warnings: list[str] = []
    built = builder("00:0d:3a:00:00:01", True, warnings)
    assert built is not None
    subnet = ip_network("10.0.0.0/16")
    built.add(Entry("10.0.0.4", own=True, configuration="primary"), [subnet])
    built.add(Entry("10.0.1.16/28", own=False, configuration="block"), [subnet])
    built.add(Entry("10.0.0.9", own=False), [subnet])
    names = dict(listing("arm", [built.nic()], warnings, b"").nics[0].configurations)
    assert len(names) == 1 + 16
    assert {name for ip, name in names.items() if ip in ip_network("10.0.1.16/28")} == {"block"}
    assert names[IPv4Address("10.0.0.4")] == "primary"
    assert not warnings


def test_a_nic_has_so_many_subnets_and_what_is_not_one_is_named() -> None:
    warnings: list[str] = []
    built = builder("00:0d:3a:00:00:01", True, warnings)
    assert built is not None
    assert built.add_subnet("here") is None
    assert "subnet 'here'" in warnings.pop()
    every = [built.add_subnet(f"10.{number}.0.1/16") for number in range(MOST_SUBNETS + 1)]
    assert every == [*(ip_network(f"10.{number}.0.0/16") for number in range(MOST_SUBNETS)), None]
    assert f"subnet 10.{MOST_SUBNETS}.0.0/16" in warnings[0]
    assert f"more than {MOST_SUBNETS}" in warnings[0]


@pytest.mark.parametrize(
    ("of_4", "of_6", "words"), [(256, 256, ""), (257, 1, " IP configurations;"), (1, 257, " of IPv6;")]
)
def test_the_limit_of_a_nic_is_one_of_each_family(of_4: int, of_6: int, words: str) -> None:
    warnings: list[str] = []
    built = builder("00:0d:3a:00:00:01", True, warnings)
    assert built is not None
    subnets = [ip_network("10.0.0.0/16"), ip_network("fd00::/64")]
    for number in range(of_4):
        built.add(Entry(f"10.0.1.{number}" if number < 256 else "10.0.2.0", own=False), subnets)
    for number in range(of_6):
        built.add(Entry(f"fd00::{number + 16:x}", own=False), subnets)
    assert len(built.nic().addresses) == min(of_4, 256) + min(of_6, 256)
    assert [words in each for each in warnings] == [True] * bool(words)
    assert all("lists 257" in each for each in warnings)
