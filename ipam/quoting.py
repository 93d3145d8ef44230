"""Text from outside (a netconf, a document, an answer) made safe for an error or a log record.

Such text gets into a message only in this way: on one line, of bounded length, and with every character
that a terminal could act on escaped. It must not know where the text comes from.
"""

from __future__ import annotations

LONGEST_VALUE = 120
"""Characters of a value that are shown: enough to recognise it by."""
LONGEST_TEXT = 300
"""Characters of a message of another program that are shown."""
_MARK = "..."


def quoted(value: object) -> str:
    """A value as Python would write it, cut after ``LONGEST_VALUE`` characters."""
    if isinstance(value, str):
        cut = value[:LONGEST_VALUE]
        return repr(cut) + (_MARK if len(cut) < len(value) else "")
    return one_line(repr(value), LONGEST_VALUE)


def one_line(text: str, longest: int = LONGEST_TEXT) -> str:
    """A message of another program: white space becomes one space, what is not printable is escaped."""
    line = " ".join(text[: longest * 4].split())
    if not line.isprintable():
        line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
    return line if len(line) <= longest and len(text) <= longest * 4 else line[:longest] + _MARK
