"""``make bench`` and ``make bench-traffic`` measure and show: so little that the numbers say nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_the_benchmark_runs_and_shows_ratios() -> None:
    command = [sys.executable, "-m", "integration.bench", "--quick", "--only", "ptp,agent", "--runs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "azvnet with agent" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(600)
def test_the_benchmark_of_packets_compares_every_path(tmp_path: Path) -> None:
    """Without iperf3, which only the target installs."""
    output = tmp_path / "values.json"
    few = ["--rounds", "1", "--scale", "0.01", "--only", "roundtrips,connections", "--conditions", "empty"]
    command = [sys.executable, "-m", "integration.bench.traffic", *few, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    measures = json.loads(output.read_text())["measures"]
    assert len(measures) == 3 * 2, "paths, measures"
    for each in measures:
        assert set(each["values"]) == {"azvnet", "ptp", "bridge"}
        assert all(value > 0 for values in each["values"].values() for value in values)
        assert set(each["ratios"]) == {"ptp", "bridge"}
    assert "pod to Internet, masqueraded" in done.stdout
