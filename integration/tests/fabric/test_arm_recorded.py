"""The emulated ARM against answers of the real one: the same fields, states, headers and words.

`recorded.json` has small extracts of public recordings and reports; each names its origin. Ids and
addresses were scrubbed by their authors, so names of fields and wordings are compared, not values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.tests.fabric.cloud import Answer, Cloud, Document, cloud

RECORDED: dict[str, Document] = json.loads((Path(__file__).parent / "recorded.json").read_text())
LEADING = {"etag", "retry-after", "azure-asyncoperation", "azure-asyncnotification", "x-ms-failure-cause"}
"""Headers that a client acts on."""

ATTACHED = {"/properties/macAddress", "/properties/primary", "/properties/virtualMachine"}
"""Fields that only a NIC in a machine has; none of the recorded ones is in one."""


@pytest.fixture
def azure() -> Iterator[Cloud]:
    with cloud(nodes=1, addresses=0, vnet_hosts=0) as made:
        yield made


def fields(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all fields, the entries of a list as one; below a reference only its id counts."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{path}/{name}"
            yield from fields(inner, f"{path}/{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, f"{path}[]")


def own_fields(document: Document) -> set[str]:
    return {each for each in fields(document) if not any(each.startswith(a) for a in ATTACHED)}


def leading(answer: Answer) -> set[str]:
    return LEADING & answer.headers.keys()


def worded_as(answer: Answer, recorded: Document) -> bool:
    """Whether an error has the code of a recorded one and its wording, but for names and numbers."""
    told, words = answer.document["error"], recorded["body"]["error"]

    def bare(text: str) -> str:
        text = re.sub(r"/\S*[\w]|\d+(\.\d+){3}(/\d+)?|'[^']*'|[0-9a-f-]{36}|\d+", "…", text)
        return re.sub(r"(Subnet|Interface|Operation) (?!…)\S+", r"\1 …", text)

    return (
        answer.status == recorded["status"]
        and told.keys() == words.keys()
        and told["code"] == words["code"]
        and bare(told["message"]) == bare(words["message"])
        and [(d["code"], bare(d["message"])) for d in told.get("details", [])]
        == [(d["code"], bare(d["message"])) for d in words.get("details", [])]
    )


def test_a_nic_has_the_fields_of_a_recorded_one(azure: Cloud) -> None:
    recorded = RECORDED["NIC, 2025"]
    answer = azure.ask("GET", azure.nic_path())
    assert own_fields(answer.document) - {"/tags"} == set(fields(recorded["body"]))
    assert leading(answer) == set(recorded["headers"]) == {"etag"}
    for name in ("nicType", "auxiliaryMode", "auxiliarySku", "hostedWorkloads", "enableIPForwarding"):
        assert answer.document["properties"][name] == recorded["body"]["properties"][name]
    assert re.fullmatch(r'W/"[0-9a-f-]{36}"', answer.document["etag"])


def test_a_recorded_put_is_taken_and_answered_with_the_same_fields(azure: Cloud) -> None:
    recorded = RECORDED["put of a NIC with a second configuration"]
    request = json.loads(json.dumps(recorded["request"]))
    request["location"] = "westeurope"
    for entry in request["properties"]["ipConfigurations"]:
        entry["properties"]["subnet"]["id"] = azure.subnet_id()
        entry["name"] = {"primary": "ipconfig1"}.get(entry["name"], entry["name"])
    answer = azure.put(request, version="2019-09-01")
    assert answer.status == recorded["status"]
    assert "etag" not in leading(answer)
    assert set(recorded["headers"]) <= leading(answer)
    assert set(fields(recorded["body"])) <= set(fields(answer.document))

    def properties(body: Document) -> list[Document]:
        stripped = []
        for entry in body["properties"]["ipConfigurations"]:
            kept = {"privateIPAllocationMethod", "primary", "privateIPAddressVersion"}
            stripped.append({k: v for k, v in entry["properties"].items() if k in kept})
        return stripped

    assert properties(answer.document) == properties(recorded["body"])
    azure.arm.operations.finish()
    again = azure.ask("GET", azure.nic_path(), version="2019-09-01")
    assert set(fields(RECORDED["NIC"]["body"])) <= set(fields(again.document))
    assert leading(again) == set(RECORDED["NIC"]["headers"])
    url = answer.headers["azure-asyncoperation"].removeprefix("https://management.azure.com")
    assert azure.ask("GET", url).document == RECORDED["operation on a NIC"]["body"]


def test_errors_are_those_of_the_gateway_or_of_the_provider(azure: Cloud) -> None:
    recorded = RECORDED["NIC that does not exist"]
    missing = azure.ask("GET", azure.nic_path("nothing"))
    assert worded_as(missing, recorded)
    assert leading(missing) == set(recorded["headers"]) == {"x-ms-failure-cause"}
    assert missing.headers["x-ms-failure-cause"] == "gateway"
    refused = azure.put({"location": "westeurope"})
    recorded = RECORDED["refusal of Microsoft.Network"]
    assert refused.status == recorded["status"]
    assert refused.document["error"].keys() == recorded["body"]["error"].keys()
    assert refused.document["error"]["details"] == recorded["body"]["error"]["details"]
    assert leading(refused) == set()


def test_refusals_have_the_words_that_users_report(azure: Cloud) -> None:
    def no_primary(document: Document) -> None:
        azure.adds("second")(document)
        document["properties"]["ipConfigurations"][0]["properties"]["primary"] = False

    assert worded_as(azure.write(no_primary), RECORDED["no primary"])
    taken = azure.adds("mine", privateIPAllocationMethod="Static", privateIPAddress="10.10.0.4")
    assert worded_as(azure.write(taken), RECORDED["address that somebody has"])
    assert azure.write(azure.adds("mine")).status == 200
    assert worded_as(azure.write(azure.adds("more")), RECORDED["NIC that is busy"])
    azure.arm.operations.finish()
    azure.arm.faults.full_subnets.add("nodes")
    assert worded_as(azure.write(azure.adds("more")), RECORDED["subnet that is full"])


def test_an_instance_and_its_put_have_the_fields_of_recorded_ones() -> None:
    with cloud("uniform-writer", nodes=1, addresses=0, vnet_hosts=0, placement="uniform") as azure:
        scale_set = f"{azure.group}/providers/Microsoft.Compute/virtualMachineScaleSets/vmss-fabric"
        path = f"{scale_set}/virtualMachines/0"

        def ask(method: str, body: Document | None = None, **headers: Any) -> Answer:
            return azure.ask(method, path, body, version="2025-04-01", **headers)

        recorded = RECORDED["instance"]
        answer = ask("GET")
        # The recorded scale set was made without saying which configuration is the primary one.
        nics = "/properties/networkProfileConfiguration/networkInterfaceConfigurations[]"
        made_up = {f"{nics}/properties/ipConfigurations[]/properties/primary"}
        made_up |= {"/tags", "/tags/emulated", "/properties/networkProfile/networkInterfaces[]/properties"}
        left_out = {"/sku", "/properties/timeCreated", "/properties/resilientVMDeletionStatus"}
        left_out |= {"/properties/hardwareProfile"}
        inner = re.compile(r"/properties/(osProfile|storageProfile)/|/sku/|networkInterfaces\[\]/prop")
        shown = {each for each in fields(answer.document) if not inner.search(each)} - made_up
        known = {each for each in fields(recorded["body"]) if not inner.search(each)} - left_out
        assert shown == known
        assert leading(answer) == set(recorded["headers"])
        assert answer.document["etag"] == recorded["body"]["etag"] == '"1"'

        recorded = RECORDED["put of an instance with another tag"]
        refused = ask("PUT", {"location": "westeurope"}, if_match="invalid-etag")
        assert (refused.status, refused.document) == (recorded["status"], recorded["body"])

        recorded = RECORDED["put of an instance"]
        answer = ask("PUT", {"location": "westeurope", **recorded["request"]})
        assert (answer.status, leading(answer)) == (recorded["status"], set(recorded["headers"]))
        state = "provisioningState"
        assert answer.document["properties"][state] == recorded["body"]["properties"][state] == "Updating"
        azure.arm.operations.finish()
        url = answer.headers["azure-asyncoperation"].removeprefix("https://management.azure.com")
        poll = azure.ask("GET", url).document
        assert poll.keys() == RECORDED["operation on an instance"]["body"].keys()
        assert ask("GET").document["etag"] == '"1"', "recorded: another tag alone does not change it"
