"""The API server as an agent asks it: the token, what a refusal means, and a watch that is bounded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ipam.provision import api_client, apiserver
from ipam.provision.api_client import ApiAccess, Outdated, Trouble
from ipam.provision.apiserver import ApiServer
from ipam.provision.exchange import NodeSpec, with_spec
from tests.unit.ipam.cloud import Cloud, ok, reply, running

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

NODE = {"metadata": {"name": "node-1", "resourceVersion": "7"}, "spec": {}}
DOCUMENT = with_spec("node-1", NodeSpec(), "7")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first-s3cr3t\n")
    return path


@pytest.fixture
def api(cloud: Cloud, token: Path) -> Iterator[ApiServer]:
    made = ApiServer(ApiAccess(cloud.url, token, ""), "node-1")
    yield made
    made.close()


def status(code: int, reason: str, message: str, **more: Any) -> bytes:
    """A Status of Kubernetes."""
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code, **more}
    return reply(f"{code} {reason}", json.dumps(body).encode())


def test_the_newest_state_is_listed_by_name_with_where_to_watch_from(api: ApiServer, cloud: Cloud) -> None:
    cloud.answers = [ok({"metadata": {"resourceVersion": "41"}, "items": [NODE]})]
    assert api.read() == (NODE, "41")
    assert cloud.paths == [f"{apiserver.COLLECTION}?fieldSelector=metadata.name%3Dnode-1"]
    cloud.answers = [ok({"metadata": {"resourceVersion": "42"}, "items": []})]
    assert api.read() == (None, "42")


def test_the_token_is_read_for_every_request(api: ApiServer, cloud: Cloud, token: Path) -> None:
    cloud.answers = [ok({"items": []})]
    api.read()
    token.write_text("second-s3cr3t")
    api.read()
    assert ["first" in cloud.requests[0], "second" in cloud.requests[1]] == [True, True]


def test_without_a_token_it_says_where_it_looked(api: ApiServer, cloud: Cloud, token: Path) -> None:
    token.unlink()
    with pytest.raises(Trouble, match=str(token)) as trouble:
        api.read()
    assert trouble.value.phase == "api-denied"
    assert cloud.requests == []


def test_a_resource_is_made_or_replaced_at_its_version(api: ApiServer, cloud: Cloud) -> None:
    cloud.answers = [reply("201 Created", json.dumps(NODE).encode()), ok(NODE)]
    assert api.write(with_spec("node-1", NodeSpec())) == NODE
    assert api.write(DOCUMENT) == NODE
    first, second = cloud.requests
    assert first.startswith(f"POST {apiserver.COLLECTION} ")
    assert second.startswith(f"PUT {apiserver.COLLECTION}/node-1 ")
    assert '"resourceVersion": "7"' in second


@pytest.mark.parametrize(
    "answer",
    [
        status(409, "Conflict", "the object has been modified"),
        status(409, "AlreadyExists", "it exists"),
        status(404, "NotFound", "not found", details={"name": "node-1", "kind": "azvnetnodes"}),
        status(410, "Expired", "too old resource version"),
    ],
)
def test_what_is_out_of_date_has_to_be_read_again(api: ApiServer, cloud: Cloud, answer: bytes) -> None:
    cloud.answers = [answer]
    with pytest.raises(Outdated):
        api.write(DOCUMENT)


@pytest.mark.parametrize(
    ("answer", "phase", "says"),
    [
        (status(401, "Unauthorized", "Unauthorized"), "api-denied", "provision.api.token_file"),
        (status(403, "Forbidden", "cannot update azvnetnodes"), "api-denied", "provision.node_name"),
        (reply("404 Not Found", b"404 page not found\n"), "no-definition", "azvnetnodes.azvnet.io"),
        (status(422, "Invalid", "spec.pool.held: Invalid value"), "api-refused", "upgrade the chart"),
        (status(429, "TooManyRequests", "try again later"), "no-api", "limiting requests"),
        (status(500, "InternalError", "etcdserver: no leader"), "no-api", "control plane"),
        (reply("503 Service Unavailable", b"shutting down"), "no-api", "control plane"),
        (reply("302 Found", Location="https://elsewhere.invalid/"), "api-refused", "See the message"),
        (b"nonsense", "no-api", "pods get the addresses that are free"),
    ],
)
def test_a_refusal_says_what_it_is_and_what_to_do(
    api: ApiServer, cloud: Cloud, answer: bytes, phase: str, says: str
) -> None:
    cloud.answers = [answer]
    with pytest.raises(Trouble) as trouble:
        api.write(DOCUMENT)
    assert trouble.value.phase == phase
    assert says in trouble.value.remedy
    assert "s3cr3t" not in f"{trouble.value} {trouble.value.remedy}"


def test_a_server_that_wants_to_be_left_alone_says_for_how_long(api: ApiServer, cloud: Cloud) -> None:
    cloud.answers = [reply("429 Too Many Requests", b"", Retry_After="7")]
    with pytest.raises(Trouble) as trouble:
        api.read()
    assert trouble.value.retry_after == 7


def test_nobody_there_is_told_with_the_address(token: Path) -> None:
    api = ApiServer(ApiAccess("http://127.0.0.1:9", token, ""), "node-1")
    with pytest.raises(Trouble, match="does not answer") as trouble:
        api.read()
    assert trouble.value.phase == "no-api"
    assert "http://127.0.0.1:9" in trouble.value.remedy


def test_where_it_is_has_to_be_known(token: Path) -> None:
    with pytest.raises(Trouble, match="KUBERNETES_SERVICE_HOST") as trouble:
        ApiServer(ApiAccess("", token, ""), "node-1").read()
    assert "provision.api.server" in trouble.value.remedy


def stream(*events: object, end: bytes = b"") -> bytes:
    """A watch that ends after these events."""
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in events)
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + lines + end


def at(version: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "node-1", "resourceVersion": version}, **more}


def test_a_watch_tells_every_state_and_where_to_go_on(api: ApiServer, cloud: Cloud) -> None:
    cloud.answers = [
        stream(
            {"type": "ADDED", "object": at("8")},
            {"type": "BOOKMARK", "object": at("9")},
            {"type": "MODIFIED", "object": at("10", status={"revision": 1})},
            {"type": "DELETED", "object": at("11")},
            {"type": "NEWS", "object": at("12")},
            "nonsense",
            end=b'{"type": "MODIFIED", "obj',
        )
    ]
    assert list(api.watch("7")) == [
        (at("8"), "8"),
        (at("10", status={"revision": 1}), "10"),
        (None, "11"),
    ]
    assert "resourceVersion=7" in cloud.paths[0]
    assert "watch=true" in cloud.paths[0]


@pytest.mark.parametrize(
    "answer",
    [
        status(410, "Expired", "too old resource version: 7"),
        stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}),
    ],
)
def test_a_watch_from_a_forgotten_version_begins_anew(api: ApiServer, cloud: Cloud, answer: bytes) -> None:
    cloud.answers = [answer]
    with pytest.raises(Outdated):
        list(api.watch("7"))


@pytest.mark.parametrize(
    ("answer", "phase"),
    [
        (status(403, "Forbidden", "cannot watch azvnetnodes"), "api-denied"),
        (reply("503 Service Unavailable", b"x"), "no-api"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}\n", "no-api"),
        (stream({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "lost"}}), "no-api"),
    ],
)
def test_a_watch_that_breaks_off_says_why(api: ApiServer, cloud: Cloud, answer: bytes, phase: str) -> None:
    cloud.answers = [answer]
    with pytest.raises(Trouble) as trouble:
        list(api.watch("7"))
    assert trouble.value.phase == phase


def test_an_event_without_an_end_is_not_collected_for_ever(
    api: ApiServer, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_client, "LONGEST_LINE", 100_000)
    sent: list[int] = []

    def forever(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not cloud.stopping.is_set():
            connection.sendall(b"x" * 10_000)
            sent.append(10_000)

    answers: list[bytes | Callable[[socket.socket], None]] = [forever]
    cloud.answers = answers
    with pytest.raises(Trouble, match="does not end"):
        list(api.watch("7"))
    assert sum(sent) < 20_000_000
