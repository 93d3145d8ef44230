"""``python -m integration.bench.pods``: pods of a real kubelet, many at once, with azvnet and with ptp.

A cluster of two nodes that are alike but for their network: node1 has azvnet as its manifest installs
it, node2 has ``ptp`` with ``host-local``. They take turns, so that what else the machine does hits both.
It is a command for people, never a test.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.bench.contenders import AGENT, REFERENCE
from integration.bench.samples import Figures, Samples
from integration.cluster import Cluster, ClusterError, cni, rollout
from integration.cluster.api import Api, ApiError
from integration.cluster.crowd import Crowd
from integration.screen import Screen
from integration.tools import ToolsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

NODES = {"node1": AGENT, "node2": REFERENCE}
MAX_PODS = 110
"""What a kubelet takes; the agent's own pod is one of them."""
SPARE = 8
ONE_READY, ALL_READY, ALL_GONE = "a pod, scheduled to Ready", "all Ready", "all gone"
ALL = f"{ALL_READY}, {ALL_GONE}: from the first request until the last pod"


def main() -> int:
    """Run the benchmark; 1 when pods did not become Ready or it can't be run."""
    options = _options()
    signal.signal(signal.SIGTERM, _terminated)
    screen, started = Screen(), time.monotonic()

    def say(text: str) -> None:
        screen.line(f"[{time.monotonic() - started:5.1f} s] {text}")

    try:
        samples = measure(options.pods, options.rounds, say)
    except (ClusterError, ToolsError, ApiError, rollout.HelmFailed, rollout.ImageMissing) as error:
        screen.verdict(str(error), ok=False)
        return 1
    except KeyboardInterrupt:
        screen.verdict("interrupted; everything was removed", ok=False)
        return 130
    show(samples, options, screen)
    if options.json is not None:
        options.json.write_text(json.dumps(_document(samples), indent=1) + "\n", encoding="utf-8")
    return 0


def measure(pods: int, rounds: int, say: Callable[[str], None]) -> Samples:
    """Bring the cluster up, and let both nodes take turns.

    Raises:
        ClusterError, ToolsError, ApiError, rollout.HelmFailed, rollout.ImageMissing: it can't be done.
    """
    samples = Samples()
    with Cluster(len(NODES), pods + SPARE, dns=False, max_pods=MAX_PODS, progress=say) as cluster:
        say("azvnet on node1, ptp + host-local on node2")
        cni.install(cluster.nodes["node2"].machine, "ptp")
        rollout.install(cluster, only="node1")
        with Api(cluster.kubeconfig) as api:
            for node in NODES:
                with Crowd(api, node, 2) as crowd:  # images unpacked, programs in the page cache
                    crowd.come()
                    crowd.go()
            for turn in range(rounds):
                for node in random.sample(list(NODES), len(NODES)):
                    say(f"round {turn + 1} of {rounds}: {pods} pods on {node}, {NODES[node]}")
                    with Crowd(api, node, pods) as crowd:
                        _take(crowd, samples)
    return samples


def _take(crowd: Crowd, samples: Samples) -> None:
    name = NODES[crowd.node]
    samples.add(ALL_READY, name, crowd.come())
    samples.add(ALL_GONE, name, crowd.go())
    for each in crowd.members.values():
        samples.add(ONE_READY, name, each.seconds("scheduled", "ready"))


def show(samples: Samples, options: argparse.Namespace, screen: Screen) -> None:
    """The table."""
    screen.heading(f"{options.pods} pods at once on one node, seconds")
    rows: list[tuple[str, ...]] = []
    for what in (ONE_READY, ALL_READY, ALL_GONE):
        for name in (REFERENCE, AGENT):
            figures, ratio = samples.figures(what, name), samples.ratio(what, name, REFERENCE)
            if figures is not None and ratio is not None:
                rows.append((what if name == REFERENCE else "", name, *_numbers(figures), f"{ratio:.2f}"))
    headers = ("measure", "contender", "median", "p90", "n", "ratio")
    screen.table(headers, rows, right=frozenset({2, 3, 4, 5}))
    screen.line()
    screen.line(f"  {ALL}; ratio: the median by that of {REFERENCE}")


def _numbers(figures: Figures) -> tuple[str, str, str]:
    return f"{figures.median / 1000:.2f}", f"{figures.p90 / 1000:.2f}", str(figures.n)


def _document(samples: Samples) -> list[dict[str, Any]]:
    return [
        {"measure": what, "contender": name, "seconds": seconds}
        for (what, name), seconds in samples.times.items()
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m integration.bench.pods", description=__doc__)
    parser.add_argument("--pods", type=int, default=100, metavar="N", help="at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to a file")
    options = parser.parse_args()
    if not 0 < options.pods < MAX_PODS or options.rounds < 1:
        parser.error(f"between 1 and {MAX_PODS - 1} pods, at least one round")
    return options


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
