"""What people see: aligned, short, and plain where it is not a terminal."""

from __future__ import annotations

import pytest

from cni_plugin.checks import span
from cni_plugin.cli.table import Paint, table

PLAIN = Paint(wanted=False)


def test_columns_are_as_wide_as_their_content_and_no_wider() -> None:
    assert table(("A", "LONG"), [("value", "x"), ("v", "longer")], PLAIN, {}) == (
        "A      LONG\nvalue  x\nv      longer\n"
    )


def test_no_rows_leave_the_header() -> None:
    assert table(("A", "B"), [], PLAIN, {}) == "A  B\n"


def test_colour_changes_no_width() -> None:
    import re

    rows = [("ok", "1"), ("missing", "2")]
    colours = {"ok": "good", "missing": "bad"}
    painted = table(("STATE", "N"), rows, Paint(wanted=True), colours)
    assert "\033[32mok\033[0m" in painted
    assert re.sub(r"\033\[\d+m", "", painted) == table(("STATE", "N"), rows, PLAIN, colours)


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_colour_gets_none(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Paint()("text", "bad") != "text"
    monkeypatch.setenv(variable, value)
    assert Paint()("text", "bad") == "text"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0s"),
        (0.4, "0s"),
        (1, "1s"),
        (59.6, "1m"),
        (61, "1m1s"),
        (3600, "1h"),
        (3660, "1h1m"),
        (3601, "1h"),
        (86400 * 3 + 4 * 3600 + 59, "3d4h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert span(seconds) == words
