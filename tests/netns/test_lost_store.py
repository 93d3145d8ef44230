"""The store lost, spoilt or not to be written: no live pod's address is given to another (rows 4, 5)."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.addresses import recovery
from cni_plugin.cni import netconf
from cni_plugin.datapath import transparent
from cni_plugin.datapath.names import names_of
from cni_plugin.node import Node as OurNode
from integration.fabric import syscalls as sc
from ipam.model import Attachment, Reservation, SourceConfig
from tests.netns.conftest import NewNode
from tests.netns.node import RUN_DIR, Node, pod_addresses
from tests.netns.sandbox import Pod

STORE = f"{RUN_DIR}/azvnet.db"
EXHAUSTED, STORE_FAILED = 100, 108


def _remove(node: Node) -> None:
    for suffix in ("", "-wal", "-shm"):
        node.sandbox.path(STORE + suffix).unlink(missing_ok=True)


def _remove_all(node: Node) -> None:
    for path in node.sandbox.path(RUN_DIR).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.is_socket():
            path.unlink(missing_ok=True)


def _truncate(length: int) -> Callable[[Node], None]:
    def spoil(node: Node) -> None:
        with node.sandbox.path(STORE).open("r+b") as file:
            file.truncate(length)

    return spoil


def _overwrite(content: bytes) -> Callable[[Node], None]:
    def spoil(node: Node) -> None:
        path = node.sandbox.path(STORE)
        path.write_bytes((content * (path.stat().st_size // len(content) + 1))[: path.stat().st_size])

    return spoil


def _random_bytes(node: Node) -> None:
    path = node.sandbox.path(STORE)
    rng, data = random.Random(30), bytearray(path.read_bytes())
    for _ in range(len(data) // 20):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)


def _another_file(content: bytes) -> Callable[[Node], None]:
    def spoil(node: Node) -> None:
        _remove(node)
        node.sandbox.path(STORE).write_bytes(content)

    return spoil


def _directory(node: Node) -> None:
    _remove(node)
    node.sandbox.path(STORE).mkdir()


def _drop_tables(node: Node) -> None:
    def work() -> None:
        with sqlite3.connect(STORE) as connection:
            connection.execute("DROP TABLE address")

    node.sandbox.ask(work)


LOSSES: dict[str, Callable[[Node], None]] = {
    "deleted": _remove,
    "deleted without its log": lambda node: node.sandbox.path(STORE).unlink(),
    "its log deleted": lambda node: node.sandbox.path(STORE + "-wal").unlink(missing_ok=True),
    "the whole directory emptied": _remove_all,
    "empty": _another_file(b""),
    "cut to nothing": _truncate(0),
    "cut to a byte": _truncate(1),
    "cut within the header": _truncate(50),
    "cut after a page": _truncate(4096),
    "filled with NUL": _overwrite(b"\0"),
    "filled with text": _overwrite(b"no database "),
    "random bytes": _random_bytes,
    "JSON in its place": _another_file(b'{"IPAM":{}}'),
    "a directory in its place": _directory,
    "its tables dropped": _drop_tables,
}


@pytest.mark.parametrize("what", LOSSES)
@pytest.mark.alone("an agent goes on with the pages it has read; see test_agent_storm")
def test_pods_that_live_keep_their_addresses_whatever_became_of_the_store(busy_node: Node, what: str) -> None:
    """Adopted from the aliases and the host routes; the next pods get others, and everything goes on."""
    node = busy_node
    pods = node.sandbox.pods("c1", "c2", "c3")
    added = {pod.container_id: node.add(pod) for pod in pods}
    node.delete(pods[1]).done()
    held = {added["c1"].address: "c1", added["c3"].address: "c3"}
    LOSSES[what](node)
    new = node.sandbox.pods("n1", "n2", "n3")
    given = [node.add(pod).address for pod in new]
    assert not set(given) & set(held)
    assert len(set(given)) == len(given)
    assert node.held() == held | dict(zip(given, ("n1", "n2", "n3"), strict=True))
    for pod in (pods[0], pods[2]):
        node.check(pod, added[pod.container_id]).done()
        assert pod_addresses(pod) == [f"{added[pod.container_id].address}/32"]
    assert node.add(pods[0]).code == 104
    for pod in (*pods, *new):
        node.delete(pod).done()
    assert not node.residue()
    assert sum(node.counts().values()) == 8


@pytest.mark.parametrize("what", ["deleted", "random bytes", "a directory in its place"])
@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_every_verb_goes_on_with_a_lost_store(busy_node: Node, verb: str, what: str) -> None:
    node = busy_node
    pod, other = node.sandbox.pods("c1", "c2")
    added, kept = node.add(pod), node.add(other)
    LOSSES[what](node)
    if verb == "GC":
        node.gc([(other, "eth0")]).done()
    elif verb == "CHECK":
        node.check(pod, added).done()
    else:
        node.call(verb, pod).done()
    if verb in ("DEL", "GC"):
        assert len(node.veths()) == 1
    assert node.add(node.sandbox.pod("c3")).address != kept.address
    node.check(other, kept).done()


@pytest.mark.alone("an agent goes on with the pages it has read; see test_agent_storm")
def test_what_can_not_be_read_is_kept_aside_for_a_look(busy_node: Node) -> None:
    node = busy_node
    node.add(node.sandbox.pod("c1")).done()
    LOSSES["filled with text"](node)
    node.add(node.sandbox.pod("c2")).done()
    (aside,) = node.sandbox.path(RUN_DIR).glob("azvnet.db.corrupt-*")
    assert b"no database" in aside.read_bytes()
    node.add(node.sandbox.pod("c3")).done()
    assert len(list(node.sandbox.path(RUN_DIR).glob("azvnet.db.corrupt-*"))) == 1


def test_an_address_that_is_adopted_and_never_listed_is_held_until_its_pod_goes(busy_node: Node) -> None:
    """The NIC may have lost it: the pod keeps it, nobody gets it afterwards."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    given = node.add(pod).address
    listed = node.list_addresses(8)
    path = node.sandbox.path("/etc/kubernetes/interfaces.json")
    path.write_text(path.read_text().replace(f'"{given}"', '"10.10.0.99"'))
    LOSSES["deleted"](node)
    others = [node.add(each).address for each in node.sandbox.pods("n1", "n2")]
    assert given not in others
    assert node.held()[given] == "c1"
    assert given in listed
    node.delete(pod).done()
    rest = node.sandbox.pods(*(f"r{number}" for number in range(6)))
    assert given not in {node.add(each).address for each in rest}


def _lose(node: Node, what: str) -> None:
    if what != "nothing":
        LOSSES[what](node)


@pytest.mark.alone("the id of the call is the launcher's own there")
@pytest.mark.parametrize("what", ["nothing", "deleted", "random bytes"])
def test_an_add_that_was_finished_is_answered_when_its_call_is_repeated(busy_node: Node, what: str) -> None:
    """Its agent died before it could answer, and the store with it: the endpoint knows the call."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    call = {"AZVNET_CALL_ID": "5eed" * 8}
    first = node.add(pod, env=call)
    _lose(node, what)
    again = node.add(pod, env=call | {"AZVNET_AGENT": "lost"})
    assert again.result == first.result
    assert node.held() == {first.address: "c1"}
    _lose(node, what)
    assert node.add(pod, env={"AZVNET_CALL_ID": "0" * 32}).code == 104
    node.check(pod, first).done()


@pytest.mark.alone("the id of the call is the launcher's own there")
@pytest.mark.parametrize("what", ["nothing", "deleted"])
def test_an_add_whose_result_reached_nobody_is_undone_by_its_call_alone(busy_node: Node, what: str) -> None:
    node = busy_node
    pod = node.sandbox.pod("c1")
    node.add(pod, env={"AZVNET_CALL_ID": "5eed" * 8}).done()
    _lose(node, what)
    gone = {"AZVNET_AGENT": "gone"}
    assert node.add(pod, env=gone | {"AZVNET_CALL_ID": "0" * 32}).code == 5
    assert len(node.veths()) == 1
    assert node.add(pod, env=gone | {"AZVNET_CALL_ID": "5eed" * 8}).code == 5
    assert not node.veths()
    node.add(pod).done()


# Pods of plugins that delegate to azvnet-ipam: nothing in the host's namespace names their addresses.


def _wire(node: Node, pod: Pod, address: str) -> None:
    """As ``ptp`` does: a veth pair that is not ours, and an address on the pod's end."""
    node.sandbox.batch(
        f"link add ptp-{pod.container_id} type veth peer name eth0 netns {Path(pod.netns).name}",
        f"link set ptp-{pod.container_id} up",
    )
    pod.change("link set eth0 up", f"address add {address} dev eth0")


def _delegated(node: Node, pod: Pod) -> str:
    """A pod that another interface plugin makes, with an address of ours; the address."""
    (ip,) = node.add(pod, as_ipam=True).result["ips"]
    _wire(node, pod, str(ip["address"]))
    return str(ip["address"].partition("/")[0])


@pytest.mark.alone("an agent goes on with the pages it has read; see test_agent_storm")
@pytest.mark.parametrize(
    "what", ["deleted", "the whole directory emptied", "random bytes", "a directory in its place"]
)
def test_pods_of_delegating_plugins_keep_their_addresses_too(busy_node: Node, what: str) -> None:
    node = busy_node
    pods = node.sandbox.pods("c1", "c2")
    given = {pod.container_id: _delegated(node, pod) for pod in pods}
    LOSSES[what](node)
    new = node.sandbox.pods(*(f"n{number}" for number in range(6)))
    others = {node.add(pod, as_ipam=pod.container_id < "n3").address for pod in new}
    assert not others & set(given.values())
    assert len(others) == 6
    last = node.sandbox.pod("n6")
    assert node.add(last).code == EXHAUSTED
    for pod in pods:
        previous = {"ips": [{"address": f"{given[pod.container_id]}/16"}]}
        node.check(pod, previous, as_ipam=True).done()
        node.delete(pod, as_ipam=True).done()
        node.delete(pod, as_ipam=True).done()
        pod.remove()
    assert node.add(last).code == EXHAUSTED, "one look is not enough"
    node.sandbox.clock_ahead = 61
    assert node.add(last).address in given.values()


@pytest.mark.alone("an agent has asked the namespaces before there is one")
def test_a_late_del_of_a_delegating_plugin_frees_no_pod_whose_namespace_is_at_that_path(
    busy_node: Node,
) -> None:
    """The path is used again, and the lost store was the only one who knew whose address it is."""
    node = busy_node
    pod = node.sandbox.pod("c2")
    given = _delegated(node, pod)
    LOSSES["deleted"](node)
    new = node.sandbox.pods(*(f"n{number}" for number in range(8)))
    node.add(new[0]).done()
    assert given in node.held()
    node.delete(pod, as_ipam=True, env={"CNI_CONTAINERID": "c1"}).done()
    assert given in node.held()
    assert given not in {node.add(each).address for each in new[1:7]}
    assert node.add(new[7]).code == EXHAUSTED


@pytest.mark.alone("the clock of a running agent can't be advanced from outside")
def test_a_pod_of_a_delegating_plugin_that_vanished_gives_its_address_back(new_node: NewNode) -> None:
    """Its container is not known any more, but its namespace is."""
    node = new_node(many=True, addresses=1)
    pod, new = node.sandbox.pods("c1", "n1")
    given = _delegated(node, pod)
    LOSSES["deleted"](node)
    assert node.add(new).code == EXHAUSTED
    pod.remove()
    assert node.add(new).code == EXHAUSTED, "one look is not enough"
    node.sandbox.clock_ahead = 61
    assert node.add(new).address == given


@pytest.mark.alone("an agent has asked the namespaces before there is one")
def test_what_a_namespace_carries_and_the_nic_does_not_own_is_none_of_the_pools(busy_node: Node) -> None:
    """It is held for as long as the namespace carries it, since a later document may list it."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    _wire(node, pod, "10.10.7.7/16")
    documents = [node.sandbox.path("/etc/kubernetes/interfaces.json").read_text()]
    documents.append(documents[0].replace('"10.10.0.12"', '"10.10.0.12 "'))

    def read_again(number: int) -> None:
        node.sandbox.write("/etc/kubernetes/interfaces.json", documents[number % 2])
        config = SourceConfig(environment="file")
        node.pool(lambda pool: pool.refresh(config, deadline=5, force=True))

    node.add(node.sandbox.pod("n1")).done()
    assert "10.10.7.7" in node.held()
    read_again(1)
    read_again(2)
    assert "10.10.7.7" in node.held()
    assert sum(node.counts().values()) == 8


def test_a_pod_of_ours_whose_route_is_lost_with_the_store_is_found_in_its_namespace(busy_node: Node) -> None:
    node = busy_node
    pod = node.sandbox.pod("c1")
    given = node.add(pod).address
    node.sandbox.batch(f"route delete {given}/32")
    LOSSES["deleted"](node)
    others = [node.add(each).address for each in node.sandbox.pods("n1", "n2")]
    assert given not in others
    assert node.held()[given] == "c1"
    node.delete(pod).done()
    assert given not in node.held()


@pytest.mark.timeout(240)
def test_the_store_may_vanish_and_be_spoilt_under_load(new_node: NewNode) -> None:
    """Row 4: ten rounds of parallel ADDs and DELs with the store taken away in the middle."""
    node = new_node(many=True, addresses=64)
    rng = random.Random(31)
    live: dict[str, tuple[Pod, str]] = {}
    kinds = [
        "deleted",
        "random bytes",
        "cut after a page",
        "the whole directory emptied",
        "a directory in its place",
    ]
    for round_number in range(10):
        new = node.sandbox.pods(*(f"c{round_number}x{number}" for number in range(8)))
        leaving = rng.sample(sorted(live), min(6, len(live)))
        running = [(pod, node.start("ADD", pod)) for pod in new]
        going = [(name, node.start("DEL", live[name][0])) for name in leaving]
        LOSSES[kinds[round_number % len(kinds)]](node)
        for name, call in going:
            call.finish().done()
            del live[name]
        for pod, call in running:
            outcome = call.finish()
            if outcome.ok:
                live[pod.container_id] = (pod, outcome.address)
            else:
                assert outcome.code in (11, 108), outcome
                node.delete(pod).done()
        addresses = [address for _, address in live.values()]
        assert len(addresses) == len(set(addresses)), "no address was given twice"
        for pod, address in live.values():
            assert pod_addresses(pod) == [f"{address}/32"]
        assert node.host_routes().keys() == set(addresses)
    last = node.add(node.sandbox.pod("last")).address
    assert set(node.held()) >= {last, *(address for _, address in live.values())}
    assert sum(node.counts().values()) == 64


def test_an_add_whose_address_a_new_store_gave_to_another_takes_the_next_one(busy_node: Node) -> None:
    """The store goes while the pod is being attached, and the new one is quicker to give the address away."""
    node = busy_node
    pod = node.sandbox.pod("slow")

    def lose_store_and_address() -> str:
        from cni_plugin.addresses import allocate
        from cni_plugin.cni import contract
        from cni_plugin.cni.call import Call
        from cni_plugin.datapath import transparent
        from cni_plugin.node import Node as EngineNode
        from ipam.model import Attachment, Owner

        engine, attach, losses = EngineNode({}), transparent.attach, [1]

        def attach_and_lose(*given: Any, **how: Any) -> object:
            if losses and losses.pop():
                for name in ("azvnet.db", "azvnet.db-wal", "azvnet.db-shm"):
                    Path(RUN_DIR, name).unlink()
                engine.ipam.adopt(())
                allocate.refresh(netconf.parse_netconf(node.netconf), engine, 5)
                request = allocate.address_request(netconf.parse_netconf(node.netconf), engine)
                engine.ipam.reserve(Attachment("quick", "eth0"), Owner(network="azure"), request)
            return attach(*given, **how)

        transparent.attach = attach_and_lose  # type: ignore[assignment]
        environ = {"CNI_CONTAINERID": "slow", "CNI_NETNS": pod.netns, "CNI_IFNAME": "eth0"}
        call = Call({**environ, "CNI_COMMAND": "ADD"}, json.dumps(node.netconf).encode(), call_id="1")
        return contract.handle(call, engine).stdout.decode()

    made = json.loads(node.sandbox.ask(lose_store_and_address))
    (quick,) = [address for address, name in node.held().items() if name == "quick"]
    assert made["ips"][0]["address"] != f"{quick}/16"
    assert pod_addresses(pod) == [made["ips"][0]["address"]]
    assert list(node.host_routes()) == [made["ips"][0]["address"].split("/")[0]]
    node.delete(pod).done()
    assert len(node.residue()) == 1, "what the other one holds"


# Nothing can be written


def _mount_tiny(node: Node, size: str, flags: int = 0) -> None:
    node.sandbox.path(RUN_DIR).mkdir(exist_ok=True)
    node.sandbox.do(lambda: sc.mount("tiny", RUN_DIR, "tmpfs", flags, f"size={size},mode=700"))


@pytest.mark.alone("an agent has the directory open before it can be replaced")
@pytest.mark.parametrize("trouble", ["read-only", "full", "no inodes"])
def test_a_state_directory_that_takes_nothing_is_said_and_nothing_is_left(
    busy_node: Node, trouble: str
) -> None:
    node = busy_node
    if trouble == "read-only":
        _mount_tiny(node, "1m", sc.MS_RDONLY)
    elif trouble == "no inodes":
        _mount_tiny(node, "1m,nr_inodes=2")
    else:
        _mount_tiny(node, "16k")
    pod = node.sandbox.pod("c1")
    failed = node.add(pod)
    assert failed.code == STORE_FAILED
    assert RUN_DIR in failed.msg
    assert failed.error["details"]
    assert not node.veths()
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    node.delete(pod).done()
    assert node.gc([]).code == STORE_FAILED
    node.sandbox.do(lambda: sc.unmount(RUN_DIR))
    node.add(pod).done()


@pytest.mark.alone("the disk of an agent is filled in its own tests")
def test_a_disk_that_fills_up_costs_no_pod_its_address_and_keeps_none_from_going(busy_node: Node) -> None:
    """DEL removes the pod and is a success; its address is found later."""
    node = busy_node
    _mount_tiny(node, "160k")
    pods = node.sandbox.pods("c1", "c2")
    added = [node.add(pod).done() for pod in pods]
    ballast = Path(f"{RUN_DIR}/ballast")

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 1024)
            except OSError:
                return

    node.sandbox.ask(fill)
    for each in node.sandbox.pods("n1", "n2", "n3", "n4"):
        outcome = node.add(each)
        if not outcome.ok:
            assert outcome.code == STORE_FAILED
            assert not each.ip("link", "show", "type", "veth")
    node.delete(pods[0]).done()
    assert added[0].address not in node.host_routes()
    node.sandbox.ask(ballast.unlink)
    node.check(pods[1], added[1]).done()
    node.delete(pods[0]).done()
    assert added[0].address not in node.held()
    new = node.add(node.sandbox.pod("last"))
    assert new.address != added[1].address


@pytest.mark.alone("an agent has the directory open before it can be replaced")
def test_pods_go_away_while_the_state_directory_is_read_only(busy_node: Node) -> None:
    """What the store still holds of them is found later: the endpoint is gone."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    added = node.add(pod)
    node.sandbox.do(
        lambda: sc.mount(RUN_DIR, RUN_DIR, flags=sc.MS_BIND),
        lambda: sc.mount("none", RUN_DIR, flags=sc.MS_BIND | sc.MS_REMOUNT | sc.MS_RDONLY),
    )
    said = node.delete(pod).done().stderr
    assert RUN_DIR in said
    assert not node.veths()
    node.delete(pod).done()
    node.sandbox.do(lambda: sc.unmount(RUN_DIR))
    assert node.held() == {added.address: "c1"}
    again = node.add(pod).done()  # what is left of it does not keep its own container away
    assert node.held() == {again.address: "c1"}


@pytest.mark.alone("about a part of both, between two steps of it")
@pytest.mark.parametrize("lost", [True, False], ids=["the store is new", "it knows others"])
def test_a_pod_that_goes_while_what_lives_is_written_down_keeps_no_address(
    node: Node, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    pod, stays = node.sandbox.pod("goes"), node.sandbox.pod("stays")
    node.add(pod).done()
    node.add(stays).done()

    def work() -> list[str]:
        here = OurNode({"AZVNET_RUN_DIR": RUN_DIR})
        _remove(node) if lost else here.ipam.release(Attachment("goes", "eth0"))
        written = here.ipam.adopt

        def go_first(found: Iterable[Reservation]) -> object:
            transparent.detach(names_of(Attachment("goes", "eth0")), here.host)
            here.ipam.release(Attachment("goes", "eth0"))
            return written(found)

        monkeypatch.setattr(here.ipam, "adopt", go_first)
        recovery.adopt(here) if lost else recovery.adopt_endpoints(here)
        return [each.attachment.container_id for each in here.ipam.reservations()]

    assert node.sandbox.ask(work) == ["stays"]
