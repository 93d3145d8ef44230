"""Bundles, nodes, and processes to be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pytest

from tests.install.forge import ROOT, Forge
from tests.install.node import Node


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("forge"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with another plugin on it."""
    return Node(tmp_path / "node").furnish()


@pytest.fixture
def contained_node(tmp_path: Path) -> Iterator[Node]:
    """The same as the init container of the DaemonSet has it: each folder a mount of its own below a root
    that can't be written otherwise. Runtimes call what is in the folders themselves.
    """
    node = Node(tmp_path / "node", seen_through=tmp_path / "host").furnish()
    node.prefix.mkdir()
    mounts = [node.seen_through]
    node.seen_through.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "host", node.seen_through], check=True)
        for folder in (node.prefix, node.bin_dir, node.conf_dir):
            place = node.seen_through / folder.relative_to("/")
            place.mkdir(parents=True)
            subprocess.run(["mount", "--bind", folder, place], check=True)
            mounts.insert(0, place)
        subprocess.run(["mount", "-o", "remount,ro", node.seen_through], check=True)
        yield node
    finally:
        for place in mounts:
            subprocess.run(["umount", place], check=False)


@pytest.fixture(params=["on the node", "in a container"])
def either_node(request: pytest.FixtureRequest) -> Node:
    """Whether the installer is a process of the node or of a container."""
    fixture = "node" if request.param == "on the node" else "contained_node"
    chosen: Node = request.getfixturevalue(fixture)
    return chosen


@dataclass(frozen=True)
class Nursery:
    """See ``nursery.py``."""

    process: subprocess.Popen[str]

    def start(
        self, argv: list[str], *, step: int | None = None, begin: str = "", seconds: float | None = None
    ) -> None:
        stdin = cast("IO[str]", self.process.stdin)
        stdin.write(json.dumps({"argv": argv, "step": step, "begin": begin, "seconds": seconds}) + "\n")
        stdin.flush()

    def finish(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(cast("IO[str]", self.process.stdout).readline())
        return answer

    def run(
        self, argv: list[str], *, step: int | None = None, begin: str = "", seconds: float | None = None
    ) -> dict[str, Any]:
        self.start(argv, step=step, begin=begin, seconds=seconds)
        return self.finish()


@pytest.fixture
def nurseries(tmp_path: Path) -> Iterator[tuple[Nursery, Nursery]]:
    """Two: what they carry out may happen at the same time."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "AZVNET_RUN_DIR": str(tmp_path / "run")}
    processes = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py")],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        yield Nursery(processes[0]), Nursery(processes[1])
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def nursery(nurseries: tuple[Nursery, Nursery]) -> Nursery:
    return nurseries[0]
