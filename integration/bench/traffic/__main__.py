"""``make bench-traffic``: throughput, packets, round trips and connections a second, beside ptp and bridge.

It is a command for people, never a test: what a machine does besides decides as well. Every contender takes a
measure before the next measure is taken, in a new random order each time; ratios are of such turns.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from integration.bench.traffic.lanes import (
    ACROSS,
    AZVNET,
    CONTENDERS,
    CROWD,
    OUT,
    SAME,
    SERVICES,
    TALK_PORT,
    Lane,
    LaneError,
    Road,
    iperf,
    masqueraded,
    road,
)
from integration.calls import CallError
from integration.plugins import BundleError
from integration.screen import Screen
from integration.tools import ToolsError

if TYPE_CHECKING:
    from types import FrameType

THROUGHPUT, PACKETS = "throughput, Gbit/s", "packets of 64 bytes, 1,000/s"
ROUND_TRIPS, CONNECTIONS = "round trips, 1,000/s", "connections, 1,000/s"
MEASURES = {
    "throughput": THROUGHPUT,
    "packets": PACKETS,
    "roundtrips": ROUND_TRIPS,
    "connections": CONNECTIONS,
}
BY_IPERF = {THROUGHPUT, PACKETS}
EMPTY, BUSY, FULL = "nothing else", f"{SERVICES:,} services", f"{SERVICES:,} services, {CROWD} pods"
CONDITIONS = {"empty": EMPTY, "services": BUSY, "pods": FULL}
AMOUNTS = {ROUND_TRIPS: 5000, CONNECTIONS: 1000}
"""Of one turn: as short as can be, so that the turns of all see the same load."""
Key = tuple[str, str, str]
"""Condition, path, measure."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one contender."""

    key: Key
    turn: int
    contender: str
    value: float


def main() -> int:
    """Run the benchmark; 1 when it can't be run."""
    options, screen, started = _options(), Screen(), time.monotonic()

    def say(text: str) -> None:
        screen.line(f"[{time.monotonic() - started:5.1f} s] {text}")

    signal.signal(signal.SIGTERM, _terminated)
    if os.geteuid() != 0:
        screen.verdict("the benchmark creates network namespaces: run it as root", ok=False)
        return 1
    load = os.getloadavg()[0]
    screen.line(
        f"  {os.cpu_count()} processors, Linux {os.uname().release}, load {load:.1f} before the start"
    )
    try:
        samples = measure(options, say)
    except (LaneError, CallError, BundleError, ToolsError) as error:
        screen.verdict(str(error), ok=False)
        return 1
    except KeyboardInterrupt:
        screen.verdict("interrupted; everything was removed", ok=False)
        return 130
    show(samples, screen)
    if options.output is not None:
        options.output.write_text(json.dumps(document(samples), indent=1) + "\n")
    return 0


def measure(options: argparse.Namespace, say: Callable[[str], object]) -> list[Sample]:
    """Condition by condition. Raises LaneError, CallError, BundleError, ToolsError."""
    wanted = [MEASURES[name] for name in options.only]
    if BY_IPERF & set(wanted) and shutil.which("iperf3") is None:
        raise LaneError("iperf3 is not there; run: packaging/bootstrap.sh traffic")
    samples: list[Sample] = []
    with road(CONTENDERS, say) as made:
        for lane in made.lanes:
            if not masqueraded(lane):
                raise LaneError(f"{lane.name} does not masquerade what leaves for the Internet")
        for name in options.conditions:
            condition = CONDITIONS[name]
            say(f"with {condition}")
            if condition == BUSY:
                made.add_services()
            if condition == FULL:
                made.add_pods(CROWD)
            for turn in range(options.rounds):
                say(f"round {turn + 1} of {options.rounds}")
                samples += _round(made, condition, turn, wanted, options)
    return samples


def _round(
    made: Road, condition: str, turn: int, wanted: list[str], options: argparse.Namespace
) -> list[Sample]:
    found = []
    for path in (SAME, ACROSS, OUT):
        for what in wanted:
            for lane in random.sample(made.lanes, len(made.lanes)):
                value = _take(made, lane, path, what, options)
                found.append(Sample((condition, path, what), turn, lane.name, value))
    return found


def _take(made: Road, lane: Lane, path: str, what: str, options: argparse.Namespace) -> float:
    """One value, of which more is better. Raises LaneError."""
    if what == THROUGHPUT:
        return float(iperf(lane, path)["sum_received"]["bits_per_second"]) / 1e9
    if what == PACKETS:
        report = iperf(lane, path, "--udp", "--bitrate", "0", "--length", "64")["sum"]
        return float(report["packets"] - report["lost_packets"]) / float(report["seconds"]) / 1e3
    verb = next(name for name, measure in MEASURES.items() if measure == what)
    amount = max(1, round(AMOUNTS[what] * options.scale))
    argv = [made.talk, verb, str(lane.ends[path].address), str(TALK_PORT), str(amount)]
    return float(lane.run(argv)) / 1e3


def ratios(samples: list[Sample], key: Key, other: str) -> float | None:
    """The median of what azvnet reached by what another did in the same turn."""
    values = {(each.turn, each.contender): each.value for each in samples if each.key == key}
    turns = [turn for turn, name in values if name == AZVNET and values.get((turn, other))]
    return median(values[turn, AZVNET] / values[turn, other] for turn in turns) if turns else None


def show(samples: list[Sample], screen: Screen) -> None:
    """A table for each condition."""
    for condition in dict.fromkeys(each.key[0] for each in samples):
        screen.heading(f"With {condition}: medians, and azvnet's by those of the others")
        rows = []
        for key in dict.fromkeys(each.key for each in samples if each.key[0] == condition):
            medians = [_median(samples, key, name) for name in CONTENDERS]
            compared = [ratios(samples, key, name) for name in CONTENDERS if name != AZVNET]
            numbers = [f"{each:.2f}" for each in (*medians, *compared) if each is not None]
            rows.append((key[1], key[2], *numbers))
        headers = ("path", "measure", *CONTENDERS, *(f"/ {name}" for name in CONTENDERS if name != AZVNET))
        screen.table(headers, rows, right=frozenset(range(2, len(headers))))
    screen.line()
    screen.line("  more is better everywhere; a ratio is the median of those of single rounds")


def document(samples: list[Sample]) -> dict[str, Any]:
    """Everything, for a file."""
    keys = list(dict.fromkeys(each.key for each in samples))
    return {
        "measures": [
            {
                "condition": key[0],
                "path": key[1],
                "measure": key[2],
                "values": {
                    name: [each.value for each in samples if (each.key, each.contender) == (key, name)]
                    for name in CONTENDERS
                },
                "ratios": {name: ratios(samples, key, name) for name in CONTENDERS if name != AZVNET},
            }
            for key in keys
        ]
    }


def _median(samples: list[Sample], key: Key, name: str) -> float:
    return median(each.value for each in samples if (each.key, each.contender) == (key, name))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m integration.bench.traffic", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="X",
        help="times the usual number of round trips and connections",
    )
    parser.add_argument(
        "--only", type=_names(MEASURES), default=list(MEASURES), metavar="NAMES", help=", ".join(MEASURES)
    )
    parser.add_argument(
        "--conditions",
        type=_names(CONDITIONS),
        default=list(CONDITIONS),
        metavar="NAMES",
        help=f"{', '.join(CONDITIONS)} (in this order, each with what was there before)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write every value to a file, as JSON")
    return parser.parse_args()


def _names(known: dict[str, str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
        return [name for name in known if name in names]

    return read


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
