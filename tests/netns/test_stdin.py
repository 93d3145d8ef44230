"""stdin: whatever arrives there, the caller gets one JSON document or nothing, and nothing is half done."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.netns.calls import Executable
from tests.netns.conftest import NewNode
from tests.netns.node import NETCONF, Node
from tests.waiting import eventually, unread

UNREADABLE = (5, 6, 7)
INVALID_NETCONF, DELEGATE_FAILED, INTERNAL = 7, 109, 999

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n\t\r\n ",
    "no JSON": b"hello",
    "half a document": b'{"cniVersion":"1.1.0","name":"azv',
    "two documents": b'{"cniVersion":"1.1.0"}{"cniVersion":"1.1.0"}',
    "a list": b"[]",
    "a string": b'"1.1.0"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "not a number": b"NaN",
    "not a number in an object": b'{"cniVersion":"1.1.0","name":"azvnet","prevResult":{"x":NaN}}',
    "infinity": b'{"cniVersion":"1.1.0","name":"azvnet","x":[-Infinity]}',
    "a number too large": b'{"cniVersion":"1.1.0","name":"azvnet","x":1e999}',
    "a key twice": b'{"cniVersion":"1.1.0","name":"azvnet","name":"other"}',
    "a deep list": b'{"cniVersion":"1.1.0","name":"azvnet","x":' + b"[" * 900 + b"]" * 900 + b"}",
    "bytes that are no UTF-8": b'{"name":"\xff\xfe"}',
    "NUL bytes": b"\0" * 64,
    "UTF-16": '{"name":"azvnet"}'.encode("utf-16"),
    "brackets without end": b"[" * 100_000,
    "braces without end": b'{"a":' * 100_000,
    "a number without end": b'{"cniVersion":' + b"1" * 100_000 + b"}",
    "a lone surrogate": b'{"name":"\\ud800"}',
    "an empty object": b"{}",
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_a_malformed_configuration_is_an_error_of_its_own(busy_node: Node, verb: str, what: str) -> None:
    failed = busy_node.call(verb, busy_node.sandbox.pod("c1"), stdin=MALFORMED[what])
    assert failed.code in UNREADABLE, failed
    assert failed.error["details"]
    assert not busy_node.residue()


@pytest.mark.parametrize(
    "name", [None, "", "a/b", "../x", "-a", ".", "a b", 7, ["a"], "a\n", "\u00e4", {"a": 1}]
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_a_network_without_a_proper_name_is_refused(busy_node: Node, verb: str, name: object) -> None:
    failed = busy_node.call(verb, busy_node.sandbox.pod("c1"), conf=busy_node.conf(name=name))
    assert failed.code == INVALID_NETCONF
    assert "name" in failed.msg
    assert not busy_node.residue()


@pytest.mark.parametrize("name", ["a", "Azure_0.9-x", "0", "n" * 200])
def test_every_proper_network_name_works(busy_node: Node, name: str) -> None:
    pod, conf = busy_node.sandbox.pod("c1"), busy_node.conf(name=name)
    busy_node.check(pod, busy_node.add(pod, conf=conf), conf=conf).done()
    busy_node.gc([(pod, "eth0")], conf=conf).done()
    assert busy_node.held()
    busy_node.gc([], conf=conf).done()
    assert not busy_node.residue()


WRONG_VALUES: list[dict[str, Any]] = [
    {"mode": 7},
    {"mtu": -1},
    {"mtu": "huge"},
    {"mtu": 65536},
    {"master": ["eth0"]},
    {"ipam": "azvnet-ipam"},
    {"ipam": {}},
    {"ipam": {"type": "azvnet-ipam", "environment": ["file"]}},
    {"ipam": {"type": "azvnet-ipam", "environment": {"file": 1}}},
    {"ipam": {"type": "azvnet-ipam", "cooldown": -1}},
    {"ipam": {"type": "azvnet-ipam", "cooldown": "soon"}},
    {"ipam": {"type": "azvnet-ipam", "file": 7}},
    {"ipam": {"type": "azvnet-ipam", "ipAddress": "not-an-address"}},
    {"dns": {"nameservers": "168.63.129.16"}},
    {"logLevel": "loud"},
    {"runtimeConfig": {"mac": "not-a-mac"}},
    {"runtimeConfig": {"mac": "01:00:5e:00:00:01"}},
    {"runtimeConfig": {"mac": "00:00:00:00:00:00"}},
    {"runtimeConfig": {"ips": ["10.10.0.300"]}},
    {"runtimeConfig": {"ips": "10.10.0.7"}},
    {"args": []},
]


@pytest.mark.parametrize("wrong", WRONG_VALUES, ids=json.dumps)
def test_a_value_that_makes_no_sense_is_named(busy_node: Node, wrong: dict[str, Any]) -> None:
    """And a configuration that was spoilt after the pod was made does not keep the pod from going away."""
    pod = busy_node.sandbox.pod("c1")
    spoilt = {**busy_node.netconf, **wrong}
    failed = busy_node.add(pod, conf=spoilt)
    assert failed.code == INVALID_NETCONF, failed
    deepest = _deepest(wrong)
    assert any(str(word) in failed.msg for word in deepest), failed.msg
    assert not busy_node.residue()
    busy_node.add(pod).done()
    busy_node.delete(pod, conf=spoilt).done()
    assert not busy_node.residue()


def _deepest(wrong: Mapping[str, Any]) -> list[object]:
    """The key that is wrong, and its value."""
    (key, value) = list(wrong.items())[-1]
    while isinstance(value, dict) and value:
        (key, value) = list(value.items())[-1]
    return [key, json.dumps(value), *(value if isinstance(value, list) else [value])]


NULLS = [
    *({key: None} for key in ("dns", "ipam", "runtimeConfig", "args", "capabilities", "cniVersions")),
    *({key: None} for key in ("mode", "master", "mtu", "strict", "logLevel", "logFile", "prevResult")),
    *({"dns": {key: None}} for key in ("nameservers", "domain", "search", "options")),
    *({"ipam": {"type": "azvnet-ipam", key: None}} for key in ("environment", "file", "cooldown")),
    {"runtimeConfig": {"ips": None, "mac": None, "dns": {"servers": None, "Searches": None}}},
    {"args": {"cni": {"ips": None}}},
]


@pytest.mark.parametrize("nulls", NULLS, ids=json.dumps)
def test_null_is_as_good_as_nothing(busy_node: Node, nulls: dict[str, Any]) -> None:
    """As for every plugin in Go, whose JSON is what runtimes and their users write for."""
    pod, conf = busy_node.sandbox.pod("c1"), {**busy_node.netconf, **nulls}
    assert busy_node.add(pod, conf=conf).address == "10.10.0.5"
    busy_node.delete(pod, conf=conf).done()


ODD_STRINGS = ["a\0b", "\ud800", "x" * 1000, "a/b", "../x", " ", "\u202e"]
PLACES: list[Callable[[str], dict[str, Any]]] = [
    lambda odd: {"logFile": odd},
    lambda odd: {"master": odd},
    lambda odd: {"ipam": {"type": "azvnet-ipam", "file": odd}},
    lambda odd: {"ipam": {"type": odd}},
    lambda odd: {"dns": {"nameservers": [odd]}},
    lambda odd: {"args": {"cni": {"ips": odd}}},
    lambda odd: {"runtimeConfig": {"ips": [odd], "mac": odd}},
    lambda odd: {"runtimeConfig": {"mac": odd}},
    lambda odd: {"mode": odd},
    lambda odd: {"bridge": odd, odd: odd},
    lambda odd: {"prevResult": {"interfaces": [{"name": odd, "sandbox": odd}], "x": odd}},
]


@pytest.mark.parametrize("odd", ODD_STRINGS, ids=ascii)
def test_no_text_in_a_configuration_is_too_odd_for_an_answer(busy_node: Node, odd: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    for place in PLACES:
        conf = {**busy_node.netconf, **place(odd)}
        added = busy_node.add(pod, conf=conf)
        assert added.ok or added.code != INTERNAL, added
        assert added.ok or not busy_node.residue()
        gone = busy_node.delete(pod, conf=conf)
        assert gone.ok or gone.code in (DELEGATE_FAILED, INVALID_NETCONF), gone
        assert not busy_node.residue()


@pytest.mark.parametrize("length", [256 * 1024 + 1, 20_000_000])
def test_no_configuration_is_read_without_an_end(node: Node, length: int) -> None:
    failed = node.call("ADD", node.sandbox.pod("c1"), stdin=b" " * length)
    assert failed.code in UNREADABLE
    assert not node.residue()


def test_a_large_configuration_is_read(node: Node) -> None:
    pod = node.sandbox.pod("c1")
    large = json.dumps({**node.netconf, "args": {"cni": {"labels": "x" * 200_000}}}).encode()
    node.add(pod, stdin=large + b"\n\n\r\n \t\n").done()
    node.delete(pod, stdin=b"\n\n " + large).done()
    assert not node.residue()


def test_a_configuration_that_comes_in_pieces_is_read_to_its_end(node: Node) -> None:
    assert isinstance(node.caller, Executable)
    pod = node.sandbox.pod("c1")
    env = {
        **node.environ,
        **node.caller.environ,
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": "eth0",
    }
    process = node.sandbox.popen([str(node.caller.program)], env=env, stdin=subprocess.PIPE)
    stdin = process.stdin
    assert stdin is not None
    text = json.dumps(node.netconf).encode() + b"\n"
    for start in range(0, len(text), 7):
        stdin.write(text[start : start + 7])
        stdin.flush()
        eventually(lambda: not unread(stdin.fileno()), "the piece was read", pause=0.001)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert json.loads(out)["ips"]
    node.delete(pod).done()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *NETCONF,
        *("cniVersions", "mode", "master", "mtu", "dns", "args", "capabilities", "runtimeConfig", "strict"),
        *("prevResult", "disableCheck", "cni.dev/valid-attachments", "cni.dev/attachments", "logLevel"),
        *("bridge", "ipsToRouteViaHost", "queryInterval", "unknown"),
    ]
)
IPAM_KEYS = st.sampled_from(
    [
        *NETCONF["ipam"],
        "file",
        "cooldown",
        "queryInterval",
        "ipAddress",
        "subnet",
        "addressSpace",
        "mode",
        "x",
    ]
)
CONFIGURATIONS = (
    st.dictionaries(KEYS, JSON_VALUES, max_size=5).map(
        lambda spoilt: json.dumps({**NETCONF, **spoilt}).encode()
    )
    | st.dictionaries(IPAM_KEYS, JSON_VALUES, max_size=3).map(
        lambda spoilt: json.dumps({**NETCONF, "ipam": {**NETCONF["ipam"], **spoilt}}).encode()
    )
    | st.binary(max_size=200)
)
VERBS = st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@pytest.mark.timeout(240)
def test_no_input_makes_the_plugin_answer_anything_but_one_document(new_node: NewNode) -> None:
    """Row 10: fuzzed stdin and environment; that stdout holds what it must is checked with every call."""
    node = new_node(many=True)
    pod = node.sandbox.pod("c1")

    @settings(
        max_examples=int(os.environ.get("AZVNET_TEST_EXAMPLES", "250")),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(verb=VERBS, stdin=CONFIGURATIONS, container_id=st.just("c1") | TEXTS, args=st.just("") | TEXTS)
    def fuzz(verb: str, stdin: bytes, container_id: str, args: str) -> None:
        outcome = node.call(verb, pod, stdin=stdin, args=args, env={"CNI_CONTAINERID": container_id})
        assert outcome.exit_code in (0, 1), outcome
        if outcome.exit_code:
            assert outcome.code != 999, outcome
        if verb == "ADD" and outcome.ok:
            node.call("DEL", pod, stdin=stdin, args=args, env={"CNI_CONTAINERID": container_id}).done()
        assert not node.veths()

    fuzz()
    assert not node.residue()
