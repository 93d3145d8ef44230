"""Versions of the spec: which are spoken, how one is agreed on, and the shape of a result in each."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from cni_plugin.cni import contract
from cni_plugin.cni.call import Call, Reply
from cni_plugin.node import Node as EngineNode
from ipam.value import replace
from tests.netns.node import Node, pod_addresses

SPOKEN = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
INCOMPATIBLE = 1

_ADDRESS = {"type": "string", "pattern": r"^\d+\.\d+\.\d+\.\d+/\d+$"}
_IP = {"type": "string", "pattern": r"^\d+\.\d+\.\d+\.\d+$"}
_STRINGS = {"type": "array", "items": {"type": "string"}}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """An object with these members and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_DNS = _object("", nameservers=_STRINGS, domain={"type": "string"}, search=_STRINGS, options=_STRINGS)
_ROUTE: dict[str, Any] = {"dst": _ADDRESS, "gw": _IP}
_INTERFACE: dict[str, Any] = {key: {"type": "string"} for key in ("name", "mac", "sandbox")}
_NUMBER = {"type": "integer", "minimum": 0}


def _shape(version: str) -> dict[str, Any]:
    """The result as the spec of one version describes it; nothing more is allowed than that version knows."""
    is_version = {"const": version}
    if version < "0.3.0":
        ip4 = _object("ip", ip=_ADDRESS, gateway=_IP, routes=_list(_object("dst", **_ROUTE)))
        return _object("cniVersion ip4 dns", cniVersion=is_version, ip4=ip4, dns=_DNS)
    interface, route = dict(_INTERFACE), dict(_ROUTE)
    ip: dict[str, Any] = {"address": _ADDRESS, "gateway": _IP, "interface": _NUMBER}
    needed = "address"
    if version < "1.0.0":
        ip["version"] = {"const": "4"}
        needed = "address version"
    if version >= "1.1.0":
        interface |= {"mtu": _NUMBER, "socketPath": {"type": "string"}, "pciID": {"type": "string"}}
        route |= dict.fromkeys(("mtu", "advmss", "priority", "table", "scope"), _NUMBER)
    return _object(
        "cniVersion interfaces ips routes dns",
        cniVersion=is_version,
        interfaces=_list(_object("name", **interface)),
        ips=_list(_object(needed, **ip)),
        routes=_list(_object("dst", **route)),
        dns=_DNS,
    )


@pytest.mark.parametrize("version", SPOKEN)
def test_a_result_has_the_shape_of_the_version_that_was_asked_for(busy_node: Node, version: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    conf = busy_node.conf(cniVersion=version, dns={"nameservers": ["168.63.129.16"], "search": ["a.b"]})
    added = busy_node.add(pod, conf=conf)
    jsonschema.validate(added.result, _shape(version))
    assert added.result["dns"] == {"nameservers": ["168.63.129.16"], "search": ["a.b"]}
    if version >= "0.4.0":
        busy_node.check(pod, added, conf=conf).done()
    busy_node.delete(pod, conf={**conf, "prevResult": added.result}).done()
    assert not busy_node.residue()


def test_every_version_tells_of_the_same_endpoint(busy_node: Node) -> None:
    """Only the words differ: address, gateway and routes are what the pod has."""
    for version in SPOKEN:
        pod = busy_node.sandbox.pod(f"c{version}")
        made = busy_node.add(pod, conf=busy_node.conf(cniVersion=version)).result
        (carried,) = pod_addresses(pod)
        if version < "0.3.0":
            address, gateway, routes = made["ip4"]["ip"], made["ip4"]["gateway"], made["ip4"]["routes"]
        else:
            (ip,) = made["ips"]
            address, gateway, routes = ip["address"], ip["gateway"], made["routes"]
            interface = made["interfaces"][ip["interface"]]
            assert (interface["name"], interface["sandbox"]) == ("eth0", pod.netns)
        assert (address, gateway) == (carried, "169.254.1.1")
        assert {"dst": "0.0.0.0/0", "gw": "169.254.1.1"} in routes
        assert any(route["dst"] == "169.254.1.1/32" and "gw" not in route for route in routes)


@pytest.mark.parametrize("version", ["0.5.0", "0.0.1", "1.2.0", "2.0.0", "10.0.0"])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_an_unknown_version_is_refused_and_nothing_is_touched(
    busy_node: Node, verb: str, version: str
) -> None:
    pod = busy_node.sandbox.pod("c1")
    busy_node.add(pod).done()
    before = (busy_node.held(), busy_node.veths().keys(), busy_node.host_routes())
    failed = busy_node.call(verb, pod, conf=busy_node.conf(cniVersion=version))
    assert failed.code == INCOMPATIBLE
    assert version in failed.msg
    assert "1.1.0" in failed.error["details"]
    assert (busy_node.held(), busy_node.veths().keys(), busy_node.host_routes()) == before


@pytest.mark.parametrize(
    "version", ["1", "1.0", "1.0.0.0", "one", "1.0.0-rc1", "v1.0.0", " 1.0.0", "1.0.x", 1, 1.1, [], {}, True]
)
@pytest.mark.parametrize("verb", ["ADD", "VERSION"])
def test_a_malformed_version_is_refused(busy_node: Node, verb: str, version: object) -> None:
    failed = busy_node.call(verb, busy_node.sandbox.pod("c1"), conf=busy_node.conf(cniVersion=version))
    if verb == "VERSION":
        assert failed.ok or failed.code in (1, 6, 7)
    else:
        assert failed.code in (1, 6, 7)
    assert not busy_node.residue()


@pytest.mark.parametrize("absent", [None, ""])
def test_no_version_at_all_means_the_first_one(busy_node: Node, absent: str | None) -> None:
    added = busy_node.add(busy_node.sandbox.pod("c1"), conf=busy_node.conf(cniVersion=absent))
    jsonschema.validate(added.result, _shape("0.1.0"))


YOUNGER = [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")]


@pytest.mark.parametrize(("verb", "first"), YOUNGER)
def test_a_verb_is_refused_below_the_version_it_came_with(busy_node: Node, verb: str, first: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    made = busy_node.add(pod).result
    more = {"prevResult": made, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    for version in SPOKEN:
        outcome = busy_node.call(verb, pod, conf={**busy_node.conf(cniVersion=version), **more})
        if version >= first:
            outcome.done()
        else:
            assert outcome.code == INCOMPATIBLE
            assert first in outcome.msg
    assert busy_node.held()


NEGOTIATIONS: list[tuple[dict[str, Any], str | None]] = [
    ({"cniVersion": "0.3.1", "cniVersions": ["1.0.0", "1.1.0"]}, "0.3.1"),
    ({"cniVersion": "9.9.9", "cniVersions": ["0.3.1", "1.0.0", "9.9.9"]}, "1.0.0"),
    ({"cniVersions": ["0.4.0", "0.3.1"]}, "0.4.0"),
    ({"cniVersions": ["1.1.0"]}, "1.1.0"),
    ({"cniVersions": ["0.3.1", "10.0.0"]}, "0.3.1"),
    ({"cniVersions": []}, "0.1.0"),
    ({"cniVersions": ["9.9.9", "8.8.8"]}, None),
    ({"cniVersion": "9.9.9", "cniVersions": []}, None),
]


@pytest.mark.parametrize(("asked", "agreed"), NEGOTIATIONS)
def test_the_highest_version_that_both_know_is_agreed_on(
    busy_node: Node, asked: dict[str, Any], agreed: str | None
) -> None:
    conf = {**busy_node.conf(cniVersion=None), **asked}
    outcome = busy_node.add(busy_node.sandbox.pod("c1"), conf=conf)
    if agreed is None:
        assert outcome.code == INCOMPATIBLE
        assert not busy_node.residue()
    else:
        jsonschema.validate(outcome.result, _shape(agreed))


def test_an_error_names_the_version_of_the_configuration(busy_node: Node) -> None:
    for version in SPOKEN:
        failed = busy_node.add(
            busy_node.sandbox.pod(f"c{version}"), conf=busy_node.conf(cniVersion=version, mode="overlay")
        )
        assert failed.error["cniVersion"] == version


def test_a_pod_outlives_an_upgrade_of_its_configuration(busy_node: Node) -> None:
    """libcni converts the cached result; a plugin may also be given the old shape."""
    for old in SPOKEN:
        pod = busy_node.sandbox.pod(f"c{old}")
        added = busy_node.add(pod, conf=busy_node.conf(cniVersion=old)).result
        for new in ("0.4.0", "1.0.0", "1.1.0"):
            busy_node.check(pod, added, conf=busy_node.conf(cniVersion=new)).done()
            busy_node.check(pod, {**added, "cniVersion": new}, conf=busy_node.conf(cniVersion=new)).done()
        busy_node.delete(pod, conf={**busy_node.conf(cniVersion="1.1.0"), "prevResult": added}).done()
    assert not busy_node.residue()


# VERSION


@pytest.mark.parametrize("version", [*SPOKEN, "7.7.7"])
def test_version_answers_in_the_version_it_was_asked_in(node: Node, version: str) -> None:
    """Also in one that it does not know: that is what a caller wants to find out."""
    answer = node.call("VERSION", stdin=f'{{"cniVersion": "{version}"}}'.encode()).result
    assert answer == {"cniVersion": version, "supportedVersions": list(SPOKEN)}


def test_version_needs_no_stdin_and_no_other_variable(node: Node) -> None:
    for stdin in (b"", b"\n", b"{}"):
        for as_ipam in (False, True):
            bare = {"CNI_COMMAND": "VERSION"}
            answer = node.caller.start(node.sandbox, bare, stdin, as_ipam=as_ipam).finish()
            assert answer.result["supportedVersions"] == list(SPOKEN)


def test_version_answers_libcnis_dummy_parameters(node: Node) -> None:
    dummy = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy", "CNI_CONTAINERID": ""}
    for as_ipam in (False, True):
        answer = node.call("VERSION", env=dummy, stdin=b'{"cniVersion":"1.0.0"}', as_ipam=as_ipam).result
        assert answer["supportedVersions"] == list(SPOKEN)


ORDINARY_AND_NOT = [
    b'{"cniVersion":"1.0.0"}',
    b' {"cniVersion" : "0.3.1" , "name":"x", "plugins":[{"a":[1,2.5e3,null,true]}]} \n\n',
    b'{"cniVersion":""}',
    b'{"cniVersion":null}',
    b'{"cniVersion":7}',
    b'{"cniVersion":"1.0.0","cniVersion":"0.4.0"}',
    b'{"cniVersion":"1.0\\u002e0"}',
    b'{"cniVersion":"1.0.0\\""}',
    b'{"cniVersion":"<script>"}',
    b'{"name":"x"}',
    b"{}",
    b"",
    b"  ",
    b"[]",
    b"null",
    b"nonsense",
    b'{"cniVersion":"1.0.0"} x',
    b'{"cniVersion":"1.0.0"}{}',
    b'{"cniVersion":NaN}',
    b'{"cniVersion":"1.0.0","other":NaN}',
    b'{"cniVersion":"1.0.0","other":{"a":1,"a":2}}',
    b'\xef\xbb\xbf{"cniVersion":"1.0.0"}',
    b'{"cniVersion":"\xff"}',
    b'{"cniVersion":"1.0.0\n"}',
    b"\x0c{}",
    "\u00a0{}".encode(),
]


@pytest.mark.parametrize("stdin", ORDINARY_AND_NOT, ids=repr)
def test_the_short_way_and_the_long_way_of_version_agree(busy_node: Node, stdin: bytes) -> None:
    """The thin start answers VERSION without loading anything; the engine has to say the same."""
    environ = {"CNI_COMMAND": "VERSION", "AZVNET_CALL_ID": "5" * 32}

    def in_full() -> Reply:
        reply = contract.handle(Call(environ, stdin, call_id="5" * 32), EngineNode(environ))
        return replace(reply, error=None)

    full = busy_node.sandbox.ask(in_full)
    short = busy_node.caller.start(busy_node.sandbox, environ, stdin, as_ipam=False).finish()
    assert (short.exit_code, short.stdout) == (full.exit_code, full.stdout)
