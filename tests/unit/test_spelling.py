"""Spellings of the configuration that others write are read as what they mean; all else is left as it is."""

from __future__ import annotations

import pytest

from cni_plugin.cni.netconf.spelling import level, lower_keys, seconds, without_nulls


@pytest.mark.parametrize(
    ("written", "meant"), [("10", 10.0), ("0.5", 0.5), (7, 7), ("soon", "soon"), (None, None)]
)
def test_seconds_may_be_text(written: object, meant: object) -> None:
    assert seconds(written) == meant


def test_keys_have_no_case_where_go_has_none() -> None:
    assert lower_keys({"Servers": ["A"], 7: 1}) == {"servers": ["A"], "7": 1}
    assert lower_keys(["Servers"]) == ["Servers"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("WARN", "warning"), ("Debug", "debug"), ("", "info"), ("none", "off"), ("loud", "loud"), (3, 3)],
)
def test_levels_have_other_names_elsewhere(written: object, meant: object) -> None:
    assert level(written) == meant


def test_null_is_as_good_as_missing_on_the_levels_where_our_keys_are() -> None:
    written = {"a": None, "b": {"c": None, "d": {"e": None}}, "f": [None]}
    assert without_nulls(written) == {"b": {"d": {"e": None}}, "f": [None]}
    assert without_nulls(written, 1) == {"b": {"c": None, "d": {"e": None}}, "f": [None]}
    assert without_nulls(None) is None
