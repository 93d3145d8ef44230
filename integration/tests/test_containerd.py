"""azvnet under a real containerd, through its CRI: what the kubelet would do and see."""

from __future__ import annotations

import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from integration import calls, plugins, reach, residue, tools
from integration.containerd import Containerd, CriError, Pod
from integration.tests.conftest import shipped
from integration.tests.pods import dropped, machine
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.fabric import Fabric, Machine
    from integration.tests.conftest import MakeFabric

KERNEL_AND_STORE = ("link", "address", "route", "rule", "neighbour", "reservation")


@pytest.fixture(params=["1.6", "2.x"])
def programs(request: pytest.FixtureRequest) -> Path | None:
    """Which containerd: Debian's, or the newest."""
    return None if request.param == "1.6" else tools.containerd()


@pytest.fixture
def containerd(node: Machine, programs: Path | None) -> Iterator[Containerd]:
    """A containerd on the one node, with the shipped conflist."""
    plugins.write_conflist(node, shipped("10-azvnet.conflist"))
    with running(node, programs) as started:
        yield started


@contextlib.contextmanager
def running(node: Machine, programs: Path | None = None) -> Iterator[Containerd]:
    """A containerd on a node, ready for pods; its log is shown when the block fails."""
    with Containerd(node, programs=programs) as started:
        try:
            await_network(started)
            yield started
        except BaseException as error:
            error.add_note(started.log_tail())
            raise


def await_network(containerd: Containerd) -> None:
    eventually(lambda: containerd.conditions()["NetworkReady"].status, "the network is ready")


def end(node: Machine, pod: Pod) -> reach.Endpoint:
    """Where a pod's traffic comes from and goes to."""
    return reach.Endpoint(pod.name, node, pod.ip, pod.netns)


def left_by_pods(node: Machine, before: residue.Snapshot) -> list[str]:
    """What is different from before, without the empty chains that portmap keeps for the next pod."""
    return residue.snapshot(node).added_to(before, *KERNEL_AND_STORE, "file")


def test_node_is_ready_for_pods_exactly_while_there_is_a_conflist(
    node: Machine, programs: Path | None
) -> None:
    with Containerd(node, programs=programs) as containerd:
        assert containerd.conditions()["RuntimeReady"].status
        unready = containerd.conditions()["NetworkReady"]
        assert not unready.status
        assert "cni plugin not initialized" in unready.message

        plugins.write_conflist(node, shipped("10-azvnet.conflist"))
        await_network(containerd)
        plugins.remove_conflist(node)
        eventually(lambda: not containerd.conditions()["NetworkReady"].status, "it is not ready")


def test_container_sees_the_boot_id_of_its_node_and_cannot_change_it(
    node: Machine, containerd: Containerd
) -> None:
    container = containerd.run_container(containerd.run_pod("looks"), ["sleep", "1000"])
    path = "/proc/sys/kernel/random/boot_id"
    assert containerd.exec(container, ["cat", path]).stdout.strip() == node.boot_id
    assert containerd.exec(container, ["sh", "-c", f"echo x >{path}"]).exit_code != 0


def test_pods_have_addresses_of_the_virtual_network_and_talk(make_fabric: MakeFabric) -> None:
    fabric = make_fabric(nodes=2)
    nodes = list(fabric.nodes.values())
    with contextlib.ExitStack() as stack:
        started = []
        for node in nodes:
            plugins.write_conflist(node, shipped("10-azvnet.conflist"))
            started.append(stack.enter_context(running(node)))
        pods = [(started[0], "a"), (started[0], "b"), (started[1], "c")]
        made = [(runtime, runtime.run_pod(name)) for runtime, name in pods]
        for runtime, pod in made:
            assert pod.ip in runtime.node.pod_addresses
            runtime.serve(pod, pod.name, port=reach.PORT)
        vm = machine(fabric.vnet_hosts["vm1"])
        ends = [end(runtime.node, pod) for runtime, pod in made]
        sources = [*ends, vm, *(machine(node) for node in nodes)]
        with reach.serving([vm]):
            rows = reach.matrix(sources, [*ends, vm])
    assert [probe for row in rows for probe in row if not probe.ok] == []
    assert dropped(fabric) == {}


def test_host_port_is_open_while_the_pod_lives(fabric: Fabric, containerd: Containerd) -> None:
    node, vm = containerd.node, fabric.vnet_hosts["vm1"]
    pod = containerd.run_pod("web", host_ports=["8088:80"])
    containerd.serve(pod, "hello from the pod")
    ask = ["timeout", "3", "busybox", "wget", "-qO-", f"http://{node.primary_ip}:8088/"]

    assert vm.run(ask).stdout == "hello from the pod"
    assert node.run(ask).stdout == "hello from the pod"
    containerd.delete_pod(pod)
    assert vm.run(ask, check=False).stdout == ""


def test_deleted_pods_leave_nothing(containerd: Containerd) -> None:
    node = containerd.node
    warm_up = containerd.run_pod("warm-up", host_ports=["9000:80"])
    containerd.delete_pod(warm_up)
    before = residue.snapshot(node)

    pods = [containerd.run_pod(f"pod-{n}", host_ports=[f"{9000 + n}:80"]) for n in range(3)]
    addresses = [str(pod.ip) for pod in pods]
    assert len(residue.reservations(node)) == 3
    for pod in pods:
        containerd.delete_pod(pod)

    assert left_by_pods(node, before) == []
    filters = [fact for fact in residue.snapshot(node).facts if any(a in fact for a in addresses)]
    assert filters == []
    assert containerd.cri.pods() == []
    assert containerd.shims() == []


@pytest.mark.parametrize("kill", [False, True], ids=["restarted", "killed"])
def test_pods_survive_containerd_and_go_afterwards(
    fabric: Fabric, containerd: Containerd, kill: bool
) -> None:
    node = containerd.node
    before = residue.snapshot(node)
    old = containerd.run_pod("old")
    container = containerd.serve(old, "old", port=reach.PORT)

    containerd.restart(kill=kill)

    vm = machine(fabric.vnet_hosts["vm1"])
    assert [probe for probe in reach.probe(vm, [end(node, old)]) if not probe.ok] == []
    assert containerd.exec(container, ["hostname"]).stdout.strip() == "old"
    assert containerd.cri.pod_status(old).ips == old.ips
    await_network(containerd)
    new = containerd.run_pod("new")
    assert new.ip != old.ip
    containerd.delete_pod(old)
    containerd.delete_pod(new)
    assert left_by_pods(node, before) == []


def test_pods_survive_an_upgrade_of_containerd_and_go_afterwards(node: Machine) -> None:
    """The new one finds what the old one's libcni kept of a pod, and calls DEL with it."""
    plugins.write_conflist(node, shipped("10-azvnet.conflist"))
    before = residue.snapshot(node)
    with running(node) as containerd:
        old = containerd.run_pod("old", host_ports=["8088:80"])
        container = containerd.serve(old, "old")
        containerd.programs = tools.containerd()
        containerd.restart()
        await_network(containerd)
        assert containerd.exec(container, ["hostname"]).stdout.strip() == "old"
        new = containerd.run_pod("new")
        assert new.ip != old.ip
        containerd.delete_pod(old)
        containerd.delete_pod(new)
        assert left_by_pods(node, before) == []


def test_containerd_killed_while_it_makes_pods_leaks_nothing(containerd: Containerd) -> None:
    node = containerd.node
    before = residue.snapshot(node)
    with ThreadPoolExecutor(4) as pool:
        tries = [pool.submit(containerd.run_pod, f"pod-{n}") for n in range(4)]
        eventually(lambda: node.run(["ls", "/run/netns"], check=False).stdout, "a pod is being made")
        time.sleep(random.uniform(0, 0.4))
        containerd.end_daemon(kill=True)
        outcomes = [attempt.exception() for attempt in tries]
    assert all(error is None or isinstance(error, CriError) for error in outcomes)

    containerd.restart()
    await_network(containerd)
    for pod in containerd.cri.pods():
        containerd.delete_pod(pod)

    # A sandbox that containerd had not written down yet is unknown to it afterwards: what the plugin
    # made for it can only be found by a GC, which the runtime or an operator asks for.
    eventually(lambda: not collect_garbage(node), "nothing is reserved")
    assert residue.snapshot(node).added_to(before, *KERNEL_AND_STORE) == []


def collect_garbage(node: Machine) -> dict[str, str]:
    """A GC that lists no attachment as valid; what is reserved after it."""
    conflist = shipped("10-azvnet.conflist")
    netconf = {"cniVersion": "1.1.0", "name": conflist["name"], **conflist["plugins"][0]}
    netconf["cni.dev/valid-attachments"] = []
    calls.call(node, "GC", netconf, container_id="").done()
    return residue.reservations(node)


def test_namespace_removed_under_containerd_does_not_block_the_pod(containerd: Containerd) -> None:
    node = containerd.node
    before = residue.snapshot(node)
    pod = containerd.run_pod("pod")
    node.run(["umount", pod.netns])
    node.run(["rm", pod.netns])

    containerd.delete_pod(pod)

    assert left_by_pods(node, before) == []
    assert containerd.cri.pods() == []


def test_thirty_pods_at_once_have_thirty_addresses(make_fabric: MakeFabric) -> None:
    fabric = make_fabric(addresses=32)
    node = fabric.nodes["node1"]
    plugins.write_conflist(node, shipped("10-azvnet.conflist"))
    with running(node) as containerd:
        before = residue.snapshot(node)
        with ThreadPoolExecutor(30) as pool:
            pods = list(pool.map(lambda n: containerd.run_pod(f"pod-{n}"), range(30)))
            assert len({pod.ip for pod in pods}) == 30
            assert {pod.ip for pod in pods} <= set(node.pod_addresses)
            held = set(residue.reservations(node))
            assert held == {str(pod.ip) for pod in pods}
            targets = [end(node, pod) for pod in pods]
            pinged = reach.probe(machine(fabric.vnet_hosts["vm1"]), targets)
            assert [probe.target for probe in pinged if probe.ping_ms is None] == []
            list(pool.map(containerd.delete_pod, pods))
        assert left_by_pods(node, before) == []
    assert dropped(fabric) == {}
