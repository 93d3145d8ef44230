"""What came of a comparison, as a table on the page of results.

Owns the looks. Pure. Must not know how the specs were run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.cluster import conformance
from integration.cluster.comparison import CONTENDERS, passed
from integration.marked import with_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.cluster.comparison import Run, Selection


def begin(selection: Selection, proxy: str) -> str:
    """The comment in front of a table."""
    return f"<!-- {selection.name}, {proxy}: written by `make conformance-compare`. -->\n"


def with_table(page: str, selection: Selection, proxy: str, runs: Mapping[str, Run]) -> str:
    """The page with these results. Raises ValueError: it has no place for them."""
    return with_part(page, begin(selection, proxy), table(runs))


def table(runs: Mapping[str, Run]) -> str:
    """The counts, and a line for each spec."""
    states = {name: {spec.name: spec for spec in run.specs} for name, run in runs.items()}
    names = sorted({name for of_one in states.values() for name in of_one})
    lines = [f"{_counts(runs)}.", "", f"| spec | {' | '.join(CONTENDERS)} |", "|---|---|---|"]
    for name in names:
        found = [states[each].get(name) for each in CONTENDERS]
        words = [spec.state if spec else "not run" for spec in found]
        lines.append(f"| {conformance.short(name)} | {' | '.join(words)} |")
    return "\n".join([*lines, ""])


def _counts(runs: Mapping[str, Run]) -> str:
    return ", ".join(f"{name}: {passed(run.specs)} of {len(run.specs)} passed" for name, run in runs.items())
