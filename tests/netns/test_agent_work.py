"""What the agent does that no call can: it repairs, reclaims, and keeps the pool fresh."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from cni_plugin.cli.looking import look
from cni_plugin.node import Node as Engine
from tests.netns.conftest import NewAgent
from tests.netns.node import INTERFACES, Node
from tests.netns.sandbox import Pod
from tests.waiting import eventually

pytestmark = pytest.mark.with_agent("it is the agent's own work")

BareNode = Callable[..., Node]
QUICK = {"reconcile_seconds": 0.3, "refresh_seconds": 0.3, "reclaim_seconds": 0.8}
PATIENT = {**QUICK, "reconcile_seconds": 0.1, "reclaim_seconds": 3.0}
"""Many looks before anything may be freed."""
SOAK_STEP = 2_000
LEAST_LEAK_BYTES = 80.0
"""What is kept of a pod takes more than that: its name is an object of 60 bytes, and stands in some table."""


def looks(node: Node) -> list[tuple[object, ...]]:
    """What is ours to set on the host's ends of pods."""
    found = node.veths().values()
    return [(each["address"], "UP" in each["flags"], each["group"], each.get("altnames")) for each in found]


@pytest.fixture
def node(bare_node: BareNode) -> Node:
    return bare_node()


def test_a_host_route_that_somebody_flushed_comes_back(node: Node, new_agent: NewAgent) -> None:
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("flushed")
    added = node.add(pod).done()
    before = node.host_routes()
    node.sandbox.run("ip", "route", "flush", "proto", "155")
    eventually(lambda: node.host_routes() == before, "the /32 route is back")
    node.check(pod, added).done()


@pytest.mark.parametrize(
    "damage",
    [
        "set {veth} address aa:bb:cc:00:00:01",
        "set {veth} down",
        "set {veth} group default",
        "property del dev {veth} altname {mark}",
    ],
)
def test_a_host_veth_that_somebody_changed_is_put_right(node: Node, new_agent: NewAgent, damage: str) -> None:
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("changed")
    added = node.add(pod).done()
    before = looks(node)
    (veth,) = node.veths()
    mark = node.veths()[veth]["altnames"][0]
    node.sandbox.batch("link " + damage.format(veth=veth, mark=mark))
    eventually(lambda: looks(node) == before, "it is as it was")
    node.check(pod, added).done()


@pytest.mark.parametrize(
    "damage",
    [
        "route del default",
        "route flush table main",
        "neighbour del 169.254.1.1 dev eth0",
        "address flush dev eth0",
        "link set eth0 down",
    ],
)
def test_what_somebody_changed_inside_a_pod_is_left_and_named(
    node: Node, new_agent: NewAgent, damage: str
) -> None:
    """gVisor takes the address off eth0, a VPN replaces the default route: who did it meant it."""
    new_agent(node, **QUICK)
    pod, other = node.sandbox.pods("inside", "other")
    added = node.add(pod).done()
    node.add(other).done()
    pod.change(damage)
    before = _inside(pod)
    _a_look_has_passed(node)
    assert _inside(pod) == before
    assert not node.check(pod, added).ok

    def seen() -> dict[str, dict[str, Any]]:
        return {each.attachment.container_id: each.document() for each in look(Engine({})).attachments}

    states = node.sandbox.ask(seen)
    assert states["inside"]["state"] == "changed"
    assert states["inside"]["differs"]
    assert states["other"]["state"] == "ok"


def test_a_foreign_link_that_has_the_name_of_the_pods_interface_is_not_configured(
    node: Node, new_agent: NewAgent
) -> None:
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("renamed")
    node.add(pod).done()
    pod.change("link set eth0 down", "link set eth0 name uplink0", "link add eth0 type ifb")
    before = _inside(pod)
    _a_look_has_passed(node)
    assert _inside(pod) == before


def _inside(pod: Pod) -> list[object]:
    return [pod.ip("-4", "address"), pod.ip("-4", "route"), pod.ip("neighbour", "show", "nud", "permanent")]


def _a_look_has_passed(node: Node) -> None:
    """Damage on the host was repaired twice, so the agent has looked at everything at least once between."""
    before = node.host_routes()
    for _ in range(2):
        node.sandbox.run("ip", "route", "flush", "proto", "155")
        eventually(lambda: node.host_routes() == before, "the /32 routes are back")


def _reads_have_passed(node: Node) -> None:
    """Every source in use was read at least once from beginning to end: there are two of them at most."""
    before, _ = node.reads()
    eventually(lambda: node.reads()[0] >= before + 4, "the sources were read again")


def test_forwarding_that_was_switched_off_is_switched_on(node: Node, new_agent: NewAgent) -> None:
    new_agent(node, **QUICK)
    forward = ("cat", "/proc/sys/net/ipv4/ip_forward")
    node.sandbox.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    eventually(lambda: node.sandbox.run(*forward).stdout.strip() == "1", "ip_forward is 1")


def test_an_address_whose_pod_vanished_without_a_del_comes_back_but_not_at_the_first_look(
    node: Node, new_agent: NewAgent
) -> None:
    new_agent(node, **PATIENT)
    pod = node.sandbox.pod("vanished")
    address = node.add(pod).address
    pod.remove()
    vanished = time.monotonic()
    eventually(lambda: address not in node.held(), "the address is free")
    assert time.monotonic() - vanished >= PATIENT["reclaim_seconds"] * 0.9, "one negative look is not enough"
    assert node.residue() == []


def test_an_address_of_another_plugins_pod_comes_back_when_its_namespace_is_gone(
    node: Node, new_agent: NewAgent
) -> None:
    """As IPAM plugin there is no endpoint of ours to look at: the runtime's namespace tells."""
    new_agent(node, **PATIENT)
    witness, goes, stays = node.sandbox.pods("witness", "goes", "stays")
    address = node.add(goes, as_ipam=True).address
    kept = node.add(stays, as_ipam=True).address
    gone = node.add(witness, as_ipam=True).address
    witness.remove()
    eventually(lambda: gone not in node.held(), "one that is gone is found to be gone")
    assert set(node.held()) == {address, kept}, "as long as the namespaces are there"
    goes.remove()
    vanished = time.monotonic()
    eventually(lambda: address not in node.held(), "the address is free")
    assert time.monotonic() - vanished >= PATIENT["reclaim_seconds"] * 0.9, "one negative look is not enough"
    assert set(node.held()) == {kept}


def test_addresses_that_azure_adds_enter_the_pool_and_those_it_takes_leave_without_a_call(
    node: Node, new_agent: NewAgent
) -> None:
    new_agent(node, **QUICK)
    eventually(lambda: sum(node.counts().values()) == 8, "the first listing")
    node.list_addresses(12)
    eventually(lambda: sum(node.counts().values()) == 12, "four more addresses")
    node.list_addresses(10)
    eventually(lambda: sum(node.counts().values()) == 10, "two fewer, after two looks")


def test_a_source_that_is_late_is_asked_again_soon_while_nothing_is_known(
    node: Node, new_agent: NewAgent
) -> None:
    """At boot the node waits for it, and not for as long as between two reads of a source that works."""
    listed = node.sandbox.path(INTERFACES)
    document = listed.read_text()
    listed.unlink()
    new_agent(node, **{**QUICK, "refresh_seconds": 3600.0})
    eventually(lambda: node.reads()[1] >= 2, "it was asked again")
    listed.write_text(document)
    eventually(lambda: sum(node.counts().values()) == 8, "the first listing")


def test_a_source_that_breaks_costs_no_address(node: Node, new_agent: NewAgent) -> None:
    new_agent(node, **QUICK)
    eventually(lambda: sum(node.counts().values()) == 8, "the first listing")
    node.add(node.sandbox.pod("before")).done()  # so that the network's own source was read
    for garbage in ("", "{", '{"Interfaces": []}', "\0" * 100):
        _, before = node.reads()
        node.sandbox.write("/etc/kubernetes/interfaces.json", garbage)
        eventually(lambda: node.reads()[1] > before, "it was read, in vain")  # noqa: B023 - called at once
        assert sum(node.counts().values()) == 8
        node.list_addresses(8)
        _reads_have_passed(node)  # and the next failure is the first one again
    node.add(node.sandbox.pod("unimpressed")).done()


OTHER = "/etc/kubernetes/other.json"


def list_elsewhere(node: Node, count: int) -> None:
    """Another document than the one that an agent reads without being told."""
    listed = node.sandbox.path(INTERFACES)
    before = listed.read_text() if listed.exists() else ""
    node.list_addresses(count)
    node.sandbox.write(OTHER, listed.read_text())
    listed.write_text(before) if before else listed.unlink()


def test_an_agent_that_is_started_again_goes_on_with_the_source_of_the_calls(
    node: Node, new_agent: NewAgent
) -> None:
    """Else it would fill the pool with the addresses of whatever source it finds by itself."""
    list_elsewhere(node, 3)
    agent = new_agent(node, **QUICK)
    pod = node.sandbox.pod("pod")
    node.add(pod, conf=node.conf(ipam={"file": OTHER})).done()
    eventually(lambda: sum(node.counts().values()) == 3, "the calls' source decides")
    agent.kill()
    new_agent(node, **QUICK)
    list_elsewhere(node, 5)
    eventually(lambda: sum(node.counts().values()) == 5, "it is read without any call")
    _reads_have_passed(node)
    assert sum(node.counts().values()) == 5


def test_the_source_of_the_operator_counts_when_the_agent_is_started(node: Node, new_agent: NewAgent) -> None:
    list_elsewhere(node, 3)
    agent = new_agent(node, **QUICK)
    node.add(node.sandbox.pod("pod"), conf=node.conf(ipam={"file": OTHER})).done()
    eventually(lambda: sum(node.counts().values()) == 3, "the calls' source decides")
    agent.kill()
    new_agent(node, **QUICK, source="file", file=INTERFACES)
    eventually(lambda: sum(node.counts().values()) == 8, "the settings' source decides")


def test_a_pod_of_an_older_network_that_goes_changes_no_source(node: Node, new_agent: NewAgent) -> None:
    """A DEL and a CHECK come with the configuration that their pod was made with."""
    list_elsewhere(node, 3)
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("pod")
    added = node.add(pod).done()
    old = node.conf(ipam={"file": OTHER})
    node.check(pod, added, conf=old).done()
    node.delete(pod, conf=old).done()
    _reads_have_passed(node)
    assert sum(node.counts().values()) == 8


def test_pods_from_before_the_agent_are_adopted_when_the_store_is_lost(
    node: Node, new_agent: NewAgent
) -> None:
    pods = node.sandbox.pods("one", "two")
    addresses = {node.add(pod).address for pod in pods}
    for name in ("azvnet.db", "azvnet.db-wal", "azvnet.db-shm"):
        node.sandbox.path(f"/run/azvnet/{name}").unlink(missing_ok=True)
    new_agent(node, **QUICK)
    eventually(lambda: set(node.held()) == addresses, "both addresses are held again")
    third = node.add(node.sandbox.pod("three"))
    assert third.address not in addresses


def test_a_store_that_is_lost_is_filled_again_without_any_call(node: Node, new_agent: NewAgent) -> None:
    new_agent(node, **QUICK)
    addresses = {node.add(pod).address for pod in node.sandbox.pods("one", "two")}
    node.sandbox.run("sh", "-c", "rm /run/azvnet/azvnet.db*")
    eventually(lambda: set(node.held()) == addresses, "both addresses are held again")
    eventually(lambda: sum(node.counts().values()) == 8, "the others are known again")


def test_a_reboot_forgets_the_pods_and_keeps_the_pool(node: Node, new_agent: NewAgent) -> None:
    agent = new_agent(node, **QUICK)
    pods = node.sandbox.pods("before-1", "before-2")
    for pod in pods:
        node.add(pod).done()
    agent.kill()
    for pod in pods:
        pod.remove()
    node.set_boot_id("11111111-2222-3333-4444-555555555555")
    new_agent(node, **QUICK)
    eventually(lambda: node.held() == {}, "nothing is held")
    assert sum(node.counts().values()) == 8
    node.delete(pods[0]).done()
    node.add(node.sandbox.pod("after")).done()


def test_nobody_but_root_is_served(node: Node, new_agent: NewAgent) -> None:
    new_agent(node)
    mode = node.sandbox.path("/run/azvnet/agent.sock").stat().st_mode & 0o777
    assert mode == 0o600
    assert node.sandbox.path("/run/azvnet").stat().st_mode & 0o777 == 0o700
    script = "import socket; s=socket.socket(socket.AF_UNIX); s.connect('/run/azvnet/agent.sock')"
    done = node.sandbox.run(
        "setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", script, check=False
    )
    assert "PermissionError" in done.stderr


def test_the_uplink_is_never_written_by_the_agent(node: Node, new_agent: NewAgent) -> None:
    def dump() -> list[object]:
        links = node.sandbox.ip("-details", "link", "show", "dev", "eth0")
        for link in links:
            link.pop("stats64", None)
        return [links, node.sandbox.ip("-4", "addr", "show", "dev", "eth0"), node.sandbox.ip("route")]

    before = dump()
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("guest")
    node.add(pod).done()
    _reads_have_passed(node)
    _a_look_has_passed(node)
    node.delete(pod).done()
    assert dump() == before


@pytest.mark.timeout(900)
def test_twenty_thousand_pods_come_and_go_and_the_agent_stays_as_it_is(
    bare_node: BareNode, new_agent: NewAgent
) -> None:
    from tests.netns.soak import Soak

    node = bare_node(addresses=64)
    agent = new_agent(node)
    soak = Soak(node, agent.pid)
    soak.run(SOAK_STEP)  # caches fill
    before = soak.settled_size()
    kib = [soak.size().kib]
    for _ in range(9):
        soak.run(SOAK_STEP)
        kib.append(soak.size().kib)
    assert soak.failures == []
    eventually(lambda: soak.size().threads <= before.threads, "the threads that the load needed have ended")
    after = soak.size()
    assert node.residue() == []
    assert after.descriptors <= before.descriptors + 2
    # Now and then the allocator takes a megabyte from the kernel; what each pod leaves behind is in every one
    # of these.
    growth = statistics.median(later - earlier for earlier, later in pairwise(kib)) * 1024 / SOAK_STEP
    assert growth < LEAST_LEAK_BYTES, f"{growth:.0f} bytes stay of each pod: {kib} KiB"
    assert after.kib <= before.kib * 1.25, kib


def test_an_agent_whose_socket_was_removed_is_found_again(node: Node, new_agent: NewAgent) -> None:
    agent = new_agent(node, **QUICK)
    socket = node.sandbox.path("/run/azvnet/agent.sock")
    socket.unlink()
    pod = node.sandbox.pod("meanwhile")
    node.add(pod).done()
    eventually(socket.exists, "the socket is there again")
    node.delete(pod).done()
    eventually(lambda: node.log()[-1]["by"] == "agent", "the agent carries calls out again")
    agent.stop()


def test_settings_that_are_written_anew_are_used_and_damaged_ones_are_not(
    node: Node, new_agent: NewAgent
) -> None:
    agent = new_agent(node, **{**QUICK, "refresh_seconds": 600})
    eventually(lambda: sum(node.counts().values()) == 8, "the first listing")
    node.list_addresses(9)
    node.sandbox.write("/etc/azvnet/agent.json", '{"refresh_seconds": "often"}')
    eventually(lambda: "settings are unchanged" in agent.said(), "what is wrong is said")
    assert sum(node.counts().values()) == 8
    node.sandbox.write("/etc/azvnet/agent.json", '{"refresh_seconds": 0.3}')
    eventually(lambda: sum(node.counts().values()) == 9, "the source is read more often now")
    assert agent.said().count("settings are unchanged") == 1, "said once, not every two seconds"
