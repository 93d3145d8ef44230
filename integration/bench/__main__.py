"""``python -m integration.bench``: measure, show, and leave nothing behind.

It is a command for people, never a test: what a machine does besides decides as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from integration.bench import report, schedule
from integration.bench.contenders import AGENT, ALONE, BARE, BUNDLE, REFERENCE, NotBuilt
from integration.bench.sandbox import SandboxError
from integration.screen import Screen
from integration.tools import ToolsError

NAMES = {"ptp": REFERENCE, "alone": ALONE, "agent": AGENT, "bare": BARE}


def main() -> int:
    """Run the benchmark; 0, also when a goal is missed; 1 when calls failed or it can't be run."""
    options = _options()
    screen, started = Screen(), time.monotonic()
    signal.signal(signal.SIGTERM, _terminated)
    if os.geteuid() != 0:
        screen.verdict("the benchmark creates network namespaces: run it as root", ok=False)
        return 1
    screen.line(f"  {_machine()}")
    try:
        samples = schedule.measure(
            _plan(options), lambda what: screen.line(f"[{time.monotonic() - started:5.1f} s] {what}")
        )
    except (SandboxError, NotBuilt, ToolsError) as error:
        screen.verdict(str(error), ok=False)
        return 1
    except KeyboardInterrupt:
        screen.line()
        screen.verdict("interrupted; everything was removed", ok=False)
        return 130
    report.show(samples, screen)
    if options.json is not None:
        options.json.write_text(json.dumps(report.document(samples), indent=1) + "\n")
    screen.line()
    screen.line(f"  {samples.calls} calls in {time.monotonic() - started:.0f} s")
    return 1 if samples.problems else 0


def _machine() -> str:
    """What the numbers depend on; compare ratios, not milliseconds, between two machines or two days."""
    system, load = os.uname(), os.getloadavg()[0]
    return f"{os.cpu_count()} processors, Linux {system.release}, load {load:.1f} before the start"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m integration.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough answer in two minutes")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds of calls one at a time")
    parser.add_argument(
        "--only", type=_names, metavar="NAMES", help=f"contenders, separated by commas: {', '.join(NAMES)}"
    )
    parser.add_argument("--masquerade", action="store_true", help="with ipMasq, for all contenders alike")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to a file")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="measure another frozen bundle")
    return parser.parse_args()


def _names(text: str) -> frozenset[str]:
    unknown = [name for name in text.split(",") if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(NAMES)}")
    return frozenset(NAMES[name] for name in text.split(","))


def _plan(options: argparse.Namespace) -> schedule.Plan:
    plan = schedule.QUICK if options.quick else schedule.Plan()
    plan = dataclasses.replace(plan, bundle=options.bundle.absolute(), masquerade=options.masquerade)
    if options.runs is not None:
        plan = dataclasses.replace(plan, rounds=max(1, options.runs))
    if options.only is not None:
        plan = dataclasses.replace(plan, names=options.only)
    return plan


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
