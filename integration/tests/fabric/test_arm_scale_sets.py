"""Writing the NICs of Uniform scale sets: through the instance, and what versions of the API make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.fabric.armoperations import Outcome
from integration.fabric.armroles import UNIFORM_WRITER
from integration.fabric.model import State
from integration.tests.fabric.cloud import Answer, Cloud, Document, addresses, cloud

BLOCKS = "2026-04-01"
OLDER = "2025-04-01"


@pytest.fixture
def azure() -> Iterator[Cloud]:
    """Two instances with a primary address and one for pods each: 10.10.0.4 to 10.10.0.7."""
    with cloud("uniform-writer", nodes=2, addresses=1, vnet_hosts=0, placement="uniform") as made:
        yield made


def path(azure: Cloud, instance: str = "0") -> str:
    scale_set = f"{azure.group}/providers/Microsoft.Compute/virtualMachineScaleSets/vmss-fabric"
    return f"{scale_set}/virtualMachines/{instance}"


def instance_of(azure: Cloud, instance: str = "0", version: str = BLOCKS) -> Document:
    answer = azure.ask("GET", path(azure, instance), version=version)
    assert answer.status == 200, answer
    return dict(answer.document)


def configurations(document: Document) -> list[Document]:
    profile = document["properties"]["networkProfileConfiguration"]
    return list(profile["networkInterfaceConfigurations"][0]["properties"]["ipConfigurations"])


def write(
    azure: Cloud,
    edit: Callable[[Document], object],
    instance: str = "0",
    version: str = BLOCKS,
    **headers: Any,
) -> Answer:
    """Read an instance, leave its image out as every client must, edit and write it back."""
    document = instance_of(azure, instance, version)
    del document["properties"]["storageProfile"]["imageReference"]
    edit(document)
    return azure.ask("PUT", path(azure, instance), document, version=version, **headers)


def done(
    azure: Cloud, edit: Callable[[Document], object], instance: str = "0", version: str = BLOCKS
) -> Document:
    answer = write(azure, edit, instance, version)
    assert answer.status == 200, answer
    azure.arm.operations.finish()
    return nic_of(azure, instance)


def nic_of(azure: Cloud, instance: str = "0") -> Document:
    listed = azure.ask("GET", f"{path(azure, instance)}/networkInterfaces", version="2018-10-01").document
    (nic,) = listed["value"]
    return dict(nic)


def adds(azure: Cloud, *names: str, **properties: int | str) -> Callable[[Document], object]:
    def edit(document: Document) -> None:
        profile = document["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"][0]
        profile["properties"]["ipConfigurations"].extend(
            {"name": name, "properties": {"subnet": {"id": azure.subnet_id()}, **properties}}
            for name in names
        )

    return edit


def test_configurations_are_added_to_an_instance_through_its_model(azure: Cloud) -> None:
    before = instance_of(azure)
    assert [entry["name"] for entry in configurations(before)] == ["ipconfig1", "ipconfig2"]
    assert not any("privateIPAddress" in entry["properties"] for entry in configurations(before))
    assert before["properties"]["modelDefinitionApplied"] == "VirtualMachineScaleSet"
    nic = done(azure, adds(azure, "pods-1", "pods-2"))
    assert addresses(nic) == {
        "ipconfig1": "10.10.0.4",
        "ipconfig2": "10.10.0.5",
        "pods-1": "10.10.0.8",
        "pods-2": "10.10.0.9",
    }
    assert "location" not in nic
    assert "type" not in nic
    assert instance_of(azure)["properties"]["modelDefinitionApplied"] == "VirtualMachine"
    assert addresses(nic_of(azure, "1")) == {"ipconfig1": "10.10.0.6", "ipconfig2": "10.10.0.7"}

    def remove(document: Document) -> None:
        profile = document["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"][0]
        del profile["properties"]["ipConfigurations"][1:3]

    assert addresses(done(azure, remove)) == {"ipconfig1": "10.10.0.4", "pods-2": "10.10.0.9"}


def test_the_write_of_an_instance_is_a_long_operation(azure: Cloud) -> None:
    answer = write(azure, adds(azure, "pods-1"))
    assert answer.status == 200
    assert answer.document["properties"]["provisioningState"] == "Updating"
    assert answer.headers["etag"] == answer.document["etag"] == instance_of(azure)["etag"]
    assert "retry-after" not in answer.headers
    url = answer.headers["azure-asyncoperation"].removeprefix("https://management.azure.com")
    assert "/providers/Microsoft.Compute/locations/westeurope/operations/" in url
    poll = azure.ask("GET", url)
    assert poll.document.keys() == {"startTime", "status", "name"}
    assert poll.document["status"] == "InProgress"
    assert nic_of(azure)["properties"]["provisioningState"] == "Updating"

    second = write(azure, adds(azure, "pods-2"))
    assert (second.status, second.code) == (409, "Conflict")

    azure.arm.operations.finish()
    poll = azure.ask("GET", url)
    assert poll.document.keys() == {"startTime", "endTime", "status", "name"}
    assert poll.document["status"] == "Succeeded"
    assert instance_of(azure)["properties"]["provisioningState"] == "Succeeded"
    assert nic_of(azure)["properties"]["provisioningState"] == "Succeeded"


def test_a_write_of_an_instance_can_fail_late(azure: Cloud) -> None:
    azure.arm.operations.outcomes.append(
        Outcome(State.FAILED, "NetworkingInternalOperationError", "Unknown.")
    )
    answer = write(azure, adds(azure, "pods-1"))
    azure.arm.operations.finish()
    url = answer.headers["azure-asyncoperation"].removeprefix("https://management.azure.com")
    error = {"code": "NetworkingInternalOperationError", "message": "Unknown."}
    assert azure.ask("GET", url).document["error"] == error
    assert instance_of(azure)["properties"]["provisioningState"] == "Failed"
    assert len(azure.estate.vm("node1").primary_nic.delivered) == 2


def test_the_tag_of_an_instance_is_compared(azure: Cloud) -> None:
    old = instance_of(azure)["etag"]
    assert old == '"1"'
    assert write(azure, adds(azure, "pods-1"), if_match=old).status == 200
    azure.arm.operations.finish()
    refused = write(azure, adds(azure, "pods-2"), if_match=old)
    assert (refused.status, refused.code) == (412, "PreconditionFailed")
    assert refused.message == 'Etag provided in if-match header "1" does not match etag "2" of resource.'
    assert "details" not in refused.document["error"]


def test_blocks_need_the_newer_version_and_older_ones_ignore_them_without_a_word(azure: Cloud) -> None:
    single = done(azure, adds(azure, "old", privateIPAddressPrefixLength=28), version=OLDER)
    assert addresses(single)["old"] == "10.10.0.8"
    block = done(azure, adds(azure, "new", privateIPAddressPrefixLength=28))
    entry = block["properties"]["ipConfigurations"][-1]["properties"]
    assert entry["privateIPAddressPrefixLength"] == 28
    assert entry["privateIPAddress"] == "10.10.0.21", "a bare address somewhere in 10.10.0.16/28"
    assert configurations(instance_of(azure))[-1]["properties"]["privateIPAddressPrefixLength"] == 28
    shown = configurations(instance_of(azure, version=OLDER))[-1]["properties"]
    assert "privateIPAddressPrefixLength" not in shown
    kept = done(azure, adds(azure, "another"), version=OLDER)
    assert addresses(kept)["new"] == "10.10.0.21"
    assert addresses(kept)["another"] == "10.10.0.9"


def test_a_reconciliation_of_the_model_wipes_what_was_added_to_instances(azure: Cloud) -> None:
    done(azure, adds(azure, "pods-1"))
    done(azure, adds(azure, "pods-2"), "1")
    tag = instance_of(azure)["etag"]
    azure.arm.reconcile()
    assert addresses(nic_of(azure)) == {"ipconfig1": "10.10.0.4", "ipconfig2": "10.10.0.5"}
    assert addresses(nic_of(azure, "1")) == {"ipconfig1": "10.10.0.6", "ipconfig2": "10.10.0.7"}
    assert instance_of(azure)["etag"] != tag
    assert {str(e.address) for e in azure.estate.vm("node1").primary_nic.delivered} == {
        "10.10.0.4",
        "10.10.0.5",
    }


def test_an_instance_without_the_network_part_keeps_its_nics(azure: Cloud) -> None:
    before = nic_of(azure)
    answer = azure.ask("PUT", path(azure), {"location": "westeurope", "tags": {"a": "b"}}, version=BLOCKS)
    assert (answer.status, answer.headers["etag"]) == (200, '"1"')
    azure.arm.operations.finish()
    assert nic_of(azure) == before


def test_what_an_instance_refuses(azure: Cloud) -> None:
    def two_subnets(document: Document) -> None:
        configurations(document)[1]["properties"]["subnet"]["id"] = azure.subnet_id("second")

    def another_nic(document: Document) -> None:
        profile = document["properties"]["networkProfileConfiguration"]
        profile["networkInterfaceConfigurations"].append({"name": "nic1", "properties": {}})

    azure.arm.faults.no_block = "InsufficientCidrBlocks"
    for edit, code in (
        (two_subnets, "IPConfigurationsOnNicCannotBelongToDifferentSubnets"),
        (another_nic, "NicChangeNotEmulated"),
        (adds(azure, "ipconfig2"), "DuplicateResourceName"),
        (adds(azure, "x", privateIPAddressPrefixLength=27), "InvalidParameter"),
        (adds(azure, *(f"pods-{n}" for n in range(255))), "IpConfigurationsPerNicLimitReached"),
    ):
        refused = write(azure, edit)
        assert (refused.status, refused.code) == (400, code)
    azure.arm.faults.full_subnets.add("nodes")
    assert write(azure, adds(azure, "x")).code == "SubnetIsFull"
    assert write(azure, adds(azure, "x", privateIPAddressPrefixLength=28)).code == "InsufficientCidrBlocks"
    assert azure.ask("PUT", path(azure, "7"), {"location": "westeurope"}).code == "ResourceNotFound"


def test_the_nic_of_an_instance_is_not_written_directly(azure: Cloud) -> None:
    azure.arm.roles.give([*UNIFORM_WRITER, "*/write"])
    refused = azure.ask("PUT", f"{path(azure)}/networkInterfaces/nic0", nic_of(azure))
    assert refused.status == 409
    assert refused.message == (
        "The operation 'write' on resource type 'virtualMachineScaleSets/virtualMachines/networkInterfaces' "
        "is disallowed."
    )


def test_a_written_image_has_to_be_readable(azure: Cloud) -> None:
    refused = azure.ask("PUT", path(azure), instance_of(azure), version=BLOCKS)
    assert (refused.status, refused.code) == (403, "LinkedAuthorizationFailed")
    assert "Microsoft.Compute/galleries/images/versions/read" in refused.message


def test_an_instance_takes_few_writes_and_others_are_not_concerned(azure: Cloud) -> None:
    azure.arm.instance_writes.size = 2
    azure.arm.instance_writes.per_second = 0
    for _ in range(2):
        assert write(azure, lambda _: None).status == 200
        azure.arm.operations.finish()
    refused = write(azure, lambda _: None)
    assert (refused.status, refused.code) == (429, "OperationNotAllowed")
    assert int(refused.headers["retry-after"]) > 0
    assert write(azure, lambda _: None, "1").status == 200


V6 = {"privateIPAddressVersion": "IPv6"}


@pytest.fixture
def dual() -> Iterator[Cloud]:
    """Two instances with IPv6: the first has fd00:10:10::4 and one for pods, ::5, the second ::6 and ::7."""
    with cloud("uniform-writer", nodes=2, addresses=1, vnet_hosts=0, ipv6=1, placement="uniform") as made:
        yield made


def of_v6(nic: Document) -> dict[str, str]:
    return {name: ip for name, ip in addresses(nic).items() if ":" in ip}


def without(*names: str) -> Callable[[Document], None]:
    def edit(document: Document) -> None:
        profile = document["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"][0]
        kept = [each for each in configurations(document) if each["name"] not in names]
        profile["properties"]["ipConfigurations"] = kept

    return edit


def test_the_model_of_an_instance_has_its_ipv6_which_writes_keep_and_change(
    dual: Cloud,
) -> None:
    before = instance_of(dual)
    versions = {
        each["name"]: each["properties"]["privateIPAddressVersion"] for each in configurations(before)
    }
    assert versions == {
        "ipconfig1": "IPv4",
        "ipconfig2": "IPv4",
        "ipv6config1": "IPv6",
        "ipv6config2": "IPv6",
    }
    own = {"ipv6config1": "fd00:10:10::4", "ipv6config2": "fd00:10:10::5"}
    assert of_v6(done(dual, adds(dual, "pods-1"))) == own, "a writer of IPv4 leaves it as it is"
    grown = done(dual, adds(dual, "pods-6", **V6))
    assert of_v6(grown) == {**own, "pods-6": "fd00:10:10::8"}
    assert instance_of(dual)["properties"]["modelDefinitionApplied"] == "VirtualMachine"
    assert of_v6(done(dual, without("ipv6config2"))) == {
        "ipv6config1": "fd00:10:10::4",
        "pods-6": "fd00:10:10::8",
    }


def test_a_reconciliation_of_the_model_wipes_what_was_added_of_ipv6(dual: Cloud) -> None:
    done(dual, adds(dual, "pods-6", **V6))
    dual.arm.reconcile()
    assert of_v6(nic_of(dual)) == {"ipv6config1": "fd00:10:10::4", "ipv6config2": "fd00:10:10::5"}
    delivered = {str(entry.address) for entry in dual.estate.vm("node1").primary_nic.delivered_v6}
    assert delivered == {"fd00:10:10::4", "fd00:10:10::5"}


def test_what_an_instance_refuses_of_ipv6(dual: Cloud) -> None:
    refused = {
        "PrimaryAddressChangeNotEmulated": without("ipv6config1"),
        "InvalidParameter": adds(dual, "x", **V6, privateIPAddressPrefixLength=120),
        "DuplicateResourceName": adds(dual, "ipconfig2", **V6),
        "IpConfigurationsPerNicLimitReached": adds(dual, *(f"pods-{n}" for n in range(254)), **V6),
    }
    for code, edit in refused.items():
        answer = write(dual, edit)
        assert (answer.status, answer.code) == (400, code)
    primary = write(dual, adds(dual, "x", **V6, primary=True))
    assert (primary.status, primary.code) == (400, "InvalidParameter")
