"""What a person sees on a terminal: progress, tables, colours only where they are wanted.

Owns the looks. Must not know what is shown.
"""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """Lines for people on one stream. On anything but a terminal: plain lines, no escape codes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._colours = self._terminal and not os.environ.get("NO_COLOR")
        self.unicode = "utf" in (self._stream.encoding or "").lower()
        self.good, self.bad = ("✓", "✗") if self.unicode else ("ok", "FAIL")
        self.pair = "↔" if self.unicode else "-"
        self._rule = "─" if self.unicode else "-"

    def style(self, text: str, *styles: str) -> str:
        """``text`` in colour, where colours are shown."""
        if not self._colours or not styles:
            return text
        return f"\x1b[{';'.join(_STYLES[s] for s in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """One line, out at once."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def heading(self, text: str) -> None:
        """A line that begins a section."""
        self.line()
        self.line(self.style(text, "bold"))

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show that something is under way, then how it ended and how long it took."""
        started = time.monotonic()
        if self._terminal:
            self._stream.write(f"  … {text}")
            self._stream.flush()
        try:
            yield
        except BaseException:
            self._finish(self.style(self.bad, "red"), text, started)
            raise
        self._finish(self.style(self.good, "green"), text, started)

    def _finish(self, mark: str, text: str, started: float) -> None:
        back = "\r\x1b[K" if self._terminal else ""
        took = self.style(f"{time.monotonic() - started:.1f} s", "dim")
        self.line(f"{back}  {mark} {text}  {took}")

    def verdict(self, text: str, *, ok: bool) -> None:
        """A statement with a mark before it."""
        mark = self.style(self.good, "green") if ok else self.style(self.bad, "red", "bold")
        self.line(f"  {mark} {text}")

    def table(
        self, headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()
    ) -> None:
        """Aligned columns; ``right`` are the columns that are aligned to the right."""
        widths = [max(_width(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
        self.line("  " + self.style(_joined(headers, widths, right), "dim"))
        self.line("  " + self.style("  ".join(self._rule * width for width in widths), "dim"))
        for row in rows:
            self.line("  " + _joined(row, widths, right))


def _width(text: str) -> int:
    return len(_ESCAPE.sub("", text))


def _joined(cells: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    padded = []
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - _width(cell))
        padded.append(space + cell if column in right else cell + space)
    return "  ".join(padded).rstrip()
