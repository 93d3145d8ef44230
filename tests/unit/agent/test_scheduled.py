"""Pods that are scheduled to the node: counted where the agent may ask, not taken for absent where not."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugin.agent import scheduled
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.provision_thread import problems_of
from cni_plugin.agent.provisioning import Provisioning
from cni_plugin.agent.scheduled import NOT_ASKED, ScheduledPods
from cni_plugin.cli.asking import _provision_words
from ipam.provision.progress import Progress, Unseen
from tests.unit.agent.work import Place, Work, new_settings
from tests.unit.ipam.cloud import Cloud, reply, running
from tests.unit.ipam.node import Clock
from tests.waiting import eventually

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

NODE = {"metadata": {"name": "node-1"}, "spec": {"providerID": "azure:///x"}}


def answer(status: str, document: dict[str, Any]) -> bytes:
    """A whole one, after which its connection is closed: another request on it would be lost."""
    return reply(status, json.dumps(document).encode(), Connection="close")


def ok(document: dict[str, Any]) -> bytes:
    return answer("200 OK", document)


FORBIDDEN = answer("403 Forbidden", {"message": "pods is forbidden", "code": 403})
AWAY = answer("503 Unavailable", {})


def pod(uid: str, ip: str = "") -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "spec": {"nodeName": "node-1"}, "status": {"podIP": ip}}


def pods(*items: dict[str, Any]) -> bytes:
    return ok({"metadata": {"resourceVersion": "7"}, "items": list(items)})


def no_wait(_: float) -> None:
    return


class Followed:
    """The thread, before an API server that answers as it is told."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud = cloud
        self.events: list[dict[str, Any]] = []
        self.ends = threading.Event()
        """The watch breaks off."""
        self.moved = threading.Event()
        (folder / "token").write_text("t")
        self.api = {"server": cloud.url, "token_file": str(folder / "token"), "ca_file": ""}
        self.wanted = new_settings(
            source="imds", provision={"mode": "node", "node_name": "node-1", "api": self.api}
        ).provision
        assert self.wanted is not None
        self.pods = ScheduledPods({}, self.wanted, self.moved.set, lambda *_: None)

    def watch(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        sent = 0
        while not self.cloud.stopping.is_set() and not self.ends.wait(0.01):
            for event in self.events[sent:]:
                connection.sendall(json.dumps(event).encode() + b"\n")
                sent += 1

    def happens(self, what: str, document: dict[str, Any]) -> None:
        document["metadata"]["resourceVersion"] = str(8 + len(self.events))
        self.events.append({"type": what, "object": document})

    def unseen(self) -> Unseen | None:
        return self.pods.unseen

    def coming(self) -> int | None:
        demand = self.pods.demand(0)
        return None if demand is None else demand.coming


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    monkeypatch.setattr("ipam.provision.watching.FIRST_PAUSE", 0.02)
    with running() as cloud:
        made = Followed(cloud, tmp_path)
        yield made
        made.ends.set()
        made.pods.stop()


def test_pods_that_are_bound_are_counted_from_their_binding_to_their_address(followed: Followed) -> None:
    followed.cloud.answers = [ok(NODE), pods(pod("a"), pod("b", "10.0.0.5")), followed.watch]
    assert followed.coming() is None, "before the first list nothing is known"
    assert followed.unseen() is not None
    followed.pods.start()
    eventually(lambda: followed.coming() == 1, "the list is counted")
    assert followed.unseen() is None
    assert followed.pods.provider_id == "azure:///x"
    threads = [each for each in threading.enumerate() if each.name == "scheduled pods"]
    assert {each.daemon for each in threads} == {True}, "no watch keeps the agent from ending"
    followed.moved.clear()
    followed.happens("ADDED", pod("c"))
    assert followed.moved.wait(20), "whoever plans is woken"
    assert followed.coming() == 2
    demand = followed.pods.demand(2)
    assert demand is not None
    assert demand.coming == 1, "two of the three hold theirs"
    assert demand.per_second == pytest.approx(1 / 60)
    followed.happens("MODIFIED", pod("c", "10.0.0.6"))
    followed.happens("DELETED", pod("a"))
    eventually(lambda: followed.coming() == 0, "they have got theirs, or are gone")


def test_the_thread_ends_with_the_next_that_it_is_told_after_the_end(followed: Followed) -> None:
    followed.cloud.answers = [ok(NODE), pods(pod("a")), followed.watch]
    before = set(threading.enumerate())
    followed.pods.start()
    eventually(lambda: followed.coming() == 1, "the list is counted")
    (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "scheduled pods")
    followed.pods.stop()
    followed.happens("ADDED", pod("b"))
    thread.join(20)
    assert not thread.is_alive()
    assert followed.coming() == 1, "what comes afterwards is not counted"


def test_a_burst_is_waited_for_but_not_without_end_and_a_node_at_rest_is_not(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    followed.pods.settle(waited.append)
    assert waited == []
    clock = Clock()
    monkeypatch.setattr("cni_plugin.agent.scheduled.time.monotonic", clock)
    followed.pods._note("node-1")

    def wait(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(seconds)

    followed.pods.settle(wait)
    assert waited == [scheduled.SETTLE_SECONDS]

    def another(seconds: float) -> None:
        wait(seconds / 2)
        followed.pods._note("node-1")
        wait(seconds / 2)

    waited.clear()
    followed.pods._note("node-1")
    followed.pods.settle(another)
    assert sum(waited) == pytest.approx(scheduled.LONGEST_SETTLE)


def test_what_was_known_is_believed_for_a_minute_after_the_server_went_and_not_for_longer(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed.cloud.answers = [ok(NODE), pods(pod("a")), followed.watch, AWAY]
    followed.pods.start()
    eventually(lambda: followed.coming() == 1, "one is bound")
    followed.ends.set()
    eventually(lambda: len(followed.cloud.requests) >= 5, "it is tried again and again")
    assert followed.coming() == 1
    assert followed.unseen() is None
    monkeypatch.setattr(scheduled, "LASTING_SECONDS", 0.0)
    eventually(lambda: followed.coming() is None, "pods have come and gone since")
    unseen = followed.unseen()
    assert unseen is not None
    assert unseen.phase == "no-api"
    assert unseen.remedy


def test_a_server_that_comes_back_is_believed_from_the_first_byte_of_its_watch(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduled, "LASTING_SECONDS", 0.0)
    followed.cloud.answers = [ok(NODE), AWAY, AWAY, ok(NODE), pods(pod("a")), followed.watch]
    followed.pods.start()
    eventually(lambda: followed.coming() == 1, "it is seen, though nothing has happened since")


def test_a_server_that_was_away_from_the_start_leaves_unknown_what_is_scheduled_and_is_no_problem_yet(
    followed: Followed,
) -> None:
    followed.cloud.answers = [AWAY]
    followed.pods.start()
    unseen = eventually(lambda: (seen := followed.unseen()) and seen.phase == "no-api" and seen, "it is away")
    assert isinstance(unseen, Unseen)
    assert (unseen.remedy, followed.coming()) == ("", None)
    assert problems_of(Progress("idle", unseen=unseen)) == []


def test_a_list_that_can_not_be_understood_is_told(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduled, "LASTING_SECONDS", 0.0)
    followed.cloud.answers = [ok(NODE), ok({"items": []})]
    followed.pods.start()
    unseen = eventually(
        lambda: (seen := followed.unseen()) and "internal" in seen.text and seen, "it is told"
    )
    assert isinstance(unseen, Unseen)
    assert (unseen.phase, unseen.remedy) == ("no-api", "The agent tries again.")


def test_without_the_right_it_is_told_at_once_what_is_missing(followed: Followed) -> None:
    followed.cloud.answers = [FORBIDDEN]
    followed.pods.start()
    followed.pods.first_list(no_wait)
    eventually(lambda: problems_of(Progress("idle", unseen=followed.unseen())), "it is told")
    (problem,) = problems_of(Progress("idle", unseen=followed.unseen()))
    assert (problem.kind, problem.subject) == ("demand", "api-denied")
    assert "pods is forbidden" in problem.text
    assert "ClusterRole of the chart" in problem.text
    assert followed.coming() is None


def test_before_the_first_list_nothing_is_decided_unless_it_takes_too_long(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(scheduled, "FIRST_LIST_SECONDS", 0.0)
    followed.pods.first_list(waited.append)
    assert waited == [], "the thread does not run, and is not waited for"
    monkeypatch.setattr(scheduled, "FIRST_LIST_SECONDS", 60.0)
    followed.cloud.answers = [ok(NODE), pods(), followed.watch]

    def begin(seconds: float) -> None:
        if not waited:
            followed.pods.start()
        waited.append(seconds)
        threading.Event().wait(seconds)

    followed.pods.first_list(begin)
    assert set(waited) == {0.1}
    assert followed.coming() == 0


@pytest.mark.parametrize(
    "environ", [{}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}], ids=["no-cluster", "no-token"]
)
def test_an_agent_that_was_given_no_access_asks_nothing_and_says_that_it_does_not_know(
    environ: dict[str, str], tmp_path: Path
) -> None:
    api = {"token_file": str(tmp_path / "token")}
    wanted = new_settings(source="imds", provision={"mode": "node", "api": api}).provision
    assert wanted is not None
    made = ScheduledPods(environ, wanted, lambda: None, lambda *_: None)
    made.start()
    made.first_list(no_wait)
    assert (made.demand(0), made.unseen, made.provider_id) == (None, NOT_ASKED, "")
    assert problems_of(Progress("idle", unseen=NOT_ASKED)) == [], "nothing is wrong with that"
    made.stop()


def test_status_says_who_comes_and_what_is_not_known() -> None:
    told = {"state": "growing", "text": "adding 16 addresses to the NIC", "coming": 12, "unseen": ""}
    assert _provision_words(told) == (
        "growing: adding 16 addresses to the NIC; 12 pods are scheduled here without an address yet"
    )
    told |= {"coming": None, "unseen": NOT_ASKED.text}
    assert "it is not known which pods are scheduled to this node: the agent has no" in _provision_words(told)
    assert _provision_words({"state": "idle", "text": "x"}) == "idle: x", "an agent of before"


def test_what_keeps_the_agent_from_seeing_pods_is_logged_once_and_its_end_too(
    place: Place, work: Work, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = place.run_dir / "agent.log"
    provision = {"mode": "node", "node_name": "node-1", "api": followed.api}
    settings = new_settings(
        source="imds", log_file=str(log), provision=provision, arm={"base_url": "https://127.0.0.1:9"}
    )
    monkeypatch.setattr("cni_plugin.agent.provision_thread.LOOK_SECONDS", 0.05)
    followed.cloud.answers = [FORBIDDEN]
    made = Provisioning({}, place.node, settings, work, lambda: None, lambda: True, Journal(settings))
    made.start()
    words = "it is not known which pods are scheduled"
    try:
        eventually(lambda: log.exists() and words in log.read_text(), "it is logged")
        followed.cloud.answers = [ok(NODE), pods(pod("a")), followed.watch]
        eventually(lambda: "it is known again" in log.read_text(), "and that it is over")
        assert log.read_text().count(words) == 1
        api, _ = made.requests.counted()
        assert api["GET", "nodes", "403"] >= 1
        assert api["LIST", "pods", "200"] == 1
    finally:
        made.stop()
    assert made.requests.counted()[0]["WATCH", "pods", "200"] == 1, "counts outlive a change of settings"


def test_an_unseen_demand_that_does_not_last_is_no_problem() -> None:
    assert problems_of(Progress("idle", unseen=Unseen("a moment", "no-api"))) == []
