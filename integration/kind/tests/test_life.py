"""A kind cluster from the second ``make kind`` to its end, as it should be and by kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from integration.cluster import wait_until
from integration.fabric import records
from integration.kind import daemon, docker, keeper, life, nodeimage, programs
from integration.kind.places import CACHE, DAEMON
from integration.kind.tests import machine
from integration.kind.tests.conftest import ROOT, command, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_stays_up(quiet_machine: frozenset[str]) -> Iterator[None]:
    """A test that fails must not fail the next ones."""
    assert quiet_machine
    yield
    run("down")


def test_one_node_comes_up_warm_and_azvnet_goes_again(quiet_machine: frozenset[str]) -> None:
    is_cold = not any(CACHE.glob("docker/image/*/imagedb/content/sha256/*"))
    done = run("up", "--nodes=1", "--docker=own", "--source=imds")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("kind's node image" in done.stdout) == is_cold
    cluster = life.cluster()
    (node,) = cluster.node_names()
    again = run("up", "--nodes=1", "--docker=own")
    assert "up already" in again.stdout
    cluster.change("Uninstall")
    left = cluster.on_node(
        node, "sh", "-c", "ls -d /opt/azvnet /opt/cni/bin/azvnet* /run/azvnet /etc/cni/net.d/* || :"
    )
    assert left == ""
    _kill_keeper()
    wait_until("the kernel ended it", lambda: not keeper.running(), patience=30)
    assert life.running() is None
    down = run("down")
    assert down.returncode == 0, down.stderr
    assert machine.changes(quiet_machine) == []


def test_ctrl_c_while_it_comes_up_leaves_nothing(quiet_machine: frozenset[str]) -> None:
    # As a terminal does: kind gets it as well.
    assert "taking it down" in _interrupted("Preparing nodes", signal.SIGINT)
    assert machine.changes(quiet_machine) == []


def test_kill_9_while_it_comes_up_leaves_what_kind_down_ends(
    quiet_machine: frozenset[str], tmp_path: Path
) -> None:
    _interrupted("Cluster", signal.SIGKILL)
    down = run("down", AZVNET_TOOLS_CACHE=str(tmp_path))
    assert down.returncode == 0, down.stderr
    assert list(tmp_path.iterdir()) == [], "it builds Go programs to take a cluster down"
    assert machine.changes(quiet_machine) == []


def _interrupted(words: str, number: int) -> str:
    """Bring a cluster up and send a signal when it prints ``words``; returns what it printed afterwards."""
    with subprocess.Popen(
        command("up", "--nodes=1", "--docker=own"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as coming:
        assert coming.stdout is not None
        assert any(words in line for line in coming.stdout)
        os.killpg(coming.pid, number)
        rest = coming.stdout.read()
    assert coming.returncode != 0
    return rest


def test_docker_of_the_machine_is_used_and_kept(quiet_machine: frozenset[str]) -> None:
    # Stands for a Docker that somebody else has started.
    subprocess.run(
        [sys.executable, "-c", "from integration.kind import keeper; keeper.start()"], cwd=ROOT, check=True
    )
    try:
        kept = keeper.ask()
        ours = docker.own(kept)
        if not nodeimage.exists(ours):
            nodeimage.make(ours, lambda _: None)
        entered = ["nsenter", "-t", str(kept.pid), "-n"]
        path = f"{programs.search_path(programs.docker())}:{os.environ['PATH']}"
        theirs = {**os.environ, "DOCKER_HOST": daemon.host(kept.pid), "PATH": path}
        up = command("up", "--nodes=1", f"--image={nodeimage.tag()}")
        done = subprocess.run(
            [*entered, *up], cwd=ROOT, env=theirs, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert ours.run("docker", "ps", "--format={{.Names}}").stdout.split() == ["azvnet-control-plane"]
        subprocess.run([*entered, *command("down")], cwd=ROOT, env=theirs, check=True)
        assert ours.run("docker", "ps", "--all", "--quiet").stdout == ""
    finally:
        keeper.take_down()
    assert machine.changes(quiet_machine) == []


def _kill_keeper() -> None:
    record = records.read(DAEMON)
    assert record is not None
    os.kill(record.owner.pid, signal.SIGKILL)
