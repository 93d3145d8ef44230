"""What an agent and the operator tell each other: both ways, bounded, and as the API server has it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ipam.provision import exchange, fields
from ipam.provision.exchange import (
    AzvnetNode,
    Condition,
    Machine,
    NicShown,
    NodeSpec,
    NodeStatus,
    Operation,
    PoolReport,
)
from ipam.provision.fields import FieldError, FieldKind
from ipam.provision.nic_document import Configuration
from ipam.provision.plan import Counts, Sizes
from ipam.value import replace
from tests.statuses import with_status

CRD = Path(__file__).parents[3] / "packaging/helm/azvnet/files/azvnetnodes.azvnet.io.yaml"

counts = st.integers(0, 2**31 - 1)
words = st.text(max_size=64)
names = st.lists(st.text(max_size=80), max_size=4).map(tuple)
addresses = st.lists(st.ip_addresses(), max_size=4).map(tuple)

some_specs = st.builds(
    NodeSpec,
    protocol=counts,
    machine=st.builds(Machine, words, words, words, words, st.text(max_size=17)),
    sizes=st.builds(Sizes, *[st.integers(0, 4096)] * 5, st.floats(0, 1e9), st.booleans()),
    subnet=words,
    dry_run=st.booleans(),
    pool=st.builds(PoolReport, *[counts] * 7, st.floats(0, 1e6)),
    seen=counts,
    releasing=names,
    vanished=addresses,
    renew_time=words,
)
some_statuses = st.builds(
    NodeStatus,
    revision=counts,
    nic=st.builds(NicShown, words, words, words, st.text(max_size=17), words),
    configurations=st.lists(
        st.builds(
            Configuration,
            words,
            st.none() | st.sampled_from(["10.1.0.5/32", "10.1.0.16/28", "fd00::5/128"]).map(ip_network),
            st.booleans(),
            words,
            st.booleans(),
        ),
        max_size=4,
    ).map(tuple),
    addresses=counts,
    state=words,
    text=words,
    remedy=words,
    surplus=counts,
    releasing=names,
    operation=st.none() | st.builds(Operation, words, counts, words),
    observed_generation=counts,
    last_read_time=words,
    conditions=st.lists(st.builds(Condition, *[words] * 5, counts), max_size=2).map(tuple),
)


@given(some_specs, some_statuses)
def test_what_was_written_is_read(spec: NodeSpec, status: NodeStatus) -> None:
    document = exchange.with_spec("node-1", spec, "41") | {
        "status": with_status("node-1", status, "41")["status"]
    }
    assert exchange.read(document) == AzvnetNode("node-1", "", "41", 0, spec, status)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["metadata", "spec", "status", "name", "pool", "nic", "configurations"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_stands_there_is_read_or_refused_in_words(document: object) -> None:
    try:
        outcome: object = exchange.read(document)
    except FieldError as error:
        outcome = str(error)
    assert isinstance(outcome, AzvnetNode) or outcome


def test_what_a_newer_one_wrote_is_passed_over_and_what_an_older_one_left_out_has_a_default() -> None:
    found = exchange.read(
        {
            "metadata": {"name": "node-1", "labels": {"a": "b"}},
            "spec": {"pool": {"held": 3, "bonded": 1}, "mood": "good", "machine": None},
            "status": {"configurations": [{"name": "azvnet-1"}]},
        }
    )
    assert found == AzvnetNode(
        "node-1",
        spec=NodeSpec(pool=PoolReport(held=3)),
        status=NodeStatus(configurations=(Configuration("azvnet-1", None, False, "", False),)),
    )
    assert exchange.read({"metadata": {"name": "a"}}) == AzvnetNode("a")


@pytest.mark.parametrize(
    ("half", "wrong", "says"),
    [
        ("spec", {"pool": {"held": "3"}}, "spec.pool.held: '3' has the wrong type"),
        ("spec", {"pool": {"held": True}}, "spec.pool.held: True has the wrong type"),
        ("spec", {"pool": {"held": -1}}, "spec.pool.held: -1 is not between 0 and 2147483647"),
        ("spec", {"pool": {"arrivalsPerMinute": float("nan")}}, "spec.pool.arrivalsPerMinute: nan is not"),
        ("spec", {"dryRun": 1}, "spec.dryRun: 1 has the wrong type"),
        ("spec", {"releasing": ["a"] * 257}, "spec.releasing: 257 items, more than 256"),
        ("spec", {"vanished": ["10.1.0"]}, "spec.vanished[0]: '10.1.0' is not an IP address"),
        ("spec", {"subnet": "a" * 1025}, "spec.subnet: 1025 characters, more than 1024"),
        ("spec", [], "spec: [] has the wrong type"),
        (
            "status",
            {"configurations": [{"name": "a", "address": "10.1.0.1/28"}]},
            "status.configurations[0].address: '10.1.0.1/28' is neither an IP address nor a block",
        ),
        ("status", {"configurations": [{}]}, "status.configurations[0]: Configuration: no value for name"),
        ("metadata", None, "metadata: None has the wrong type"),
    ],
)
def test_what_must_not_be_there_is_refused(half: str, wrong: object, says: str) -> None:
    with pytest.raises(FieldError) as refused:
        exchange.read({"metadata": {"name": "node-1"}, half: wrong})
    assert str(refused.value).startswith(says)


def test_words_for_people_are_cut_where_they_would_not_be_taken() -> None:
    document = with_status("a", NodeStatus(text="x" * 2000), "1")
    assert document["status"]["text"] == "x" * 1021 + "..."


def test_counts_are_the_planners() -> None:
    pool = PoolReport(held=1, free=2, cooling=3, unusable=4, in_flight=5, waiting=6, arrivals_per_minute=30)
    assert pool.counts(9) == Counts(1, 2, 3, 4, 5, 6, arrivals=0.5, configurations=9)


def test_what_is_offered_counts_as_free_until_it_is_being_removed() -> None:
    pool = PoolReport(held=1, free=2, unusable=4, releasing=16)
    assert pool.counts(9) == Counts(1, 18, 0, 4, configurations=9)
    assert pool.counts(9, removing=True) == Counts(1, 2, 0, 20, configurations=9)


def definition() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CRD.read_text())
    return found


def test_the_definition_names_the_resource_as_it_is_asked_for() -> None:
    crd = definition()
    (version,) = crd["spec"]["versions"]
    assert crd["metadata"]["name"] == f"{exchange.PLURAL}.{exchange.GROUP}"
    assert (crd["spec"]["group"], version["name"]) == (exchange.GROUP, exchange.VERSION)
    names = crd["spec"]["names"]
    assert (names["plural"], names["kind"]) == (exchange.PLURAL, exchange.KIND)
    assert crd["spec"]["scope"] == "Cluster"
    assert version["subresources"] == {"status": {}}


@pytest.mark.parametrize(("half", "record"), [("spec", exchange.SPEC), ("status", exchange.STATUS)])
def test_the_definition_has_the_same_fields_with_the_same_bounds(half: str, record: FieldKind) -> None:
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][half]
    compare(half, record, schema)


def compare(where: str, kind: FieldKind, schema: dict[str, Any]) -> None:
    """A kind of field and the schema of the same field allow the same."""
    assert "description" in schema or where.endswith("[]"), where
    if isinstance(kind, fields.JsonObject):
        assert schema["type"] == "object", where
        assert set(schema["properties"]) == set(kind.fields), where
        for key, (_, inner) in kind.fields.items():
            compare(f"{where}.{key}", inner, schema["properties"][key])
    elif isinstance(kind, fields.Items):
        assert (schema["type"], schema["maxItems"]) == ("array", kind.most), where
        assert schema["x-kubernetes-list-type"] in {"set", "map", "atomic"}
        compare(f"{where}[]", kind.kind, schema["items"])
    elif isinstance(kind, fields.Text):
        assert (schema["type"], schema["maxLength"]) == ("string", kind.most), where
    elif isinstance(kind, fields.Whole):
        assert (schema["type"], schema["minimum"], schema["maximum"]) == ("integer", 0, kind.most), where
        assert schema["format"] == "int64"
    elif isinstance(kind, fields.Real):
        assert (schema["type"], schema["minimum"], schema["maximum"]) == ("number", 0, kind.most), where
    elif isinstance(kind, fields.Flag):
        assert schema["type"] == "boolean", where
    else:
        longest = {fields.AddressField: 39, fields.Block: 43}[type(kind)]
        assert (schema["type"], schema["maxLength"]) == ("string", longest), where


def columns() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    return found


@pytest.mark.parametrize("column", columns(), ids=lambda each: each["name"])
def test_every_column_shows_a_field_that_there_is(column: dict[str, Any]) -> None:
    _, half, *path = column["jsonPath"].split(".")
    if half == "metadata":
        return
    kind: Any = exchange.SPEC if half == "spec" else exchange.STATUS
    for key in path:
        _, kind = kind.fields[key]
    assert {"string": fields.Text, "integer": fields.Whole}[column["type"]] is type(kind)


def test_every_bound_is_exact_as_the_floating_point_number_that_the_api_server_makes_of_it() -> None:
    """The largest whole number of 64 bits became the smallest one, and nothing could be written."""

    def bounds(schema: object) -> Iterator[int]:
        if isinstance(schema, dict):
            yield from (schema[key] for key in ("minimum", "maximum") if isinstance(schema.get(key), int))
            for each in schema.values():
                yield from bounds(each)
        elif isinstance(schema, list):
            for each in schema:
                yield from bounds(each)

    found = list(bounds(yaml.safe_load(CRD.read_text())))
    assert len(found) > 20
    assert not [each for each in found if abs(each) >= 2**53]


def test_every_kind_of_field_is_declared_for_every_field_of_a_class() -> None:
    with pytest.raises(TypeError, match="cut"):
        fields.JsonObject(fields.Text, most=fields.Whole(5))
    assert replace(NodeSpec(), seen=3).seen == 3
