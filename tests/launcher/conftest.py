"""One build of every kind of launcher for the whole run, and a bundle of its own for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import pytest

from tests.launcher import programs
from tests.launcher.programs import Bundle


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every launcher by its kind, and the recorder."""
    if os.geteuid() != 0:
        pytest.fail(
            "the launcher trusts an agent of root only: run these tests as root (sudo, or unshare -r)"
        )
    directory = tmp_path_factory.mktemp("launchers")
    with ThreadPoolExecutor() as compilers:
        built = dict(
            zip(programs.KINDS, compilers.map(programs.build, programs.KINDS, repeat(directory)), strict=True)
        )
    return built | {"recorder": programs.build_recorder(directory)}


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory for the agent's socket. Its path is short: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="azvnet-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture(params=["shipped", "sanitised", "interrupted"])
def bundle(request: pytest.FixtureRequest, builds: dict[str, Path], tmp_path: Path, run_dir: Path) -> Bundle:
    """An installed bundle; each test runs with the launcher as shipped, sanitised and ever interrupted."""
    return Bundle.make(tmp_path / "bundle", builds[request.param], builds["recorder"], run_dir)


@pytest.fixture(params=["impatient", "impatient-sanitised"])
def impatient(
    request: pytest.FixtureRequest, builds: dict[str, Path], tmp_path: Path, run_dir: Path
) -> Bundle:
    """A bundle whose launcher waits for a reply for less than a second only."""
    return Bundle.make(tmp_path / "bundle", builds[request.param], builds["recorder"], run_dir)


@pytest.fixture
def shipped(builds: dict[str, Path], tmp_path: Path, run_dir: Path) -> Bundle:
    """A bundle with the launcher as it is shipped."""
    return Bundle.make(tmp_path / "bundle", builds["shipped"], builds["recorder"], run_dir)
