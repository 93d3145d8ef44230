"""Which addresses have a public one of their own: in which document it is, and when it is not known."""

from __future__ import annotations

import json
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from ipam import sources
from ipam.model import SourceConfig
from ipam.sources import Endpoints
from tests.unit.ipam.cloud import file_document, imds_network, ok, reply, running, silence, wireserver_xml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ipam.model import IPAddress, Listing
    from tests.unit.ipam.cloud import Answer, Cloud

FIRST, SECOND = "10.10.0.5", "10.10.0.6"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


def read(cloud: Cloud, answer: Answer, network: dict[str, Any] | None = None) -> Listing:
    """What source ``imds`` lists, where this is the answer about load balancers."""
    cloud.answers = [ok(network or imds_network(FIRST, SECOND)), answer]
    return sources.read(SourceConfig("imds"), 5, endpoints=Endpoints(imds=cloud.url), public=True)


def public(listing: Listing) -> tuple[IPAddress, ...] | None:
    (nic,) = listing.nics
    return nic.public


def balanced(*private: str) -> Answer:
    addresses = [{"frontendIpAddress": "203.0.113.9", "privateIpAddress": each} for each in private]
    inner = {"publicIpAddresses": addresses, "inboundRules": [], "outboundRules": []}
    return ok({"loadbalancer": inner})


def test_the_document_of_load_balancers_names_them(cloud: Cloud) -> None:
    listing = read(cloud, balanced(SECOND, "10.10.0.4", "ace:cab::1"))
    assert public(listing) == (ip_address(SECOND),), "those of the host, and of other NICs, are not pods'"
    assert listing.warnings == ()
    assert cloud.paths[1] == "/metadata/loadbalancer?api-version=2020-10-01"
    assert "Metadata: true" in cloud.requests[1]


def test_those_in_the_other_document_count_as_well(cloud: Cloud) -> None:
    network = imds_network(FIRST, SECOND)
    network["interface"][0]["ipv4"]["ipAddress"][1]["publicIpAddress"] = "203.0.113.8"
    assert public(read(cloud, balanced(SECOND), network)) == (ip_address(FIRST), ip_address(SECOND))


@pytest.mark.parametrize(
    "status",
    [
        pytest.param("400 Bad Request", id="an older service"),
        pytest.param("404 Not Found", id="nothing is behind a load balancer"),
    ],
)
def test_a_service_without_that_document_has_none_and_is_asked_once(cloud: Cloud, status: str) -> None:
    listing = read(cloud, reply(status, b'{"error":"No load balancer metadata is found."}'))
    assert (public(listing), listing.warnings) == ((), ())
    assert len(cloud.paths) == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply("404 Not Found", b"/metadata/loadbalancer is currently not available"), id="404"),
        pytest.param(reply("403 Forbidden"), id="403"),
        pytest.param(ok(b"{"), id="no JSON"),
        pytest.param(ok({"other": {}}), id="another document"),
        pytest.param(balanced("10.10.0.5.6"), id="no address"),
    ],
)
def test_where_it_does_not_say_it_is_not_known_and_the_addresses_are(cloud: Cloud, answer: Answer) -> None:
    listing = read(cloud, answer)
    assert public(listing) is None
    assert [str(each.ip) for nic in listing.nics for each in nic.addresses] == [FIRST, SECOND]
    (warning,) = listing.warnings
    assert warning.startswith("which addresses have a public one of their own is not known: ")


def test_a_service_that_hangs_there_does_not_keep_the_addresses_back(cloud: Cloud) -> None:
    cloud.answers = [ok(imds_network(FIRST, SECOND)), silence(cloud)]
    begun = time.monotonic()
    listing = sources.read(SourceConfig("imds"), 60, endpoints=Endpoints(imds=cloud.url), public=True)
    assert time.monotonic() - begun < 30, "2 s, and a slow machine"
    assert public(listing) is None
    assert len(listing.nics[0].addresses) == 2


def test_a_call_without_the_agent_does_not_ask(cloud: Cloud) -> None:
    cloud.answers = [ok(imds_network(FIRST))]
    sources.read(SourceConfig("imds"), 5, endpoints=Endpoints(imds=cloud.url))
    assert len(cloud.paths) == 1


def test_the_wireserver_which_does_not_say_is_not_asked_first_for_having_answered_last(cloud: Cloud) -> None:
    with running() as other:
        other.answers = [ok(wireserver_xml(FIRST))]
        cloud.answers = [ok(imds_network(FIRST)), balanced(FIRST)]
        ends = Endpoints(imds=cloud.url, wireserver=other.url)
        config = SourceConfig("auto", file="")
        listing = sources.read(config, 5, "wireserver", endpoints=ends, public=True)
        assert (listing.source, public(listing)) == ("imds", (ip_address(FIRST),))


def test_the_wireserver_and_a_file_do_not_say(cloud: Cloud, tmp_path: Path) -> None:
    cloud.answers = [ok(wireserver_xml(FIRST))]
    ends = Endpoints(wireserver=cloud.url)
    assert public(sources.read(SourceConfig("wireserver"), 5, endpoints=ends, public=True)) is None
    path = tmp_path / "interfaces.json"
    path.write_text(json.dumps(file_document(FIRST)))
    assert public(sources.read(SourceConfig("file", str(path)), 5, public=True)) is None
