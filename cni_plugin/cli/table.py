"""Output for people: aligned columns, colour on a terminal only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from ipam.quoting import LONGEST_VALUE, one_line

GAP = "  "
NOTHING = "-"
COLOURS = {"good": "32", "odd": "33", "bad": "31", "head": "1", "faint": "2"}
"""SGR parameters of ECMA-48."""


class Paint:
    """Colours text where that helps: on a terminal, unless NO_COLOR is set (no-color.org)."""

    def __init__(self, *, wanted: bool | None = None) -> None:
        on_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._on = wanted if wanted is not None else on_terminal and not os.environ.get("NO_COLOR")

    def __call__(self, text: str, colour: str) -> str:
        """The text, coloured."""
        return f"\033[{COLOURS[colour]}m{text}\033[0m" if self._on and colour else text


def table(header: Sequence[str], rows: Iterable[Sequence[str]], paint: Paint, tell: dict[str, str]) -> str:
    """Rows under a header, as wide as their content. ``tell`` gives whole cells a colour."""
    cells = [[one_line(str(cell), LONGEST_VALUE) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [paint(_padded(header, widths).rstrip(), "head")]
    for row in cells:
        padded = [
            paint(cell, tell.get(cell, "")) + " " * (width - len(cell))
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append(GAP.join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
