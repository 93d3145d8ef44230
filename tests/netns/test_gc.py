"""GC: what the runtime does not list any more goes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from cni_plugin.datapath.names import names_of
from cni_plugin.kernel import locks
from ipam.model import Attachment
from tests.netns.node import RUN_DIR, Node
from tests.netns.sandbox import Pod


@pytest.fixture
def pods(busy_node: Node) -> list[Pod]:
    made = busy_node.sandbox.pods("c1", "c2", "c3")
    for each in made:
        busy_node.add(each).done()
    return made


def test_what_is_not_listed_goes_and_what_is_listed_stays(node: Node) -> None:
    pods = node.sandbox.pods("c1", "c2", "c3")
    added = [node.add(each) for each in pods]
    collected = node.gc([(pods[0], "eth0"), (pods[2], "eth0")]).done()
    assert collected.stdout == b""
    assert set(node.held().values()) == {"c1", "c3"}
    assert len(node.veths()) == len(node.host_routes()) == 2
    assert [link["ifname"] for link in pods[1].ip("link")] == ["lo"]
    node.check(pods[0], added[0]).done()
    node.check(pods[2], added[2]).done()
    assert sum(node.counts().values()) == 8


def test_interfaces_of_one_container_are_told_apart(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    busy_node.add(pod).done()
    kept = busy_node.add(pod, ifname="net1")
    busy_node.gc([(pod, "net1")]).done()
    assert [link["ifname"] for link in pod.ip("link")] == ["lo", "net1"]
    busy_node.check(pod, kept, ifname="net1").done()


def test_an_empty_list_takes_everything_of_the_network(busy_node: Node, pods: list[Pod]) -> None:
    busy_node.gc([]).done()
    assert not busy_node.residue()
    busy_node.gc([]).done()


def test_other_networks_are_left_alone(busy_node: Node, pods: list[Pod]) -> None:
    other = busy_node.conf(name="other")
    added = busy_node.add(pods[0], ifname="net1", conf=other)
    busy_node.gc([], conf=busy_node.conf(name="third")).done()
    assert len(busy_node.held()) == 4
    busy_node.gc([]).done()
    assert list(busy_node.held().values()) == ["c1"]
    busy_node.check(pods[0], added, ifname="net1", conf=other).done()
    busy_node.gc([], conf=other).done()
    assert not busy_node.residue()


MALFORMED: dict[str, Any] = {
    "a text": "c1",
    "a number": 7,
    "an object": {"containerID": "c1", "ifname": "eth0"},
    "texts": ["c1"],
    "without an interface": [{"containerID": "c1"}],
    "without a container": [{"ifname": "eth0"}],
    "numbers in it": [{"containerID": 1, "ifname": 2}],
    "half of it right": [{"containerID": "c1", "ifname": "eth0"}, {"containerID": None}],
    "nulls": [None],
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_a_malformed_list_harms_nobody(busy_node: Node, pods: list[Pod], key: str, what: str) -> None:
    busy_node.call("GC", conf=busy_node.conf() | {key: MALFORMED[what]})
    assert set(busy_node.held().values()) == {"c1", "c2", "c3"}
    assert len(busy_node.veths()) == 3


def test_no_list_harms_nobody(busy_node: Node, pods: list[Pod]) -> None:
    """``cnitool gc`` passes neither key."""
    busy_node.call("GC").done()
    busy_node.call("GC", conf=busy_node.conf() | {"cni.dev/valid-attachments": None}).done()
    assert len(busy_node.held()) == 3


def test_the_list_is_read_under_either_of_its_names(busy_node: Node, pods: list[Pod]) -> None:
    listed = [{"containerID": "c2", "ifname": "eth0"}]
    busy_node.call("GC", conf=busy_node.conf() | {"cni.dev/attachments": listed}).done()
    assert list(busy_node.held().values()) == ["c2"]
    both = {"cni.dev/attachments": [], "cni.dev/valid-attachments": listed}
    busy_node.call("GC", conf=busy_node.conf() | both).done()
    assert list(busy_node.held().values()) == ["c2"]


def test_more_in_the_list_than_there_is_does_not_disturb(busy_node: Node, pods: list[Pod]) -> None:
    listed = [{"containerID": f"c{number}", "ifname": "eth0", "more": {}} for number in range(500)]
    busy_node.call("GC", conf=busy_node.conf() | {"cni.dev/valid-attachments": listed}).done()
    assert len(busy_node.held()) == 3


def test_an_attachment_that_is_being_carried_out_is_left_alone(busy_node: Node, pods: list[Pod]) -> None:
    """An ADD that has just begun is in no list of the runtime's yet."""
    from pathlib import Path

    def collect_under_lock() -> None:
        with locks.locked(Path(RUN_DIR), names_of(Attachment("c2", "eth0")).lock_offset, 0) as ours:
            assert ours
            busy_node.gc([]).done()

    busy_node.sandbox.ask(collect_under_lock)
    assert list(busy_node.held().values()) == ["c2"]
    assert len(busy_node.veths()) == 1


def test_what_only_the_kernel_knows_of_goes_too(busy_node: Node, pods: list[Pod]) -> None:
    """The reservation was lost; the veth still carries its attachment in its alias."""
    busy_node.pool(lambda pool: [pool.release(each.attachment) for each in pool.reservations()])
    busy_node.gc([(pods[0], "eth0")]).done()
    assert len(busy_node.veths()) == 1
    assert busy_node.host_routes().keys() == {"10.10.0.5"}


def test_what_only_the_store_knows_of_goes_too(busy_node: Node, pods: list[Pod]) -> None:
    for name in busy_node.veths():
        busy_node.sandbox.batch(f"link delete {name}")
    busy_node.gc([(pods[0], "eth0")]).done()
    assert list(busy_node.held().values()) == ["c1"]


def test_it_goes_on_after_one_that_resists(busy_node: Node, pods: list[Pod]) -> None:
    """A namespace that is gone takes its veth along, perhaps right now: that is no error either."""
    pods[0].remove()
    pods[1].change("link set eth0 netns fabric name stolen")
    busy_node.gc([]).done()
    assert not busy_node.residue()


def test_the_store_is_adopted_first_where_it_was_lost(busy_node: Node, pods: list[Pod]) -> None:
    for name in ("azvnet.db", "azvnet.db-wal", "azvnet.db-shm"):
        busy_node.sandbox.path(f"{RUN_DIR}/{name}").unlink(missing_ok=True)
    busy_node.gc([(pods[1], "eth0")]).done()
    assert busy_node.held() == {"10.10.0.6": "c2"}
    assert len(busy_node.veths()) == 1


def test_pods_come_and_go_while_it_runs(busy_node: Node) -> None:
    node = busy_node
    pods = node.sandbox.pods(*(f"c{number}" for number in range(6)))
    valid = [(each, "eth0") for each in pods]
    running = [node.start("ADD", each) for each in pods]
    for _ in range(3):
        node.gc(valid).done()
    given = [each.finish().address for each in running]
    assert len(set(given)) == len(pods)
    assert set(node.held()) == set(given)
