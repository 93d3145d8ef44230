"""The launcher's reading of replies, sanitised, against what mutations make of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launcher import programs

ROUNDS = 40_000
"""Some seconds of mutants; the same ones in each run."""


def build(source: Path, out: Path) -> Path:
    """The harness with its own mutations, under both sanitisers."""
    environment = os.environ | {"SOURCE": "fuzz.c", "LINK": programs.SANITISE, "STRIP": "no"}
    subprocess.run([source / "build.sh", out], env=environment, check=True)
    return out


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness around the launcher as it is."""
    return build(programs.SOURCE, tmp_path_factory.mktemp("fuzz") / "fuzz")


@pytest.mark.parametrize("seed", [1, 2])
def test_no_mutant_of_a_reply_or_an_environment_is_misread(fuzzer: Path, seed: int) -> None:
    subprocess.run([fuzzer, str(ROUNDS), str(seed)], check=True, timeout=100)


def test_the_harness_sees_a_bound_that_is_off_by_one(tmp_path: Path) -> None:
    source = (programs.SOURCE / "launcher.c").read_text()
    wrong = source.replace("need > sizeof(reply)", "need > sizeof(reply) + 1")
    assert wrong != source
    shutil.copytree(programs.SOURCE, tmp_path / "launcher")
    (tmp_path / "launcher" / "launcher.c").write_text(wrong)
    fuzzer = build(tmp_path / "launcher", tmp_path / "fuzz")
    assert subprocess.run([fuzzer, str(ROUNDS)], stderr=subprocess.DEVNULL, check=False).returncode < 0
