"""Writing a NIC through ARM: what a PUT replaces, what it allocates, what it refuses, how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.fabric import allocation, changes
from integration.fabric.armoperations import Outcome
from integration.fabric.model import State
from integration.tests.fabric.cloud import Cloud, Document, addresses, cloud

SETTINGS: Document = {
    "networkSecurityGroup": {"id": "/subscriptions/s/nsg"},
    "dnsSettings": {"dnsServers": ["10.10.0.10"], "internalDnsNameLabel": "node"},
    "enableAcceleratedNetworking": True,
    "enableIPForwarding": True,
    "disableTcpStateTracking": True,
    "auxiliaryMode": "AcceleratedConnections",
    "auxiliarySku": "A1",
}
OF_PRIMARY: Document = {
    "publicIPAddress": {"id": "/subscriptions/s/publicIPAddresses/p"},
    "applicationSecurityGroups": [{"id": "/subscriptions/s/asg"}],
    "loadBalancerBackendAddressPools": [{"id": "/subscriptions/s/pool"}],
    "loadBalancerInboundNatRules": [{"id": "/subscriptions/s/rule"}],
    "applicationGatewayBackendAddressPools": [{"id": "/subscriptions/s/gateway"}],
}


@pytest.fixture
def azure() -> Iterator[Cloud]:
    """Two nodes; the first has 10.10.0.4 and its pods' 10.10.0.5, the second 10.10.0.6 and .7."""
    with cloud(nodes=2, addresses=1, vnet_hosts=0) as made:
        yield made


def dress(document: Document) -> None:
    """What an operator of the cluster set on the NIC."""
    document["properties"].update(SETTINGS)
    document["properties"]["ipConfigurations"][0]["properties"].update(OF_PRIMARY)
    document["tags"] = {"owner": "somebody"}


def names_of(document: Document) -> list[str]:
    return [entry["name"] for entry in document["properties"]["ipConfigurations"]]


def without_configurations(document: Document) -> Document:
    return {name: value for name, value in document["properties"].items() if name != "ipConfigurations"}


def test_a_put_adds_the_lowest_free_addresses_and_removes_what_it_leaves_out(azure: Cloud) -> None:
    assert addresses(azure.nic()) == {"ipconfig1": "10.10.0.4", "ipconfig2": "10.10.0.5"}
    grown = azure.done(azure.adds("pods-1", "pods-2"))
    assert addresses(grown) == {
        "ipconfig1": "10.10.0.4",
        "ipconfig2": "10.10.0.5",
        "pods-1": "10.10.0.8",
        "pods-2": "10.10.0.9",
    }
    shrunk = azure.done(lambda document: document["properties"]["ipConfigurations"].pop(1))
    assert names_of(shrunk) == ["ipconfig1", "pods-1", "pods-2"]
    other = azure.done(azure.adds("more"), name="node2-nic0")
    assert addresses(other)["more"] == "10.10.0.5", "what one NIC gave back another one may get at once"


def test_everything_else_survives_when_it_is_sent_and_is_lost_when_not(azure: Cloud) -> None:
    dressed = azure.done(dress)
    for name, value in SETTINGS.items():
        shown = dressed["properties"][name]
        assert shown == value if name != "dnsSettings" else value.items() <= shown.items(), name
    assert OF_PRIMARY.items() <= dressed["properties"]["ipConfigurations"][0]["properties"].items()
    assert dressed["tags"] == {"owner": "somebody"}

    kept = azure.done(azure.adds("pods-1"))
    assert without_configurations(kept) == without_configurations(dressed)
    assert OF_PRIMARY.items() <= kept["properties"]["ipConfigurations"][0]["properties"].items()

    bare = {
        "location": "westeurope",
        "properties": {"ipConfigurations": [azure.configuration("ipconfig1", primary=True)]},
    }
    assert azure.put(bare).status == 200
    azure.arm.operations.finish()
    lost = azure.nic()
    assert "networkSecurityGroup" not in lost["properties"]
    assert lost["properties"]["enableIPForwarding"] is False
    assert lost["tags"] == {}
    assert not OF_PRIMARY.keys() & lost["properties"]["ipConfigurations"][0]["properties"].keys()
    assert addresses(lost) == {"ipconfig1": "10.10.0.4"}


def test_read_only_fields_are_ignored(azure: Cloud) -> None:
    before = azure.nic()

    def edit(document: Document) -> None:
        document["properties"] |= {"macAddress": "00-00-00-00-00-00", "primary": False, "resourceGuid": "x"}
        document["properties"] |= {"provisioningState": "Failed", "virtualMachine": {"id": "/other"}}
        document["etag"] = "made up"

    after = azure.done(edit)
    stale = {"etag", "properties"}
    assert {k: v for k, v in after.items() if k not in stale} == {
        k: v for k, v in before.items() if k not in stale
    }
    for name in ("macAddress", "primary", "resourceGuid", "provisioningState", "virtualMachine"):
        assert after["properties"][name] == before["properties"][name]


def test_a_write_to_an_attached_nic_is_a_long_operation(azure: Cloud) -> None:
    azure.arm.operations.speed = 1
    answer = azure.write(azure.adds("pods-1"))
    assert answer.status == 200
    assert answer.headers["retry-after"] == "10"
    assert answer.headers["azure-asyncnotification"] == "Enabled"
    assert "etag" not in answer.headers
    assert answer.document["properties"]["provisioningState"] == "Updating"
    entries = answer.document["properties"]["ipConfigurations"]
    assert {entry["properties"]["provisioningState"] for entry in entries} == {"Updating"}
    assert addresses(answer.document)["pods-1"] == "10.10.0.8", "the address is known at once"

    url = answer.headers["azure-asyncoperation"]
    assert url.startswith("https://management.azure.com/subscriptions/")
    assert "/providers/Microsoft.Network/locations/westeurope/operations/" in url
    assert "?api-version=2025-05-01&" in url
    poll = azure.ask("GET", url.removeprefix("https://management.azure.com"))
    assert (poll.status, poll.document, poll.headers["retry-after"]) == (200, {"status": "InProgress"}, "10")

    azure.arm.operations.finish()
    poll = azure.ask("GET", url.removeprefix("https://management.azure.com"))
    assert (poll.status, poll.document) == (200, {"status": "Succeeded"})
    assert "retry-after" not in poll.headers
    after = azure.nic()
    states = {entry["properties"]["provisioningState"] for entry in after["properties"]["ipConfigurations"]}
    assert states == {after["properties"]["provisioningState"]} == {"Succeeded"}


def test_the_tag_changes_at_the_put_and_again_when_the_operation_ends(azure: Cloud) -> None:
    before = azure.ask("GET", azure.nic_path()).headers["etag"]
    answer = azure.write(azure.adds("pods-1"), if_match=before)
    assert answer.status == 200
    during = azure.nic()["etag"]
    azure.arm.operations.finish()
    after = azure.nic()["etag"]
    assert len({before, during, after}) == 3
    assert answer.document["etag"] == during, "the tag in the answer is stale in the end"

    for stale in (before, during, 'W/"invalid"'):
        refused = azure.write(azure.adds("pods-2"), if_match=stale)
        assert (refused.status, refused.code) == (412, "PreconditionFailed")
        (detail,) = refused.document["error"]["details"]
        assert detail["code"] == "PreconditionFailedEtagMismatch"
        assert detail["message"].startswith(f"Etag provided in if-match header {stale} does not match etag ")
    assert azure.nic()["etag"] == after, "nothing has happened"
    azure.arm.faults.ignores_if_match = True
    assert azure.write(azure.adds("pods-3"), if_match=before).status == 200
    azure.arm.operations.finish()
    assert azure.write(azure.adds("pods-2"), if_match="*").status == 200


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (
            Outcome(State.FAILED, "InternalServerError", "An error occurred."),
            {
                "status": "Failed",
                "error": {"code": "InternalServerError", "message": "An error occurred.", "details": []},
            },
        ),
        (Outcome(State.CANCELED), {"status": "Canceled"}),
    ],
)
def test_an_operation_can_fail_after_the_put_was_accepted(
    azure: Cloud, outcome: Outcome, answer: Document
) -> None:
    had = azure.estate.vm("node1").primary_nic.delivered
    azure.arm.operations.outcomes.append(outcome)
    put = azure.write(azure.adds("pods-1"))
    azure.arm.operations.finish()
    assert put.status == 200
    poll = azure.ask("GET", put.headers["azure-asyncoperation"].removeprefix("https://management.azure.com"))
    assert poll.document == answer
    document = azure.nic()
    states = {
        entry["properties"]["provisioningState"] for entry in document["properties"]["ipConfigurations"]
    }
    assert states == {document["properties"]["provisioningState"]} == {outcome.state.value}
    assert azure.estate.vm("node1").primary_nic.delivered == had, (
        "traffic goes on, and nothing new is delivered"
    )

    again = azure.done(lambda _: None)
    assert again["properties"]["provisioningState"] == "Succeeded"
    assert "10.10.0.8" in {str(e.address) for e in azure.estate.vm("node1").primary_nic.delivered}


def test_the_host_has_the_old_addresses_until_the_operation_ends(azure: Cloud) -> None:
    def on_host(node: str = "node1") -> set[str]:
        return {str(entry.address) for entry in azure.estate.vm(node).primary_nic.delivered}

    azure.write(lambda document: document["properties"]["ipConfigurations"].pop())
    assert on_host() == {"10.10.0.4", "10.10.0.5"}
    azure.write(azure.adds("mine"), name="node2-nic0")
    assert on_host("node2") == {"10.10.0.6", "10.10.0.7"}
    azure.arm.operations.finish()
    assert on_host() == {"10.10.0.4"}
    assert on_host("node2") == {"10.10.0.6", "10.10.0.7", "10.10.0.5"}


def test_an_address_given_to_another_nic_is_delivered_there_even_if_the_first_host_is_late(
    azure: Cloud,
) -> None:
    azure.arm.operations.outcomes.append(Outcome(State.FAILED, "InternalServerError", "An error occurred."))
    azure.write(lambda document: document["properties"]["ipConfigurations"].pop())
    azure.arm.operations.finish()
    assert "10.10.0.5" in {str(e.address) for e in azure.estate.vm("node1").primary_nic.delivered}
    azure.done(azure.adds("mine"), name="node2-nic0")
    assert "10.10.0.5" not in {str(e.address) for e in azure.estate.vm("node1").primary_nic.delivered}
    assert "10.10.0.5" in {str(e.address) for e in azure.estate.vm("node2").primary_nic.delivered}


def test_an_address_that_a_test_gives_to_another_nic_is_delivered_there_alone(azure: Cloud) -> None:
    azure.write(lambda document: document["properties"]["ipConfigurations"].pop())
    azure.goal.change(lambda estate: changes.add_addresses(estate, "node2", 1))
    nics = {node: azure.estate.vm(node).primary_nic for node in ("node1", "node2")}
    assert [str(entry.address) for entry in nics["node1"].delivered] == ["10.10.0.4"]
    assert [str(entry.address) for entry in nics["node2"].delivered] == [
        "10.10.0.6",
        "10.10.0.7",
        "10.10.0.5",
    ]


def test_whatever_is_written_nobody_shares_an_address_and_no_primary_one_moves() -> None:
    chance = random.Random(1)
    with cloud(nodes=3, addresses=2, blocks=1, vnet_hosts=0) as azure:
        primaries = {vm.name: vm.primary_nic.primary_ip for vm in azure.estate.vms}

        def edit(document: Document) -> None:
            entries = document["properties"]["ipConfigurations"]
            for _ in range(chance.randrange(3)):
                if len(entries) > 1:
                    del entries[chance.randrange(1, len(entries))]
            for _ in range(chance.randrange(4)):
                length = chance.choice([{}, {"privateIPAddressPrefixLength": 28}])
                entries.append(azure.configuration(f"pods-{chance.randrange(10**9)}", **length))

        for _ in range(150):
            if chance.random() < 0.3:
                state = chance.choice([State.FAILED, State.CANCELED])
                azure.arm.operations.outcomes.append(Outcome(state, "Code", "Words."))
            azure.arm.writes = type(azure.arm.writes)()
            answer = azure.write(edit, name=f"node{chance.randrange(1, 4)}-nic0")
            assert answer.status in {200, 429}
            if chance.random() < 0.5:
                azure.arm.operations.finish()
            nics = [vm.primary_nic for vm in azure.estate.vms]
            for shown in ([n.configurations for n in nics], [n.delivered for n in nics]):
                given = [entry.block for entries in shown for entry in entries]
                assert sum(block.num_addresses for block in given) == len({ip for b in given for ip in b})
            assert {vm.name: vm.primary_nic.primary_ip for vm in azure.estate.vms} == primaries


def test_one_operation_at_a_time(azure: Cloud) -> None:
    assert azure.write(azure.adds("pods-1")).status == 200
    second = azure.write(azure.adds("pods-2"))
    assert (second.status, second.code) == (429, "RetryableError")
    assert int(second.headers["retry-after"]) > 0
    (detail,) = second.document["error"]["details"]
    assert detail["code"] == "RetryableErrorDueToAnotherOperation"
    azure.arm.faults.busy_conflict = True
    third = azure.write(azure.adds("pods-2"))
    assert (third.status, third.code) == (409, "AnotherOperationInProgress")
    assert azure.write(azure.adds("other"), name="node2-nic0").status == 200, "another NIC is not busy"
    azure.arm.operations.finish()
    assert names_of(azure.nic()) == ["ipconfig1", "ipconfig2", "pods-1"]
    assert azure.write(azure.adds("pods-2")).status == 200


def test_blocks_are_aligned_free_and_shown_as_the_nic_resource_shows_them(azure: Cloud) -> None:
    grown = azure.done(azure.adds("block-1", "block-2", privateIPAddressPrefixLength=28))
    first, second = grown["properties"]["ipConfigurations"][2:]
    assert first["properties"]["privateIPAddress"] == "10.10.0.16/28"
    assert second["properties"]["privateIPAddress"] == "10.10.0.32/28"
    assert first["properties"]["privateIPAddressPrefixLength"] == 28
    kept = azure.done(azure.adds("pods-1"))
    assert addresses(kept)["block-1"] == "10.10.0.16/28"
    assert addresses(kept)["pods-1"] == "10.10.0.8"

    def forget_the_length(document: Document) -> None:
        del document["properties"]["ipConfigurations"][2]["properties"]["privateIPAddressPrefixLength"]

    lost = azure.done(forget_the_length)
    assert addresses(lost)["block-1"] == "10.10.0.16", "a client that drops the field loses fifteen addresses"


def test_static_addresses_and_blocks(azure: Cloud) -> None:
    static: dict[str, Any] = {"privateIPAllocationMethod": "Static"}
    grown = azure.done(azure.adds("one", privateIPAddress="10.10.0.77", **static))
    assert grown["properties"]["ipConfigurations"][-1]["properties"]["privateIPAllocationMethod"] == "Static"
    azure.done(azure.adds("cidr", privateIPAddress="10.10.0.96/28", **static))
    grown = azure.done(
        azure.adds("length", privateIPAddress="10.10.0.112", privateIPAddressPrefixLength=28, **static)
    )
    assert [addresses(grown)[name] for name in ("one", "cidr", "length")] == [
        "10.10.0.77",
        "10.10.0.96/28",
        "10.10.0.112/28",
    ]
    assert azure.done(lambda _: None)["properties"]["ipConfigurations"][-1]["properties"][
        "privateIPAddress"
    ] == ("10.10.0.112/28")


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"privateIPAddress": "10.10.0.6"}, "PrivateIPAddressIsAllocated"),
        ({"privateIPAddress": "10.10.0.4"}, "PrivateIPAddressIsAllocated"),
        ({"privateIPAddress": "10.10.0.0/28"}, "PrivateIPAddressInReservedRange"),
        ({"privateIPAddress": "10.10.0.3"}, "PrivateIPAddressInReservedRange"),
        ({"privateIPAddress": "10.10.15.255"}, "PrivateIPAddressInReservedRange"),
        ({"privateIPAddress": "10.10.16.4"}, "PrivateIPAddressNotInSubnet"),
        ({"privateIPAddress": "10.10.0.20/28"}, "InvalidIPAddressFormat"),
        ({"privateIPAddress": "10.10.0.32/27"}, "InvalidPrivateIPAddressPrefixLength"),
        ({"privateIPAddress": "words"}, "InvalidIPAddressFormat"),
        ({}, "PrivateIPAddressMissing"),
    ],
)
def test_static_addresses_that_are_refused(azure: Cloud, properties: Document, code: str) -> None:
    before = azure.nic()
    refused = azure.write(azure.adds("mine", privateIPAllocationMethod="Static", **properties))
    assert (refused.status, refused.code) == (400, code)
    assert refused.document["error"]["details"] == []
    assert azure.nic() == before


def test_who_has_an_address_is_said(azure: Cloud) -> None:
    refused = azure.write(
        azure.adds("mine", privateIPAllocationMethod="Static", privateIPAddress="10.10.0.7")
    )
    assert refused.message == (
        f"IP configuration {azure.nic_path()}/ipConfigurations/mine is using the private IP address "
        f"10.10.0.7 which is already allocated to resource {azure.nic_path('node2-nic0')}."
    )


def test_a_full_subnet(azure: Cloud) -> None:
    azure.arm.faults.full_subnets.add("nodes")
    refused = azure.write(azure.adds("mine"))
    assert (refused.status, refused.code) == (400, "SubnetIsFull")
    assert refused.message == (
        f"Subnet {azure.subnet_id()} with address prefix 10.10.0.0/20 does not have enough capacity for 1 "
        "IP addresses."
    )
    refused = azure.write(azure.adds("mine", privateIPAddressPrefixLength=28))
    assert (refused.status, refused.code) == (400, "NoAvailableIPAddressesInSubnet")
    azure.arm.faults.no_block = "PrefixUnavailable"
    refused = azure.write(azure.adds("mine", privateIPAddressPrefixLength=28))
    assert (refused.status, refused.code) == (400, "PrefixUnavailable")
    assert azure.write(lambda _: None).status == 200, "what needs nothing new is written"


def test_a_subnet_has_no_room_for_a_block_and_still_addresses() -> None:
    with cloud(nodes=1, addresses=0, blocks=253, vnet_hosts=0) as azure:
        azure.done(azure.adds("last", privateIPAddressPrefixLength=28))
        refused = azure.write(azure.adds("more", privateIPAddressPrefixLength=28))
        assert (refused.status, refused.code) == (400, "NoAvailableIPAddressesInSubnet")
        assert addresses(azure.done(azure.adds("single")))["single"] == "10.10.0.5"


def test_the_limit_of_a_virtual_network(azure: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "MAX_IN_VNET", 6)
    azure.done(azure.adds("pods-1", "pods-2"))
    refused = azure.write(azure.adds("mine"), name="node2-nic0")
    assert (refused.status, refused.code) == (400, "PrivateIPAddressesPerVnetLimitReached")


def test_the_limit_of_a_nic(azure: Cloud) -> None:
    refused = azure.write(azure.adds(*(f"pods-{n}" for n in range(255))))
    assert (refused.status, refused.code) == (400, "IpConfigurationsPerNicLimitReached")
    full = azure.done(azure.adds(*(f"pods-{n}" for n in range(254))))
    assert len(names_of(full)) == 256


WRONG: dict[str, tuple[int, str, Callable[[Cloud, Document, list[Document]], object]]] = {
    "two of a name": (
        400,
        "DuplicateResourceName",
        lambda azure, _, entries: entries.append(azure.configuration("IPCONFIG2")),
    ),
    "no name": (400, "InvalidRequestFormat", lambda _, __, entries: entries[1].pop("name")),
    "no primary": (
        400,
        "NetworkInterfaceMustHaveOneOneIPConfigAsPrimary",
        lambda _, __, entries: entries[0]["properties"].update(primary=False),
    ),
    "two primaries": (
        400,
        "NetworkInterfaceMustHaveOneOneIPConfigAsPrimary",
        lambda _, __, entries: entries[1]["properties"].update(primary=True),
    ),
    "another primary": (
        400,
        "PrimaryAddressChangeNotEmulated",
        lambda _, __, entries: [entry["properties"].update(primary=entry is entries[1]) for entry in entries],
    ),
    "the primary a block": (
        400,
        "PrimaryIPConfigurationCannotBeBlock",
        lambda _, __, entries: entries[0]["properties"].update(privateIPAddressPrefixLength=28),
    ),
    "nothing": (
        400,
        "NetworkInterfaceMustHaveAtLeastOneIPConfiguration",
        lambda _, __, entries: entries.clear(),
    ),
    "no subnet": (
        400,
        "SubnetReferenceRequired",
        lambda _, __, entries: entries[1]["properties"].pop("subnet"),
    ),
    "two subnets": (
        400,
        "IPConfigurationsOnNicCannotBelongToDifferentSubnets",
        lambda azure, _, entries: entries[1]["properties"]["subnet"].update(id=azure.subnet_id("second")),
    ),
    "no such subnet": (
        400,
        "InvalidResourceReference",
        lambda azure, _, entries: entries[1]["properties"]["subnet"].update(id=azure.subnet_id("nowhere")),
    ),
    "no location": (400, "LocationRequired", lambda _, document, __: document.pop("location")),
    "elsewhere": (409, "InvalidResourceLocation", lambda _, document, __: document.update(location="eastus")),
    "a long block": (
        400,
        "InvalidPrivateIPAddressPrefixLength",
        lambda azure, _, entries: entries.append(azure.configuration("x", privateIPAddressPrefixLength=27)),
    ),
    "a public block": (
        400,
        "PublicIPAddressNotAllowedOnPrefix",
        lambda azure, _, entries: entries.append(
            azure.configuration("x", privateIPAddressPrefixLength=28, publicIPAddress={"id": "/p"})
        ),
    ),
    "IPv6": (
        400,
        "IPv6NotEmulated",
        lambda azure, _, entries: entries.append(azure.configuration("x", privateIPAddressVersion="IPv6")),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_documents_that_are_refused(azure: Cloud, what: str) -> None:
    status, code, spoil = WRONG[what]
    before = azure.nic()
    refused = azure.write(lambda document: spoil(azure, document, document["properties"]["ipConfigurations"]))
    assert (refused.status, refused.code) == (status, code)
    assert azure.nic() == before, "nothing has happened"
    assert azure.write(lambda _: None).status == 200, "and no operation was begun"


def test_the_primary_address_never_changes_silently(azure: Cloud) -> None:
    azure.done(lambda document: document["properties"]["ipConfigurations"].pop())

    def rename(document: Document) -> None:
        document["properties"]["ipConfigurations"][0]["name"] = "renamed"

    refused = azure.write(rename, name="node2-nic0")
    assert (refused.status, refused.code) == (400, "PrimaryAddressChangeNotEmulated")
    assert "10.10.0.5" in refused.message


def test_bodies_that_are_no_documents(azure: Cloud) -> None:
    for raw in (b"", b"{", b"[]"):
        refused = azure.ask("PUT", azure.nic_path(), raw=raw)
        assert (refused.status, refused.code) == (400, "InvalidRequestContent")
    assert azure.put({"location": "westeurope"}, "nothing").code == "NicCreationNotEmulated"
