"""Output for people: aligned columns, colour on a terminal only. It must not know what is shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence

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


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    paint: Paint,
    colours: dict[str, str],
    numbers: Collection[str] = (),
) -> str:
    """Rows under a header, as wide as their content. ``colours`` gives whole cells a colour; the columns
    whose headers are in ``numbers`` are aligned on the right.
    """
    cells = [[one_line(str(cell), LONGEST_VALUE) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    sides = [str.rjust if name in numbers else str.ljust for name in header]
    lines = [paint(_padded(header, widths, sides).rstrip(), "head")]
    for row in cells:
        padded = _padded(row, widths, sides, lambda cell: paint(cell, colours.get(cell, "")))
        lines.append(padded.rstrip())
    return "\n".join(lines) + "\n"


def _padded(
    row: Sequence[str],
    widths: Sequence[int],
    sides: Sequence[Callable[[str, int], str]],
    painted: Callable[[str], str] = str,
) -> str:
    """The cells side by side; colour has no width."""
    cells = zip(row, widths, sides, strict=True)
    return GAP.join(side(cell, width).replace(cell, painted(cell), 1) for cell, width, side in cells)
