"""IP configurations added to and taken from documents that the real service answered."""

from __future__ import annotations

import copy
import json
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.provision import nic_document
from ipam.provision.nic_document import Document, NotANic, new_names, with_new, without
from tests.unit.ipam.recordings import recorded

CHANGED = recorded("nic-gains-a-configuration")
ATTACHED: Document = recorded("attached-nic")["document"]
INSTANCE: Document = recorded("scale-set-instance")["document"]
ONE, TWO = "azvnet-0000000000000001", "azvnet-0000000000000002"
GROUPS = [{"id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/applicationSecurityGroups/a"}]


def entries(nic: Document) -> list[Document]:
    found: list[Document] = nic["properties"]["ipConfigurations"]
    return found


def without_entries(nic: Document) -> Document:
    left = copy.deepcopy(nic)
    left["properties"]["ipConfigurations"] = []
    return left


def test_what_is_appended_is_what_the_sdk_sent_when_it_was_recorded() -> None:
    made = entries(with_new(CHANGED["before"], [ONE], blocks=False))[-1]
    sent = CHANGED["put"]["properties"]["ipConfigurations"][-1]
    assert made["properties"]["subnet"] == sent["properties"]["subnet"]
    assert sent["properties"].items() <= made["properties"].items()


@pytest.mark.parametrize("nic", [CHANGED["before"], CHANGED["after"], ATTACHED])
def test_everything_else_on_the_nic_stays_byte_for_byte(nic: Document) -> None:
    before = json.dumps(nic)
    grown = with_new(nic, [ONE, TWO], blocks=False)
    assert json.dumps(entries(grown)[:-2]) == json.dumps(entries(nic))
    assert json.dumps(without_entries(grown)) == json.dumps(without_entries(nic))
    assert json.dumps(without(grown, [ONE, TWO])) == json.dumps(nic) == before


@given(
    st.dictionaries(st.text(min_size=1), st.recursive(st.none() | st.integers() | st.text(), st.lists)),
    st.integers(0, 5),
)
def test_what_nobody_here_knows_survives_adding_and_removing(more: dict[str, Any], number: int) -> None:
    nic = copy.deepcopy(ATTACHED)
    for place in (nic, nic["properties"], entries(nic)[0], entries(nic)[0]["properties"]):
        for key, value in more.items():
            place.setdefault(key, value)
    names = new_names(number)
    assert json.dumps(without(with_new(nic, names, blocks=True), names)) == json.dumps(nic)


def test_only_what_we_named_is_removed_whoever_asks() -> None:
    nic = CHANGED["after"]
    others = [each["name"] for each in entries(nic)]
    grown = with_new(nic, [ONE, TWO], blocks=False)
    left = without(grown, [*others, ONE, "azvnet-made-by-hand", "not there"])
    assert [each["name"] for each in entries(left)] == [*others, TWO]


@pytest.mark.parametrize(
    "claim",
    [{"publicIPAddress": {"id": "x"}}, {"loadBalancerBackendAddressPools": [{"id": "x"}]}],
)
def test_what_somebody_attached_something_to_is_not_ours_any_more(claim: Document) -> None:
    grown = with_new(ATTACHED, [ONE, TWO], blocks=False)
    entries(grown)[-1]["properties"] |= claim
    assert [each.name for each in nic_document.configurations(grown) if each.is_ours] == [ONE]
    assert [each["name"] for each in entries(without(grown, [ONE, TWO]))][-1] == TWO


def test_doing_it_again_changes_nothing() -> None:
    grown = with_new(ATTACHED, [ONE], blocks=False)
    assert with_new(grown, [ONE], blocks=False) == grown
    assert without(ATTACHED, [ONE]) == ATTACHED


def test_new_configurations_are_in_the_groups_of_the_primary_one() -> None:
    nic = copy.deepcopy(ATTACHED)
    entries(nic)[0]["properties"]["applicationSecurityGroups"] = GROUPS
    assert (
        entries(with_new(nic, [ONE], blocks=False))[-1]["properties"]["applicationSecurityGroups"] == GROUPS
    )
    assert (
        "applicationSecurityGroups" not in entries(with_new(ATTACHED, [ONE], blocks=False))[-1]["properties"]
    )


def test_a_block_is_asked_for_by_its_length() -> None:
    made = entries(with_new(ATTACHED, [ONE], blocks=True))[-1]["properties"]
    assert made["privateIPAddressPrefixLength"] == 28
    assert (
        "privateIPAddressPrefixLength"
        not in entries(with_new(ATTACHED, [ONE], blocks=False))[-1]["properties"]
    )


def test_the_recorded_nic_is_read() -> None:
    first, second = nic_document.configurations(CHANGED["after"])
    assert (first.name, first.primary, first.is_ours, first.state) == ("primary", True, False, "Succeeded")
    assert second.block == ip_network("10.0.0.7/32")
    assert nic_document.provisioning_state(CHANGED["after"]) == "Succeeded"
    assert nic_document.subnet_of(ATTACHED).endswith("/virtualNetworks/miq-vnet-westus/subnets/default")
    assert nic_document.mac_of(ATTACHED) == "00-0D-3A-58-B8-DB"
    assert nic_document.mac_of(CHANGED["after"]) == "", "no machine, no address"


@pytest.mark.parametrize(
    ("address", "length", "block"),
    [
        ("10.0.0.16/28", 28, "10.0.0.16/28"),
        ("10.0.0.16", 28, "10.0.0.16/28"),
        ("10.0.0.21", 28, "10.0.0.16/28"),
        ("10.0.0.21", None, "10.0.0.21/32"),
    ],
)
def test_a_block_is_understood_however_it_is_written(address: str, length: int | None, block: str) -> None:
    nic = with_new(ATTACHED, [ONE], blocks=False)
    entries(nic)[-1]["properties"] |= {
        "privateIPAddress": address,
        "privateIPAddressPrefixLength": length,
    }
    (found,) = [each for each in nic_document.configurations(nic) if each.is_ours]
    assert found.block == ip_network(block)
    assert len(found.addresses) == ip_network(block).num_addresses


def test_a_configuration_that_is_being_made_has_no_address_yet() -> None:
    assert nic_document.configurations(with_new(ATTACHED, [ONE], blocks=False))[-1].addresses == ()


def test_names_are_ours_alone() -> None:
    names = new_names(100)
    assert len(set(names)) == 100
    assert all(nic_document.named_by_us(name) for name in names)
    assert not any(
        map(nic_document.named_by_us, ("azvnet-", "azvnet-pods", "ipconfig1", f"{ONE}0", f"x{ONE}"))
    )


def test_an_instance_of_a_scale_set_is_sent_without_its_image() -> None:
    grown = nic_document.instance_with_new(INSTANCE, "vmss1", [ONE], blocks=True)
    profile = grown["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"][0]
    primary, made = profile["properties"]["ipConfigurations"]
    assert "primary" not in primary["properties"], "as it was recorded"
    assert made["properties"]["subnet"] == primary["properties"]["subnet"]
    assert made["properties"]["privateIPAddressPrefixLength"] == 28
    assert "imageReference" not in grown["properties"]["storageProfile"]
    assert nic_document.names_of_instance(grown, "VMSS1") == {"vmss1", ONE}
    again = nic_document.instance_without(grown, "vmss1", ["vmss1", ONE])
    assert nic_document.names_of_instance(again, "vmss1") == {"vmss1"}
    expected = copy.deepcopy(INSTANCE)
    del expected["properties"]["storageProfile"]["imageReference"]
    assert json.dumps(again) == json.dumps(expected)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"properties": None},
        {"properties": {"ipConfigurations": None}},
        {"properties": {"ipConfigurations": []}},
        {"properties": {"ipConfigurations": ["x"]}},
        {"properties": {"ipConfigurations": [{"name": "a", "properties": {"primary": True}}]}},
        {"properties": {"ipConfigurations": [{"name": ONE, "properties": {"primary": True, "subnet": {}}}]}},
    ],
)
def test_a_document_that_is_not_a_nic_is_refused(broken: Document) -> None:
    with pytest.raises(NotANic):
        with_new(broken, [TWO], blocks=False)


def test_a_nic_that_an_instance_does_not_have_is_named() -> None:
    with pytest.raises(NotANic, match="eth7"):
        nic_document.instance_with_new(INSTANCE, "eth7", [ONE], blocks=False)


def entry(name: str, **properties: Any) -> Document:
    return {"name": name, "properties": {"subnet": {"id": f"of {name}"}, **properties}}


@pytest.mark.parametrize(
    ("given_entries", "primary"),
    [
        ([entry("a", primary=False), entry("b", primary=True)], "b"),
        ([entry("a"), entry("b", primary=True)], "b"),
        ([entry("a", primary=False), entry("b"), entry("c")], "b"),
        ([entry(ONE, primary=True), entry("b")], "b"),
        ([entry(ONE), entry("b")], "b"),
    ],
)
def test_the_primary_one_says_so_or_is_the_first_that_says_nothing_and_is_never_ours(
    given_entries: list[Document], primary: str
) -> None:
    grown = with_new({"properties": {"ipConfigurations": given_entries}}, [TWO], blocks=False)
    made = entries(grown)[-1]["properties"]
    assert (made["subnet"], made["primary"]) == ({"id": f"of {primary}"}, False)


@pytest.mark.parametrize("others", [[], [entry("a", primary=False)], [entry(ONE)]])
def test_a_nic_without_a_primary_one_is_refused(others: list[Document]) -> None:
    with pytest.raises(NotANic, match="no primary IP configuration"):
        with_new({"properties": {"ipConfigurations": others}}, [TWO], blocks=False)


def test_lengths_of_blocks_come_from_the_instance_where_the_nic_does_not_say() -> None:
    of_instance = [entry(ONE, privateIPAddressPrefixLength=28), entry(TWO)]
    instance: Document = {
        "properties": {
            "networkProfileConfiguration": {
                "networkInterfaceConfigurations": [
                    {"name": "NIC1", "properties": {"ipConfigurations": of_instance}}
                ]
            }
        }
    }
    nic: Document = {"properties": {"ipConfigurations": [entry("a"), entry(ONE), entry(TWO)]}}
    changed = nic_document.with_lengths(nic, instance, "nic1")
    assert [each["properties"].get("privateIPAddressPrefixLength") for each in entries(changed)] == [
        None,
        28,
        None,
    ]
    assert "privateIPAddressPrefixLength" not in entries(nic)[1]["properties"], "a copy"
