"""``make bench`` measures and shows: a handful of calls, whose times say nothing."""

from __future__ import annotations

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
