"""Many calls at once: distinct addresses, no spurious failure, no lock that concerns anybody else."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.datapath.names import names_of
from cni_plugin.kernel import locks
from ipam.model import Attachment
from tests.netns.conftest import NewNode
from tests.netns.node import RUN_DIR, Node, pod_addresses
from tests.netns.sandbox import Pod
from tests.netns.watching import IN_OPEN, watching
from tests.netns.ways import connections, pid_of_agent
from tests.waiting import descriptors_of, eventually, is_idle

TRY_AGAIN, EXISTS = 11, 104


@pytest.mark.timeout(240)
def test_two_hundred_pods_at_once_all_get_an_address_of_their_own(new_node: NewNode) -> None:
    """Row 3: no failure at all, and everything is free again afterwards."""
    node = new_node(many=True, addresses=200)
    pods = node.sandbox.pods(*(f"c{number}" for number in range(200)))
    running = [node.start("ADD", pod) for pod in pods]
    given = [each.finish().address for each in running]
    assert len(set(given)) == 200
    assert set(node.held()) == set(node.host_routes()) == set(given)
    assert node.counts() == {"free": 0, "assigned": 200, "cooling": 0, "quarantined": 0}
    for pod, address in list(zip(pods, given, strict=True))[::20]:
        assert pod_addresses(pod) == [f"{address}/32"]
    running = [node.start("DEL", pod) for pod in pods]
    for each in running:
        each.finish().done()
    assert not node.residue()
    assert node.counts()["assigned"] == 0


def test_twenty_calls_at_once_through_the_executable_itself(new_node: NewNode) -> None:
    node = new_node(addresses=20)
    pods = node.sandbox.pods(*(f"c{number}" for number in range(20)))
    running = [node.start("ADD", pod) for pod in pods]
    assert len({each.finish().address for each in running}) == 20
    running = [node.start("DEL", pod) for pod in pods]
    for each in running:
        each.finish().done()
    assert not node.residue()


def test_more_pods_than_addresses_at_once(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=10)
    pods = node.sandbox.pods(*(f"c{number}" for number in range(16)))
    outcomes = [each.finish() for each in [node.start("ADD", pod) for pod in pods]]
    given = [each.address for each in outcomes if each.ok]
    assert len(given) == len(set(given)) == 10
    assert {each.code for each in outcomes if not each.ok} == {100}
    assert set(node.host_routes()) == set(given)


def test_of_the_same_add_at_once_one_wins_and_the_others_harm_it_not(busy_node: Node) -> None:
    """A runtime that gave up may try again while the first try still runs."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    outcomes = [each.finish() for each in [node.start("ADD", pod) for _ in range(8)]]
    (won,) = [each for each in outcomes if each.ok]
    assert {each.code for each in outcomes if not each.ok} <= {EXISTS, TRY_AGAIN}
    node.check(pod, won).done()
    assert node.held() == {won.address: "c1"}
    assert node.counts()["assigned"] == 1


def test_add_and_del_of_the_same_pod_that_cross_end_in_one_of_two_states(busy_node: Node) -> None:
    """Row 6: never an address that is free and carried, or held and carried by nobody."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    for _ in range(15):
        adding, deleting = node.start("ADD", pod), node.start("DEL", pod)
        deleting.finish().done()
        added = adding.finish()
        if node.held():
            assert added.ok
            node.check(pod, added).done()
        else:
            assert not node.residue()
            assert not pod.ip("link", "show", "type", "veth")
        node.delete(pod).done()
    assert not node.residue()


def test_a_del_that_overtakes_an_add_makes_that_add_undo_itself(busy_node: Node) -> None:
    """The reservation is gone when the ADD wants to confirm it (an agent that lost the lock, a stuck ADD)."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    from cni_plugin.datapath import transparent
    from ipam.ipam import Ipam

    def overtaken() -> str:
        from cni_plugin.cni import contract
        from cni_plugin.cni.call import Call
        from cni_plugin.node import Node as EngineNode

        engine = EngineNode({})
        environ = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": pod.netns,
            "CNI_IFNAME": "eth0",
        }
        attach = transparent.attach

        def attach_then_release(*given: Any, **how: Any) -> object:
            made = attach(*given, **how)
            Ipam(Path(RUN_DIR)).release(Attachment("c1", "eth0"))
            return made

        transparent.attach = attach_then_release  # type: ignore[assignment]
        import json

        reply = contract.handle(Call(environ, json.dumps(node.netconf).encode()), engine)
        return reply.stdout.decode()

    said = node.sandbox.ask(overtaken)
    assert f'"code":{TRY_AGAIN}' in said
    assert "DEL" in said
    assert not node.residue()
    assert not pod.ip("link", "show", "type", "veth")


def test_a_call_whose_attachment_is_busy_waits_for_its_turn(busy_node: Node) -> None:
    node = busy_node
    pod = node.sandbox.pod("c1")
    node.add(node.sandbox.pod("first")).done()
    holding = os.pipe()
    release = os.pipe()

    def hold() -> None:
        with locks.locked(Path(RUN_DIR), names_of(Attachment("c1", "eth0")).lock_offset, 0) as ours:
            assert ours
            os.write(holding[1], b".")
            os.read(release[0], 1)

    holder = node.sandbox.fork(hold)
    assert os.read(holding[0], 1) == b"."
    adding = node.start("ADD", pod)
    other = node.add(node.sandbox.pod("c2"))
    assert other.ok, "nobody else waits"
    lock = node.sandbox.path(f"{RUN_DIR}/{locks.LOCK_FILE}")
    eventually(lambda: descriptors_of(lock) == 2, "it has opened the lock, as its holder has")
    assert not adding.over
    os.write(release[1], b".")
    adding.finish().done()
    assert holder.wait() == 0
    for fd in (*holding, *release):
        os.close(fd)


@pytest.mark.with_agent("processes that wait for a lock have no order")
def test_calls_of_one_attachment_are_carried_out_in_the_order_in_which_they_came(node: Node) -> None:
    """They wait for the first: were one of them to be overtaken, an ADD would find another's interface."""
    pod = node.sandbox.pod("c1")
    node.add(node.sandbox.pod("first")).done()
    held, release = os.pipe(), os.pipe()

    def hold() -> None:
        with locks.locked(Path(RUN_DIR), names_of(Attachment("c1", "eth0")).lock_offset, 0) as ours:
            assert ours
            os.write(held[1], b".")
            os.read(release[0], 1)

    holder = node.sandbox.fork(hold)
    assert os.read(held[0], 1) == b"."
    agent = pid_of_agent(node.sandbox)
    eventually(lambda: not connections(node.sandbox), "no connection is left")
    calls = []
    for verb in ("ADD", "DEL") * 5 + ("ADD",):
        calls.append(node.start(verb, pod))
        eventually(lambda: connections(node.sandbox) == [True] * len(calls), "the agent has it")
        eventually(lambda: is_idle(agent), "it waits for the lock", pause=0.001)
    os.write(release[1], b".")
    assert holder.wait() == 0
    outcomes = [each.finish() for each in calls]
    assert [each.stdout for each in outcomes if not each.ok] == []
    node.check(pod, outcomes[-1]).done()
    node.delete(pod).done()
    for fd in (*held, *release):
        os.close(fd)


def test_two_attachments_never_share_a_lock() -> None:
    """One byte of one file each: the offset is 56 bits of a hash."""
    offsets = {names_of(Attachment(f"c{number}", "eth0")).lock_offset for number in range(100_000)}
    assert len(offsets) == 100_000


@pytest.mark.parametrize("lock", ["/run/xtables.lock", "/run/lock/somebody"])
def test_locks_of_others_are_not_waited_for(busy_node: Node, lock: str) -> None:
    """Row 12: no iptables, no lock of iptables."""
    node = busy_node
    node.sandbox.write(lock, "")
    pod = node.sandbox.pod("c1")
    with node.sandbox.path(lock).open("w") as file, watching(node.sandbox.path(lock), IN_OPEN) as happened:
        fcntl.flock(file, fcntl.LOCK_EX)
        node.add(pod).done()
        node.delete(pod).done()
        assert happened() == [], "nobody has opened it"


def test_no_program_is_run_for_a_pod(node: Node) -> None:
    """Rows 3, 11, 12: an ``iptables``, ``ip`` or ``sh`` in PATH that hangs is never noticed."""
    for name in (
        "iptables",
        "ip6tables",
        "nft",
        "ip",
        "sh",
        "bash",
        "sysctl",
        "modprobe",
        "systemctl",
        "ebtables",
    ):
        node.sandbox.write(f"/run/bin/{name}", "#!/bin/sh\necho $0 >>/run/ran\nexec /bin/sleep 1000\n")
        node.sandbox.path(f"/run/bin/{name}").chmod(0o755)
    pod = node.sandbox.pod("c1")
    env = {"PATH": "/run/bin"}
    added = node.add(pod, env=env).done()
    node.check(pod, added, env=env).done()
    node.delete(pod, env=env).done()
    assert not node.sandbox.path("/run/ran").exists()


def test_ten_thousand_rules_of_others_do_not_slow_a_pod_down(busy_node: Node) -> None:
    """Row 12."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    without = quickest(node, pod)
    rules = "".join(f"add rule ip t c ip daddr 10.{n >> 8}.{n & 255}.1 drop\n" for n in range(10_000))
    node.sandbox.run("nft", "-f", "-", stdin=f"add table ip t\nadd chain ip t c\n{rules}")
    # As fast as without them, give or take what a busy machine does; reading them takes seconds.
    assert quickest(node, pod) < 5 * without + 1.0


def quickest(node: Node, pod: Pod) -> float:
    """Seconds of the quickest of some attachments, ADD and DEL."""
    return min(node.add(pod).done().seconds + node.delete(pod).done().seconds for _ in range(5))
