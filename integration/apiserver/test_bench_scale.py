"""The benchmark with a thousand nodes, small and sped up, so that it goes on working."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from integration.bench.scale import central, clairvoyant, figures, independent
from integration.bench.scale.chart import strokes
from integration.bench.scale.scenario import Arrival, Scenario, arrivals
from integration.tools import kubernetes
from ipam.value import replace

ROOT = Path(__file__).parents[2]
NODES, PODS = 10, 150
SMALL = Scenario(nodes=50, pods=1_500)


@pytest.mark.timeout(600)
def test_every_pod_of_a_small_and_fast_run_has_an_address_and_azure_was_asked_for_them(
    tmp_path: Path,
) -> None:
    kubernetes()
    results = tmp_path / "results.json"
    numbers = ["--nodes", str(NODES), "--pods", str(PODS), "--speed", "40", "--start", "4", "--share", "1"]
    sizes = json.dumps({"low": 4, "batch": 4, "high": 8})
    done = subprocess.run(
        [
            *(sys.executable, "-m", "integration.bench.scale", *numbers, "--sizes", sizes),
            *("--no-kwok", "--results", str(results)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(results.read_text())
    assert run["pods"] == PODS
    assert run["addresses"] >= PODS
    assert run["writes"] >= NODES
    assert run["series"]["addressed"][-1][1] == PODS


def test_on_paper_the_operator_stays_within_its_share_and_nodes_of_their_own_do_not() -> None:
    come = arrivals(SMALL)
    together = figures.of_paper(central.run(SMALL, come), "operator")
    alone = figures.of_paper(independent.run(SMALL, come), "nodes")
    assert together.pods == alone.pods == SMALL.pods
    assert together.throttled == 0
    assert together.writes_peak < 0.6 < alone.writes_peak


def test_on_paper_more_free_addresses_are_fewer_pods_that_wait() -> None:
    come = arrivals(SMALL)
    few = central.run(SMALL, come)
    sizes = replace(SMALL.sizes, low=24, high=40)
    many = central.run(Scenario(nodes=SMALL.nodes, pods=SMALL.pods, start=32, sizes=sizes), come)
    assert figures.of_paper(many, "").waited < figures.of_paper(few, "").waited


def test_on_paper_who_knows_all_pods_writes_each_nic_once_and_leaves_fewer_waiting() -> None:
    come = arrivals(SMALL)
    operator = figures.of_paper(central.run(SMALL, come), "operator")
    best = figures.of_paper(clairvoyant.run(SMALL, come), "best")
    assert best.writes == SMALL.nodes
    assert best.writes_peak <= 0.5
    assert best.addresses == SMALL.pods
    assert 0 < best.waited < operator.waited
    assert best.wait_most < operator.wait_most


def test_runs_that_are_drawn_together_look_different() -> None:
    hows, names = ("operator", "best possible", "1,000 nodes"), ("as AKS", "low 24, high 40")
    runs = [{"how": how, "name": name} for how in hows for name in names]
    drawn = strokes(runs)
    assert len(set(drawn)) == len(runs)
    assert len({each.colour for each in drawn}) == len(hows)
    with pytest.raises(ValueError, match="fewer kinds of lines"):
        strokes([*runs, runs[0]])


def test_who_knows_all_pods_begins_with_the_node_that_runs_out_first() -> None:
    come = [Arrival(at, node) for at, node in enumerate((1, 2, 2, 3, 2, 1, 2))]
    assert clairvoyant.lacking(1, come) == [(2, 3), (1, 1)]
