"""Text from outside in errors and logs: on one line, of bounded length, nothing that a terminal acts on."""

from __future__ import annotations

import pytest

from ipam.quoting import LONGEST_TEXT, LONGEST_VALUE, one_line, quoted


def test_a_value_is_written_as_python_would_and_cut_where_it_is_too_long() -> None:
    assert quoted("it's") == '"it\'s"'
    assert quoted("x" * LONGEST_VALUE) == repr("x" * LONGEST_VALUE)
    assert quoted("x" * (LONGEST_VALUE + 1)) == repr("x" * LONGEST_VALUE) + "..."
    assert quoted(["x" * 200]) == "['" + "x" * (LONGEST_VALUE - 2) + "..."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b\n\tc ", "a b c"),
        ("bell\x07", "bell\\x07"),
        ("red\x1b[31m", "red\\x1b[31m"),
        ("right to left \u202e", "right to left \\u202e"),
        ("Grüße", "Grüße"),
    ],
)
def test_a_message_is_one_line_without_control_characters(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_a_message_is_cut_after_its_longest_and_says_so() -> None:
    assert one_line("x" * 10, 10) == "x" * 10
    assert one_line("x" * 11, 10) == "x" * 10 + "..."
    assert one_line("x" * 400) == "x" * LONGEST_TEXT + "..."


def test_what_is_not_looked_at_because_it_comes_too_late_counts_as_cut() -> None:
    assert one_line("x" + " " * 39, 10) == "x"
    assert one_line("x" + " " * 40, 10) == "x..."
    assert one_line(" " * 39 + "yz", 10) == "y..."
