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

```sh
make bench-scale ARGS="--name 'as shipped' --results docs/scale.json --write"
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
"""


def write(results: Path = RESULTS, folder: Path = DOCS) -> None:
    """Write both files."""
    runs = load(results)
    (folder / "scale.svg").write_text(chart(runs), encoding="utf-8")
    (folder / "scale.md").write_text(page(runs, (folder / "scale-remarks.txt")), encoding="utf-8")


def page(runs: list[Document], remarks: Path) -> str:
    """The page."""
    parts = [_HEAD, *_table(runs), _COLUMNS]
    if remarks.exists():
        parts.append(remarks.read_text(encoding="utf-8"))
    return "".join(parts)


def _table(runs: Iterable[Document]) -> Iterable[str]:
    yield (
        "| who writes | low, high, batch | start | last address | waited | p50 | p99 | most | writes | reads "
        "| 429 |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
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
            f"| {run['how']} | {sizes['low']}, {sizes['high']}, {sizes['batch']} | {about['start']} | "
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
