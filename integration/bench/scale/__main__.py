"""``python -m integration.bench.scale``: the operator with a thousand nodes and 30,000 pods in ten minutes.

A real API server, scheduler and kwok; Azure emulated with its limits and the times it was recorded to take;
nodes simulated with the agent's own code. It also simulates nodes that write their NICs themselves. A test
runs it small and sped up.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.bench import place
from integration.bench.scale import document, figures, report
from integration.bench.scale.report import BEST
from integration.bench.scale.scenario import Scenario, arrivals
from integration.cluster.api import ApiError
from integration.cluster.program import ClusterError
from integration.screen import Screen
from integration.tools import ToolsError, kubernetes, kwok
from ipam.value import replace

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "dist/azvnet-operator/azvnet"


def main() -> int:
    """Run it; 0, also when a goal is missed; 1 when it can't be run."""
    options = _options()
    screen, started = Screen(), time.monotonic()
    if options.paper:
        on_paper(options, screen)
        return 0
    if os.geteuid() != 0:
        screen.verdict("it makes a network namespace of its own: run it as root", ok=False)
        return 1

    def say(text: str) -> None:
        screen.line(f"[{time.monotonic() - started:6.1f} s] {text}")

    try:
        kubernetes()
        if not options.no_kwok:
            kwok()
        place.enter()
        signal.signal(signal.SIGTERM, _terminated)
        with tempfile.TemporaryDirectory(prefix="azvnet-scale-", dir="/run") as folder:
            from integration.bench.scale.run import run

            recorded = run(
                _scenario(options),
                [options.operator, "operator"],
                Path(folder),
                say,
            )
            report.finish(recorded, options.results, screen)
        if options.write:
            document.write()
    except (ClusterError, ToolsError, ApiError, OSError) as error:
        screen.verdict(str(error), ok=False)
        return 1
    except KeyboardInterrupt:
        screen.verdict("interrupted; everything was removed", ok=False)
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m integration.bench.scale", description=__doc__)
    default = Scenario()
    parser.add_argument(
        "--nodes",
        type=int,
        default=default.nodes,
        help="nodes of the cluster; Azure's limits are scaled down with them",
    )
    parser.add_argument("--pods", type=int, default=default.pods, help="pods that arrive")
    parser.add_argument(
        "--seconds", type=float, default=default.seconds, help="time within which all pods arrive"
    )
    parser.add_argument(
        "--speed", type=float, default=default.speed, help="speed-up of Azure and of the pods"
    )
    parser.add_argument(
        "--start", type=int, default=default.start, help="addresses for pods that each NIC has at first"
    )
    parser.add_argument(
        "--share", type=float, default=default.share, help="share of Azure's limits that is used"
    )
    parser.add_argument("--sizes", type=json.loads, default={}, metavar="JSON", help='such as {"low": 16}')
    parser.add_argument("--name", default=default.name, help="name of this run in the results")
    parser.add_argument("--operator", default=str(BUNDLE), help="the program that has `azvnet operator`")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the results to a JSON file")
    parser.add_argument("--no-kwok", action="store_true", help="nodes without heartbeats")
    parser.add_argument(
        "--paper",
        action="store_true",
        help="only simulate, with the operator and with nodes that write their NICs themselves",
    )
    parser.add_argument("--uneven", action="store_true", help="on paper, give each pod to a random node")
    parser.add_argument("--write", action="store_true", help="write docs/scale.md and docs/scale.svg again")
    return parser.parse_args()


def on_paper(options: argparse.Namespace, screen: Screen) -> None:
    """The same without running anything."""
    from integration.bench.scale import central, clairvoyant, independent

    scenario = _scenario(options)
    come = arrivals(scenario)
    for region, how in (
        (central.run(scenario, come), "operator, on paper"),
        (clairvoyant.run(scenario, come), BEST),
        (independent.run(scenario, come), "1,000 nodes, on paper"),
    ):
        found = figures.of_paper(region, how)
        report.show(found, screen)
        if options.results is not None:
            report.add(options.results, found, scenario, figures.series_of_paper(region))
    if options.write:
        document.write()


def _scenario(options: argparse.Namespace) -> Scenario:
    default = Scenario()
    names = ("name", "nodes", "pods", "seconds", "speed", "start", "share", "uneven")
    given = {name: getattr(options, name) for name in names} | {"heartbeats": not options.no_kwok}
    return dataclasses.replace(default, **given, sizes=replace(default.sizes, **options.sizes))


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
