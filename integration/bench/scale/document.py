"""docs/scale.md and docs/scale.svg, written from the results of runs. Pure but for the files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.bench.scale.chart import chart
from integration.bench.scale.report import load

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

Goals: at most half of both limits, and a 99th percentile of waiting times of at most one operation (152 s).

## What the results mean
* With half of Azure's writes (500 in 5 minutes), each of a thousand nodes gets a turn every ten minutes.
  What a node has free must therefore last for ten minutes and one operation. AKS' thresholds, 8 and 24, are
  too low for that if every node gets three pods per minute: pods wait for the node's turn, and then for the
  operation.
* With `low` 24 and `high` 40 each idle node holds 16 more addresses, and almost no pod waits. Use these
  settings for a cluster of this size if all of it may fill up at once.
* Nodes that write their own NICs (mode `node`) use up everything Azure allows, reads included, because each
  of them polls its operation every ten seconds. Everything else in the subscription that needs Azure is
  throttled with them, and a throttled node waits until the window has passed. The operator polls for the
  first time when most operations have ended.
* The operator counts a write from the node's turn, and for 15 s longer than Azure's window, because the PUT
  follows a read of the NIC. The run of 2026-11-27 was made before it did so, so Azure saw slightly more
  than half in 5 minutes.
* The machine matters as well. etcd, API server, scheduler, kwok, the operator, Azure and a thousand agents
  need two processors to themselves: on a busy machine the API server answers so slowly that the operator
  loses its Lease, which therefore lasts 60 s here. `--nodes` runs fewer nodes and scales Azure's limits down
  with them, so that each node gets its turn as often; the picture shows them as if they were a thousand.
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
        yield (
            f"| {run['how']} | {sizes['low']}, {sizes['high']}, {sizes['batch']} | "
            f"{_share(run)} | {about['start']} | "
            f"{run['last_address']:.0f} s | {run['waited']:,} | {waits} | {run['writes_peak']:.0%} | "
            f"{run['reads_peak']:.0%} | {run['throttled']:,} |\n"
        )
        if run["operator_mib"]:
            measured.append(run)
    for run in measured:
        about = run["about"]
        yield (
            f"\nMeasured with {about['nodes']:,} nodes and {about['pods']:,} pods on {about['date']}, "
            f"{about['machine']}, load average {about['load']} over 15 minutes: the operator used "
            f"{run['operator_seconds']:.0f} s of processor time while the pods arrived "
            f"({run['operator_share']:.0%} of one processor) and {run['operator_mib']:.0f} MiB at most.\n"
        )


def _share(run: Document) -> str:
    """Of Azure's limits; nodes in mode ``node`` have none in common."""
    return f"{run['about']['share']:.0%}" if run["how"].startswith("operator") else "-"
