"""The agent with the source ``arm``: the frozen bundle, the real SDK, the emulated Azure Resource Manager."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from integration.calls import call
from integration.fabric import Fabric
from integration.fabric.machine import CA_FILE
from integration.plugins import BIN, install_ours
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

NETCONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "azvnet",
    "type": "azvnet",
    "ipam": {"type": "azvnet-ipam", "environment": "arm", "queryInterval": 0.5},
}
SETTINGS = {"source": "arm", "refresh_seconds": 0.5, "reconcile_seconds": 1, "arm": {"ca_file": CA_FILE}}
CONFIG = "/etc/azvnet-agent.json"


@pytest.fixture(params=["standalone", "uniform", "flexible"])
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    with Fabric(nodes=1, addresses=4, vnet_hosts=0, imds_limit=None, placement=request.param) as made:
        yield made


@pytest.fixture
def node(fabric: Fabric) -> Iterator[Machine]:
    """A node whose agent runs."""
    machine = fabric.nodes["node1"]
    install_ours(machine)
    machine.run(["tee", CONFIG], input=json.dumps(SETTINGS))
    agent = machine.popen(
        [f"{BIN}/azvnet", "agent", "--config", CONFIG],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    yield machine
    agent.send_signal(signal.SIGTERM)
    agent.wait(30)


def status(node: Machine) -> dict[str, Any]:
    printed = node.run([f"{BIN}/azvnet", "status", "--output", "json"], check=False).stdout
    document: dict[str, Any] = json.loads(printed or "{}")
    return document


def resident_bytes(node: Machine) -> int:
    lines = node.run(["cat", f"/proc/{status(node)['agent']['pid']}/status"]).stdout.splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def shown_configuration(node: Machine, container: str) -> tuple[str, str]:
    """Address and name of the IP configuration that ``azvnet show`` finds for a container."""
    printed = node.run([f"{BIN}/azvnet", "show", container, "--output", "json"]).stdout
    (address,) = json.loads(printed)["attachments"][0]["addresses"]
    return address["address"].split("/")[0], address["ipConfiguration"]


def configuration_names(node: Machine) -> set[tuple[str, str]]:
    """Addresses and names of the IP configurations as the emulated Azure has them."""
    return {(str(each.address), each.name) for each in node.vm.primary_nic.configurations}


def total(node: Machine) -> int:
    return int((status(node).get("pool") or {}).get("total", 0))


def test_pods_get_the_addresses_that_resource_manager_lists_and_no_outage_stops_them(
    fabric: Fabric, node: Machine
) -> None:
    eventually(lambda: total(node) == 4, "the NIC's four addresses are in the pool")
    assert status(node)["source"]["name"] == "arm"

    fabric.add_addresses("node1", 1, state="Updating")
    fabric.add_addresses("node1", 2)
    eventually(lambda: total(node) == 6, "two more: one that is still being made does not count")

    fabric.fault("arm", status=503)
    eventually(lambda: status(node)["source"]["error"], "the outage is visible")
    for number in range(6):
        node.run(["ip", "netns", "add", f"pod-{number}"])
        added = call(
            node, "ADD", NETCONF, container_id=f"pod-{number}", netns=f"/run/netns/pod-{number}"
        ).result
        assert added["ips"][0]["address"].split("/")[0] in map(str, node.pod_addresses)
        assert shown_configuration(node, f"pod-{number}") in configuration_names(node)
    assert status(node)["agent"]["state"] == "running"
    assert resident_bytes(node) < 80 << 20, "with the SDK, and after it has done something"

    fabric.clear_faults()
    eventually(lambda: not status(node)["source"]["error"], "it is readable again")
    for number in range(6):
        call(node, "DEL", NETCONF, container_id=f"pod-{number}", netns=f"/run/netns/pod-{number}").done()
    assert status(node)["pool"]["assigned"] == 0


def test_the_executable_alone_uses_what_the_agent_has_learned(node: Machine) -> None:
    eventually(lambda: total(node) == 4, "the NIC's four addresses are in the pool")
    node.run(["ip", "netns", "add", "alone"])
    alone = {"AZVNET_AGENT": "none"}
    added = call(node, "ADD", NETCONF, container_id="alone", netns="/run/netns/alone", env=alone).result
    assert added["ips"][0]["address"].split("/")[0] in map(str, node.pod_addresses)
    call(node, "DEL", NETCONF, container_id="alone", netns="/run/netns/alone", env=alone).done()
