"""Parts of the operator alone: what is followed, counted, claimed and told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from ipam.operator import fleet
from ipam.operator.census import Nodes, NodeSeen
from ipam.operator.claims import Claims
from ipam.operator.errors import ClusterError
from ipam.operator.record import NodeRecord
from ipam.operator.rounds import COUNT_SECONDS, Rounds
from ipam.operator.status_changes import changes, reason_of, with_condition
from ipam.provision.bound_pods import BoundPods, PodSeen
from ipam.provision.exchange import AzvnetNode, Machine, NicShown, NodeSpec, NodeStatus, Operation, PoolReport
from ipam.provision.progress import PHASES
from ipam.provision.provider_id import is_id_of
from ipam.provision.watching import NotFollowed, Watching
from ipam.value import replace
from tests.unit.ipam.node import Clock
from tests.unit.operator.api_server import ApiServer, View

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBSCRIPTION = "/subscriptions/s/resourceGroups/Nodes/providers/Microsoft.Compute/virtualMachines/"


def pod(uid: str, *, node: str = "n1", ip: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"uid": uid, **more.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"nodeName": node, **more}, "status": {"podIP": ip}}


class Census:
    def __init__(self) -> None:
        self.moved: list[str] = []
        self.clock = Clock()
        self.pods = BoundPods(self.moved.append, self.clock)

    def say(self, document: dict[str, Any]) -> None:
        self.pods.changed(self.pods.brief(document))


@pytest.fixture
def census() -> Census:
    return Census()


def test_a_pod_is_coming_until_it_has_an_address(census: Census) -> None:
    census.say(pod("a"))
    census.say(pod("b"))
    assert census.pods.coming("n1", 0) == 2
    census.say(pod("a", ip="10.0.0.5"))
    assert census.pods.coming("n1", 1) == 1
    census.pods.deleted(census.pods.brief(pod("b")))
    assert census.pods.coming("n1", 1) == 0
    assert census.moved == ["n1"] * 4


def test_a_pod_that_has_an_address_and_does_not_say_so_yet_is_not_asked_for_again(census: Census) -> None:
    for uid in "abc":
        census.say(pod(uid))
    assert [census.pods.coming("n1", held) for held in (2, 3, 4)] == [1, 0, 0]


def test_pods_that_are_being_deleted_hold_theirs_and_their_successors_are_coming(census: Census) -> None:
    for uid in "abc":
        census.say(pod(uid, ip="10.0.0.5", metadata={"deletionTimestamp": "now"}))
    for uid in "xyz":
        census.say(pod(uid))
    assert census.pods.coming("n1", 3) == 3


@pytest.mark.parametrize(
    "document",
    [
        pod("a", hostNetwork=True),
        {**pod("a"), "status": {"phase": "Succeeded"}},
        {**pod("a"), "status": {"phase": "Failed"}},
        pod("a", node=""),
    ],
    ids=["host-network", "succeeded", "failed", "not-bound"],
)
def test_pods_without_an_address_of_their_own_do_not_count(census: Census, document: dict[str, Any]) -> None:
    census.say(document)
    assert census.pods.coming("n1", 0) == 0
    assert len(census.pods) == 0


def test_a_pod_that_ends_or_moves_is_told_to_every_node_that_it_concerns(census: Census) -> None:
    census.say(pod("a"))
    census.say(pod("a"))
    assert census.moved == ["n1"], "nothing has changed"
    census.say(pod("a", node="n2"))
    assert sorted(census.moved[1:]) == ["n1", "n2"]
    assert (census.pods.coming("n1", 0), census.pods.coming("n2", 0)) == (0, 1)
    census.say({**pod("a", node="n2"), "status": {"phase": "Succeeded"}})
    census.pods.deleted(census.pods.brief(pod("a", node="n2")))
    assert census.moved[3:] == ["n2"], "it was forgotten when it ended"
    assert len(census.pods) == 0


def test_documents_without_spec_and_status_are_of_pods_that_are_nowhere(census: Census) -> None:
    nowhere = census.pods.brief({"metadata": {"uid": 7}})
    assert (nowhere.uid, nowhere.node) == ("7", "")
    assert census.pods.brief({**pod("a"), "status": None}) == PodSeen("a", "n1", is_coming=True)
    assert not census.pods.brief(pod("a", metadata={"deletionTimestamp": "now"})).is_coming
    assert not census.pods.brief(pod("a", ip="10.0.0.5")).is_coming


def test_pods_that_have_addresses_are_not_coming_though_nothing_is_held(census: Census) -> None:
    census.say(pod("a", ip="10.0.0.5"))
    assert census.pods.coming("n1", 0) == 0
    census.say(pod("b"))
    census.pods.reset([census.pods.brief(pod("a", ip="10.0.0.5"))])
    assert census.pods.coming("n1", 0) == 0


def test_only_pods_that_come_count_as_arrivals_and_for_a_whole_minute(census: Census) -> None:
    census.say(pod("has", ip="10.0.0.5"))
    census.say(pod("a"))
    census.say(pod("a", ip="10.0.0.6"))
    census.clock.advance(30)
    census.say(pod("b"))
    assert census.pods.per_second("n1") == pytest.approx(2 / 60)
    census.clock.advance(30)
    assert census.pods.per_second("n1") == pytest.approx(2 / 60)
    census.clock.advance(1)
    assert census.pods.per_second("n1") == pytest.approx(1 / 60)
    assert census.pods.per_second("n2") == 0.0


def test_a_pod_that_has_lost_its_address_is_coming_and_has_not_arrived_again(census: Census) -> None:
    census.say(pod("a", ip="10.0.0.5"))
    census.say(pod("a"))
    assert (census.pods.coming("n1", 0), census.pods.per_second("n1")) == (1, 0.0)


def test_what_comes_within_a_minute_is_the_rate(census: Census) -> None:
    census.pods.reset([census.pods.brief(pod("old"))])
    for number in range(6):
        census.say(pod(f"new-{number}"))
        census.say(pod(f"new-{number}"))
    assert census.pods.per_second("n1") == pytest.approx(0.1)
    census.clock.advance(61)
    assert census.pods.per_second("n1") == 0


def test_a_new_list_replaces_all_that_was_known(census: Census) -> None:
    census.say(pod("a"))
    census.pods.reset([census.pods.brief(pod("b", node="n2"))])
    assert (census.pods.coming("n1", 0), census.pods.coming("n2", 0)) == (0, 1)
    assert set(census.moved) == {"n1", "n2"}


def test_nodes_that_come_change_and_go_are_told() -> None:
    moved: list[str] = []
    nodes = Nodes(moved.append)
    document = {"metadata": {"name": "n1", "uid": "u"}, "spec": {"providerID": "azure:///x"}}
    nodes.changed(nodes.brief(document))
    nodes.changed(nodes.brief(document))  # a heartbeat
    assert moved == ["n1"]
    nodes.reset([])
    assert nodes.get("n1") is None
    assert moved == ["n1", "n1"]
    plain = nodes.brief({"metadata": {"name": "n2", "uid": "v"}})
    nodes.reset([plain])
    assert nodes.get("n2") == NodeSeen("n2", "v", "")
    nodes.deleted(plain)
    assert nodes.get("n2") is None
    assert moved[2:] == ["n2", "n2"]


class Seen:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.lists = 0

    def brief(self, document: dict[str, Any]) -> str:
        return str(document["metadata"]["name"])

    def reset(self, objects: Any) -> None:
        self.names, self.lists = set(objects), self.lists + 1

    def changed(self, each: str) -> None:
        self.names.add(each)

    def deleted(self, each: str) -> None:
        self.names.discard(each)


class Followed:
    def __init__(self) -> None:
        self.server, self.seen, self.told = ApiServer(), Seen(), list[str]()
        self.view = View(self.server)
        self.stop = threading.Event()
        self.watching = Watching(
            "Nodes", self.view.nodes, self.seen, self.stop, lambda _, text: self.told.append(text)
        )

    def run(self) -> threading.Thread:
        thread = threading.Thread(target=self.watching.run, daemon=True)
        thread.start()
        return thread


def test_what_is_listed_in_pages_and_changes_afterwards_is_followed() -> None:
    place = Followed()
    for number in range(8):
        place.server.put("Nodes", f"n{number}", {})
    thread = place.run()
    _eventually(lambda: len(place.seen.names) == 8)
    place.server.remove("Nodes", "n3")
    place.server.put("Nodes", "n9", {})
    _eventually(lambda: place.seen.names == {"n0", "n1", "n2", "n4", "n5", "n6", "n7", "n9"})
    assert place.seen.lists == 1
    place.stop.set()
    place.server.put("Nodes", "last", {})
    thread.join(20)
    assert not thread.is_alive()


def test_a_watch_that_is_too_old_begins_with_a_list_and_one_that_breaks_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ipam.provision.watching.FIRST_PAUSE", 0.01)
    place = Followed()
    place.server.put("Nodes", "n1", {})
    place.run()
    _eventually(lambda: place.seen.names == {"n1"})
    place.view.is_away = True
    _eventually(lambda: bool(place.told))
    place.server.put("Nodes", "n2", {})
    place.view.is_away = False
    _eventually(lambda: place.seen.names == {"n1", "n2"})
    assert place.seen.lists == 1
    place.view.is_away = True
    place.server.remove("Nodes", "n1")
    place.server.oldest = place.server.version
    place.server.history.clear()
    place.view.is_away = False
    _eventually(lambda: place.seen.names == {"n2"})
    assert place.seen.lists >= 2
    assert all("away" in text for text in place.told)
    place.stop.set()


def test_a_server_that_has_forgotten_what_it_just_listed_is_given_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ipam.provision.watching.FIRST_PAUSE", 60.0)
    place = Followed()
    place.server.oldest = 10**9
    thread = place.run()
    _eventually(lambda: place.watching.trouble is not None)
    assert place.seen.lists == 1, "another list would end as this one did"
    assert place.told
    place.stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_watch_that_ends_without_an_event_ends_the_trouble_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ipam.provision.watching.FIRST_PAUSE", 0.01)
    stop = threading.Event()
    failures = [NotFollowed("away"), NotFollowed("away")]

    class Quiet:
        def page(self, after: str) -> dict[str, Any]:
            return {"metadata": {"resourceVersion": f"7{after}"}, "items": []}

        def watch(self, version: str) -> Iterator[dict[str, Any]]:
            assert version == "7"
            if failures:
                raise failures.pop()
            stop.set()
            return iter(())

    told: list[str] = []
    watching = Watching("Nodes", Quiet(), Seen(), stop, lambda _, text: told.append(text))
    watching.run()
    assert (failures, watching.trouble, len(told)) == ([], None, 1)


def test_a_defect_while_following_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.provision.watching.FIRST_PAUSE", 0.01)
    place = Followed()
    place.server.put("Nodes", "n1", {})
    brief, failures = place.seen.brief, [ClusterError("x"), KeyError("y")]

    def fails(document: dict[str, Any]) -> str:
        if failures:
            raise failures.pop()
        return brief(document)

    place.seen.brief = fails  # type: ignore[method-assign]
    place.run()
    _eventually(lambda: place.seen.names == {"n1"})
    assert "internal error" in place.told[0]
    place.stop.set()


def _eventually(what: Any) -> None:
    from tests.waiting import eventually

    eventually(what, "it is followed")


def node(name: str, machine: str = "vm1", nic: str = "", location: str = "westeurope") -> AzvnetNode:
    said = Machine(f"{SUBSCRIPTION}{machine}", "", "AzurePublicCloud", location)
    return AzvnetNode(name, spec=NodeSpec(machine=said), status=NodeStatus(nic=NicShown(id=nic)))


def claims(*nodes: AzvnetNode, groups: tuple[str, ...] = ()) -> Claims:
    made = Claims(groups)
    for each in nodes:
        made.note(each)
    return made


def test_a_machine_that_two_new_nodes_claim_is_given_to_neither() -> None:
    a, b = node("a"), node("b")
    both = claims(a, b)
    assert both.why_not(a, "") == "another node claims the same machine or NIC: 'b'"
    assert both.why_not(b, "") == "another node claims the same machine or NIC: 'a'"
    assert both.drop("b") == {"a"}
    assert not both.why_not(a, "")


def test_who_had_the_nic_keeps_it() -> None:
    a, b = node("a", nic="/nic"), node("b")
    both = claims(a, b)
    assert not both.why_not(a, "")
    assert both.why_not(b, "")


def test_two_that_have_the_same_nic_are_both_left_alone() -> None:
    a, b = node("a", "vm1", nic="/nic"), node("b", "vm2", nic="/NIC")
    both = claims(a, b)
    assert both.why_not(a, "")
    assert both.why_not(b, "")


def test_of_many_that_claim_a_machine_the_first_by_name_is_named() -> None:
    many = claims(*map(node, "hgfedcba"))
    assert "'b' (and 6 more)" in many.why_not(node("a"), "")


def test_who_claims_something_else_now_sets_free_what_it_claimed_before() -> None:
    both = Claims(())
    assert both.note(node("a")) == set()
    assert both.note(node("b")) == {"a"}
    assert both.note(node("c")) == {"a", "b"}
    assert "'a' (and 1 more)" in both.why_not(node("b"), "")
    assert both.note(node("c", "vm2")) == {"a", "b"}
    assert [set(both.others(each)) for each in "acd"] == [{"b"}, set(), set()]
    assert both.note(node("b", "vm2", nic="/nic")) == {"a", "c"}
    assert not both.why_not(node("a"), "")
    assert both.drop("d") == set()
    both.note(node("b", "vm2"))
    assert both.why_not(node("b", "vm2"), ""), "it does not have the NIC any more"


@pytest.mark.parametrize(
    ("said", "groups", "provider", "word"),
    [
        (node("a", location=""), (), "", "does not name"),
        (node("a", "vm1/../../x"), (), "", "does not name"),
        (node("a", "vm1?api-version=1"), (), "", "does not name"),
        (node("a"), ("other",), "", "resource_groups"),
        (node("a"), ("nodes",), f"azure://{SUBSCRIPTION}vm2", "the Node's providerID"),
        (node("a"), (), "aws:///i-1", "the Node's providerID"),
    ],
)
def test_what_can_not_be_is_said(said: AzvnetNode, groups: tuple[str, ...], provider: str, word: str) -> None:
    assert word in claims(said, groups=groups).why_not(said, provider)


def test_azure_writes_provider_ids_in_any_case() -> None:
    assert is_id_of(f"azure://{SUBSCRIPTION.lower()}VM1", f"{SUBSCRIPTION}vm1/")
    assert not claims(node("a"), groups=("nodes",)).why_not(node("a"), f"Azure://{SUBSCRIPTION.upper()}VM1")


def test_configurations_of_a_revision_that_is_known_are_not_read_again() -> None:
    first = {"name": "azvnet-0000000000000001", "address": "10.0.0.5", "ours": True}
    document: dict[str, Any] = {
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "1"},
        "spec": {"seen": 1},
        "status": {"revision": 1, "configurations": [first]},
    }
    known = fleet.read(document, None)
    same = fleet.read({**document, "spec": {"seen": 2}}, known)
    assert same.status.configurations is known.status.configurations
    assert same.spec.seen == 2
    newer = fleet.read({**document, "status": {"revision": 2, "configurations": []}}, known)
    assert not newer.status.configurations
    another = fleet.read({**document, "metadata": {"name": "a", "uid": "v"}}, known)
    assert another.status.configurations == known.status.configurations
    assert another.status.configurations is not known.status.configurations


def test_only_what_has_changed_is_written_and_what_is_gone_is_null() -> None:
    before = NodeStatus(revision=3, state="growing", operation=Operation("growing", 4, "now"))
    after = replace(before, state="idle", operation=None)
    assert changes(before, after) == {"state": "idle", "operation": None}
    assert not changes(after, after)


def test_the_condition_changes_its_time_only_with_its_verdict() -> None:
    idle = with_condition(NodeStatus(state="idle", text="fine"), 3, "t1")
    growing = with_condition(replace(idle, state="growing", text="more"), 4, "t2")
    failed = with_condition(replace(growing, state="subnet-full", text="no", remedy="Do."), 5, "t3")
    (a,), (b,), (c,) = idle.conditions, growing.conditions, failed.conditions
    assert (a.status, b.status, c.status) == ("True", "True", "False")
    assert (a.last_transition_time, b.last_transition_time, c.last_transition_time) == ("t1", "t1", "t3")
    assert (c.reason, c.message, c.observed_generation) == ("SubnetFull", "no Do.", 5)


@pytest.mark.parametrize("state", PHASES)
def test_every_state_is_a_reason_as_kubernetes_wants_it(state: str) -> None:
    assert reason_of(state).isalpha()
    assert reason_of(state)[0].isupper()


def test_a_round_lasts_as_long_as_every_node_that_pods_come_to_needs_for_a_write() -> None:
    machine = Machine(resource_id=f"{SUBSCRIPTION}n1", location="westeurope")
    busy, idle = PoolReport(arrivals_per_minute=3.0), PoolReport()
    pools = {"told": busy, "bound": idle, "idle": idle}
    records = [
        NodeRecord(AzvnetNode(name, spec=NodeSpec(machine=machine, pool=pool)), 0.0)
        for name, pool in pools.items()
    ]
    rounds = Rounds(lambda: records, {"told": 0.0, "bound": 0.05, "idle": 0.0}.__getitem__)
    region = records[0].region()
    assert rounds.seconds(region, 500, 1.0) == 2 * 300 / 500
    assert rounds.seconds(replace(region, location="elsewhere"), 500, 1.0) == 0
    records.clear()
    assert rounds.seconds(region, 500, 1.0 + COUNT_SECONDS / 2) == 2 * 300 / 500, "it is counted now and then"
    assert rounds.seconds(region, 500, 1.0 + COUNT_SECONDS) == 0
