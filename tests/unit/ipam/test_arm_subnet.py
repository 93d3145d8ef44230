"""How full a subnet is, asked of the emulated Azure Resource Manager, and of one that answers oddly."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest

from integration.tests.fabric.cloud import Cloud, cloud
from ipam.errors import SourceUnreadable
from ipam.sources.arm_answer import ArmAnswer, NotAnswered
from ipam.sources.arm_subnet import READS, SubnetId, SubnetUsage, subnet_id, usage_of
from ipam.sources.managed_identity import NoToken

VNET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v"
SUBNET = subnet_id(f"{VNET}/subnets/pods")


@pytest.fixture
def azure() -> Iterator[Cloud]:
    with cloud("none", nodes=2, addresses=3, blocks=1, vnet_hosts=0) as made:
        yield made


def usage(azure: Cloud, name: str = "nodes") -> SubnetUsage:
    def ask(method: str, where: str, body: dict[str, Any] | None, _: str) -> ArmAnswer:
        answer = azure.ask(method, where, body)
        return ArmAnswer(answer.status, answer.document, answer.headers)

    return usage_of(subnet_id(azure.subnet_id(name)), ask, "somebody")


def counted(usages: list[dict[str, Any]], **properties: Any) -> SubnetUsage:
    """What is made of these documents."""

    def ask(_: str, where: str, __: dict[str, Any] | None, ___: str) -> ArmAnswer:
        if "/usages" not in where:
            return ArmAnswer(200, {"name": "pods", "properties": properties})
        page = int(where.partition("page=")[2] or 0)
        more = {"nextLink": f"{VNET}/usages?page={page + 1}"} if page + 1 < len(usages) else {}
        return ArmAnswer(200, {"value": usages[page : page + 1], **more})

    return usage_of(SUBNET, ask, "somebody")


def entry(name: str, value: object) -> dict[str, Any]:
    return {"id": f"{VNET}/subnets/{name}", "currentValue": value, "limit": 251.0}


def test_what_is_in_use_is_counted_with_blocks(azure: Cloud) -> None:
    azure.arm.roles.give("reader")
    assert usage(azure) == SubnetUsage("nodes", IPv4Network("10.10.0.0/20"), 2 * (1 + 3 + 16), 0)
    assert usage(azure, "second").elsewhere == 40


def test_exactly_the_named_actions_are_needed(azure: Cloud) -> None:
    azure.arm.roles.give(READS)
    assert usage(azure).used == 40
    for missing in READS:
        azure.arm.roles.give(set(READS) - {missing})
        with pytest.raises(SourceUnreadable, match=missing) as refused:
            usage(azure)
        assert all(action in refused.value.remedy for action in READS)
        assert "--scope /subscriptions/" in refused.value.remedy


def test_a_subnet_that_is_not_there_is_said_so(azure: Cloud) -> None:
    azure.arm.roles.give("reader")
    with pytest.raises(SourceUnreadable, match="404: ResourceNotFound") as refused:
        usage(azure, "elsewhere")
    assert "Check the id" in refused.value.remedy


def test_all_pages_are_read() -> None:
    entries = [entry("Pods", 7.0), entry("web", 5.0), entry("GatewaySubnet", -1.0), entry("bastion", -1.0)]
    assert counted(entries, addressPrefix="10.0.0.0/24") == SubnetUsage(
        "pods", IPv4Network("10.0.0.0/24"), 7, 5, ("bastion", "gatewaysubnet")
    )


def test_an_empty_subnet_has_no_address_in_use() -> None:
    assert counted([entry("pods", 0.0)], addressPrefix="10.0.0.0/24").used == 0


@pytest.mark.parametrize("value", [-1.0, None, "7", float("nan"), float("inf")])
def test_no_count_is_not_none_in_use(value: object) -> None:
    with pytest.raises(SourceUnreadable, match="does not report how many addresses are in use") as refused:
        counted([entry("pods", value)], addressPrefix="10.0.0.0/24")
    assert "--used" in refused.value.remedy


@pytest.mark.parametrize("usages", [[], [entry("web", 3.0)], ["pods"]])
def test_a_list_without_the_subnet_is_not_none_in_use(usages: list[Any]) -> None:
    with pytest.raises(SourceUnreadable, match="does not report how many"):
        counted(usages, addressPrefix="10.0.0.0/24")


@pytest.mark.parametrize("value", [5, "pods", {"pods": 7}, None])
def test_a_count_that_is_not_a_list_is_unknown_and_not_zero(value: object) -> None:
    def ask(_: str, where: str, __: dict[str, Any] | None, ___: str) -> ArmAnswer:
        return ArmAnswer(200, {"value": value} if "/usages" in where else {})

    with pytest.raises(SourceUnreadable, match="does not report how many"):
        usage_of(SUBNET, ask, "somebody")


def test_a_subnet_without_a_name_is_named_by_its_id() -> None:
    def ask(_: str, where: str, __: dict[str, Any] | None, ___: str) -> ArmAnswer:
        if "/usages" in where:
            return ArmAnswer(200, {"value": [entry("pods", 7.0)]})
        return ArmAnswer(200, {"properties": {"addressPrefix": "10.0.0.0/24"}})

    assert usage_of(SUBNET, ask, "somebody").name == "pods"


def test_a_name_is_one_line_that_a_terminal_can_show() -> None:
    def ask(_: str, where: str, __: dict[str, Any] | None, ___: str) -> ArmAnswer:
        if "/usages" in where:
            return ArmAnswer(200, {"value": [entry("pods", 7.0)]})
        return ArmAnswer(200, {"name": "po\x1b[2Jds", "properties": {"addressPrefix": "10.0.0.0/24"}})

    assert usage_of(SUBNET, ask, "somebody").name == r"po\x1b[2Jds"


def test_of_a_dual_stack_subnet_the_ipv4_prefix_counts() -> None:
    found = counted([entry("pods", 7.0)], addressPrefixes=["fd00::/64", "10.0.0.0/24"])
    assert found.prefix == IPv4Network("10.0.0.0/24")


@pytest.mark.parametrize(
    "properties",
    [{}, {"addressPrefix": "x"}, {"addressPrefixes": ["10.0.0.0/24", "10.1.0.0/24"]}, {"addressPrefixes": 5}],
)
def test_a_prefix_that_can_not_be_planned_with_is_refused(properties: dict[str, Any]) -> None:
    with pytest.raises(SourceUnreadable, match="needs exactly one IPv4 prefix"):
        counted([entry("pods", 7.0)], **properties)


def test_properties_that_are_not_an_object_have_no_prefix() -> None:
    def ask(_: str, where: str, __: dict[str, Any] | None, ___: str) -> ArmAnswer:
        return ArmAnswer(200, {"value": [entry("pods", 7.0)]} if "/usages" in where else {"properties": 5})

    with pytest.raises(SourceUnreadable, match="needs exactly one IPv4 prefix"):
        usage_of(SUBNET, ask, "somebody")


@pytest.mark.parametrize(("status", "remedy"), [(401, "try again"), (429, "throttled"), (503, "try again")])
def test_every_refusal_says_what_to_do(status: int, remedy: str) -> None:
    def ask(_: str, __: str, ___: dict[str, Any] | None, ____: str) -> ArmAnswer:
        return ArmAnswer(status, {})

    with pytest.raises(SourceUnreadable, match=f": {status}") as refused:
        usage_of(SUBNET, ask, "somebody")
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoToken("Identity not found"), r"no access token \(somebody\)"),
        (NotAnswered("https://a: no route"), "arm: https://a can't be reached: https://a: no route"),
    ],
)
def test_without_token_or_answer_it_is_said_so(error: Exception, said: str) -> None:
    def ask(_: str, __: str, ___: dict[str, Any] | None, ____: str) -> ArmAnswer:
        raise error

    with pytest.raises(SourceUnreadable, match=said):
        usage_of(SUBNET, ask, "somebody")


def test_an_id_is_taken_apart() -> None:
    assert SubnetId(f"{VNET}/subnets/pods", VNET, "s", "g", "pods") == SUBNET
    assert subnet_id(f" {VNET.upper()}/SUBNETS/pods/ ").group == "G"


@pytest.mark.parametrize(
    "text", ["", "pods", VNET, f"{VNET}/subnets/", f"{VNET}/subnets/a/b", f"x{VNET}/subnets/a"]
)
def test_what_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the resource id of a subnet"):
        subnet_id(text)
