"""azvnet with the reference plugins: chained behind it, delegating to it, delegated to by it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration import plugins, reach, residue, witness
from integration.tests.pods import (
    WITNESS_PORT,
    Pod,
    attached,
    dropped,
    listening,
    machine,
    unreached,
    use,
    without_files,
)

if TYPE_CHECKING:
    from integration.fabric import Fabric, Machine

AZVNET: dict[str, Any] = {"type": "azvnet", "ipam": {"type": "azvnet-ipam"}}
RECORDER = Path(__file__).with_name("recorder.sh")


def fetch(source: reach.Endpoint, address: str) -> str:
    """What a web server says; empty when it can't be reached."""
    return source.run(["timeout", "3", "busybox", "wget", "-qO-", f"http://{address}/"], check=False).stdout


# chained behind azvnet


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_portmap_opens_a_port_of_the_node_and_closes_it(fabric: Fabric, node: Machine, backend: str) -> None:
    portmap = {
        "type": "portmap",
        "backend": backend,
        "snat": True,
        "capabilities": {"portMappings": True},
    }
    use(node, AZVNET, portmap)
    mapping = {"hostPort": 8081, "containerPort": reach.PORT, "protocol": "tcp"}
    (pod,) = attached(node, "web", capabilities={"portMappings": [mapping]})
    (other,) = attached(node, "client")
    outside, inside = machine(fabric.vnet_hosts["vm1"]), machine(node)
    mapped = f"{node.primary_ip}:8081"

    with reach.serving([pod.endpoint]):
        assert fetch(outside, mapped) == "web", "from the virtual network"
        assert fetch(inside, mapped) == "web", "from the node itself"
        assert fetch(inside, "127.0.0.1:8081") == "web", "from the node's loopback"
        assert fetch(other.endpoint, mapped) == "web", "from another pod of the node"
        assert fetch(pod.endpoint, mapped) == "web", "from the pod itself"
        assert pod.cnitool("check").ok
        address = str(pod.endpoint.address)
        pod.delete()
        assert fetch(outside, mapped) == ""
    left = residue.snapshot(node).facts
    assert [fact for fact in left if address in fact or "8081" in fact] == []
    assert dropped(fabric) == {}


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_pod_behind_a_host_port_sees_who_asks_also_from_its_own_subnet(
    fabric: Fabric, node: Machine, backend: str
) -> None:
    """The whole prefix of the address in the result is masqueraded by portmap, as if on one bridge."""
    snat = {"type": "portmap", "backend": backend, "snat": True, "capabilities": {"portMappings": True}}
    use(node, AZVNET, snat)
    mapping = {"hostPort": 8082, "containerPort": WITNESS_PORT, "protocol": "tcp"}
    (pod,) = attached(node, "seeing", capabilities={"portMappings": [mapping]})
    (other,) = attached(node, "asking")
    own, beside = (str(each.endpoint.address) for each in (pod, other))
    neighbour = fabric.vnet_hosts["vm1"]
    assert neighbour.primary_ip in node.nics[0].subnet.prefix

    with listening(node, "0.0.0.0", pod.netns):
        ask = ["python3", "-c", witness.ASK, "tcp", f"{node.primary_ip}:8082"]
        assert neighbour.run(ask).stdout.split() == [str(neighbour.primary_ip)]
        assert other.run(*ask).split() == [beside]
        assert node.run(ask).stdout.split() == [str(node.primary_ip)]
        assert pod.run(*ask).split() == [str(node.primary_ip)], "its own reply has to come back by the node"
    assert pod.addresses() == [f"{own}/32"]
    assert pod.cnitool("check").ok
    assert dropped(fabric) == {}


def test_bandwidth_limits_what_a_pod_receives_and_goes_with_it(fabric: Fabric, node: Machine) -> None:
    use(node, AZVNET, {"type": "bandwidth", "capabilities": {"bandwidth": True}})
    before = residue.snapshot(node)
    limits = {
        "ingressRate": 4_000_000,
        "ingressBurst": 400_000,
        "egressRate": 4_000_000,
        "egressBurst": 400_000,
    }
    (pod,) = attached(node, "slow", capabilities={"bandwidth": limits})
    (free,) = attached(node, "free")
    outside = machine(fabric.vnet_hosts["vm1"])

    assert pod.cnitool("check").ok
    # 500 kB are 4 Mbit: a second for the slow one, and more than a minute for what the other one gets.
    assert seconds_to_receive(pod, outside, 500_000) > 0.6
    assert seconds_to_receive(free, outside, 100 * 500_000)
    pod.delete()
    free.delete()
    for each in (pod, free):
        each.destroy()
    assert residue.snapshot(node) == before


def seconds_to_receive(pod: Pod, sender: reach.Endpoint, size: int) -> float:
    """How long a transfer to a pod takes."""
    script = f"head -c {size} /dev/zero | nc -w 10 -N {pod.endpoint.address} 9000"
    listen = ["timeout", "20", "nc", "-l", "9000"]
    with pod.node.popen(pod.endpoint.inside(listen), stdout=subprocess.PIPE) as listener:
        wait = "until grep -q ':2328 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.01; done"
        pod.run("timeout", "5", "sh", "-c", wait)
        started = time.monotonic()
        with sender.machine.popen(sender.inside(["sh", "-c", script])):
            received, _ = listener.communicate(timeout=20)
        took = time.monotonic() - started
    assert len(received) == size
    return took


def test_tuning_changes_mac_and_sysctl_and_the_pod_still_talks(fabric: Fabric, node: Machine) -> None:
    use(node, AZVNET, {"type": "tuning", "mac": "02:00:0a:0a:00:77", "sysctl": {"net.core.somaxconn": "500"}})
    before = residue.snapshot(node)
    pod = Pod.make(node, "tuned")
    result = pod.add()
    others = [machine(fabric.vnet_hosts["vm1"]), machine(node)]

    assert pod.links()["eth0"]["address"] == "02:00:0a:0a:00:77"
    assert result["interfaces"][1]["mac"] == "02:00:0a:0a:00:77"
    assert pod.run("cat", "/proc/sys/net/core/somaxconn").strip() == "500"
    assert unreached([pod.endpoint], [others[0]]) == []
    assert unreached(others, [pod.endpoint]) == []
    pod.cnitool("check").done()
    pod.delete()
    pod.destroy()
    assert residue.snapshot(node) == before


def test_plugin_that_fails_behind_azvnet_leaves_nothing_after_the_del(node: Machine) -> None:
    use(node, AZVNET, {"type": "tuning", "sysctl": {"net.ipv4.no_such_setting": "1"}})
    pod = Pod.make(node, "pod")
    before = residue.snapshot(node)

    assert "no_such_setting" in pod.cnitool("add").stderr
    pod.delete()

    assert without_files(residue.snapshot(node).added_to(before)) == []
    assert pod.links().keys() == {"lo"}


# delegating to azvnet-ipam


def kernel_has_ipvlan() -> bool:
    """Whether this kernel was built with it: some small ones were not, and then there is nothing to test."""
    script = "ip link add over type veth peer name under && ip link add link over name i type ipvlan"
    return (
        subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, check=False).returncode
        == 0
    )


DELEGATORS: list[dict[str, Any]] = [
    {"type": "bridge", "bridge": "cni0"},
    {"type": "ptp"},
    {"type": "macvlan", "master": "eth0"},
    *([{"type": "ipvlan", "master": "eth0"}] if kernel_has_ipvlan() else []),
]


@pytest.mark.parametrize("plugin", DELEGATORS, ids=lambda plugin: str(plugin["type"]))
def test_interface_plugins_get_addresses_from_azvnet_ipam_and_give_them_back(
    node: Machine, plugin: dict[str, Any]
) -> None:
    use(node, {**plugin, "ipam": {"type": "azvnet-ipam"}}, version="1.1.0")
    pods = attached(node, "a", "b")
    addresses = [pod.endpoint.address for pod in pods]

    assert len(set(addresses)) == 2
    assert set(addresses) <= set(node.pod_addresses)
    assert unreached([pods[0].endpoint], [pods[1].endpoint]) == []
    assert pods[0].cnitool("status").ok
    # Only the last one: the bridge takes another MAC with every port, and its CHECK minds.
    pods[1].cnitool("check").done()
    pods[0].delete()
    assert list(residue.reservations(node)) == [str(addresses[1])]
    pods[1].cnitool("gc").done()
    assert residue.reservations(node) == {}


@pytest.mark.parametrize("plugin", DELEGATORS, ids=lambda plugin: str(plugin["type"]))
def test_pods_of_interface_plugins_are_shown_with_both_their_ends(
    node: Machine, plugin: dict[str, Any]
) -> None:
    use(node, {**plugin, "ipam": {"type": "azvnet-ipam"}})
    pod, _ = attached(node, "a", "b")
    address = str(pod.endpoint.address)
    printed = node.run([f"{plugins.BIN}/azvnet", "show", address, "--output", "json"]).stdout
    (shown,) = json.loads(printed)["attachments"]
    link = pod.links()["eth0"]

    assert (shown["holder"], shown["netns"]) == ("delegated", pod.netns)
    assert (shown["podEnd"]["index"], shown["podEnd"]["mac"]) == (link["ifindex"], link["address"])
    assert address in {each.split("/")[0] for each in shown["podEnd"]["addresses"]}
    if plugin["type"] in ("bridge", "ptp"):
        assert shown["hostEnd"]["index"] == link["link_index"]
        assert (shown["paired"], shown["hostEnd"]["master"]) == (True, plugin.get("bridge"))
    else:
        assert (shown["paired"], shown["hostEnd"]) == (None, None)
        assert f"{plugin['type']} on eth0" in shown["unknown"]["hostEnd"]


def test_ptp_pods_with_our_addresses_reach_the_virtual_network(fabric: Fabric, node: Machine) -> None:
    use(node, {"type": "ptp", "ipam": {"type": "azvnet-ipam"}})
    (pod,) = attached(node, "pod")
    vm = machine(fabric.vnet_hosts["vm1"])

    assert unreached([pod.endpoint, vm], [pod.endpoint, vm]) == []
    assert dropped(fabric) == {}


# azvnet delegating


def host_local(node: Machine) -> dict[str, Any]:
    """host-local with the addresses that Azure gave to the node, so that the fabric carries them."""
    ranges = [
        {
            "subnet": str(node.vm.primary_nic.subnet.prefix),
            "rangeStart": str(node.pod_addresses[0]),
            "rangeEnd": str(node.pod_addresses[-1]),
        }
    ]
    return {"type": "host-local", "ranges": [ranges]}


def test_azvnet_takes_addresses_from_host_local(fabric: Fabric, node: Machine) -> None:
    use(node, {"type": "azvnet", "ipam": host_local(node)}, version="1.1.0")
    before = residue.snapshot(node)
    pods = attached(node, "a", "b")
    ends = [pod.endpoint for pod in pods]
    vm = machine(fabric.vnet_hosts["vm1"])

    assert unreached([*ends, vm], [*ends, vm]) == []
    assert residue.reservations(node) == {}, "the addresses are host-local's, not ours"
    assert pods[0].cnitool("status").ok
    assert [pod.cnitool("check").stderr for pod in pods] == ["", ""]
    assert sorted(held_by_host_local(node)) == sorted(str(end.address) for end in ends)
    pods[0].delete()
    pods[1].cnitool("gc").done()
    assert held_by_host_local(node) == []
    for pod in pods:
        pod.destroy()
    assert without_files(residue.snapshot(node).added_to(before)) == []


def held_by_host_local(node: Machine, network: str = "azvnet") -> list[str]:
    """The addresses that host-local has given out: one file each."""
    listed = node.run(["ls", f"/var/lib/cni/networks/{network}"], check=False).stdout.split()
    return [name for name in listed if name[0].isdigit()]


def test_azvnet_takes_a_fixed_address_from_static(fabric: Fabric, node: Machine) -> None:
    address = node.pod_addresses[3]
    static = {"type": "static", "addresses": [{"address": f"{address}/20"}]}
    use(node, {"type": "azvnet", "ipam": static})
    (pod,) = attached(node, "fixed")

    assert pod.addresses() == [f"{address}/32"]
    assert unreached([machine(fabric.vnet_hosts["vm1"])], [pod.endpoint]) == []
    pod.cnitool("check").done()
    pod.delete()
    assert pod.addresses() == []


def test_address_of_a_delegate_is_freed_when_the_endpoint_can_not_be_made(node: Machine) -> None:
    use(node, {"type": "azvnet", "ipam": host_local(node)})
    pod = Pod.make(node, "occupied")
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    before = residue.snapshot(node)

    assert not pod.cnitool("add").ok

    assert held_by_host_local(node) == []
    assert without_files(residue.snapshot(node).added_to(before)) == []
    assert pod.links()["eth0"]["addr_info"] == []


def with_recorder(node: Machine, **answers: dict[str, Any]) -> None:
    """Make ``recorder`` the IPAM plugin that azvnet delegates to; ``ADD={...}`` is what it answers."""
    node.run(["cp", str(RECORDER), f"{plugins.BIN}/recorder"])
    node.run(["mkdir", "-p", "/run/recorder"])
    for command, answer in answers.items():
        node.run(["tee", f"/run/recorder/answer.{command}"], input=json.dumps(answer))
    use(node, {"type": "azvnet", "ipam": {"type": "recorder", "made-up": [1]}}, version="1.1.0")


def recorded(node: Machine) -> list[str]:
    """The commands that the recorder got."""
    calls = node.run(["cat", "/run/recorder/calls"], check=False).stdout.splitlines()
    return [call.split()[0] for call in calls]


def test_failing_delegate_is_quoted_undone_and_leaves_nothing(node: Machine) -> None:
    with_recorder(node, ADD={"cniVersion": "1.1.0", "code": 117, "msg": "the cupboard is bare"})
    pod = Pod.make(node, "pod")
    before = residue.snapshot(node)

    refused = pod.cnitool("add")

    assert not refused.ok
    assert "the cupboard is bare" in refused.stderr
    assert recorded(node) == ["ADD", "DEL"], "the delegate is called with DEL when its ADD failed"
    assert residue.snapshot(node) == before
    assert pod.links().keys() == {"lo"}


def test_delegate_sees_the_callers_environment_and_configuration_and_nothing_of_the_bundle(
    node: Machine,
) -> None:
    address = f"{node.pod_addresses[0]}/20"
    with_recorder(node, ADD={"cniVersion": "1.1.0", "ips": [{"address": address}]})
    (pod,) = attached(node, "pod")
    pod.cnitool("check").done()
    pod.cnitool("status").done()
    pod.delete()

    assert recorded(node) == ["ADD", "CHECK", "STATUS", "DEL"]
    for command in ("ADD", "CHECK", "DEL"):
        seen = environment(node, command)
        # The one name of ours ends a loop of plugins that delegate to each other.
        assert seen.pop("AZVNET_DELEGATED_BY") == "azvnet"
        foreign = [name for name in seen if name.startswith(("LD_", "PYTHON", "_MEI", "_PYI", "AZVNET_"))]
        assert foreign == [], f"{command} passed on {foreign}"
        assert seen["CNI_COMMAND"] == command
        assert seen["CNI_NETNS"] == pod.netns
        given = json.loads(node.run(["cat", f"/run/recorder/{command}.stdin"]).stdout)
        assert given["ipam"] == {"type": "recorder", "made-up": [1]}


def environment(node: Machine, command: str) -> dict[str, str]:
    """What the recorder was started with."""
    lines = node.run(["cat", f"/run/recorder/{command}.env"]).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)
