"""Which version is agreed on, and that the short way of VERSION says what the long one says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.cni import contract, versions
from cni_plugin.cni.call import Call
from cni_plugin.cni.errors import IncompatibleVersion, InvalidNetconf
from cni_plugin.node import Node
from cni_plugin.verbs import version

KNOWN = st.sampled_from(versions.SUPPORTED)
WELL_FORMED = st.tuples(*[st.integers(0, 30)] * 3).map(lambda parts: ".".join(map(str, parts)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=6), each, max_size=3),
    max_leaves=5,
)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@given(KNOWN, st.lists(WELL_FORMED))
def test_a_known_version_that_is_asked_for_is_spoken(asked: str, offered: list[str]) -> None:
    assert versions.negotiate({"cniVersion": asked, "cniVersions": offered}) == asked


@given(st.lists(WELL_FORMED | KNOWN, min_size=1))
def test_of_those_that_are_offered_the_highest_known_one_is_spoken(offered: list[str]) -> None:
    common = [each for each in offered if each in versions.SUPPORTED]
    if common:
        assert versions.negotiate({"cniVersions": offered}) == max(common, key=_number)
    else:
        with pytest.raises(IncompatibleVersion):
            versions.negotiate({"cniVersions": offered})


@given(WELL_FORMED.filter(lambda each: each not in versions.SUPPORTED))
def test_an_unknown_version_is_refused_with_those_that_are_known(asked: str) -> None:
    with pytest.raises(IncompatibleVersion) as caught:
        versions.negotiate({"cniVersion": asked})
    assert asked in str(caught.value)
    assert all(each in caught.value.details for each in versions.SUPPORTED)


@given(
    JSON.filter(
        lambda each: (
            not (isinstance(each, str) and each.replace(".", "").isdigit()) and each not in (None, "")
        )
    )
)
def test_what_is_no_version_is_refused(asked: object) -> None:
    with pytest.raises(InvalidNetconf):
        versions.negotiate({"cniVersion": asked})


@pytest.mark.parametrize(
    "malformed",
    [
        "1",
        "1.0",
        "1.0.0.0",
        "1..0",
        ".1.0",
        "1.0.",
        "1.0.x",
        "x.0.0",
        "\u0661.0.0",
        "1.0.²",
        " 1.0.0",
        "1.0.0\n",
        "-1.0.0",
    ],
)
def test_a_version_is_three_numbers_of_plain_digits(malformed: str) -> None:
    with pytest.raises(InvalidNetconf, match="malformed"):
        versions.negotiate({"cniVersion": malformed})
    with pytest.raises(InvalidNetconf, match="malformed"):
        versions.negotiate({"cniVersions": ["1.0.0", malformed]})
    with pytest.raises(InvalidNetconf, match="malformed"):
        versions.answered({"cniVersion": malformed})
    assert version._asked_version(json.dumps({"cniVersion": malformed}).encode()) is None


@pytest.mark.parametrize("absent", [{}, {"cniVersion": ""}, {"cniVersion": None, "cniVersions": []}])
def test_a_netconf_without_a_version_is_of_the_first_one(absent: dict[str, object]) -> None:
    assert versions.negotiate(absent) == "0.1.0"


@pytest.mark.parametrize("asked", ["", None])
def test_a_version_is_chosen_where_none_is_asked_for(asked: object) -> None:
    assert versions.negotiate({"cniVersion": asked, "cniVersions": ["0.4.0", "9.9.9"]}) == "0.4.0"
    with pytest.raises(IncompatibleVersion, match=r"9\.9\.9"):
        versions.negotiate({"cniVersion": asked, "cniVersions": ["9.9.9"]})


@pytest.mark.parametrize("offered", ["1.0.0", {"1.0.0": True}, 7, True, ("1.0.0",)])
def test_versions_to_choose_from_are_a_list(offered: object) -> None:
    with pytest.raises(InvalidNetconf, match="list"):
        versions.negotiate({"cniVersion": "1.0.0", "cniVersions": offered})


@given(KNOWN, KNOWN)
def test_later_versions_are_told_from_earlier_ones(first: str, second: str) -> None:
    assert versions.at_least(first, second) == (_number(first) >= _number(second))


@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS", "ADD", "DEL", "VERSION"])
@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_a_verb_needs_the_version_it_came_with(verb: str, version: str) -> None:
    first = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}.get(verb, "0.1.0")
    if _number(version) >= _number(first):
        versions.require_verb(verb, version)
    else:
        with pytest.raises(IncompatibleVersion, match=f"^{verb} needs CNI version {first} or later"):
            versions.require_verb(verb, version)


DOCUMENTS = st.one_of(
    st.dictionaries(st.sampled_from(["cniVersion", "name", "plugins"]), JSON).map(json.dumps).map(str.encode),
    KNOWN.map(lambda each: json.dumps({"cniVersion": each}, indent=2).encode() + b"\n"),
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    JSON.map(json.dumps).map(str.encode),
)


@given(DOCUMENTS)
def test_where_the_short_way_of_version_answers_the_long_one_says_the_same(stdin: bytes) -> None:
    """Where it does not, it gives the call back; so there is no document on which the two differ."""
    short = version._asked_version(stdin)
    full = contract.handle(Call({"CNI_COMMAND": "VERSION"}, stdin), Node({}))
    if short is not None:
        document = json.loads(full.stdout)
        assert document == {"cniVersion": short, "supportedVersions": list(version.SPOKEN)}
        assert full.exit_code == 0
