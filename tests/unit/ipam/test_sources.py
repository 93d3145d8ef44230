"""What the documents of the sources mean, also the odd and the broken ones."""

from __future__ import annotations

import copy
import json
import os
import socket
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam import sources
from ipam.errors import SourceUnreadable
from ipam.mac import normalize_mac
from ipam.model import SourceConfig
from ipam.sources import Endpoints, file, imds, nic, wireserver
from tests.unit.ipam.cloud import (
    Cloud,
    file_document,
    imds_network,
    ok,
    reply,
    running,
    silence,
    wireserver_xml,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ipam.model import Listing

MAC = "00:0d:3a:e5:1c:c0"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


def of_imds(document: Any) -> Listing:
    return imds.parse(json.dumps(document).encode(), "http://imds")


def of_file(document: Any) -> Listing:
    return file.parse(json.dumps(document).encode(), "/file")


def of_wireserver(document: bytes) -> Listing:
    return wireserver.parse(document, "http://wireserver")


def pods(listing: Listing) -> list[str]:
    return [str(address.address) for nic in listing.nics for address in nic.addresses]


@pytest.mark.parametrize(
    "listing",
    [
        of_imds(imds_network("10.10.0.5", "10.10.0.6")),
        of_wireserver(wireserver_xml("10.10.0.5", "10.10.0.6")),
        of_file(file_document("10.10.0.5", "10.10.0.6")),
    ],
    ids=lambda listing: str(listing.source),
)
class TestEverySource:
    def test_tells_the_hosts_own_address_from_those_for_pods(self, listing: Listing) -> None:
        (nic,) = listing.nics
        assert nic.own_addresses == (ip_address("10.10.0.4"),)
        assert pods(listing) == ["10.10.0.5/16", "10.10.0.6/16"]

    def test_gives_subnet_gateway_and_mac(self, listing: Listing) -> None:
        (nic,) = listing.nics
        assert (nic.mac, [str(subnet) for subnet in nic.subnets]) == (MAC, ["10.10.0.0/16"])
        assert {str(address.gateway) for address in nic.addresses} == {"10.10.0.1"}
        assert {address.nic_mac for address in nic.addresses} == {MAC}

    def test_says_whether_the_nic_is_primary_where_it_knows(self, listing: Listing) -> None:
        assert listing.nics[0].primary is (None if listing.source == "imds" else True)

    def test_has_nothing_to_complain_about(self, listing: Listing) -> None:
        assert listing.warnings == ()


@pytest.mark.parametrize(
    "spelling",
    [
        "000D3AE51CC0",
        "000d3ae51cc0",
        "00:0D:3A:E5:1C:C0",
        "00-0d-3a-e5-1c-c0",
        "000d.3ae5.1cc0",
        " 000D3AE51CC0 ",
    ],
)
def test_every_spelling_of_a_mac_is_the_same_nic(spelling: str) -> None:
    assert normalize_mac(spelling) == MAC
    assert of_imds(imds_network("10.10.0.5", mac=spelling)).nics[0].mac == MAC
    assert of_wireserver(wireserver_xml("10.10.0.5", mac=spelling)).nics[0].mac == MAC


@pytest.mark.parametrize("text", ["", "zz0D3AE51CC0", "000D3AE51C", "000D3AE51CC000", "**"])
def test_what_is_no_mac_is_passed_over_and_told(text: str) -> None:
    listing = of_file(file_document("10.10.0.5", mac=text))
    assert listing.nics == ()
    assert "is not a MAC address" in listing.warnings[0]


def test_a_star_instead_of_a_mac_is_any_nic() -> None:
    assert of_wireserver(wireserver_xml("10.10.0.5", mac="*")).nics[0].mac == "*"


def test_a_block_is_sixteen_addresses_first_and_last_too() -> None:
    listing = of_imds(imds_network("10.10.0.16/28"))
    assert pods(listing) == [f"10.10.0.{last}/16" for last in range(16, 32)]


def test_a_block_may_stand_beside_single_addresses() -> None:
    listing = of_wireserver(wireserver_xml("10.10.0.5", "10.10.0.35/28"))
    assert pods(listing) == ["10.10.0.5/16", *(f"10.10.0.{last}/16" for last in range(32, 48))]


def test_a_block_that_can_not_be_meant_is_passed_over() -> None:
    listing = of_imds(imds_network("10.10.0.0/16", "10.10.0.5"))
    assert pods(listing) == ["10.10.0.5/16"]
    assert "more than 16 addresses" in listing.warnings[0]


def test_a_small_document_does_not_become_a_large_listing() -> None:
    """2,000 blocks are 72 KB; Azure allows 256 IP configurations on a NIC."""
    blocks = [
        f"10.{11 + number // 4096}.{number // 16 % 256}.{number % 16 * 16}/28" for number in range(2000)
    ]
    document = imds_network(*blocks)
    document["interface"][0]["ipv4"]["subnet"] = [{"address": "10.0.0.0", "prefix": "8"}]
    listing = of_imds(document)
    assert len(pods(listing)) == 255 * 16
    assert "2001 IP configurations; Azure allows 256" in listing.warnings[0]


def test_no_more_nics_are_taken_than_a_machine_can_have() -> None:
    document = imds_network()
    document["interface"] = [
        imds_network(f"10.10.{number}.5", mac=f"000D3AE5{number:04X}")["interface"][0]
        for number in range(200)
    ]
    listing = of_imds(document)
    assert len(listing.nics) == nic.MOST_NICS
    assert "more than 16 NICs" in listing.warnings[0]
    same = of_imds({"interface": document["interface"][:1] * 1000})
    assert len(same.nics) == 1
    assert len(same.warnings) <= nic.MOST_WARNINGS + 1


def test_no_more_subnets_are_taken_than_a_nic_can_have() -> None:
    document = imds_network("10.200.0.5")
    document["interface"][0]["ipv4"]["subnet"] = [
        {"address": f"10.{number}.0.0", "prefix": "16"} for number in range(256)
    ]
    (found,) = of_imds(document).nics
    assert len(found.subnets) == nic.MOST_SUBNETS


def test_warnings_of_one_document_are_counted_not_listed() -> None:
    listing = of_file(file_document(*(f"nonsense {number} {'x' * 5000}" for number in range(200))))
    assert len(listing.warnings) == nic.MOST_WARNINGS + 1
    assert listing.warnings[-1] == "and 168 more"
    assert max(map(len, listing.warnings)) < 600


@pytest.mark.parametrize("source", ["imds", "wireserver", "file"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("168.63.129.16", "platform address"),
        ("169.254.169.254", "link-local"),
        ("169.254.1.1", "link-local"),
        ("127.0.0.1", "loopback"),
        ("224.0.0.5", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "not a unicast"),
        ("255.255.255.255", "not a unicast"),
        ("240.0.0.1", "not a unicast"),
        ("fe80::1", "link-local"),
        ("::1", "loopback"),
        ("ff02::1", "multicast"),
        ("::", "unspecified"),
        ("::ffff:10.10.0.9", "IPv4-mapped"),
    ],
)
def test_an_address_that_no_pod_can_have_is_refused_whoever_lists_it(
    source: str, text: str, why: str
) -> None:
    subnet = "0.0.0.0/0" if "." in text and ":" not in text else "::/0"
    address, _, length = subnet.partition("/")
    if source == "imds":
        document = imds_network("10.10.0.5", text)
        document["interface"][0]["ipv4"]["subnet"].append({"address": address, "prefix": length})
        listing = of_imds(document)
    elif source == "wireserver":
        added = f'<IPSubnet Prefix="{subnet}"><IPAddress Address="{text}"/></IPSubnet></Interface>'
        listing = of_wireserver(wireserver_xml("10.10.0.5").replace(b"</Interface>", added.encode()))
    else:
        document = file_document("10.10.0.5")
        document["Interfaces"][0]["IPSubnets"].append(
            {"Prefix": subnet, "IPAddresses": [{"Address": text, "IsPrimary": False}]}
        )
        listing = of_file(document)
    assert pods(listing) == ["10.10.0.5/16"]
    assert why in listing.warnings[0]


def test_text_of_a_document_reaches_a_message_escaped_and_cut() -> None:
    listing = of_file(file_document("10.10.0.5\x1b[2J", "y" * 100_000, mac="\x1b]0;owned\x07" * 1000))
    listing_of_addresses = of_file(file_document("10.10.0.5\x1b[2J", "y" * 100_000))
    for warning in (*listing.warnings, *listing_of_addresses.warnings):
        assert warning.isprintable()
        assert len(warning) < 600


def test_addresses_that_azure_reserves_are_never_taken() -> None:
    reserved = ["10.10.0.0", "10.10.0.1", "10.10.0.2", "10.10.0.3", "10.10.255.255"]
    listing = of_file(file_document(*reserved, "10.10.0.0/28"))
    assert pods(listing) == [f"10.10.0.{last}/16" for last in range(5, 16)]
    assert len([w for w in listing.warnings if "Azure reserves it" in w]) == len(reserved) + 4


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ("10.11.0.5", "in none of the NIC's subnets"),
        ("10.10.0.256", "does not appear to be an IPv4 or IPv6 address"),
        ("", "does not appear to be"),
        ("10.10.0.6", "listed twice"),
    ],
)
@pytest.mark.parametrize("source", ["imds", "wireserver", "file"])
def test_one_odd_address_spoils_nothing_else(source: str, odd: str, why: str) -> None:
    addresses = ("10.10.0.5", odd, "10.10.0.6")
    listing = {
        "imds": lambda: of_imds(imds_network(*addresses)),
        "wireserver": lambda: of_wireserver(wireserver_xml(*addresses)),
        "file": lambda: of_file(file_document(*addresses)),
    }[source]()
    assert pods(listing) == ["10.10.0.5/16", "10.10.0.6/16"]
    assert len(listing.warnings) == 1
    assert why in listing.warnings[0]


def test_several_nics_and_several_subnets() -> None:
    listing = of_wireserver(
        b'<Interfaces><Interface MacAddress="000D3AE51CC0" IsPrimary="true">'
        b'<IPSubnet Prefix="10.10.0.0/16"><IPAddress Address="10.10.0.4" IsPrimary="true"/></IPSubnet>'
        b'<IPSubnet Prefix="10.20.0.0/24"><IPAddress Address="10.20.0.5"/></IPSubnet></Interface>'
        b'<Interface MacAddress="000D3AE51CC1" IsPrimary="false"><IPSubnet Prefix="10.30.0.0/24">'
        b'<IPAddress Address="10.30.0.4" IsPrimary="true"/><IPAddress Address="10.30.0.5" IsPrimary="false"/>'
        b"</IPSubnet></Interface></Interfaces>"
    )
    assert pods(listing) == ["10.20.0.5/24", "10.30.0.5/24"]
    assert [nic.primary for nic in listing.nics] == [True, False]
    assert [str(address.gateway) for nic in listing.nics for address in nic.addresses] == [
        "10.20.0.1",
        "10.30.0.1",
    ]


def test_imds_finds_the_subnet_of_each_address() -> None:
    document = imds_network("10.10.0.5", "10.20.0.5")
    document["interface"][0]["ipv4"]["subnet"].append({"address": "10.20.0.0", "prefix": "24"})
    assert pods(of_imds(document)) == ["10.10.0.5/16", "10.20.0.5/24"]


def test_the_order_of_nics_does_not_matter() -> None:
    document = imds_network("10.10.0.5")
    other = imds_network("10.10.1.5", mac="000D3AE51CC1", own="10.10.1.4")["interface"][0]
    document["interface"].append(other)
    turned = {"interface": document["interface"][::-1]}
    assert set(of_imds(document).nics) == set(of_imds(turned).nics)


def test_the_first_entry_is_the_hosts_own_even_when_it_is_unreadable() -> None:
    listing = of_imds(imds_network("10.10.0.5", own="nonsense"))
    assert pods(listing) == ["10.10.0.5/16"]


def test_an_address_that_two_nics_claim_stays_with_the_first() -> None:
    document = file_document("10.10.0.5")
    twin = copy.deepcopy(document["Interfaces"][0])
    twin["MacAddress"] = "000D3AE51CC1"
    document["Interfaces"].append(twin)
    listing = of_file(document)
    assert pods(listing) == ["10.10.0.5/16"]
    assert "another NIC lists it too" in listing.warnings[0]


def test_a_nic_that_is_listed_twice_counts_once() -> None:
    document = file_document("10.10.0.5")
    document["Interfaces"] *= 2
    assert pods(of_file(document)) == ["10.10.0.5/16"]


def test_ipv6_without_a_subnet_is_a_host_address_behind_the_fabrics_router() -> None:
    document = imds_network("10.10.0.5")
    document["interface"][0]["ipv6"] = {
        "ipAddress": [{"privateIpAddress": "fd00::4"}, {"privateIpAddress": "fd00::5"}]
    }
    (nic,) = of_imds(document).nics
    assert ip_address("fd00::4") in nic.own_addresses
    v6 = nic.addresses[-1]
    assert (str(v6.address), str(v6.gateway)) == ("fd00::5/128", "fe80::1234:5678:9abc")


def test_ipv6_with_a_subnet_keeps_it() -> None:
    listing = of_wireserver(
        b'<Interfaces><Interface MacAddress="000D3AE51CC0"><IPSubnet Prefix="fd00::/64">'
        b'<IPAddress Address="fd00::5"/></IPSubnet></Interface></Interfaces>'
    )
    assert pods(listing) == ["fd00::5/64"]
    assert str(listing.nics[0].addresses[0].gateway) == "fd00::1"


def test_of_a_block_of_ipv6_the_first_256_addresses_are_used() -> None:
    """A NIC can have one /112; Azure's CNS uses a /120 of it."""
    document = imds_network("10.10.0.5")
    document["interface"][0]["ipv6"] = {
        "ipAddress": [{"privateIpAddress": "fd00::4"}, {"privateIpAddress": "fd00::1:0/112"}]
    }
    found = [each for each in of_imds(document).nics[0].addresses if each.ip.version == 6]
    assert (len(found), str(found[0].ip), str(found[-1].ip)) == (256, "fd00::1:0", "fd00::1:ff")


def test_a_larger_block_of_ipv6_is_passed_over() -> None:
    document = imds_network("10.10.0.5")
    document["interface"][0]["ipv6"] = {
        "ipAddress": [{"privateIpAddress": "fd00::4"}, {"privateIpAddress": "fd00::/64"}]
    }
    listing = of_imds(document)
    assert pods(listing) == ["10.10.0.5/16"]
    assert "a block larger than /112, the size of Azure's IPv6 blocks" in listing.warnings[0]


def test_a_nic_may_have_256_configurations_of_each_family() -> None:
    document = imds_network(*(f"10.10.1.{number}" for number in range(255)))
    listed = [{"privateIpAddress": f"fd00::1:{number:x}"} for number in range(256)]
    document["interface"][0]["ipv6"] = {"ipAddress": listed}
    listing = of_imds(document)
    assert len(listing.nics[0].addresses) == 255 + 255
    assert listing.warnings == ()


def test_unknown_fields_are_no_matter() -> None:
    document = imds_network("10.10.0.5")
    document["new"] = document["interface"][0]["interfaceCompartmentID"] = {"a": 1}
    assert pods(of_imds(document)) == ["10.10.0.5/16"]


@pytest.mark.parametrize("bad", [None, 5, "text", [], {}, {"macAddress": 5}])
def test_one_odd_nic_spoils_nothing_else(bad: Any) -> None:
    document = imds_network("10.10.0.5")
    document["interface"].insert(0, bad)
    listing = of_imds(document)
    assert pods(listing) == ["10.10.0.5/16"]
    assert len(listing.warnings) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "5", '{"interface": 5}', "<html></html>", "\x00" * 50, "[" * 100_000]
)
def test_what_is_no_document_is_an_error_that_says_so(text: str) -> None:
    parsers: tuple[Callable[[bytes, str], Listing], ...] = (imds.parse, file.parse)
    for parse in parsers:
        with pytest.raises(SourceUnreadable, match="is not an address document") as error:
            parse(text.encode(), "where")
        assert error.value.remedy
        assert len(str(error.value)) < 500


KEYS = (
    "interface ipv4 ipv6 ipAddress subnet macAddress privateIpAddress address prefix "
    "Interfaces MacAddress IPSubnets Prefix IPAddresses Address IsPrimary"
)
WORDS = ["10.10.0.5", "10.10.0.0/16", "10.10.0.0", "16", "000D3AE51CC0"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS.split()), inner | st.sampled_from(WORDS), max_size=5)
    ),
    max_leaves=25,
)


@given(json_values)
def test_no_json_breaks_a_reader(document: Any) -> None:
    for read in (of_imds, of_file):
        try:
            read(document)
        except SourceUnreadable:
            continue


class TestWireserverXml:
    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"<Interfaces>",
            b"<html><body>500</body></html>",
            b"\x00\x01",
            b"<Error><Code>InternalError</Code></Error>",
        ],
    )
    def test_what_is_no_document_is_an_error_that_says_so(self, text: bytes) -> None:
        with pytest.raises(
            SourceUnreadable, match=r"^source wireserver: http://wireserver is not an address document: "
        ):
            of_wireserver(text)

    def test_entities_never_reach_files_or_the_network(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("10.10.0.7")
        for declared in (f'SYSTEM "file://{secret}"', '"10.10.0.7"', 'SYSTEM "http://127.0.0.1:9/x"'):
            document = (
                f"<!DOCTYPE Interfaces [<!ENTITY x {declared}>]>".encode()
                + wireserver_xml("10.10.0.5").replace(b"10.10.0.5", b"&x;")
            )  # fmt: skip
            with pytest.raises(SourceUnreadable):
                of_wireserver(document)
        with pytest.raises(SourceUnreadable, match="document type"):
            of_wireserver(b'<!DOCTYPE Interfaces SYSTEM "http://127.0.0.1:9/dtd"><Interfaces/>')

    def test_a_document_that_grows_is_refused_at_once(self) -> None:
        levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
        document = f'<!DOCTYPE Interfaces [<!ENTITY e0 "x">{levels}]><Interfaces>&e9;</Interfaces>'
        used = time.thread_time()  # of the processor, so that others on the machine do not count
        with pytest.raises(SourceUnreadable):
            of_wireserver(document.encode())
        assert time.thread_time() - used < 1

    def test_comments_declarations_and_white_space_do_not_matter(self) -> None:
        document = wireserver_xml("10.10.0.5").replace(b"><", b">\n  <!-- x --><")
        listing = of_wireserver(b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\n' + document)
        assert pods(listing) == ["10.10.0.5/16"]

    @pytest.mark.parametrize("spelling", ["true", "TRUE", " True ", "1"])
    def test_the_hosts_own_address_is_marked_in_any_spelling(self, spelling: str) -> None:
        document = wireserver_xml("10.10.0.5").replace(b'"true"', f'"{spelling}"'.encode())
        assert f'"{spelling}"'.encode() in document
        (nic,) = of_wireserver(document).nics
        assert nic.primary
        assert len(nic.own_addresses) == 1
        assert pods(of_wireserver(document)) == ["10.10.0.5/16"]

    def test_an_interface_without_a_mac_spoils_nothing_else(self) -> None:
        document = wireserver_xml("10.10.0.5").replace(b"<Interface ", b"<Interface/><Interface ", 1)
        assert pods(of_wireserver(document)) == ["10.10.0.5/16"]

    def test_what_is_asked_and_of_whom(self, cloud: Cloud) -> None:
        cloud.answers = [ok(wireserver_xml("10.10.0.5"))]
        wireserver.read(f"{cloud.url}/", time.monotonic() + 5)
        assert cloud.paths == [wireserver.PATH]

    def test_an_odd_subnet_spoils_nothing_else(self) -> None:
        document = wireserver_xml("10.10.0.5").replace(
            b"<IPSubnet ",
            b'<IPSubnet Prefix="nonsense"><IPAddress Address="10.9.0.5"/></IPSubnet><IPSubnet ',
            1,
        )
        listing = of_wireserver(document)
        assert pods(listing) == ["10.10.0.5/16"]
        assert "nonsense" in listing.warnings[0]


class TestFile:
    def test_it_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "interfaces.json"
        path.write_text(json.dumps(file_document("10.10.0.5")))
        listing = sources.read(SourceConfig("file", str(path)), 5)
        assert (listing.source, pods(listing)) == ("file", ["10.10.0.5/16"])

    def test_a_change_is_seen(self, tmp_path: Path) -> None:
        path = tmp_path / "interfaces.json"
        for last in (5, 6):
            path.write_text(json.dumps(file_document(f"10.10.0.{last}")))
            assert pods(sources.read(SourceConfig("file", str(path)), 5)) == [f"10.10.0.{last}/16"]

    def test_a_missing_file_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnreadable, match="No such file") as error:
            sources.read(SourceConfig("file", str(tmp_path / "none")), 5)
        assert "ipam.file" in error.value.remedy

    def test_a_pipe_that_nobody_writes_to_does_not_stop_a_pod(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SourceUnreadable):
            sources.read(SourceConfig("file", str(tmp_path / "pipe")), 5)

    @pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/mem", "/"])
    def test_what_is_no_file_is_an_error(self, path: str) -> None:
        with pytest.raises(SourceUnreadable):
            sources.read(SourceConfig("file", path), 5)


class TestImds:
    def test_what_is_asked(self, cloud: Cloud) -> None:
        cloud.answers = [ok(imds_network("10.10.0.5"))]
        listing = sources.read(SourceConfig("imds"), 5, endpoints=Endpoints(imds=cloud.url))
        assert pods(listing) == ["10.10.0.5/16"]
        assert cloud.paths == ["/metadata/instance/network?api-version=2021-02-01"]
        assert "Metadata: true" in cloud.requests[0]

    def test_an_older_service_is_asked_in_its_version(self, cloud: Cloud) -> None:
        cloud.answers = [reply("400 Bad Request", b'{"newest-versions":[]}'), ok(imds_network("10.10.0.5"))]
        sources.read(SourceConfig("imds"), 5, endpoints=Endpoints(imds=cloud.url))
        assert cloud.paths[1] == "/metadata/instance/network?api-version=2019-06-01"

    def test_a_service_that_knows_no_version_says_so_of_the_last(self, cloud: Cloud) -> None:
        cloud.answers = [reply("400 Bad Request", b"{}")]
        with pytest.raises(SourceUnreadable, match=f"api-version={imds.API_VERSIONS[-1]}"):
            sources.read(SourceConfig("imds"), 5, endpoints=Endpoints(imds=cloud.url))
        assert len(cloud.paths) == len(imds.API_VERSIONS)

    def test_a_service_that_refuses_for_another_reason_is_not_asked_in_another_version(
        self, cloud: Cloud
    ) -> None:
        cloud.answers = [reply("403 Forbidden")]
        with pytest.raises(SourceUnreadable):
            sources.read(SourceConfig("imds"), 5, endpoints=Endpoints(imds=cloud.url))
        assert len(cloud.paths) == 1

    def test_the_error_names_url_and_check(self, cloud: Cloud) -> None:
        cloud.answers = [reply("403 Forbidden")]
        with pytest.raises(SourceUnreadable, match=f"source imds: GET {cloud.url}/metadata/instance/network"):
            sources.read(SourceConfig("imds"), 5, endpoints=Endpoints(imds=cloud.url))


class TestAuto:
    CONFIG = SourceConfig("auto", file="/nonexistent/interfaces.json")

    def test_with_no_file_named_none_is_looked_for(self, cloud: Cloud) -> None:
        with pytest.raises(SourceUnreadable, match="no file is set") as raised:
            sources.read(SourceConfig("auto", file=""), 2, endpoints=Endpoints(cloud.url, cloud.url))
        assert "write the addresses" not in raised.value.remedy

    def test_a_file_that_is_there_wins(self, tmp_path: Path) -> None:
        path = tmp_path / "interfaces.json"
        path.write_text(json.dumps(file_document("10.10.0.5")))
        assert sources.read(SourceConfig("auto", str(path)), 5).source == "file"

    def test_a_file_that_is_broken_is_not_passed_over(self, tmp_path: Path, cloud: Cloud) -> None:
        path = tmp_path / "interfaces.json"
        path.write_text("{")
        with pytest.raises(SourceUnreadable, match="source file"):
            sources.read(SourceConfig("auto", str(path)), 5, endpoints=Endpoints(cloud.url, cloud.url))
        assert cloud.requests == []

    def test_imds_is_asked_first(self, cloud: Cloud) -> None:
        cloud.answers = [ok(imds_network("10.10.0.5"))]
        listing = sources.read(self.CONFIG, 5, endpoints=Endpoints(cloud.url, cloud.url))
        assert listing.source == "imds"
        assert len(cloud.requests) == 1

    def test_the_wireserver_stands_in(self, cloud: Cloud) -> None:
        with running() as other:
            cloud.answers = [reply("403 No")]
            other.answers = [ok(wireserver_xml("10.10.0.5"))]
            listing = sources.read(self.CONFIG, 5, endpoints=Endpoints(cloud.url, other.url))
        assert listing.source == "wireserver"

    def test_the_one_that_answered_last_is_asked_first(self, cloud: Cloud) -> None:
        with running() as other:
            other.answers = [ok(wireserver_xml("10.10.0.5"))]
            listing = sources.read(self.CONFIG, 5, "wireserver", endpoints=Endpoints(cloud.url, other.url))
        assert listing.source == "wireserver"
        assert cloud.requests == []

    def test_one_that_hangs_leaves_time_for_the_other(self, cloud: Cloud) -> None:
        with running() as other:
            cloud.answers = [silence(cloud)]
            other.answers = [ok(wireserver_xml("10.10.0.5"))]
            listing = sources.read(self.CONFIG, 5.0, endpoints=Endpoints(cloud.url, other.url))
        assert listing.source == "wireserver"

    def test_one_that_hangs_does_not_hold_up_the_other(self, cloud: Cloud) -> None:
        """However long the deadline is: a first pod waited for 60% of it."""
        with running() as other:
            cloud.answers = [silence(cloud)]
            other.answers = [ok(wireserver_xml("10.10.0.5"))]
            listing = sources.read(self.CONFIG, 15.0, endpoints=Endpoints(cloud.url, other.url))
            assert listing.source == "wireserver"
            assert any(thread.name == "source imds" for thread in threading.enumerate()), "it still waits"

    def test_a_second_one_that_fails_at_once_does_not_end_the_wait_for_the_first(self, cloud: Cloud) -> None:
        asked = threading.Event()

        def late(connection: socket.socket) -> None:
            asked.wait(10)
            connection.sendall(ok(imds_network("10.10.0.5")))

        def refuse(connection: socket.socket) -> None:
            connection.sendall(reply("403 No"))
            asked.set()

        with running() as other:
            cloud.answers, other.answers = [late], [refuse]
            listing = sources.read(self.CONFIG, 15.0, endpoints=Endpoints(cloud.url, other.url))
        assert listing.source == "imds"

    def test_both_hang(self, cloud: Cloud) -> None:
        cloud.answers = [silence(cloud)]
        with pytest.raises(SourceUnreadable, match="no answer in time") as raised:
            sources.read(self.CONFIG, 1.0, endpoints=Endpoints(cloud.url, cloud.url))
        assert str(raised.value).count("no answer in time") == 2

    def test_one_without_addresses_for_pods_is_not_the_last_word(self, cloud: Cloud) -> None:
        with running() as other:
            cloud.answers = [ok(imds_network())]
            other.answers = [ok(wireserver_xml("10.10.0.5"))]
            listing = sources.read(self.CONFIG, 5, endpoints=Endpoints(cloud.url, other.url))
            assert listing.source == "wireserver"
            other.answers = [ok(wireserver_xml())]
            listing = sources.read(self.CONFIG, 5, endpoints=Endpoints(cloud.url, other.url))
            assert (listing.source, pods(listing)) == ("imds", [])

    def test_the_error_names_each_url_and_reason(self, cloud: Cloud) -> None:
        with running() as other:
            cloud.answers = [reply("403 Forbidden")]
            other.answers = [reply("429 Too Many Requests", Retry_After="60")]
            with pytest.raises(SourceUnreadable) as error:
                sources.read(self.CONFIG, 5, endpoints=Endpoints(cloud.url, other.url))
        for words in (
            "/nonexistent/interfaces.json",
            f"{cloud.url}/metadata",
            "403 Forbidden",
            other.url,
            "429",
        ):
            assert words in str(error.value)
        assert "uid 0" in error.value.remedy
        assert error.value.retry_after == 60


@pytest.mark.parametrize("environment", ["arm", "azurestack", ""])
def test_a_source_that_can_not_be_read_here_says_so(environment: str) -> None:
    with pytest.raises(SourceUnreadable) as error:
        sources.read(SourceConfig(environment), 5)
    assert "ipam.environment" in error.value.remedy
