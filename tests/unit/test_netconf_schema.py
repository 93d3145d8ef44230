"""What a call validates with is what the models of the configuration say, no more and no less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cni_plugin.agent import settings_models, settings_schema
from cni_plugin.cni import contract, netconf
from cni_plugin.cni.call import Call
from cni_plugin.cni.netconf import netconf_models, netconf_schema
from cni_plugin.node import Node
from ipam import validation
from ipam.sources import documents_schema, models

ROOT = Path(__file__).parents[2]
NETCONF: dict[str, type[BaseModel]] = {"Ipam": netconf_models.IpamConf, "NetConf": netconf_models.NetConf}
PARTS: dict[str, type[BaseModel]] = {
    name: each
    for name, each in vars(models).items()
    if isinstance(each, type) and issubclass(each, models.Part) and each is not models.Part
}
SETTINGS: dict[str, type[BaseModel]] = {
    name: getattr(settings_models, name)
    for name in ("Arm", "Conflist", "KubernetesApi", "Masquerade", "NicProvision", "Platform", "Settings")
}
MODELS = {**NETCONF, **PARTS, **SETTINGS}
VALIDATORS = {
    "Ipam": validation.validator(netconf_schema.IPAM_CONF, netconf.IpamConf),
    "NetConf": validation.validator(netconf_schema.NET_CONF, netconf.NetConf),
    **{
        schema["cls"].__name__: validation.validator(schema)
        for name, schema in {**vars(documents_schema), **vars(settings_schema)}.items()
        if name.isupper()
    },
}


def test_the_schemas_in_the_tree_are_those_of_the_models() -> None:
    script = ROOT / "packaging" / "compile_models.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert not done.returncode, f"{done.stdout}{done.stderr}: run {script} --write"


def test_there_is_a_validator_for_every_model() -> None:
    assert set(VALIDATORS) == set(MODELS)
    assert len(PARTS) > 5


def _names(model: type[BaseModel]) -> list[str]:
    fields = model.model_fields.items()
    return [name for name, _ in fields] + [field.alias for _, field in fields if field.alias]


def _nested(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(
        ["source", "destination", "client_id", "servers", "Servers", "nameservers", "search", "searches",
         "options", "domain", "ips", "IPs", "mac",
         "dns", "DNS", "containerID", "container_id", "ifname", "cni", "ipAddress", "subnet", "x", ""]
    )  # fmt: skip
    return st.lists(values, max_size=3) | st.dictionaries(keys, values, max_size=4)


WORDS = st.sampled_from(
    ["", "10", "1e400", "nan", "-1", "0x10", "true", "auto", "azure", "fileIpam", "azvnet-ipam", "info",
     "off", "transparent", "1.1.0", "10.1.0.4", "000D3A6E1825"]
)  # fmt: skip
NUMBERS = st.sampled_from([-1, 0, 1, 1500, 65535, 65536, 2**70, 0.0, -0.5, 10.5, float("inf"), float("nan")])
PLAIN = st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=4)
VALUES = st.recursive(PLAIN, _nested, max_leaves=6)


def _documents(name: str) -> st.SearchStrategy[Any]:
    keys = st.sampled_from([*_names(MODELS[name]), "unknown", "cni.dev/other", ""])
    made = st.dictionaries(keys, VALUES, max_size=8)
    return st.one_of(made, made.map(lambda document: {**document, "name": "net"}), VALUES)


def _facts(read: Any) -> Any:
    """An object that was read as plain values, the same for both."""
    if isinstance(read, BaseModel | validation.Read):
        values = {key: _facts(value) for key, value in read.__dict__.items()}
        extra = {key: _facts(value) for key, value in (read.model_extra or {}).items()}
        return type(read).__name__, values, extra, set(read.__pydantic_fields_set__)
    if isinstance(read, dict):
        return {key: _facts(value) for key, value in read.items()}
    if isinstance(read, list):
        return [_facts(each) for each in read]
    return type(read), repr(read)


def _outcome(validate: Any, document: Any) -> Any:
    try:
        return _facts(validate(document))
    except ValidationError as error:
        return [{key: str(value) for key, value in each.items()} for each in error.errors(include_url=False)]


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
def test_both_read_and_refuse_the_same(name: str, data: st.DataObject) -> None:
    document = data.draw(_documents(name))
    compiled_says = _outcome(VALIDATORS[name], document)
    assert compiled_says == _outcome(MODELS[name].model_validate, document)


def test_what_is_made_by_default_is_made_for_each_configuration_anew() -> None:
    first, second = (netconf.parse_netconf({"cniVersion": "1.1.0", "name": "net"}) for _ in range(2))
    assert first.dns is not second.dns
    first.ipam["type"] = "changed"
    first.dns.nameservers.append("10.0.0.1")
    assert second.ipam == {"type": "azvnet-ipam"}
    assert second.dns.nameservers == []


def test_the_agent_does_not_load_pydantic() -> None:
    """6 MiB of its memory, and 75 ms of its start."""
    script = "import sys, cni_plugin.agent.service; assert 'pydantic' not in sys.modules, sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_call_does_not_load_pydantic_and_its_modules_still_work_afterwards() -> None:
    script = """
import sys
from cni_plugin.cni import netconf
netconf.parse_netconf({"cniVersion": "1.1.0", "name": "net"}).our_ipam
from ipam.sources import file, imds, placement
assert "pydantic" not in sys.modules and "pydantic_core" not in sys.modules, sorted(sys.modules)
import pydantic_core, pydantic
from ipam import validation
assert pydantic_core.ValidationError is validation.ValidationError
class Model(pydantic.BaseModel):
    number: int
assert Model(number="1").number == 1
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


class TestRemembered:
    """What was accepted once is not read again, byte for byte the same."""

    def test_it_is_what_was_read(self) -> None:
        stdin = b'{"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "azvnet-ipam", "cooldown": 7}}'
        assert netconf.remembered(stdin) is None
        document = netconf.decode(stdin)
        read = netconf.parse_netconf(document)
        netconf.remember(stdin, document, read)
        assert netconf.remembered(stdin) == (document, read)
        assert read.our_ipam is read.our_ipam
        assert read.our_ipam.cooldown == 7
        assert netconf.remembered(stdin + b" ") is None

    def test_no_more_is_kept_than_a_node_needs(self) -> None:
        read = netconf.parse_netconf({"cniVersion": "1.1.0", "name": "net"})
        for number in range(3 * netconf.MOST_REMEMBERED):
            netconf.remember(b"%d" % number, {}, read)
        kept = [number for number in range(3 * netconf.MOST_REMEMBERED) if netconf.remembered(b"%d" % number)]
        assert kept[-1] == 3 * netconf.MOST_REMEMBERED - 1
        assert len(kept) <= netconf.MOST_REMEMBERED

    def test_no_more_bytes_are_kept_than_so_many(self) -> None:
        read = netconf.parse_netconf({"cniVersion": "1.1.0", "name": "net"})
        half = netconf.MOST_REMEMBERED_BYTES // 2
        first, second, third = (each * half for each in (b"1", b"2", b"3"))
        netconf._remembered.clear()
        for each in (first, second, first + b"1"):
            netconf.remember(each, {}, read)
        assert list(netconf._remembered) == [first, second], "one that is larger than the half is not kept"
        netconf.remember(third, {}, read)
        assert list(netconf._remembered) == [third]

    def test_a_call_with_a_known_one_leaves_the_others_remembered(self, tmp_path: Path) -> None:
        environ = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/no/netns",
        }
        node = Node({"AZVNET_RUN_DIR": str(tmp_path)})
        netconf._remembered.clear()
        confs = [
            b'{"cniVersion": "1.1.0", "name": "net%d", "ipam": {"type": "azvnet-ipam"}}' % number
            for number in range(netconf.MOST_REMEMBERED)
        ]
        for stdin in (*confs, confs[0]):
            assert contract.handle(Call(environ, stdin), node).exit_code == 1  # there is no such namespace
        assert all(netconf.remembered(stdin) for stdin in confs)

    def test_another_previous_result_is_all_that_may_differ(self) -> None:
        stdin = (
            b'{"cniVersion": "1.1.0", "ipMasq": true, "ipam": {"type": "azvnet-ipam"}, "name": "n", "x": 1}'
        )
        document = netconf.decode(stdin)
        netconf.remember(stdin, document, netconf.parse_netconf(document))
        results: list[dict[str, Any]] = [{"ips": []}, {"ips": [{"address": "10.1.0.4/24"}]}]
        for previous in results:
            asked = {**document, "prevResult": previous}
            known = netconf.remembered_but_for_result(asked)
            read = netconf.parse_netconf(asked)
            assert known is not None
            for name in vars(read).keys() - {"dns", "runtime_config"}:
                assert getattr(known, name) == getattr(read, name)
            assert (known.model_extra, known.prev_result) == (read.model_extra, previous)
            assert known.our_ipam.source == read.our_ipam.source
        before = netconf.remembered(stdin)
        assert before is not None
        assert before[1].prev_result is None

    @pytest.mark.parametrize(
        "change",
        [
            {"prevResult": None},
            {"prevResult": "text"},
            {"ipMasq": 1},
            {"ipMasq": False},
            {"ipam": {"type": "azvnet-ipam", "cooldown": 9}},
            {"x": True},
            {"mtu": 1400},
        ],
    )
    def test_anything_else_that_differs_is_read(self, change: dict[str, Any]) -> None:
        stdin = (
            b'{"cniVersion": "1.1.0", "ipMasq": true, "ipam": {"type": "azvnet-ipam"}, "name": "n", "x": 1}'
        )
        document = netconf.decode(stdin)
        netconf.remember(stdin, document, netconf.parse_netconf(document))
        assert netconf.remembered_but_for_result({**document, "prevResult": {}, **change}) is None
