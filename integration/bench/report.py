"""The figures for people, and for programs.

Owns the tables and the JSON document. It must not know how anything was measured.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from integration.bench import targets
from integration.bench.contenders import AGENT, ALONE, BARE, REFERENCE
from integration.bench.samples import BURSTS, ONE_AT_A_TIME, Samples
from integration.bench.targets import MIB, Verdict
from integration.screen import Screen

HEADERS = ("measure", "contender", "median", "p90", "n", "ratio")
RIGHT = frozenset({2, 3, 4, 5})
ORDER = (REFERENCE, ALONE, AGENT, BARE)
SECTIONS = (
    ("One at a time, ms", ONE_AT_A_TIME),
    ("100 calls, 16 at a time, wall ms", BURSTS),
    (
        "Processor time per call, ms",
        (
            *(f"CPU of {verb}" for verb in ONE_AT_A_TIME),
            targets.CPU_PER_ADD,
            f"{targets.CPU_PER_ADD}, caller",
            f"{targets.CPU_PER_ADD}, agent",
            "CPU per DEL of a burst",
        ),
    ),
    ("ADD as the node grows, ms", (targets.FEW, targets.MANY_PODS, targets.MANY_ADDRESSES)),
)
PROBLEMS_SHOWN = 10


def show(samples: Samples, screen: Screen) -> None:
    """Tables, verdicts, and what went wrong."""
    for title, measures in SECTIONS:
        rows = [row for measure in measures for row in _rows(measure, samples)]
        if rows:
            screen.heading(title)
            screen.table(HEADERS, rows, right=RIGHT)
    screen.line()
    screen.line(f"  ratio: the median by that of {REFERENCE}; of the growth, by that of the small node")
    _show_agent(samples, screen)
    screen.heading("Goals")
    for verdict in targets.verdicts(samples):
        _show_verdict(verdict, screen)
    problems = Counter(samples.problems)
    for problem, times in problems.most_common(PROBLEMS_SHOWN):
        screen.verdict(f"{times} x {problem}", ok=False)


def document(samples: Samples) -> dict[str, Any]:
    """Everything, for a file: summaries, verdicts, and each single time in seconds."""
    summaries = [
        {
            "measure": measure,
            "contender": contender,
            "median_ms": figures.median,
            "p90_ms": figures.p90,
            "n": figures.n,
            "ratio": _ratio(measure, contender, samples),
            "seconds": samples.times[measure, contender],
        }
        for measure, contender in samples.times
        if (figures := samples.figures(measure, contender)) is not None
    ]
    usage = samples.usage
    return {
        "measures": summaries,
        "goals": [
            {
                "stage": each.stage,
                "what": each.what,
                "value": each.value,
                "most": each.most,
                "unit": each.unit,
            }
            for each in targets.verdicts(samples)
        ],
        "agent": None
        if usage is None
        else {"rss": usage.rss, "peak": usage.peak, "idle": samples.idle_share},
        "calls": samples.calls,
        "problems": samples.problems,
    }


def _rows(measure: str, samples: Samples) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for contender in ORDER:
        figures = samples.figures(measure, contender)
        if figures is None:
            continue
        ratio = _ratio(measure, contender, samples)
        rows.append(
            (
                "" if rows else measure,
                contender,
                _number(figures.median),
                _number(figures.p90),
                str(figures.n),
                "" if ratio is None else f"{ratio:.2f}",
            )
        )
    return rows


def _ratio(measure: str, contender: str, samples: Samples) -> float | None:
    if measure in {targets.FEW, targets.MANY_PODS, targets.MANY_ADDRESSES}:
        return samples.ratio(measure, contender, contender, targets.FEW)
    # Its share of the burst; the reference has no agent to be compared with.
    return samples.ratio(measure, contender, REFERENCE)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _show_agent(samples: Samples, screen: Screen) -> None:
    if samples.agent_missing:
        screen.line(f"  {AGENT}: not measured, the agent does not start: {samples.agent_missing}")
    if samples.usage is not None:
        usage, idle = samples.usage, samples.idle_share or 0.0
        screen.line(
            f"  agent: {usage.rss / MIB:.1f} MiB resident, {usage.peak / MIB:.1f} at most, "
            f"idle {idle * 100:.3f} % of a processor"
        )


def _show_verdict(verdict: Verdict, screen: Screen) -> None:
    goal = f"{verdict.most:g} {verdict.unit}" if verdict.most else f"0 {verdict.unit}"
    if verdict.value is None:
        screen.line(f"  - not measured  {verdict.stage:5}  {verdict.what}: at most {goal}")
        return
    word = "reached" if verdict.reached else "missed "
    value = f"{verdict.value:.0f}" if verdict.most == 0 else f"{verdict.value:.3g}"
    screen.verdict(
        f"{word}       {verdict.stage:5}  {verdict.what}: {value}, at most {goal}", ok=bool(verdict.reached)
    )
