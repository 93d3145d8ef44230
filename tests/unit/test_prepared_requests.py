"""What the bundle fills in instead of compiling is, byte for byte, what pyroute2 compiles."""

from __future__ import annotations

import importlib.util
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_plugin.kernel import encode, messages, prepared
from cni_plugin.kernel.templates import Request

ROOT = Path(__file__).parents[2]
MAC = "02:00:00:00:00:01"


def _prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "packaging" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TEMPLATES = _prepare().templates()


class Refusing:
    """In the place of pyroute2's classes: nothing may be compiled."""

    def __getitem__(self, name: str) -> Any:
        raise AssertionError(f"{name} was compiled")


@pytest.fixture(autouse=True)
def _as_in_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "TEMPLATES", TEMPLATES)


def _compiled(name: str, values: dict[str, Any]) -> Request:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "TEMPLATES", {})
        made: Request = getattr(encode, name)(**values)
        return made


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-é", min_size=1, max_size=15).filter(
    lambda name: len(name.encode()) <= 15
)
host_names = st.integers(0, 16**11 - 1).map(lambda number: f"azv{number:011x}")
marks = st.integers(0, 16**24 - 1).map(lambda number: f"azvnet-{number:024x}")
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
indexes = st.integers(1, 2**31 - 1)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)
interfaces = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(IPv4Interface) | st.tuples(
    st.integers(0, 2**128 - 1), st.integers(1, 128)
).map(IPv6Interface)
aliases = st.text(min_size=1, max_size=254).filter(
    lambda alias: len(alias.encode()) <= 254 and "\0" not in alias
)

REQUESTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "new_veth": st.fixed_dictionaries(
        {
            "host_name": host_names,
            "host_index": indexes,
            "host_mac": macs,
            "pod_name": names,
            "pod_index": indexes,
            "pod_mac": macs,
            "mtu": st.integers(68, 65535),
            "netns_fd": st.integers(3, 2**20),
        }
    ),
    "set_link": st.fixed_dictionaries({"index": indexes}),
    "own_link": st.fixed_dictionaries({"index": indexes, "alt_name": marks}, optional={"address": addresses}),
    "finish_link": st.fixed_dictionaries({"index": indexes, "alias": aliases}),
    "learn_neighbour": st.fixed_dictionaries({"index": indexes, "address": addresses, "mac": macs}),
    "delete_link": st.fixed_dictionaries({"alt_name": marks}) | st.fixed_dictionaries({"index": indexes}),
    "get_link": st.fixed_dictionaries({"name": names})
    | st.fixed_dictionaries({"alt_name": marks})
    | st.fixed_dictionaries({"index": indexes}),
    "new_pod_address": st.fixed_dictionaries({"index": indexes, "address": interfaces, "mac": macs}),
    "new_route": st.fixed_dictionaries({"index": indexes, "address": addresses}),
    "get_route": st.fixed_dictionaries({"dst": addresses}),
    "get_forwarded_route": st.one_of(
        *(
            st.fixed_dictionaries({"dst": each, "source": each, "index": indexes})
            for each in (
                st.builds(IPv4Address, st.integers(0, 2**32 - 1)),
                st.builds(IPv6Address, st.integers(0, 2**128 - 1)),
            )
        )
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
@settings(
    max_examples=3 * settings().max_examples,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_filled_in_is_compiled(name: str, data: st.DataObject) -> None:
    values = data.draw(REQUESTS[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "classes", Refusing)
        request = getattr(encode, name)(**values)
    expected = _compiled(name, values)
    assert request.data == expected.data
    assert request.describe() == expected.describe()


def test_there_is_a_template_for_every_length_of_every_name() -> None:
    kinds = [key[0] for key in TEMPLATES]
    assert {name: kinds.count(name) for name in ("new_veth", "get_link", "delete_link", "finish_link")} == {
        "new_veth": 15,
        "get_link": 17,
        "delete_link": 2,
        "finish_link": 254,
    }


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("new_address", {"index": 7, "address": IPv4Interface("10.0.0.7/8")}),
        ("new_pod_address", {"index": 7, "address": IPv4Interface("10.0.0.7/8"), "mac": MAC, "metric": 9}),
        ("delete_link", {"name": "eth0"}),
        ("set_link", {"index": 0}),
    ],
)
def test_what_there_is_no_template_for_is_compiled(name: str, values: dict[str, Any]) -> None:
    assert getattr(encode, name)(**values).data == _compiled(name, values).data


def test_the_dumps_are_there_ready_made() -> None:
    made = _prepare().compiled()
    for data in made.values():
        assert data[4:6] in {bytes([kind, 0]) for kind in (18, 22, 26, 30, 34)}
    assert len(made) == 9
    assert encode.dump_links().data in made.values()
    assert encode.dump_addresses(encode.AF_INET).data in made.values()
