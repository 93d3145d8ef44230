"""A node whose agent grows and shrinks its own NIC: the frozen bundle, the real SDK, the emulated Azure."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from integration.fabric import Fabric
from integration.fabric.armoperations import Outcome as Ending
from integration.fabric.armroles import INSTANCE, INSTANCE_NIC, NIC_WRITER
from integration.fabric.model import State
from integration.fabric.nicdiff import foreign_changes
from integration.provisioned import ProvisionedNode
from ipam.provision.nic_document import named_by_us
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIFORM_ACTIONS = frozenset({f"{INSTANCE}/read", f"{INSTANCE}/write", f"{INSTANCE_NIC}/read"})
"""What instances of Uniform scale sets need beside the role for NICs."""
NIC = "node1-nic0"
PATIENCE = 120.0
"""Seconds: a pause after a refusal is some seconds by itself, on a machine that may be ten times slower."""


pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=["standalone"])
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    with Fabric(nodes=1, addresses=2, vnet_hosts=1, imds_limit=None, placement=request.param) as made:
        made.arm.roles.give(NIC_WRITER | UNIFORM_ACTIONS if request.param == "uniform" else NIC_WRITER)
        yield made


@pytest.fixture
def node(fabric: Fabric) -> Iterator[ProvisionedNode]:
    with contextlib.ExitStack() as stack:
        made = ProvisionedNode(fabric)
        stack.callback(made.end)
        yield made


@pytest.mark.parametrize("fabric", ["standalone", "flexible", "uniform"], indirect=True)
def test_a_pod_that_finds_no_address_is_told_that_some_come_and_gets_one(node: ProvisionedNode) -> None:
    node.start()
    eventually(lambda: node.free == 2 and node.says("idle"), "two are enough", patience=PATIENCE)
    node.fabric.arm.operations.hold()
    for number in range(2):
        node.add(f"pod-{number}").done()
    refused = node.add("pod-2")
    assert refused.document["code"] == 100
    assert "addresses are on the way" in refused.document["msg"]
    eventually(lambda: node.ours, "the NIC is given more", patience=PATIENCE)
    assert not node.add("pod-2").ok, "until the fabric knows them"
    node.fabric.arm.operations.release()
    eventually(lambda: node.add("pod-2").ok, "the pod that waited starts", patience=PATIENCE)
    assert all(node.reaches_the_network(pod) for pod in node.pods)
    assert node.nothing_was_dropped()
    assert node.resident_bytes < 110 << 20


def test_an_idle_pool_shrinks_and_live_pods_and_others_keep_what_they_have(node: ProvisionedNode) -> None:
    node.start(minimum=12)
    eventually(lambda: node.free == 12, "it grows to the minimum", patience=PATIENCE)
    node.fabric.arm.edit_nic(NIC, _with_another_configuration)
    eventually(lambda: node.free == 13, "what others add is used", patience=PATIENCE)
    configurations = node.machine.vm.primary_nic.configurations
    highest = max(each.address for each in configurations if each.name in node.ours)
    node.add("pod", ip=str(highest)).done()
    node.configure(shrink_after_seconds=0.1)
    eventually(lambda: len(node.names) <= 8, "it shrinks", patience=PATIENCE)
    eventually(lambda: node.says("idle"), "it is at rest", patience=PATIENCE)
    assert {"ipconfig1", "theirs"} <= set(node.names)
    assert highest in {each.address for each in node.machine.vm.primary_nic.configurations}
    assert node.reaches_the_network("pod")
    for number in range(2):
        node.add(f"later-{number}").done()
        assert node.reaches_the_network(f"later-{number}"), "what is left is the NIC's"
    assert node.nothing_was_dropped()


@pytest.mark.parametrize("placement", ["standalone", "uniform"])
def test_configurations_of_ipv6_stay_as_they_are_while_those_of_ipv4_come_and_go(placement: str) -> None:
    """Growth and shrinking are of IPv4; the others are written back byte for byte, a block too. Of
    an instance its model is written, which has no addresses.
    """
    with (
        Fabric(nodes=1, addresses=2, ipv6=3, vnet_hosts=1, imds_limit=None, placement=placement) as fabric,
        contextlib.ExitStack() as stack,
    ):
        fabric.arm.roles.give(NIC_WRITER | UNIFORM_ACTIONS if placement == "uniform" else NIC_WRITER)
        if placement == "standalone":
            fabric.arm.edit_nic(NIC, _with_a_block_of_ipv6)
        node = ProvisionedNode(fabric)
        stack.callback(node.end)

        def of_ipv6() -> list[str]:
            entries = node.document()["properties"]["ipConfigurations"]
            kept = [each for each in entries if each["properties"]["privateIPAddressVersion"] == "IPv6"]
            return [json.dumps({**each, "etag": ""}) for each in kept]

        before = of_ipv6()
        assert len(before) == (5 if placement == "standalone" else 4)
        document = node.document()
        node.start(minimum=10)
        eventually(lambda: len(node.ours) == 8, "it grows", patience=PATIENCE)
        eventually(lambda: node.says("idle"), "it is at rest", patience=PATIENCE)
        assert of_ipv6() == before
        node.configure(shrink_after_seconds=0.1)
        eventually(lambda: len(node.ours) <= 4, "it shrinks", patience=PATIENCE)
        eventually(lambda: node.says("idle"), "it is at rest again", patience=PATIENCE)
        assert of_ipv6() == before
        assert foreign_changes(document, node.document(), named_by_us) == []


def _with_a_block_of_ipv6(document: dict[str, Any]) -> None:
    entries = document["properties"]["ipConfigurations"]
    properties = {"privateIPAddressVersion": "IPv6", "privateIPAddressPrefixLength": 112}
    subnet = {"subnet": entries[0]["properties"]["subnet"]}
    entries.append({"name": "block6", "properties": {**properties, **subnet}})


def test_an_operation_outlives_the_agent_that_began_it(node: ProvisionedNode) -> None:
    node.fabric.arm.operations.hold()
    node.start(minimum=10)
    eventually(lambda: node.ours, "the NIC is written", patience=PATIENCE)
    node.end(signal.SIGKILL)
    node.start(minimum=10)
    eventually(lambda: node.status().get("agent", {}).get("state") == "running", "it runs again")
    node.fabric.arm.operations.release()
    eventually(lambda: node.free == 10, "what was begun is there", patience=PATIENCE)
    eventually(lambda: node.says("idle"), "and nothing more is wanted", patience=PATIENCE)
    assert node.writes == 1


def test_a_node_that_reboots_gives_no_pod_an_address_that_is_just_being_removed(
    node: ProvisionedNode,
) -> None:
    """Azure goes on with the removal, IMDS lists the address until its end, and /run is empty then."""
    node.start(minimum=10)
    eventually(lambda: node.free == 10, "it grows to the minimum", patience=PATIENCE)
    node.fabric.arm.operations.hold()
    node.configure(shrink_after_seconds=0.1)
    eventually(lambda: len(node.ours) <= 4, "the NIC is written", patience=PATIENCE)
    nic = node.machine.vm.primary_nic
    going = {each.address for each in nic.delivered} - {each.address for each in nic.configurations}
    assert going, "IMDS still lists what is being removed"
    node.end(signal.SIGKILL)
    node.machine.reboot()
    staying = len(nic.configurations) - 1
    for number in range(staying):  # before any agent runs, and as it begins
        if number == staying // 2:
            node.start()
        node.add(f"pod-{number}").done()
    assert not node.add("one-more").ok, "nothing else may be given to a pod"
    assert {str(each) for each in going}.isdisjoint(node.pods.values())
    node.fabric.arm.operations.release()
    eventually(lambda: node.says("idle"), "it is at rest", patience=PATIENCE)
    assert all(node.reaches_the_network(pod) for pod in node.pods)
    assert node.nothing_was_dropped()


def test_what_another_writer_does_between_read_and_write_survives(node: ProvisionedNode) -> None:
    node.fabric.arm.edit_nic(NIC, lambda nic: nic.update(tags={"owner": "somebody else"}))
    before = node.document()
    node.fabric.arm.faults.other_writers.append(_with_another_configuration)
    node.start(minimum=6)
    eventually(lambda: len(node.ours) == 4, "the NIC is written", patience=PATIENCE)
    changes = foreign_changes(before, node.document(), named_by_us)
    assert len(changes) == 1
    assert changes[0].startswith("/ipConfigurations/theirs: None became")
    assert node.fabric.arm.log.count(kind="PUT", status=412) == 1


def test_an_operation_that_fails_late_is_told_and_made_good(node: ProvisionedNode) -> None:
    message = "Subnet nodes does not have enough capacity for 4 IP addresses."
    node.fabric.arm.operations.outcomes.append(Ending(State.FAILED, "SubnetIsFull", message))
    node.start(minimum=4)
    eventually(lambda: node.says("subnet-full"), "the state is told", patience=PATIENCE)
    for number in range(node.free):
        node.add(f"pod-{number}").done()
    eventually(lambda: node.add("one-more").ok, "the pod that waits is given one", patience=PATIENCE)
    assert node.writes >= 2
    assert node.reaches_the_network("one-more")


@pytest.mark.parametrize("fabric", ["uniform"], indirect=True)
def test_what_an_update_of_the_scale_set_wipes_is_made_again(node: ProvisionedNode) -> None:
    node.start(minimum=6)
    eventually(lambda: node.free == 6, "the instance is given four more", patience=PATIENCE)
    wiped = set(node.ours)
    node.fabric.arm.reconcile()
    eventually(lambda: node.ours and wiped.isdisjoint(node.ours), "others are made", patience=PATIENCE)
    eventually(lambda: node.free == 6, "they are there", patience=PATIENCE)
    assert node.nothing_was_dropped()


@pytest.mark.parametrize("fabric", ["uniform"], indirect=True)
def test_pods_whose_addresses_an_update_of_the_scale_set_wiped_are_named(node: ProvisionedNode) -> None:
    node.start(minimum=6)
    eventually(lambda: node.free == 6 and node.says("idle"), "it is given four more", patience=PATIENCE)
    ours = [each.address for each in node.machine.vm.primary_nic.configurations if each.name in node.ours]
    node.add("web", ip=str(ours[0])).done()
    node.end()
    node.fabric.arm.reconcile()
    node.start(minimum=6)
    alarm = f"the NIC has lost {ours[0]} of default/web: "
    eventually(lambda: alarm in " ".join(node.status()["problems"]), "it is named", patience=PATIENCE)
    for name in ("azvnet_provision_vanished_addresses", 'azvnet_problems{kind="vanished"}'):
        eventually(lambda: node.metric(name) == 1, name, patience=PATIENCE)  # noqa: B023 - called here
    assert alarm in node.page("readyz")
    eventually(lambda: node.free >= 5, "others are made", patience=PATIENCE)
    node.delete("web")
    eventually(lambda: alarm not in " ".join(node.status()["problems"]), "it is over", patience=PATIENCE)
    writes = 'azvnet_provision_writes_total{outcome="ok"}'
    eventually(
        lambda: node.metric(writes) == node.writes >= 2, "the writes of both agents", patience=PATIENCE
    )
    vanished = "azvnet_provision_vanished_addresses"
    eventually(lambda: node.metric(vanished) == 0, "and is counted no more", patience=PATIENCE)


def test_a_storm_of_throttling_is_told_and_waited_out(node: ProvisionedNode) -> None:
    node.fabric.arm.faults.throttle(times=1000, retry_after=1, kinds=("PUT",))
    node.start(minimum=6)
    eventually(lambda: node.logged("throttled"), "the state is told", patience=PATIENCE)
    node.add("pod").done()
    eventually(node.is_ready, "pods get what is free", patience=PATIENCE)
    assert not node.ours, "and what is more is still refused"
    node.fabric.arm.faults.clear()
    eventually(lambda: node.ours, "the NIC is written in the end", patience=PATIENCE)


def test_without_permission_pods_start_and_the_node_says_what_is_missing(node: ProvisionedNode) -> None:
    node.fabric.arm.roles.give("reader")
    node.start(minimum=6)
    eventually(lambda: node.says("forbidden"), "the state is told", patience=PATIENCE)

    def problems() -> str:
        return " ".join(node.status()["problems"])

    # Until the agent has read its source, it is that which is told.
    eventually(lambda: "networkInterfaces/write" in problems(), problems, patience=PATIENCE)
    assert "docs/provisioning.md" in problems()
    node.add("pod").done()
    node.fabric.arm.roles.give("nic-writer")
    eventually(lambda: node.ours, "it goes on when it may", patience=PATIENCE)


def test_switched_off_nothing_is_asked_of_resource_manager(node: ProvisionedNode) -> None:
    node.start(mode="off")
    eventually(lambda: node.free == 2, "the pool is there", patience=PATIENCE)
    for number in range(2):
        node.add(f"pod-{number}").done()
    refused = node.add("pod-2")
    assert "on the way" not in refused.document["msg"]
    assert node.fabric.arm.log.count() == 0


def _with_another_configuration(nic: dict[str, Any]) -> None:
    """Somebody else gives the NIC an IP configuration."""
    entries = nic["properties"]["ipConfigurations"]
    subnet = entries[0]["properties"]["subnet"]
    entries.append(
        {
            "name": "theirs",
            "properties": {"primary": False, "privateIPAllocationMethod": "Dynamic", "subnet": subnet},
        }
    )
