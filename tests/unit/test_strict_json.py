"""JSON in and out: nothing that others would refuse or read otherwise."""

from __future__ import annotations

import json
import math
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.cni import contract, strict_json
from cni_plugin.cni.call import Call
from cni_plugin.node import Node
from ipam.quoting import LONGEST_TEXT, LONGEST_VALUE, one_line, quoted

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400 + ".0"]


@given(VALUES)
def test_what_is_json_comes_through_as_it_is(value: Any) -> None:
    expected = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    assert strict_json.loads(json.dumps(value).encode()) == expected
    assert json.loads(strict_json.dumps(value)) == value


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", ["{}", "[{}]", '{{"a":{}}}', '{{"a":[1,{{"b":{}}}]}}'])
def test_numbers_that_json_does_not_have(number: str, place: str) -> None:
    with pytest.raises(ValueError, match="number"):
        strict_json.loads(place.format(number).encode())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_they_are_never_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        strict_json.dumps({"a": [number]})


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', '{"a":{"b":1,"c":2,"b":1}}', '[{"a":null,"a":null}]', '{"a":1,"\\u0061":2}']
)
def test_a_key_that_is_there_twice(text: str) -> None:
    with pytest.raises(ValueError, match="duplicated"):
        strict_json.loads(text.encode())


def test_the_key_that_is_there_twice_is_named() -> None:
    with pytest.raises(ValueError, match="the key 'b' is duplicated"):
        strict_json.loads(b'{"a":1,"b":2,"c":3,"b":4}')


@pytest.mark.parametrize("levels", [65, 66, 500, 990, 1000, 5000, 100_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_nesting_has_an_end(levels: int, begin: str, end: str) -> None:
    inside = "1" if begin == "[" else "{}"
    text = begin * levels + inside + end * levels
    with pytest.raises(ValueError, match="levels deep"):
        strict_json.loads(text.encode())
    strict_json.loads((begin * 63 + inside + end * 63).encode())


def test_brackets_side_by_side_are_not_nested() -> None:
    beside = b"[" + b",".join([b'{"a":[1]}'] * 100) + b"]"
    assert strict_json.loads(beside) == [{"a": [1]}] * 100


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_sixty_four_levels_are_the_most_however_much_there_is_beside(begin: str, end: str) -> None:
    def beside(levels: int) -> bytes:
        return f"[[],[],[],{begin * (levels - 1)}7{end * (levels - 1)}]".encode()

    assert strict_json.loads(beside(64))[:3] == [[], [], []]
    with pytest.raises(ValueError, match="more than 64 levels deep"):
        strict_json.loads(beside(65))


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_a_character() -> None:
    assert strict_json.loads(rb'["a\ud83db"]') == strict_json.loads(rb'["a\uD83Db"]') == ["a?b"]
    assert strict_json.loads(rb'{"\uDE00": "\ud83d\ude00"}') == {"?": "\N{GRINNING FACE}"}


def reply(stdin: str, verb: str = "ADD") -> dict[str, Any]:
    environ = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/nowhere"}
    with closing(Node({"AZVNET_RUN_DIR": "/dev/null/azvnet"})) as node:
        made = contract.handle(Call(environ=environ, stdin=stdin.encode()), node)
    document = json.loads(made.stdout, parse_constant=pytest.fail)
    assert isinstance(document, dict)
    return document


CONF = '{"cniVersion":"1.1.0","name":"n","type":"azvnet","ipam":{"type":"azvnet-ipam"},%s}'


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.parametrize(
    "member",
    [
        *(f'"prevResult":{{"x":{number}}}' for number in NUMBERS),
        *(f'"args":{{"cni":{{"x":[{number}]}}}}' for number in NUMBERS),
        '"name":"m","name":"m"',
        '"dns":{"domain":"a","domain":"b"}',
        '"x":' + "[" * 200 + "]" * 200,
        '"prevResult":' + "[" * 900 + "]" * 900,
    ],
)
def test_a_configuration_that_is_not_valid_json_is_refused(verb: str, member: str) -> None:
    refused = reply(CONF % member, verb)
    assert refused["code"] == 6
    assert "is not valid JSON" in refused["msg"]


HOSTILE = "\x1b]0;owned\x07\r\n\u202e" + "A" * 100_000


@pytest.mark.parametrize(
    "conf",
    [
        {"mode": HOSTILE},
        {"name": HOSTILE},
        {"cniVersion": HOSTILE},
        {"cniVersions": [HOSTILE], "cniVersion": "9.9.9"},
        {"ipam": {"type": HOSTILE}},
        {"ipam": {"type": "azvnet-ipam", "environment": HOSTILE}},
        {"ipam": {"type": "azvnet-ipam", "cooldown": HOSTILE}},
        {"mtu": HOSTILE},
        {"dns": {"nameservers": {HOSTILE: 1}}},
        {"logLevel": HOSTILE},
        {"strict": True, HOSTILE: HOSTILE},
        {"args": [HOSTILE]},
        {"runtimeConfig": {"ips": HOSTILE}},
        {"prevResult": {"ips": [{"address": HOSTILE}]}},
    ],
    ids=lambda conf: next(iter(conf))[:20],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS"])
def test_values_of_a_configuration_are_quoted_bounded_and_escaped(verb: str, conf: dict[str, Any]) -> None:
    base = {"cniVersion": "1.1.0", "name": "n", "type": "azvnet", "ipam": {"type": "azvnet-ipam"}}
    refused = reply(json.dumps({**base, **conf}), verb)
    for words in (refused["msg"], refused["details"]):
        assert words.isprintable(), words
        assert len(words) < contract.LONGEST_MESSAGE + 100


def test_many_unknown_keys_are_counted() -> None:
    from cni_plugin.cni import netconf

    document = {"cniVersion": "1.1.0", "name": "n", "ipam": {"type": "azvnet-ipam"}}
    conf = netconf.parse_netconf({**document, **{f"{HOSTILE[:200]}{number}": 1 for number in range(80_000)}})
    warnings = conf.warnings(as_ipam=False)
    assert len(warnings) == netconf.MOST_NAMED + 1
    assert warnings[-1] == "79990 more unknown keys are ignored"
    assert all(each.isprintable() and len(each) < 400 for each in warnings)


@given(st.text())
def test_one_line_is_one_short_printable_line(text: str) -> None:
    for shown in (one_line(text), one_line(text * 100, 50), quoted(text), quoted([text])):
        assert shown.isprintable()
    assert len(one_line(text * 1000)) <= LONGEST_TEXT + 3
    assert len(quoted(text * 1000)) <= LONGEST_VALUE * 10 + 5
    assert len(quoted([text] * 1000)) <= LONGEST_VALUE + 3


def test_plain_text_stays_as_it_is() -> None:
    assert one_line("no such file: /x (y)") == "no such file: /x (y)"
    assert one_line(" two\n lines\t") == "two lines"
    assert quoted("eth0") == "'eth0'"
    assert quoted("a" * 200) == f"'{'a' * LONGEST_VALUE}'..."
    assert quoted(7) == "7"
