"""The results for people and for programs: a table on the screen, and a file that runs are added to.

It must not know how anything was measured or simulated.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.bench.scale import figures
from integration.bench.scale.scenario import OPERATION

if TYPE_CHECKING:
    from integration.bench.scale.figures import Figures
    from integration.bench.scale.run import Recorded
    from integration.bench.scale.scenario import Scenario
    from integration.screen import Screen

Document = dict[str, Any]
HEADERS = ("run", "how", "last address", "waited", "p50", "p99", "most", "writes", "reads", "throttled")
BEST = "best possible, on paper"
"""An operator that knows all arrivals in advance."""
RIGHT = frozenset(range(2, 10))


def row(found: Figures) -> tuple[str, ...]:
    """One run in a table."""
    return (
        found.name,
        found.how,
        f"{found.last_address:.0f} s",
        f"{found.waited:,}",
        f"{found.wait_50:.0f} s",
        f"{found.wait_99:.0f} s",
        f"{found.wait_most:.0f} s",
        f"{found.writes:,} ({found.writes_peak:.0%})",
        f"{found.reads:,} ({found.reads_peak:.0%})",
        f"{found.throttled:,}",
    )


def show(found: Figures, screen: Screen) -> None:
    """The figures of one run, and whether it is within the goals."""
    screen.heading("Result")
    screen.table(HEADERS, [row(found)], right=RIGHT)
    screen.line()
    if found.operator_mib:
        screen.line(
            f"  the operator: {found.operator_mib:.0f} MiB at most, {found.operator_seconds:.1f} s of "
            f"processor time, {found.operator_share:.0%} of one processor on average"
        )
    screen.heading("Goals")
    for what, value, most in goals(found):
        shown = f"{value:.0f} s, at most {most:.0f} s" if most > 1 else f"{value:.0%}, at most {most:.0%}"
        screen.verdict(f"{what}: {shown}", ok=value <= most)


def goals(found: Figures) -> list[tuple[str, float, float]]:
    """What was wanted: what, value, limit."""
    return [
        ("writes in 5 minutes, as a share of Azure's limit", found.writes_peak, 0.5),
        ("reads in 5 minutes, as a share of Azure's limit", found.reads_peak, 0.5),
        ("99th percentile of waiting times", found.wait_99, OPERATION),
    ]


def finish(recorded: Recorded, results: Path | None, screen: Screen) -> None:
    """Show a run, and add it to a file."""
    found = figures.of_run(recorded)
    show(found, screen)
    if results is not None:
        add(results, found, recorded.scenario, figures.series(recorded))


def add(results: Path, found: Figures, scenario: Scenario, series: Document) -> None:
    """Add a run to a file, in the place of one with the same name that was made in the same way."""
    run = {**found.document(), "about": about(scenario), "series": series}
    runs = load(results)
    kept = [each for each in runs if (each["name"], each["how"]) != (run["name"], run["how"])]
    results.write_text(json.dumps([*kept, run], indent=1) + "\n", encoding="utf-8")


def load(results: Path) -> list[Document]:
    """All runs of a file; none if there is no file."""
    if not results.exists():
        return []
    found: list[Document] = json.loads(results.read_text(encoding="utf-8"))
    return found


def about(scenario: Scenario) -> Document:
    """When and where a run was made, and of what."""
    sizes = scenario.sizes
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} processors, Linux {platform.release()}",
        "load": round(os.getloadavg()[2], 1),
        "nodes": scenario.nodes,
        "pods": scenario.pods,
        "seconds": scenario.seconds,
        "start": scenario.start,
        "share": scenario.share,
        "speed": scenario.speed,
        "heartbeats": scenario.heartbeats,
        "uneven": scenario.uneven,
        "sizes": {name: getattr(sizes, name) for name in type(sizes).__match_args__},
    }
