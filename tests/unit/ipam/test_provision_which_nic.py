"""Which of a machine's NICs is grown, from what Azure Resource Manager says of them."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest

from ipam.provision.conversation import Conversation
from ipam.provision.nic_writer import NicTarget
from ipam.provision.pace import Bucket, pause
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.tally import Tally
from ipam.provision.which_nic import find_nic
from ipam.sources.arm_answer import ArmAnswer
from ipam.sources.placement import Placement
from ipam.value import replace
from tests.unit.ipam.arm_service import NIC, refusal

GROUP = "/subscriptions/s/resourceGroups/g"
MACHINE = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/vm1"
NICS = f"{GROUP}/providers/Microsoft.Network/networkInterfaces"
ALONE = Placement("AzurePublicCloud", MACHINE, "s", "g", "vm1", "")
INSTANCE_ID = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/set/virtualMachines/7"
INSTANCE = Placement("AzurePublicCloud", INSTANCE_ID, "s", "g", "7", "set")
FIRST, SECOND = "00:0d:3a:00:00:01", "00:0d:3a:00:00:02"


def nic(name: str, mac: str, *, primary: bool = False, machine: str = MACHINE) -> dict[str, Any]:
    made = copy.deepcopy(NIC)
    made["name"], made["id"] = name, f"{NICS}/{name}"
    made["properties"] |= {
        "macAddress": mac.replace(":", "-").upper(),
        "primary": primary,
        "virtualMachine": {"id": machine.upper()},
    }
    return made


BOTH = [nic("nic1", FIRST, primary=True), nic("nic2", SECOND)]


def arm(documents: dict[str, Any]) -> Conversation:
    def ask(method: str, where: str, body: object, etag: str) -> ArmAnswer:
        assert (method, body, etag) == ("GET", None, "")
        found = documents.get(where.partition("?")[0], refusal(404, "ResourceNotFound"))
        return found if isinstance(found, ArmAnswer) else ArmAnswer(200, found)

    def never(seconds: float) -> None:
        assert not seconds

    buckets = [Bucket(100, 1.0, lambda: 0.0) for _ in range(2)]
    return Conversation(ask, never, Tally(Counter[str]().update, lambda: 0.0), *buckets)


def machine(*nics: dict[str, Any]) -> dict[str, Any]:
    profile = {"networkInterfaces": [{"id": each["id"]} for each in nics]}
    return {MACHINE: {"properties": {"networkProfile": profile}}, **{each["id"]: each for each in nics}}


def test_the_nic_that_pods_leave_by_is_found_by_its_mac() -> None:
    found = find_nic(arm(machine(*BOTH)), ALONE, SECOND)
    assert found == NicTarget(f"{NICS}/nic2", "nic2")


def test_without_a_mac_it_is_the_primary_one() -> None:
    assert find_nic(arm(machine(*BOTH)), ALONE, "").name == "nic1"


def test_without_the_right_to_read_the_machine_its_nics_say_whose_they_are() -> None:
    other = nic("nic9", FIRST, primary=True, machine=f"{MACHINE}9")
    documents = {MACHINE: refusal(403, "AuthorizationFailed"), NICS: {"value": [other, *BOTH]}}
    assert find_nic(arm(documents), ALONE, FIRST).name == "nic1"


def test_lists_are_read_to_the_last_page() -> None:
    documents = {
        MACHINE: refusal(403, "AuthorizationFailed"),
        NICS: {"value": BOTH[:1], "nextLink": f"https://management.azure.com{NICS}2?page=2"},
        f"https://management.azure.com{NICS}2": {"value": BOTH[1:]},
    }
    assert find_nic(arm(documents), ALONE, SECOND).name == "nic2"


def test_a_nic_of_a_uniform_scale_set_is_written_through_its_instance() -> None:
    documents = {f"{INSTANCE_ID}/networkInterfaces": {"value": BOTH}}
    assert find_nic(arm(documents), INSTANCE, FIRST).instance == INSTANCE_ID


@pytest.mark.parametrize(
    "subnet", ["default", NIC["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"]]
)
def test_the_subnet_may_be_named_to_be_sure(subnet: str) -> None:
    assert find_nic(arm(machine(*BOTH)), ALONE, FIRST, subnet.upper()).name == "nic1"


def test_a_nic_in_another_subnet_is_left_alone() -> None:
    with pytest.raises(Refusal, match=r"provision\.subnet is pods"):
        find_nic(arm(machine(*BOTH)), ALONE, FIRST, "pods")


def test_the_only_nic_is_the_primary_one_whatever_it_says() -> None:
    assert find_nic(arm(machine(nic("nic1", FIRST))), ALONE, "").name == "nic1"


@pytest.mark.parametrize(
    ("mac", "wanted"),
    [("00:0d:3a:ff:ff:ff", "0 NICs with MAC 00:0d:3a:ff:ff:ff"), ("", "0 NICs marked as primary")],
)
def test_a_machine_without_such_a_nic_is_told(mac: str, wanted: str) -> None:
    nics = [nic("nic1", FIRST), nic("nic2", "")]
    with pytest.raises(Refusal, match=rf": {wanted}; it has nic1 \({FIRST}\), nic2 \(no MAC\)$") as refused:
        find_nic(arm(machine(*nics)), ALONE, mac)
    assert refused.value.kind is Kind.NOT_FOUND
    with pytest.raises(Refusal, match=rf": {wanted}; it has none$"):
        find_nic(arm(machine()), ALONE, mac)


def test_a_machine_that_is_gone_is_told() -> None:
    with pytest.raises(Refusal) as refused:
        find_nic(arm({}), replace(ALONE, name="vm2"), FIRST)
    assert refused.value.kind is Kind.NOT_FOUND


def test_pauses_grow_and_are_spread_and_never_end_before_retry_after() -> None:
    assert [pause(failures, 0, 0.5) for failures in (1, 2, 3)] == [3.75, 7.5, 15.0]
    assert pause(50, 0, 0.999) <= 600
    assert pause(1, 120, 0.0) == 120
    assert pause(1, 120, 0.8) == 144


def test_a_budget_refills_with_the_time_since_it_was_used_last() -> None:
    now = [0.0]
    bucket = Bucket(2, 10.0, lambda: now[0])
    assert [bucket.take() for _ in range(3)] == [0, 0, 10]
    now[0] = 20.0
    assert [bucket.take() for _ in range(2)] == [0, 10]
    now[0] = 1000.0
    assert [bucket.take() for _ in range(3)] == [0, 0, 10], "no more than at first"
