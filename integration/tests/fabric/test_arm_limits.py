"""Who may ask ARM what, how often, what a test lets go wrong, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.fabric.armcontrol import UnfitSwitch, switch
from integration.fabric.armlimits import Window
from integration.fabric.armroles import NIC, SUBNET
from integration.fabric.nicdiff import foreign_changes
from integration.tests.fabric.cloud import Cloud, Document, addresses, cloud


@pytest.fixture
def azure() -> Iterator[Cloud]:
    with cloud(nodes=1, addresses=1, vnet_hosts=0) as made:
        yield made


def own(name: str) -> bool:
    return name.startswith("azvnet-")


def test_everybody_reads_and_nobody_writes_until_somebody_gets_a_role() -> None:
    with cloud("reader", nodes=1, addresses=1) as azure:
        assert (
            azure.ask("GET", f"{azure.group}/providers/Microsoft.Compute/virtualMachines/node1").status == 200
        )
        refused = azure.write(azure.adds("mine"))
        assert (refused.status, refused.code) == (403, "AuthorizationFailed")
        assert refused.message == (
            "The client 'client' with object id 'client-object' does not have authorization to perform "
            f"action '{NIC}/write' over scope '{azure.nic_path()}' or the scope is invalid. If access was "
            "recently granted, please refresh your credentials."
        )
        azure.arm.roles.give("writer", "client")
        assert azure.write(azure.adds("mine")).status == 200
        assert azure.write(azure.adds("mine"), client="other").status == 403


def test_a_writer_may_not_look_at_anything_else(azure: Cloud) -> None:
    machine = azure.ask("GET", f"{azure.group}/providers/Microsoft.Compute/virtualMachines/node1")
    assert (machine.status, machine.code) == (403, "AuthorizationFailed")
    for path in (azure.subnet_id(), azure.subnet_id().partition("/subnets/")[0], azure.nic_path()):
        assert azure.ask("GET", path).status == 200


def test_what_a_document_refers_to_needs_an_action_of_its_own(azure: Cloud) -> None:
    azure.arm.roles.take(f"{SUBNET}/join/action")
    refused = azure.write(azure.adds("mine"))
    assert (refused.status, refused.code) == (403, "LinkedAuthorizationFailed")
    assert f"has permission to perform action '{NIC}/write' on scope '{azure.nic_path()}'" in refused.message
    assert f"'{SUBNET}/join/action' on the linked scope(s) '{azure.subnet_id()}'" in refused.message

    azure.arm.roles.give("nic-writer")
    assert azure.write(lambda _: None).status == 200
    azure.arm.operations.finish()
    azure.arm.edit_nic(
        "node1-nic0", lambda nic: nic["properties"].update(networkSecurityGroup={"id": "/nsg"})
    )
    refused = azure.write(lambda _: None)
    assert (refused.status, refused.code) == (403, "LinkedAuthorizationFailed")
    assert (
        "'Microsoft.Network/networkSecurityGroups/join/action' on the linked scope(s) '/nsg'"
        in refused.message
    )
    azure.arm.roles.give("writer")
    assert azure.write(lambda _: None).status == 200


def test_a_permission_can_be_lost_while_an_operation_runs(azure: Cloud) -> None:
    put = azure.write(azure.adds("mine"))
    url = put.headers["azure-asyncoperation"].removeprefix("https://management.azure.com")
    azure.arm.roles.give("none")
    assert azure.ask("GET", azure.nic_path()).status == 403
    assert azure.ask("GET", url).status == 200
    azure.arm.roles.polls_need_read = True
    refused = azure.ask("GET", url)
    assert (refused.status, refused.code) == (403, "AuthorizationFailed")


def test_arm_and_the_network_provider_throttle_and_say_which(azure: Cloud) -> None:
    document = azure.nic()
    azure.arm.network_writes = Window(2)
    azure.arm.operations.speed = 1
    for _ in range(2):
        assert azure.put(document).status == 200
        azure.arm.operations.finish()
    provider = azure.put(document)
    assert (provider.status, provider.code) == (429, "TooManyRequests")
    assert provider.headers["x-ms-failure-cause"] == "service"
    assert 0 < int(provider.headers["retry-after"]) <= 300
    assert provider.document["error"]["details"] == []
    assert azure.ask("GET", azure.nic_path()).status == 200, "reads have a window of their own"

    azure.arm.writes = type(azure.arm.writes)(size=1, per_second=0)
    assert azure.put(document).code == "TooManyRequests"
    gateway = azure.put(document)
    assert (gateway.status, gateway.code) == (429, "SubscriptionRequestsThrottled")
    assert gateway.headers["x-ms-failure-cause"] == "gateway"
    assert "details" not in gateway.document["error"]


def test_polls_count_as_reads(azure: Cloud) -> None:
    put = azure.write(azure.adds("mine"))
    url = put.headers["azure-asyncoperation"].removeprefix("https://management.azure.com")
    azure.arm.operations.speed = 1
    azure.arm.network_reads = Window(3)
    assert [azure.ask("GET", url).status for _ in range(4)] == [200, 200, 200, 429]
    assert azure.ask("GET", azure.nic_path()).status == 429


def test_the_five_minutes_of_a_window_pass_faster_with_the_speed(azure: Cloud) -> None:
    azure.arm.network_reads = Window(1)
    azure.arm.operations.speed = 1e9
    assert [azure.ask("GET", azure.nic_path()).status for _ in range(3)] == [200, 200, 200]


def test_certain_requests_can_be_throttled(azure: Cloud) -> None:
    azure.arm.faults.throttle(2, 7, ("PUT",))
    azure.arm.faults.throttle(1, 9, ("GET",), by_gateway=True)
    assert azure.ask("GET", azure.nic_path()).headers["retry-after"] == "9"
    document = azure.nic()
    refused = [azure.put(document) for _ in range(3)]
    assert [answer.status for answer in refused] == [429, 429, 200]
    assert refused[0].headers["retry-after"] == "7"
    azure.arm.faults.throttle(1)
    azure.arm.faults.clear()
    assert azure.ask("GET", azure.nic_path()).status == 200


def test_somebody_else_can_write_between_the_get_and_the_put(azure: Cloud) -> None:
    def tag(document: Document) -> None:
        document["tags"] = {"by": "somebody"}

    azure.arm.faults.other_writers.append(tag)
    before = azure.nic()
    refused = azure.write(azure.adds("mine"), if_match=before["etag"])
    assert refused.status == 412
    assert azure.nic()["tags"] == {"by": "somebody"}

    azure.arm.faults.other_writers.append(azure.adds("theirs"))
    assert azure.write(azure.adds("mine")).status == 200, "without If-Match"
    assert addresses(azure.nic()).keys() == {"ipconfig1", "ipconfig2", "mine"}, "what they added is gone"


def test_requests_are_counted_by_identity_and_kind(azure: Cloud) -> None:
    put = azure.write(azure.adds("mine"))
    url = put.headers["azure-asyncoperation"].removeprefix("https://management.azure.com")
    azure.ask("GET", url)
    azure.arm.operations.finish()
    azure.put({"location": "westeurope"}, client="other")
    assert azure.arm.log.counts() == {
        "client": {"GET": 1, "PUT": 1, "poll": 1},
        "other": {"PUT": 1, "400": 1},
    }
    assert azure.arm.log.count("PUT", 200) == 1
    assert [entry.path for entry in azure.arm.log.entries(kind="poll")] == [url.partition("?")[0]]
    assert len(azure.arm.log.entries(client_id="other", status=400, source="10.10.0.4")) == 1
    assert azure.arm.log.entries(source="10.10.0.5") == []
    azure.arm.log.clear()
    assert azure.arm.log.count() == 0


def test_changes_of_what_belongs_to_others_are_found(azure: Cloud) -> None:
    before = azure.nic()
    grown = azure.done(azure.adds("azvnet-1", "azvnet-2"))
    assert foreign_changes(before, grown, own) == []

    def careless(document: Document) -> None:
        del document["properties"]["ipConfigurations"][1]
        document["properties"]["enableIPForwarding"] = True

    spoilt = azure.done(careless)
    changes = foreign_changes(grown, spoilt, own)
    assert [change.partition(":")[0] for change in changes] == [
        "/ipConfigurations/ipconfig2",
        "/properties/enableIPForwarding",
    ]


def test_the_switches_by_words(azure: Cloud) -> None:
    switch(azure.arm, "fail", ["2", "Canceled"])
    assert len(azure.arm.operations.outcomes) == 2
    switch(azure.arm, "full", ["nodes"])
    assert azure.write(azure.adds("mine")).code == "SubnetIsFull"
    switch(azure.arm, "clear", [])
    assert azure.write(azure.adds("mine")).status == 200
    switch(azure.arm, "finish", [])
    switch(azure.arm, "edit", ["node1-nic0"])
    assert azure.nic()["tags"] == {"edits": "1"}
    switch(azure.arm, "role", ["reader"])
    assert azure.write(azure.adds("more")).status == 403
    assert switch(azure.arm, "log", [])["client"]["403"] == 1
    for name, words in (("nothing", []), ("speed", ["0"]), ("role", ["king"]), ("fail", ["x"]), ("edit", [])):
        with pytest.raises(UnfitSwitch, match=name):
            switch(azure.arm, name, words)
