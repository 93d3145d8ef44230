"""Results: written and read in every version of the spec, and joined along a chain."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_plugin.cni import result, versions
from cni_plugin.cni.errors import CniError, DecodingFailure, InvalidNetconf
from cni_plugin.cni.result import Address, Dns, Interface, Result, Route
from ipam.value import replace

MODERN = [each for each in versions.SUPPORTED if versions.at_least(each, "0.3.0")]
OLD = [each for each in versions.SUPPORTED if not versions.at_least(each, "0.3.0")]

TEXTS = st.text("abc.:/0", max_size=6)
IP4 = st.ip_addresses(v=4)
INTERFACES = st.builds(Interface, st.text("eth0", min_size=1), TEXTS, st.integers(0, 9000), TEXTS)
ADDRESSES4 = st.builds(
    Address,
    st.tuples(IP4, st.integers(0, 32)).map(IPv4Interface),
    st.none() | IP4,
    st.none() | st.integers(0, 3),
)
ADDRESSES6 = st.builds(Address, st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(IPv6Interface))
ROUTES4 = st.builds(
    Route, st.tuples(IP4, st.integers(0, 32)).map(lambda p: ip_network(p, strict=False)), st.none() | IP4
)
DNS = st.builds(Dns, st.tuples(TEXTS), TEXTS, st.tuples(TEXTS), st.tuples(TEXTS))
RESULTS = st.builds(
    Result,
    st.lists(INTERFACES, max_size=3).map(tuple),
    st.lists(ADDRESSES4 | ADDRESSES6, max_size=3).map(tuple),
    st.lists(ROUTES4, max_size=3).map(tuple),
    DNS,
)


@given(RESULTS, st.sampled_from(MODERN))
def test_what_is_written_is_read_again(made: Result, version: str) -> None:
    """Less what the version has no word for."""
    document = json.loads(json.dumps(result.to_json(made, version)))
    again = result.from_json(document, version)
    assert again.ips == made.ips
    assert again.routes == made.routes
    assert [(each.name, each.mac, each.sandbox) for each in again.interfaces] == [
        (each.name, each.mac, each.sandbox) for each in made.interfaces
    ]
    if version == "1.1.0":
        assert again.interfaces == made.interfaces
    assert document["cniVersion"] == version


@given(RESULTS, st.sampled_from(OLD))
def test_the_oldest_versions_have_the_first_address_of_each_family(made: Result, version: str) -> None:
    document = result.to_json(made, version)
    assert set(document) <= {"cniVersion", "ip4", "ip6", "dns"}
    for key, family in (("ip4", 4), ("ip6", 6)):
        first = next((ip for ip in made.ips if ip.address.version == family), None)
        assert (key in document) == (first is not None)
        if first is not None:
            assert document[key]["ip"] == str(first.address)
    again = result.from_json(document, version)
    assert {ip.address for ip in again.ips} <= {ip.address for ip in made.ips}


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine generates slowly
@given(RESULTS, RESULTS)
def test_joined_results_keep_their_interfaces_apart(first: Result, second: Result) -> None:
    joined = first.followed_by(second)
    assert joined.interfaces == first.interfaces + second.interfaces
    assert joined.ips[: len(first.ips)] == first.ips
    for before, after in zip(second.ips, joined.ips[len(first.ips) :], strict=True):
        if before.interface is None:
            assert after.interface is None
        else:
            assert after.interface == before.interface + len(first.interfaces)


def test_a_later_plugins_dns_wins_where_it_has_any() -> None:
    early, late = Result(dns=Dns(("1.1.1.1",))), Result(dns=Dns(("2.2.2.2",)))
    assert early.followed_by(late).dns == Dns(("2.2.2.2",))
    assert early.followed_by(Result()).dns == Dns(("1.1.1.1",))


def test_what_other_plugins_wrote_and_we_do_not_know_is_passed_on_since_1_1_0() -> None:
    document: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "pciID": "0:1", "socketPath": "/s", "new": 1}],
        "ips": [],
        "routes": [{"dst": "10.0.0.0/8", "mtu": 1400, "table": 7, "scope": 253}],
        "dns": {},
    }
    read = result.from_json(document, "1.1.0")
    assert result.to_json(read, "1.1.0") == document
    assert result.to_json(read, "1.0.0")["routes"] == [{"dst": "10.0.0.0/8"}]


GARBAGE: list[object] = [
    None,
    [],
    "text",
    7,
    {"ips": "x"},
    {"ips": [7]},
    {"ips": [{}]},
    {"ips": [{"address": 7}]},
    {"ips": [{"address": "10.0.0.1/33"}]},
    {"ips": [{"address": "10.0.0.1/8", "gateway": 1}]},
    {"ips": [{"address": "10.0.0.1/8", "interface": "first"}]},
    {"ips": [{"address": "10.0.0.1/8", "interface": 0.5}]},
    {"ips": [{"address": "10.0.0.1/8", "interface": True}]},
    {"interfaces": [{"mac": "x"}]},
    {"interfaces": [{"name": 7}]},
    {"interfaces": [{"name": "a", "mtu": "large"}]},
    {"routes": [{}]},
    {"routes": [{"dst": "nowhere"}]},
    {"ip4": "10.0.0.1"},
    {"ip4": {"gateway": "10.0.0.1"}},
    {"dns": {"nameservers": "1.1.1.1"}},
    {"dns": {"domain": 7}},
    {"dns": []},
]


def test_a_whole_number_may_be_written_with_a_fraction_of_zero() -> None:
    """As Go's decoder has it."""
    document = {"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.0.0.1/8", "interface": 0.0}]}
    (address,) = result.from_json(document, "1.0.0").ips
    assert (address.interface, type(address.interface)) == (0, int)


@pytest.mark.parametrize("document", [each for each in GARBAGE if each != {"dns": []}], ids=repr)
def test_what_is_no_result_is_refused_with_an_error_of_the_contract(document: object) -> None:
    with pytest.raises((DecodingFailure, InvalidNetconf)):
        result.from_json(document, "1.0.0")


@given(
    st.dictionaries(
        st.sampled_from(["ips", "interfaces", "routes", "dns", "ip4", "ip6", "cniVersion"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda each: (
                st.lists(each, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["name", "address", "dst", "gw", "ip", "mtu"]), each, max_size=2
                )
            ),
            max_leaves=6,
        ),
    )
)
def test_no_document_makes_the_reader_crash(document: dict[str, Any]) -> None:
    try:
        result.to_json(result.from_json(document, "1.0.0"), "1.0.0")
    except CniError:
        return


def test_a_sandbox_is_what_tells_a_containers_interface_from_the_hosts() -> None:
    written = result.to_json(
        Result((Interface("azv0", "aa:aa:aa:aa:aa:aa", 1500), Interface("eth0", sandbox="/run/netns/a"))),
        "1.1.0",
    )
    assert written["interfaces"] == [
        {"name": "azv0", "mac": "aa:aa:aa:aa:aa:aa", "mtu": 1500},
        {"name": "eth0", "sandbox": "/run/netns/a"},
    ]


def test_every_member_of_a_result_has_its_name_in_the_spec() -> None:
    made = Result(
        (Interface("eth0", "02:00:00:00:00:07", 1400, "/run/netns/a"),),
        (Address(ip_interface("10.0.0.7/16"), ip_address("10.0.0.1"), 0),),
        (Route(ip_network("0.0.0.0/0"), ip_address("10.0.0.1"), 0),),
        Dns(("1.1.1.1",), "a.example", ("b.example",), ("ndots:5",)),
    )
    dns = {
        "nameservers": ["1.1.1.1"],
        "domain": "a.example",
        "search": ["b.example"],
        "options": ["ndots:5"],
    }
    interface = {"name": "eth0", "mac": "02:00:00:00:00:07", "mtu": 1400, "sandbox": "/run/netns/a"}
    newest = {
        "cniVersion": "1.1.0",
        "interfaces": [interface],
        "ips": [{"interface": 0, "address": "10.0.0.7/16", "gateway": "10.0.0.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "scope": 0}],
        "dns": dns,
    }
    assert result.to_json(made, "1.1.0") == newest
    assert result.from_json(newest, "1.1.0") == made
    del interface["mtu"]
    older = newest | {"cniVersion": "1.0.0", "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]}
    assert result.to_json(made, "1.0.0") == older


BOTH = Result(
    (Interface("eth0"),),
    (
        Address(ip_interface("10.0.0.7/16"), ip_address("10.0.0.1"), 0),
        Address(ip_interface("fd00::7/64")),
        Address(ip_interface("10.0.0.8/16")),
    ),
    (
        Route(ip_network("10.9.0.0/16"), ip_address("10.0.0.9")),
        Route(ip_network("10.8.0.0/16"), None, 253),
        Route(ip_network("::/0"), ip_address("fd00::1")),
    ),
    Dns(("1.1.1.1",)),
)


def test_the_oldest_versions_have_each_familys_gateway_and_routes_with_its_address() -> None:
    document = {
        "cniVersion": "0.2.0",
        "ip4": {
            "ip": "10.0.0.7/16",
            "gateway": "10.0.0.1",
            "routes": [{"dst": "10.9.0.0/16", "gw": "10.0.0.9"}, {"dst": "10.8.0.0/16"}],
        },
        "ip6": {"ip": "fd00::7/64", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
        "dns": {"nameservers": ["1.1.1.1"]},
    }
    assert result.to_json(BOTH, "0.2.0") == document
    four, six, _ = BOTH.ips
    assert result.from_json(document, "0.2.0") == Result(
        ips=(replace(four, interface=None), six),
        routes=tuple(replace(each, scope=None) for each in BOTH.routes),
        dns=BOTH.dns,
    )
    six_only = {"ip4": None, "ip6": document["ip6"]}
    assert result.from_json(six_only, "0.2.0").ips == (six,)
    bare = result.to_json(Result(ips=(six,)), "0.1.0")
    assert bare == {"cniVersion": "0.1.0", "ip6": {"ip": "fd00::7/64"}, "dns": {}}


def test_members_that_are_null_or_empty_are_as_if_they_were_not_there() -> None:
    document = {
        "interfaces": [{"name": "eth0", "mac": None, "mtu": None, "sandbox": None}],
        "ips": [{"address": "10.0.0.7/16", "gateway": "", "interface": None}],
        "routes": None,
        "dns": {"nameservers": None, "domain": None},
    }
    assert result.from_json(document, "1.0.0") == Result(
        (Interface("eth0"),), (Address(ip_interface("10.0.0.7/16")),)
    )
    assert result.from_json(dict.fromkeys(document), "1.0.0") == Result()


def test_the_version_of_a_result_that_cannot_be_read_is_named() -> None:
    for document, version in (({"ips": 7}, "1.0.0"), ({"ips": 7, "cniVersion": "0.4.0"}, "0.4.0")):
        with pytest.raises(DecodingFailure, match=rf"\(version {version}\) can't be read"):
            result.from_json(document, "1.0.0")


@pytest.mark.parametrize(
    ("dns", "said"),
    [
        ({"search": "a.example"}, "dns.search must be a list of strings, not 'a.example'"),
        ({"options": ["ndots:5", 7]}, "dns.options must be a list of strings, not "),
        ({"domain": 7}, "dns.domain must be a string, not 7"),
    ],
)
def test_what_is_wrong_in_dns_is_named(dns: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidNetconf) as caught:
        result.dns_from_json(dns)
    assert str(caught.value).startswith(said)


def test_an_address_without_gateway_and_interface_is_written_without_them() -> None:
    written = result.to_json(Result(ips=(Address(ip_interface("10.0.0.1/8")),)), "0.4.0")
    assert written["ips"] == [{"version": "4", "address": "10.0.0.1/8"}]
    assert ip_address("10.0.0.1") == result.from_json(written, "0.4.0").ips[0].address.ip
