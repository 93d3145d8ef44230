"""docs/scale.md and docs/scale.svg, written from the results of runs. Pure but for the files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.bench.scale.chart import chart
from integration.bench.scale.report import BEST, load

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = Path(__file__).parents[3] / "docs"
RESULTS = DOCS / "scale.json"
Document = dict[str, Any]
SHOWN = ("as AKS", "low 24, high 40")
"""Runs that the picture has; the table has all."""

_HEAD = """\
# The operator and a thousand nodes

`make bench-scale` runs a real etcd, API server and scheduler, kwok for the nodes, and `azvnet operator`
against the emulated Azure Resource Manager with Azure's limits: 1,000 writes and 10,000 reads in 5 minutes
per subscription and region, behind Resource Manager's own token buckets. An operation takes one of the 39
recorded times (median 71 s, 95th percentile 152 s), and its addresses appear in the metadata service 5 s
after it has ended. One process plays the thousand nodes: it runs the agent's own protocol code over pools
in memory, and its kubelets retry after 10 to 15 s, as real ones do. 30,000 pods arrive in ten minutes: 50
per second, or three per node and minute.

The benchmark takes about a quarter of an hour, runs in a network namespace of its own and cleans up after
itself. To run it again and rewrite this page, as root:

```console
$ make bench-scale ARGS="--name 'as shipped' --results docs/scale.json --write"
```

`--nodes`, `--pods` and `--speed` make it smaller; `--sizes '{"low": 8}'`, `--start` and `--share` try other
settings; `--paper` simulates instead of measuring.

![pods with an address, waiting pods, and writes, over time](scale.svg)

## Results
"""

_COLUMNS = """
* *start*: addresses for pods that each NIC had before the first pod arrived.
* *waited*: pods that were refused an address at least once. *p50*, *p99*, *most*: how long those pods
  waited, from the time they were bound to a node.
* *writes*, *reads*: the most in any 5 minutes, as a share of Azure's limit. *429*: requests that Azure
  throttled.
* *on paper*: a simulation in virtual time with the product's planner, budgets and back-off, the same
  arrivals and the same operation times. "1,000 nodes" are nodes in mode `node`, which do not coordinate.
* *uneven*: each pod is given to a random node. Otherwise every node gets its next pod in the same 20 s.
* *best possible*: an operator on paper that knows in advance which pods arrive. It writes each NIC that lacks
  addresses once, for all its pods, in the order in which the nodes run out, within the same budget.

Goals: at most half of both limits, and a 99th percentile of waiting times of at most one operation (152 s).

## What the results mean
* With half of Azure's writes (500 in 5 minutes), each of a thousand nodes gets a turn every ten minutes.
  What a node has free must therefore last for ten minutes and one operation. AKS' thresholds, 8 and 24, are
  too low for that if every node gets three pods per minute: pods wait for the node's turn, and then for the
  operation.
* No order of writes could meet the goal with these settings. Each node has 16 addresses, and from second 320
  it lacks 14. Half of Azure's limit is 500 writes at once and 500 more after the window of 315 s, and those
  take another 80 s to start. Even with full knowledge of all arrivals, about 70 pods wait longer than one
  operation, with a 99th percentile of 194 s. With the operator 393 pods do, and the 99th percentile is 218 s.
  (The percentile is that of waiting pods: it is lower where many more pods wait briefly.)
* A scheduler does not spread pods evenly: of 1,000 nodes a fifth needed a second write, for which the
  first two windows of Azure's limit had none left, and the 99th percentile was 281 s. The simulation with
  pods on random nodes (*uneven*) gives about the same. Even with full knowledge of all arrivals it would be
  165 s.
* The operator starts writing after 20 s, because only the second pod within a minute shows that a node will
  need more than it has. The arrival rate of the whole region would show it earlier. On paper that lowers the
  99th percentile by 10 to 15 s, but then a single burst of pods would give every node of a large cluster 16
  more addresses. Therefore the operator does not do it.
* With `low` 24 and `high` 40 each idle node holds 16 more addresses, and both goals are reached: with 1,000
  nodes and a real scheduler 2 of 30,000 pods had to wait, for 113 s. Use these settings if a whole cluster
  may fill up at once and has more nodes than there are writes in 5 minutes: 500 with half of the limit. For
  up to 500 nodes the defaults are enough, as the rows with 100% show for 1,000.
* Steps are sized for the rate at which pods arrive, and the operator can't know when that ends. Once the
  1,000 NICs had 64 addresses each for 30 pods, the virtual network had its 65,536, and 161 pods waited until
  nodes shrank. Since then no step adds more for pods that are only expected than what the virtual network has
  left, divided by its nodes: at the end of the run with AKS' thresholds it was full to three quarters.
* A write occupies a worker until its operation has ended, up to 198 s. With 256 `workers` instead of 512 the
  operator could not use all its writes, and the 99th percentile would be 254 s.
* Nodes that write their own NICs (mode `node`) use up everything Azure allows, reads included, because each
  of them polls its operation every ten seconds. Everything else in the subscription that needs Azure is
  throttled with them, and a throttled node waits until the window has passed. The operator polls for the
  first time when most operations have ended.
* The operator counts a write from the node's turn, and for 15 s longer than Azure's window, because the PUT
  follows a read of the NIC.
* The machine matters as well. Two processors for the API server, etcd, the scheduler, kwok and a thousand
  nodes bind 30,000 pods in 10 minutes, or in 12 as in the run with `low` 24, and the process that plays the
  nodes is up to half a minute late with what it does for them, which is part of the measured times. On a busy
  machine the API server answers so slowly that the operator loses its Lease, which therefore lasts 60 s here.
  `--nodes` runs fewer nodes and scales Azure's limits down with them, so that each node gets its turn as
  often; the picture shows them as if they were a thousand.
"""


def write(results: Path = RESULTS, folder: Path = DOCS) -> None:
    """Write both files."""
    runs = load(results)
    (folder / "scale.svg").write_text(chart([run for run in runs if run["name"] in SHOWN]), encoding="utf-8")
    (folder / "scale.md").write_text(page(runs), encoding="utf-8")


def page(runs: list[Document]) -> str:
    """The page."""
    return "".join([_HEAD, *_table(runs), _COLUMNS])


def _table(runs: Iterable[Document]) -> Iterable[str]:
    yield (
        "| who writes | low, high, batch | share | start | last address | waited | p50 | p99 | most "
        "| writes | reads | 429 |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    measured = []
    for run in runs:
        about = run["about"]
        sizes = about["sizes"]
        waits = (
            f"{run['wait_50']:.0f} s | {run['wait_99']:.0f} s | {run['wait_most']:.0f} s"
            if run["waited"]
            else "- | - | -"
        )
        marks = "-" if run["how"] == BEST else f"{sizes['low']}, {sizes['high']}, {sizes['batch']}"
        yield (
            f"| {run['how']}{', uneven' if about.get('uneven') else ''} | {marks} | "
            f"{_share(run)} | {about['start']} | "
            f"{run['last_address']:.0f} s | {run['waited']:,} | {waits} | {run['writes_peak']:.0%} | "
            f"{run['reads_peak']:.0%} | {run['throttled']:,} |\n"
        )
        if run["operator_mib"]:
            measured.append(run)
    for run in measured:
        about = run["about"]
        yield (
            f"\n{run['name']}: measured with {about['nodes']:,} nodes and {about['pods']:,} pods on "
            f"{about['date']}, {about['machine']}, load average {about['load']} over 15 minutes"
            f"{'' if about.get('heartbeats', True) else ', nodes without heartbeats'}: the operator used "
            f"{run['operator_seconds']:.0f} s of processor time while the pods arrived "
            f"({run['operator_share']:.0%} of one processor) and {run['operator_mib']:.0f} MiB at most.\n"
        )


def _share(run: Document) -> str:
    """Of Azure's limits; nodes in mode ``node`` have none in common."""
    is_shared = run["how"] == BEST or run["how"].startswith("operator")
    return f"{run['about']['share']:.0%}" if is_shared else "-"
