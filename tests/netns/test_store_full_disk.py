"""A full or read-only disk costs no pod its address: refused clearly, and afterwards all is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.netns.store_on_small_disk import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_store_on_a_disk_that_is(scenario: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    program = [sys.executable, "-m", "tests.netns.store_on_small_disk"]
    ran = subprocess.run(
        ["unshare", "--mount", *as_root, *program, scenario, str(disk), str(tmp_path / "beside")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert list(disk.iterdir()) == [], "the mount leaked out of its namespace"
