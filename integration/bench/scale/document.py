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
for a subscription in a region, and the buckets of Resource Manager before that. An operation takes one of
the 39 recorded times (median 71 s, 95th percentile 152 s), and its addresses are in the metadata service 5
s after its end. The thousand nodes are one process with the agent's own code for the protocol, over pools
in memory; kubelets try again after 10 to 15 s, as real ones do. In ten minutes 30,000 pods come, 50 in a
second, which is three for each node in a minute.

It takes about a quarter of an hour, has a network namespace of its own and leaves nothing behind. To run it
again and write this page anew, as root:

```console
$ make bench-scale ARGS="--name 'as shipped' --results docs/scale.json --write"
```

`--nodes`, `--pods` and `--speed` make it smaller; `--sizes '{"low": 8}'`, `--start` and `--share` try other
settings; `--paper` reckons instead of measuring.

![pods with an address, pods that wait, and writes, over time](scale.svg)

## Results
"""

_COLUMNS = """
* *start*: addresses that each NIC had for pods before the first one came.
* *waited*: pods that were refused an address at least once, and how long those waited since they were
  bound to a node.
* *writes*, *reads*: the most in any 5 minutes, of what Azure takes. *429*: requests that Azure refused.
* *on paper*: events in virtual time with the product's planner, budgets and pauses, the same arrivals and
  the same operation times. "1,000 nodes" are nodes in mode `node`, none of which knows of the others.

Goals: at most half of both budgets; the 99th percentile of pods that wait at most one operation (152 s).

## What it says
* A thousand nodes that share half of the writes (500 in 5 minutes) have a turn every ten minutes each. So
  what a node has free must last for its pods for ten minutes and an operation. AKS' marks, 8 and 24, do
  not leave that where every node is given three pods a minute: pods wait for a turn, and for the
  operation after it.
* With `low` 24 and `high` 40 each idle node has 16 addresses more, and next to nobody waits. That is what a
  cluster of this size should set where all of it is filled at once.
* Nodes of their own, in mode `node`, use all that Azure takes, reads included, since each asks every ten
  seconds whether its operation has ended; what else needs Azure is throttled with them, and those that
  are refused wait for the window to pass. The operator asks first when most operations have ended.
* A write is counted for 15 s longer than Azure's window, from its turn: the PUT follows after a read of the
  NIC. The run of 2026-11-27 is from before that, so Azure saw a few more in 5 minutes than half.
* The machine decides as well. etcd, API server, scheduler, kwok, the operator, Azure and a thousand
  agents want two processors for themselves: with others on it the API server answers so late that the
  operator loses its Lease, which is why that lasts 60 s here. `--nodes` takes fewer nodes, and as much
  less of Azure's limits, so that each has the same turns; the picture shows them as if they were a
  thousand.
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
            f"{about['machine']}, load {about['load']} in the last quarter of an hour: the operator took "
            f"{run['operator_seconds']:.0f} s of a processor while the pods came "
            f"({run['operator_share']:.0%} of one), and {run['operator_mib']:.0f} MiB at the most.\n"
        )


def _share(run: Document) -> str:
    """Of Azure's limits; nodes in mode ``node`` have none in common."""
    return f"{run['about']['share']:.0%}" if run["how"].startswith("operator") else "-"
