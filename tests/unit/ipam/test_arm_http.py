"""What leaves with a token, and what comes back: one host, no compression, so many bytes."""

from __future__ import annotations

import gzip
import json
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import requests
from urllib3.exceptions import NewConnectionError

from ipam.sources.arm_http import AnswerRefused, session
from ipam.sources.documents import SIZE_LIMIT
from ipam.sources.managed_identity import ManagedIdentity, NoToken
from tests.unit.ipam.cloud import Cloud, ok, reply, running

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.unit.ipam.cloud import Answer

TOKEN = {"Authorization": "Bearer s3cr3t"}
SCOPE = "https://management.azure.com/.default"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


def test_an_answer_comes_back_whole(cloud: Cloud) -> None:
    cloud.answers = [ok({"value": [1, 2]})]
    assert session(cloud.url).get(f"{cloud.url}/x", headers=TOKEN).json() == {"value": [1, 2]}
    assert "Accept-Encoding: identity" in cloud.requests[0]


def test_a_chunked_answer_comes_back_whole(cloud: Cloud) -> None:
    cloud.answers = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n2\r\n!!\r\n0\r\n\r\n"
    ]
    assert session(cloud.url).get(f"{cloud.url}/x").content == b"body!!"


@pytest.mark.parametrize("how", ["another port", "another scheme", "another host", "both"])
def test_the_token_goes_to_no_other_origin(cloud: Cloud, how: str) -> None:
    """As a ``nextLink`` or a redirect may ask for."""
    with running() as other:
        elsewhere = {
            "another port": f"{other.url}/next",
            "another scheme": f"https{cloud.url[4:]}/next",
            "another host": cloud.url.replace("127.0.0.1", "127.0.0.2") + "/next",
            "both": other.url.replace("127.0.0.1", "127.0.0.2") + "/next",
        }[how]
        with pytest.raises(AnswerRefused, match="links to"):
            session(cloud.url).get(elsewhere, headers=TOKEN)
        assert other.requests == []
    assert cloud.requests == []


@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("linked", ["", ":443"])
def test_the_port_that_https_has_anyway_may_be_written_or_not(port: str, linked: str) -> None:
    with pytest.raises(NewConnectionError):  # nobody listens there, but it was tried
        session(f"https://127.77.0.1{port}").get(f"https://127.77.0.1{linked}/next")


def test_a_redirect_does_not_take_the_token_along(cloud: Cloud) -> None:
    with running() as other:
        cloud.answers = [reply("302 Found", Location=f"{other.url}/y")]
        with pytest.raises(AnswerRefused, match="links to"):
            session(cloud.url).get(f"{cloud.url}/x", headers=TOKEN)
        assert other.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP"])
def test_a_compressed_answer_is_not_unpacked(cloud: Cloud, encoding: str) -> None:
    bomb = gzip.compress(bytes(256 * 1024 * 1024), compresslevel=1)
    cloud.answers = [reply("200 OK", bomb, Content_Encoding=encoding)]
    with pytest.raises(AnswerRefused, match="compressed"):
        session(cloud.url).get(f"{cloud.url}/x")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "head", ["Transfer-Encoding: chunked", "X-Length: none", "Content-Length: 99999999999"]
)
def test_a_body_without_an_end_is_given_up(cloud: Cloud, head: str) -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        block = b"x" * 65536
        while True:
            connection.sendall(b"10000\r\n" + block + b"\r\n" if "chunked" in head else block)

    cloud.answers = [flood]
    with pytest.raises(AnswerRefused, match=f"larger than {SIZE_LIMIT}"):
        session(cloud.url).get(f"{cloud.url}/x")


def test_an_answer_of_the_largest_size_is_used(cloud: Cloud) -> None:
    cloud.answers = [ok(b"x" * SIZE_LIMIT)]
    assert len(session(cloud.url).get(f"{cloud.url}/x").content) == SIZE_LIMIT


def test_the_connection_of_an_answer_that_is_not_used_is_closed(cloud: Cloud) -> None:
    closed = threading.Event()

    def flood(connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"x" * 65536)
        except ConnectionError:
            closed.set()

    cloud.answers = [flood]
    with pytest.raises(AnswerRefused) as refused:
        session(cloud.url).get(f"{cloud.url}/x")
    assert closed.wait(20), f"closed while somebody looks at the error: {refused.value}"


def test_an_answer_that_breaks_off_is_told(cloud: Cloud) -> None:
    cloud.answers = [ok(b"0123456789")[:-3]]
    with pytest.raises(AnswerRefused, match="broke off"):
        session(cloud.url).get(f"{cloud.url}/x")


@pytest.mark.parametrize(
    "first",
    [lambda _: None, reply("503 No", Retry_After="0"), reply("429 No", Retry_After="0"), reply("404 No")],
)
def test_a_request_is_sent_once_whatever_comes_back(cloud: Cloud, first: Answer) -> None:
    cloud.answers = [first, ok({})]
    with suppress(requests.ConnectionError):
        assert session(cloud.url).get(f"{cloud.url}/x").status_code != 200
    assert len(cloud.requests) == 1


class TestManagedIdentity:
    """Whose token it is does not depend on the environment."""

    def test_imds_of_this_node_is_asked(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (
            "IDENTITY_ENDPOINT",
            "IMDS_ENDPOINT",
            "MSI_ENDPOINT",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        ):
            monkeypatch.setenv(name, "http://127.0.0.1:9/other")
        expires = int(time.time()) + 3600
        cloud.answers = [ok({"access_token": "t0ken", "expires_on": str(expires)})]
        token = ManagedIdentity(f"{cloud.url}/", "c-1").get_token(SCOPE)
        assert token == ("t0ken", expires)
        query = "api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com&client_id=c-1"
        assert cloud.paths == [f"/metadata/identity/oauth2/token?{query}"]
        assert "Metadata: true" in cloud.requests[0]

    def test_a_refusal_says_what_imds_says(self, cloud: Cloud) -> None:
        cloud.answers = [reply("400 Bad Request", b'{"error_description":"Identity not found"}')]
        with pytest.raises(NoToken, match="Identity not found"):
            ManagedIdentity(cloud.url, "").get_token(SCOPE)
        assert "client_id" not in cloud.paths[0]

    @pytest.mark.parametrize(
        "document",
        [b"", b"s3cr3t", b"[]", b'{"access_token":"s3cr3t"}', b'{"access_token":"s3cr3t","expires_on":"x"}'],
    )
    def test_what_is_no_token_is_not_quoted(self, cloud: Cloud, document: bytes) -> None:
        cloud.answers = [ok(document)]
        with pytest.raises(NoToken) as refused:
            ManagedIdentity(cloud.url, "").get_token(SCOPE)
        assert "s3cr3t" not in str(refused.value)


def test_only_what_is_json_is_taken_from_a_token_answer(cloud: Cloud) -> None:
    cloud.answers = [ok(json.dumps({"access_token": "a", "expires_on": 5}).encode())]
    assert ManagedIdentity(cloud.url, "").get_token(SCOPE).expires_on == 5
