"""The measured matrix as a table, and the part of docs/traffic.md that holds it.

Owns the wording of a cell: names for addresses, and lines that are alike put together. Pure, but for the
file. It must not know how anything was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from integration import marked
from integration.traffic.ends import LOST, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from integration.traffic.family import Family
    from integration.traffic.measure import Cell

PAGE = Path(__file__).parents[2] / "docs" / "traffic.md"
BEGIN = {
    4: "<!-- Written by `make traffic-matrix`. -->\n",
    6: "<!-- IPv6, written by `make traffic-matrix`. -->\n",
}
NONE = "-"
Line = tuple[str, ...]
Row = tuple[str, str, str, Line]
"""Far end, protocol, mode of kube-proxy, and a word for each sender."""


def table(cells: Sequence[Cell]) -> str:
    """The table in Markdown: a line for each far end, and for each protocol where they differ."""
    columns = list(dict.fromkeys(cell.sender.title for cell in cells))
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in cells:
        key = (cell.target.title, cell.over, cell.proxy)
        lines.setdefault(key, {})[cell.sender.title] = word(cell)
    rows: list[Row] = [
        (*key, tuple(found.get(column, NONE) for column in columns)) for key, found in lines.items()
    ]
    merged: list[Row] = []
    for same in _together(rows, lambda row: (row[0], row[1], row[3])):
        title, kind, _, words = same[0]
        merged.append((title, kind, " and ".join(row[2] for row in same), words))
    shown = []
    for same in _together(merged, lambda row: (row[0], row[2], row[3])):
        title, _, mode, words = same[0]
        only = f" (kube-proxy in mode {mode})" if mode and " and " not in mode else ""
        shown.append((title + only, ", ".join(row[1] for row in same), *words))
    header = ("to", "over", *columns)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *shown))


def word(cell: Cell) -> str:
    """What the far end saw of one packet, with names for addresses."""
    nodes = cell.sender.node_addresses
    own = "node" if cell.sender.address == nodes[0] else "pod"
    names = dict.fromkeys(nodes, "node") | {cell.sender.address: own}
    if cell.answer == REFUSED:
        return REFUSED
    if cell.public:
        return "its public address"
    if cell.answer == LOST:
        return f"no answer, sent as {names.get(cell.wire, cell.wire)}"
    return names.get(cell.answer, "other node")


def written(page: str, family: Family) -> str:
    """The table of a family on a page. Raises ValueError: there is none."""
    return marked.written(page, BEGIN[family.version])


def with_table(page: str, family: Family, text: str) -> str:
    """The page with another table. Raises ValueError, as above."""
    return marked.with_part(page, BEGIN[family.version], text)


def _together(rows: Iterable[Row], alike: Callable[[Row], object]) -> list[list[Row]]:
    """Rows that are alike, in the order of the first of each."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        found.setdefault(alike(row), []).append(row)
    return list(found.values())
