"""What a network configuration may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni_plugin import log
from cni_plugin.cni import netconf
from cni_plugin.cni.errors import CniError, DecodingFailure, InvalidNetconf, UnsupportedField
from cni_plugin.cni.netconf import NetConf, decode, parse_netconf, require_supported

PLAIN: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "azure",
    "type": "azvnet",
    "ipam": {"type": "azvnet-ipam"},
}


def conf(**keys: Any) -> NetConf:
    return parse_netconf({**PLAIN, **keys})


def ipam(**keys: Any) -> NetConf:
    return conf(ipam={"type": "azvnet-ipam", **keys})


def refused(wrong: NetConf, *, as_ipam: bool = False) -> CniError:
    with pytest.raises((UnsupportedField, InvalidNetconf)) as caught:
        require_supported(wrong, as_ipam=as_ipam)
    return caught.value


def test_a_configuration_of_known_keys_gives_no_warning() -> None:
    assert require_supported(conf(), as_ipam=False) == ()
    everything = conf(mode="transparent", mtu=1500, logFile="/var/log/azvnet/pods.log", logLevel="debug")
    assert require_supported(everything, as_ipam=False) == ()


@pytest.mark.parametrize("written", netconf.ENVIRONMENTS)
def test_each_name_of_a_source_that_azure_cni_uses_is_understood(written: str) -> None:
    assert ipam(environment=written).our_ipam.source == netconf.ENVIRONMENTS[written]


def test_a_source_that_does_not_exist_is_not_supported() -> None:
    with pytest.raises(UnsupportedField) as caught:
        _ = ipam(environment="gce").our_ipam
    assert str(caught.value) == "unsupported value: ipam.environment 'gce'"
    assert all(name in caught.value.details for name in netconf.ENVIRONMENTS)


@pytest.mark.parametrize("wrong", [{"environment": 7}, {"cooldown": -1}, {"queryInterval": "soon"}])
def test_a_value_that_is_out_of_its_range_is_invalid_and_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidNetconf) as caught:
        _ = ipam(**wrong).our_ipam
    (key,) = wrong
    assert f"invalid network configuration: ipam.{key}: " in str(caught.value)
    assert f"(it is {json.dumps(wrong[key])})" in str(caught.value)


def test_what_was_found_of_the_ipam_section_is_kept() -> None:
    made = conf()
    assert made.our_ipam is made.our_ipam


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/var/log/azvnet/pods.log", True),
        ("/var/log/azvnet/" + "a" * 180 + ".log", True),
        ("/var/log/azvnet/" + "a" * 181 + ".log", False),
        ("/var/log/azvnet/../shadow.log", False),
        ("/var/log/azvnet/.log", False),
        ("/var/log/azvnet/pods.txt", False),
        ("/etc/passwd", False),
    ],
)
def test_a_log_file_elsewhere_is_named_and_not_used(path: str, allowed: bool) -> None:
    assert log.is_allowed(path) is allowed
    warning = f"logFile '{path}' is not used: name a .log file in /var/log/azvnet"
    warnings = require_supported(conf(logFile=path), as_ipam=False)
    assert [each.startswith("logFile") for each in warnings] == ([] if allowed else [True])
    if not allowed and len(path) < 50:
        assert warnings == (warning,)


@pytest.mark.parametrize("empty", [None, False, "", [], {}])
@pytest.mark.parametrize("key", netconf.NO_EFFECT)
def test_a_key_without_effect_is_explained_unless_it_asks_for_nothing(key: str, empty: object) -> None:
    reason = f"{key} has no effect: {netconf.NO_EFFECT[key]}"
    assert require_supported(conf(**{key: "yes"}), as_ipam=False) == (reason,)
    assert require_supported(conf(**{key: empty}), as_ipam=False) == ()


@pytest.mark.parametrize("key", netconf.IPAM_NO_EFFECT)
def test_the_same_within_ipam_and_only_where_it_is_ours(key: str) -> None:
    reason = f"ipam.{key} has no effect: {netconf.IPAM_NO_EFFECT[key]}"
    assert require_supported(ipam(**{key: "x"}), as_ipam=False) == (reason,)
    assert require_supported(ipam(**{key: "x"}), as_ipam=True) == (reason,)
    assert require_supported(conf(ipam={"type": "host-local", key: "x"}), as_ipam=False) == ()


def test_an_unknown_key_is_named_with_the_known_one_that_was_meant() -> None:
    warned = require_supported(conf(mastr="eth0", ipam={"type": "azvnet-ipam", "cooldwn": 5}), as_ipam=False)
    assert warned == (
        "unknown key mastr is ignored (did you mean master?)",
        "unknown key ipam.cooldwn is ignored (did you mean ipam.cooldown?)",
    )
    assert require_supported(conf(zzz=1), as_ipam=False) == ("unknown key zzz is ignored",)


def test_of_many_unknown_keys_the_first_ten_are_named() -> None:
    ten = {f"zz{number:02}": 1 for number in range(10)}
    assert len(require_supported(conf(**ten), as_ipam=False)) == 10
    assert require_supported(conf(**ten, zz10=1), as_ipam=False)[10] == "1 more unknown key is ignored"
    twelve = ten | {"zz10": 1, "zz11": 1}
    warned = require_supported(conf(**twelve), as_ipam=False)
    assert len(warned) == 11
    assert warned[9] == "unknown key zz09 is ignored"
    assert warned[-1] == "2 more unknown keys are ignored"


def test_keys_that_libcni_adds_are_no_unknown_ones() -> None:
    assert require_supported(conf(**{"cni.dev/anything": 1}), as_ipam=False) == ()


def test_called_as_ipam_the_keys_outside_are_another_plugins() -> None:
    bridge = {"bridge": "cni0", "isGateway": True, "mode": "bridge"}
    assert require_supported(conf(**bridge), as_ipam=True) == ()
    assert require_supported(ipam(zzz=1), as_ipam=True) == ("unknown key ipam.zzz is ignored",)


def test_strict_refuses_the_first_unknown_key_with_its_value() -> None:
    error = refused(conf(strict=True, mastr="eth0"))
    assert isinstance(error, UnsupportedField)
    assert str(error) == 'unsupported field: mastr "eth0" (did you mean master?)'
    inner = refused(conf(strict=True, ipam={"type": "azvnet-ipam", "zzz": [1]}))
    assert str(inner) == "unsupported field: ipam.zzz [1]"
    assert require_supported(conf(strict=True), as_ipam=False) == ()


def test_a_mode_that_does_not_exist_is_refused_but_not_as_ipam() -> None:
    error = refused(conf(mode="overlay"))
    assert isinstance(error, UnsupportedField)
    assert str(error) == "unsupported value: mode 'overlay'"
    assert require_supported(conf(mode=""), as_ipam=False) == ()
    assert require_supported(conf(mode="overlay"), as_ipam=True) == ()


@pytest.mark.parametrize("mode", ["bridge", "tunnel"])
def test_modes_of_azure_cni_that_rewire_the_host_are_treated_as_transparent(mode: str) -> None:
    (warning,) = require_supported(conf(mode=mode), as_ipam=False)
    assert warning == f"mode {mode} is treated as transparent: {netconf.ROUTED_INSTEAD[mode]}"
    assert require_supported(conf(mode="bridge"), as_ipam=True) == ()


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({}, "ipam.type is missing"),
        ({"type": ""}, "ipam.type is missing"),
        ({"type": "azvnet"}, "ipam.type 'azvnet' is this plugin itself"),
    ],
)
def test_the_ipam_plugin_has_a_name_that_is_not_our_own(section: dict[str, Any], text: str) -> None:
    error = refused(conf(ipam=section))
    assert isinstance(error, InvalidNetconf)
    assert str(error) == text


def test_only_our_own_ipam_type_takes_addresses_of_the_pool() -> None:
    assert conf().uses_our_ipam
    assert not conf(ipam={"type": "host-local"}).uses_our_ipam
    assert not conf(ipam={}).uses_our_ipam


@pytest.mark.parametrize("stdin", [b"", b" \n\t"])
def test_an_empty_stdin_is_said_to_be_empty(stdin: bytes) -> None:
    with pytest.raises(DecodingFailure, match="no network configuration on stdin"):
        decode(stdin)


@pytest.mark.parametrize(
    ("stdin", "text"),
    [(b"{", "not valid JSON"), (b"[1]", "a JSON list, not an object"), (b'"x"', "a JSON str, not an object")],
)
def test_what_is_not_a_json_object_is_refused(stdin: bytes, text: str) -> None:
    with pytest.raises(DecodingFailure, match=text):
        decode(stdin)


@pytest.mark.parametrize("name", [None, 7, "-a", ".a", "a b", "a/b", "ä"])
def test_a_networks_name_is_what_the_spec_allows(name: object) -> None:
    with pytest.raises(InvalidNetconf):
        parse_netconf({**PLAIN, "name": name})
    assert parse_netconf({**PLAIN, "name": "9a_.-"}).name == "9a_.-"


def test_nulls_are_as_if_they_were_not_there() -> None:
    made = parse_netconf({**PLAIN, "mtu": None, "master": None, "dns": {"search": None}})
    assert (made.mtu, made.master, made.dns.search) == (0, "", [])


def test_a_previous_result_is_kept_as_it_came() -> None:
    previous: dict[str, Any] = {"ips": None, "interfaces": []}
    assert parse_netconf({**PLAIN, "prevResult": previous}).prev_result == previous
    assert parse_netconf(PLAIN).prev_result is None


def test_a_damaged_value_does_not_keep_a_pod_from_being_deleted() -> None:
    damaged = {**PLAIN, "mtu": "many", "dns": 7, "master": "eth1"}
    with pytest.raises(InvalidNetconf, match="invalid network configuration: "):
        parse_netconf(damaged)
    lenient = parse_netconf(damaged, lenient=True)
    assert (lenient.mtu, lenient.master, lenient.name) == (0, "eth1", "azure")


@pytest.mark.parametrize("wrong", [{"name": 7}, {"name": None}])
def test_but_without_a_name_nothing_can_be_deleted(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidNetconf):
        parse_netconf({**PLAIN, **wrong}, lenient=True)


def test_a_source_that_is_supported_is_not_blamed_for_another_key() -> None:
    with pytest.raises(InvalidNetconf, match=r"ipam\.cooldown"):
        _ = ipam(environment="imds", cooldown=-1).our_ipam


def test_called_as_ipam_the_keys_around_it_are_another_plugins() -> None:
    bridge = conf(type="bridge", bridge="cni0", isGateway=True, mode="bridge")
    assert bridge.warnings(as_ipam=True) == []
    assert len(bridge.warnings(as_ipam=False)) == 3
