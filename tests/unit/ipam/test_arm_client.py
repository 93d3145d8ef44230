"""Single requests to Azure Resource Manager over HTTPS, with a token of the machine's identity."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from ipam.errors import SourceUnreadable
from ipam.sources import ArmConfig
from ipam.sources.arm_answer import NotAnswered
from ipam.sources.arm_client import Access, Requests
from ipam.sources.managed_identity import NoToken
from ipam.sources.placement import Placement
from ipam.value import replace
from tests.unit.ipam.cloud import Cloud, ok, reply, running
from tests.unit.ipam.recordings import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACE = Placement("AzurePublicCloud", "/subscriptions/s/x", "s", "g", "vm1", "")
NIC = recorded("attached-nic")["document"]
PATH = f"{NIC['id']}?api-version=2025-05-01"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def arm(authority: trustme.CA) -> Iterator[Cloud]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with running(context) as cloud:
        yield cloud


@pytest.fixture
def imds() -> Iterator[Cloud]:
    with running() as cloud:
        cloud.answers = [ok({"access_token": "s3cr3t", "expires_on": "4102444800"})]
        yield cloud


@pytest.fixture
def requests(arm: Cloud, imds: Cloud, authority: trustme.CA, tmp_path: Path) -> Requests:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    config = ArmConfig("managed-identity", "", arm.url, str(tmp_path / "ca.pem"))
    return Requests(Access(config, PLACE, imds.url))


def test_a_document_is_sent_as_it_is_with_token_and_tag(arm: Cloud, imds: Cloud, requests: Requests) -> None:
    arm.answers = [reply("200 OK", json.dumps(NIC).encode(), Retry_After="10", ETag='W/"2"')]
    answer = requests.ask("PUT", PATH, NIC, 'W/"1"')
    head, _, body = arm.requests[0].partition("\r\n\r\n")
    assert head.startswith(f"PUT {PATH} HTTP/1.1\r\n")
    assert "Authorization: Bearer s3cr3t" in head
    assert 'If-Match: W/"1"' in head
    assert json.loads(body) == NIC
    assert (answer.status, answer.document) == (200, NIC)
    assert (answer.headers["retry-after"], answer.headers["etag"]) == ("10", 'W/"2"')
    assert "resource=https%3A%2F%2Fmanagement.azure.com" in imds.requests[0]


@pytest.mark.parametrize("status", [401, 403, 404, 409, 412, 429, 500, 503])
def test_every_status_is_an_answer_and_nothing_is_asked_twice(
    arm: Cloud, requests: Requests, status: int
) -> None:
    arm.answers = [reply(f"{status} x", b'{"error": {"code": "Why"}}', Retry_After="7")]
    answer = requests.ask("GET", PATH)
    assert (answer.status, answer.document["error"]["code"]) == (status, "Why")
    assert answer.headers["retry-after"] == "7"
    assert len(arm.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'"x"'])
def test_what_is_not_an_object_is_an_empty_document(arm: Cloud, requests: Requests, body: bytes) -> None:
    arm.answers = [reply("502 Bad Gateway", body)]
    assert requests.ask("GET", PATH).document == {}


def test_an_operation_elsewhere_is_not_followed(arm: Cloud, requests: Requests) -> None:
    with running() as other, pytest.raises(NotAnswered, match="links to"):
        requests.ask("GET", other.url.replace("http:", "https:"))
    assert other.requests == []
    assert arm.requests == []


def test_no_answer_is_told_from_an_answer(arm: Cloud, requests: Requests) -> None:
    arm.answers = [lambda _: None]
    with pytest.raises(NotAnswered, match=r"127\.0\.0\.1"):
        requests.ask("GET", PATH)


def test_an_authority_that_nobody_knows_is_not_trusted(arm: Cloud, imds: Cloud) -> None:
    stranger = Requests(Access(ArmConfig("managed-identity", "", arm.url), PLACE, imds.url))
    with pytest.raises(NotAnswered, match="certificate"):
        stranger.ask("GET", PATH)


def test_no_token_is_an_error_of_its_own(imds: Cloud, requests: Requests) -> None:
    imds.answers = [reply("400 Bad Request", b'{"error": "invalid_request"}')]
    with pytest.raises(NoToken):
        requests.ask("GET", PATH)


def test_a_cloud_that_nobody_knows_needs_an_endpoint() -> None:
    with pytest.raises(SourceUnreadable, match="AzureMoonCloud") as refused:
        Access(
            ArmConfig("managed-identity"), replace(PLACE, environment="AzureMoonCloud"), "http://127.0.0.1"
        )
    assert "arm.base_url" in refused.value.remedy


@pytest.mark.parametrize(
    ("cloud", "endpoint"),
    [
        ("AzurePublicCloud", "https://management.azure.com"),
        ("AzureChinaCloud", "https://management.chinacloudapi.cn"),
        ("AZUREUSGOVERNMENTCLOUD", "https://management.usgovcloudapi.net"),
    ],
)
def test_each_cloud_has_its_endpoint_and_scopes(cloud: str, endpoint: str) -> None:
    access = Access(ArmConfig("managed-identity"), replace(PLACE, environment=cloud), "http://127.0.0.1")
    assert access.endpoint == endpoint
    assert all(scope.startswith("https://management.") for scope in access.scopes)
