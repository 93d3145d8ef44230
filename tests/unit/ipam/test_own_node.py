"""What the API server is asked about this node, and what is made of its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ipam.provision.api_client import ApiAccess, Outdated, Trouble
from ipam.provision.bound_pods import BoundPods, cut_down
from ipam.provision.own_node import OwnNode
from ipam.provision.provider_id import is_id_of, resource_id_in
from tests.unit.ipam.cloud import Cloud, reply, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MACHINE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1"
NODE = {"metadata": {"name": "node-1"}, "spec": {"providerID": f"azure://{MACHINE}"}}


def pod(uid: str, ip: str = "", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"uid": uid, "name": uid, "labels": {"a": "b"}, "managedFields": [{}], **more},
        "spec": {"nodeName": "node-1", "containers": [{"env": [{"name": "PASSWORD", "value": "s3cr3t"}]}]},
        "status": {"podIP": ip, "phase": "Pending"},
    }


PODS = {"metadata": {"resourceVersion": "41"}, "items": [pod("a"), pod("b", "10.0.0.5")]}


class Asked:
    def __init__(self, cloud: Cloud, token: Path) -> None:
        self.cloud = cloud
        self.counted: list[tuple[str, str, str]] = []
        token.write_text("t")
        self.node = OwnNode(
            ApiAccess(cloud.url, token, ""), "node-1", lambda *each: self.counted.append(each)
        )

    def query(self, number: int) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.cloud.paths[number])
        return parts.path, parse_qs(parts.query)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    with running() as cloud:
        made = Asked(cloud, tmp_path / "token")
        yield made
        made.node.close()


def answer(status: str, document: dict[str, Any]) -> bytes:
    """A whole one, after which its connection is closed: another request on it would be lost."""
    return reply(status, json.dumps(document).encode(), Connection="close")


def ok(document: dict[str, Any]) -> bytes:
    return answer("200 OK", document)


def status(code: int, reason: str, **more: Any) -> bytes:
    return answer(f"{code} {reason}", {"kind": "Status", "message": reason, "code": code, **more})


def test_pods_of_the_node_are_listed_from_the_servers_memory_and_nothing_else_of_them_is_kept(
    asked: Asked,
) -> None:
    asked.cloud.answers = [ok(NODE), ok(PODS)]
    page = asked.node.page("")
    assert page["metadata"]["resourceVersion"] == "41"
    assert "s3cr3t" not in str(page)
    assert [each["metadata"] for each in page["items"]] == [{"uid": "a"}, {"uid": "b"}]
    path, query = asked.query(1)
    assert path == "/api/v1/pods"
    assert query["resourceVersion"] == ["0"]
    assert query["fieldSelector"] == ["spec.nodeName=node-1,status.phase!=Succeeded,status.phase!=Failed"]
    assert asked.counted == [("GET", "nodes", "200"), ("LIST", "pods", "200")]


@pytest.mark.parametrize(
    "document",
    [
        pod("a"),
        pod("a", "10.0.0.5"),
        pod("a", deletionTimestamp="now"),
        {**pod("a"), "status": {"phase": "Failed"}},
        {**pod("a"), "spec": {"nodeName": "node-1", "hostNetwork": True}},
        {"metadata": {"uid": "a"}},
    ],
)
def test_what_is_left_of_a_pod_counts_as_the_whole_of_it(document: dict[str, Any]) -> None:
    pods = BoundPods(lambda _: None, lambda: 0.0)
    assert pods.brief(cut_down(document)) == pods.brief(document)


def test_the_node_says_which_machine_it_is(asked: Asked) -> None:
    asked.cloud.answers = [ok(NODE), ok(PODS)]
    assert asked.node.provider_id == ""
    asked.node.page("")
    assert resource_id_in(asked.node.provider_id) == MACHINE
    assert asked.query(0) == ("/api/v1/nodes/node-1", {"resourceVersion": ["0"]})


def test_a_provider_id_that_is_set_or_changed_later_is_seen_with_the_next_watch(asked: Asked) -> None:
    asked.cloud.answers = [ok({"metadata": {"name": "node-1"}, "spec": {}}), ok(PODS)]
    asked.node.page("")
    stream = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    asked.cloud.answers = [stream, ok(NODE), stream]
    assert list(asked.node.watch("41")) == [{}], "that it has begun"
    assert asked.node.provider_id == ""
    assert list(asked.node.watch("41")) == [{}]
    assert asked.node.provider_id == f"azure://{MACHINE}"
    assert [each[:2] for each in asked.counted[2:]] == [
        ("WATCH", "pods"),
        ("GET", "nodes"),
        ("WATCH", "pods"),
    ]


def test_a_watch_tells_what_happens_and_that_its_version_is_forgotten(asked: Asked) -> None:
    event = {"type": "ADDED", "object": pod("c")}
    lines = json.dumps(event).encode() + b"\n"
    stream = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + lines
    asked.cloud.answers = [ok(NODE), stream, ok(NODE), status(410, "Expired")]
    assert list(asked.node.watch("41")) == [{}, event]
    _, query = asked.query(1)
    assert (query["watch"], query["resourceVersion"], query["allowWatchBookmarks"]) == (
        ["true"],
        ["41"],
        ["true"],
    )
    with pytest.raises(Outdated):
        list(asked.node.watch("41"))


def test_without_a_node_of_that_name_no_pod_is_taken_for_absent(asked: Asked) -> None:
    asked.cloud.answers = [status(404, "NotFound", details={"name": "node-1", "kind": "nodes"})]
    with pytest.raises(Trouble, match="no Node 'node-1'") as trouble:
        asked.node.page("")
    assert trouble.value.phase == "api-refused"
    assert "provision.node_name" in trouble.value.remedy


@pytest.mark.parametrize("answers", [[status(403, "Forbidden")], [ok(NODE), status(403, "Forbidden")]])
def test_without_the_right_to_see_them_it_says_which_one_it_needs(asked: Asked, answers: list[Any]) -> None:
    asked.cloud.answers = answers
    with pytest.raises(Trouble) as trouble:
        asked.node.page("")
    assert trouble.value.phase == "api-denied"
    assert "list and watch pods, get nodes" in trouble.value.remedy
    assert asked.counted[-1][2] == "403"


def test_a_list_that_breaks_off_is_no_list(asked: Asked) -> None:
    asked.cloud.answers = [ok(NODE), b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"items": [{"metadata"']
    with pytest.raises(Trouble, match="can't be read") as trouble:
        asked.node.page("")
    assert trouble.value.phase == "no-api"


def test_a_request_without_an_answer_is_counted_as_such(asked: Asked) -> None:
    asked.cloud.answers = [b"nonsense"]
    with pytest.raises(Trouble, match="does not answer"):
        asked.node.page("")
    assert asked.counted == [("GET", "nodes", "none")]


def test_an_id_of_another_provider_names_no_machine_of_azure() -> None:
    assert resource_id_in("k3s://node-1") == resource_id_in("") == resource_id_in("node-1") == ""
    assert not is_id_of("k3s://node-1", "")
    assert is_id_of(f"AZURE://{MACHINE.upper()}/", MACHINE)
