"""One cluster of three nodes for the tests of a file, and the machine before and after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.e2e import manifests
from integration.kind import keeper, life
from integration.kind.tests import ends, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.kind.cluster import KindCluster

ROOT = Path(__file__).parents[3]
NODES = 3
WEB, CLIENT = "web", "client"
PATIENCE = 900
"""Seconds for the first test: it waits for the node image as well."""


def command(*arguments: str) -> list[str]:
    """The program that ``make kind`` calls."""
    return [sys.executable, "-m", "integration.kind", *arguments]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person does, with more variables in the environment."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="session")
def quiet_machine() -> frozenset[str]:
    """The machine before anything of a kind cluster was there."""
    machine.adopt_orphans()
    if keeper.running():
        pytest.fail("a kind cluster is up, and may be somebody's: make kind-down", pytrace=False)
    down = run("down")  # what a killed one left
    assert down.returncode == 0, down.stderr
    return machine.snapshot()


@pytest.fixture(scope="module")
def printed(quiet_machine: frozenset[str]) -> Iterator[str]:
    """What ``NODES=3 DOCKER=own make kind`` printed; it is up. Afterwards the machine is as it was before."""
    done = run("up", f"--nodes={NODES}", "--docker=own")
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    yield done.stdout
    down = run("down")
    assert down.returncode == 0, down.stderr
    if changed := machine.changes(quiet_machine):
        pytest.fail("the machine is not as before:\n" + "\n".join(changed), pytrace=False)


@pytest.fixture(scope="module")
def cluster(printed: str) -> KindCluster:
    """Three nodes with azvnet, all Ready."""
    assert printed
    return life.cluster()


@pytest.fixture(scope="module")
def pods(cluster: KindCluster) -> None:
    """On every node one with a host port, behind a service, and one that only asks."""
    cluster.apply(ends.daemon_set(WEB, host_port=ends.HOST_PORT))
    cluster.apply(manifests.service(WEB, {"app": WEB}))
    cluster.apply(ends.daemon_set(CLIENT))
    for name in (WEB, CLIENT):
        cluster.wait_available(f"daemonset/{name}")


def environment() -> dict[str, str]:
    """Of a shell in which nothing was set up."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
