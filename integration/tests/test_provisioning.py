"""A node whose agent grows and shrinks its own NIC: the frozen bundle, the real SDK, the emulated Azure."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from integration.calls import Outcome, call
from integration.fabric import Fabric
from integration.fabric.armdocuments import nic_document
from integration.fabric.armoperations import Outcome as Ending
from integration.fabric.armroles import INSTANCE, INSTANCE_NIC, NIC_WRITER
from integration.fabric.machine import CA_FILE
from integration.fabric.model import State
from integration.fabric.nicdiff import foreign_changes
from integration.plugins import BIN, install_ours
from ipam.provision.nic_document import named_by_us
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

NETCONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "azvnet",
    "type": "azvnet",
    "ipam": {"type": "azvnet-ipam", "environment": "imds", "queryInterval": 0.2, "cooldown": 0.1},
}
SIZES: dict[str, Any] = {"mode": "node", "low": 2, "batch": 4, "high": 6, "shrink_after_seconds": 3600}
CONFIG = "/etc/azvnet-agent.json"
UNIFORM_ACTIONS = frozenset({f"{INSTANCE}/read", f"{INSTANCE}/write", f"{INSTANCE_NIC}/read"})
"""What instances of Uniform scale sets need beside the role for NICs."""
NIC = "node1-nic0"
PATIENCE = 120.0
"""Seconds: a pause after a refusal is some seconds by itself, on a machine that may be ten times slower."""


pytestmark = pytest.mark.timeout(600)


class ProvisionedNode:
    """A node and its agent, which can be killed and started again."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.machine: Machine = fabric.nodes["node1"]
        self.pods: dict[str, str] = {}
        """Names of pods with their addresses."""
        self._agent: subprocess.Popen[str] | None = None
        install_ours(self.machine)

    def configure(self, **provision: Any) -> None:
        """Write the agent's settings, which it reads when they change."""
        settings = {
            "source": "imds",
            "refresh_seconds": 0.5,
            "reconcile_seconds": 1,
            "arm": {"ca_file": CA_FILE, "credential": "managed-identity"},
            "provision": {**SIZES, **provision},
        }
        self.machine.run(["tee", CONFIG], input=json.dumps(settings))

    def start(self, **provision: Any) -> None:
        self.configure(**provision)
        self._agent = self.machine.popen(
            [f"{BIN}/azvnet", "agent", "--config", CONFIG],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.send_signal(how)
            agent.wait(60)

    def add(self, name: str, ip: str = "") -> Outcome:
        """ADD for a pod of that name, in a namespace of its own; ``ip``: the address that it asks for."""
        if self.machine.run(["ip", "netns", "pids", name], check=False).returncode != 0:
            self.machine.run(["ip", "netns", "add", name])
        args = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}{f';IP={ip}' if ip else ''}"
        done = call(self.machine, "ADD", NETCONF, container_id=name, netns=f"/run/netns/{name}", args=args)
        if done.ok:
            self.pods[name] = done.result["ips"][0]["address"].split("/")[0]
        return done

    def delete(self, name: str) -> None:
        call(self.machine, "DEL", NETCONF, container_id=name, netns=f"/run/netns/{name}").done()
        del self.pods[name]

    def reaches_the_network(self, name: str) -> bool:
        """Whether a pod's ping to another machine is answered."""
        other = str(self.fabric.vnet_hosts["vm1"].primary_ip)
        argv = ["ip", "netns", "exec", name, "ping", "-c", "1", "-W", "5", other]
        return self.machine.run(argv, check=False).returncode == 0

    def status(self) -> dict[str, Any]:
        printed = self.machine.run([f"{BIN}/azvnet", "status", "--output", "json"], check=False).stdout
        document: dict[str, Any] = json.loads(printed or "{}")
        return document

    def says(self, word: str) -> bool:
        """Whether ``azvnet status`` tells this of the NIC's growth."""
        return word in str((self.status().get("agent") or {}).get("provision", ""))

    def page(self, name: str) -> str:
        """What the agent's page of that name says; empty: it has no answer, or not a good one."""
        page = ["curl", "-sf", "--unix-socket", "/run/azvnet/http.sock", f"http://node/{name}"]
        return self.machine.run(page, check=False).stdout

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says that a pod gets an address."""
        return bool(self.page("readyz"))

    def metric(self, name: str) -> float:
        """One sample, named with its labels; not a number: there is none."""
        lines = self.page("metrics").splitlines()
        found = [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]
        return float(found[0]) if found else math.nan

    def logged(self, word: str) -> bool:
        """Whether the agent's log has it."""
        log = self.machine.run(["cat", "/var/log/azvnet/agent.log"], check=False).stdout
        return word in log

    @property
    def free(self) -> int:
        return int((self.status().get("pool") or {}).get("free", 0))

    @property
    def names(self) -> list[str]:
        """The IP configurations of the NIC, as the emulated Azure has them."""
        return [each.name for each in self.machine.vm.primary_nic.configurations]

    def document(self) -> dict[str, Any]:
        """The NIC as Resource Manager shows it."""
        vm = self.machine.vm
        return nic_document(self.fabric.estate, vm, vm.primary_nic)

    @property
    def ours(self) -> list[str]:
        return [name for name in self.names if name.startswith("azvnet-")]

    @property
    def writes(self) -> int:
        """PUTs that were accepted."""
        return self.fabric.arm.log.count(kind="PUT", status=200)

    @property
    def resident_bytes(self) -> int:
        """The most memory that the agent ever had."""
        lines = self.machine.run(["cat", f"/proc/{self.status()['agent']['pid']}/status"]).stdout.splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024

    def nothing_was_dropped(self) -> bool:
        """No pod ever sent from an address that the NIC did not own."""
        return self.fabric.drop_counters().spoofed.get("node1", 0) == 0


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


def test_configurations_of_ipv6_stay_as_they_are_while_those_of_ipv4_come_and_go() -> None:
    """Growth and shrinking are of IPv4; the others are written back byte for byte, a block too."""
    with (
        Fabric(nodes=1, addresses=2, ipv6=3, vnet_hosts=1, imds_limit=None) as fabric,
        contextlib.ExitStack() as stack,
    ):
        fabric.arm.roles.give(NIC_WRITER)
        fabric.arm.edit_nic(NIC, _with_a_block_of_ipv6)
        node = ProvisionedNode(fabric)
        stack.callback(node.end)

        def of_ipv6() -> list[str]:
            entries = node.document()["properties"]["ipConfigurations"]
            kept = [each for each in entries if each["properties"]["privateIPAddressVersion"] == "IPv6"]
            return [json.dumps({**each, "etag": ""}) for each in kept]

        before = of_ipv6()
        assert len(before) == 5
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
    node.add("pod").done()
    eventually(lambda: node.free >= 1 and node.writes >= 2, "the pool goes on, one by one", patience=PATIENCE)
    assert node.reaches_the_network("pod")


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
