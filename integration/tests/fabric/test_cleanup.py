"""Nothing is left behind: after `down`, after a failure on the way up, after kill -9, at any moment."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.fabric import records, standalone
from integration.fabric.fabric import Fabric
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A name in a place of its own, where no other test sweeps what this one leaves."""
    place = tempfile.mkdtemp(prefix="fabric-")
    monkeypatch.setenv("AZVNET_FABRIC_DIR", place)
    chosen = f"t{secrets.token_hex(4)}"
    yield chosen
    with contextlib.suppress(Exception):
        standalone.take_down(chosen)
    shutil.rmtree(place)


def command(name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "integration.fabric", "--name", name, *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def processes_of(name: str) -> list[int]:
    """Every process that has the fabric's folder on its command line, or is inside of one that has."""
    record = records.read(name)
    return [] if record is None else [h.pid for h in (record.owner, *record.holders) if h.alive()]


def gone_within(pids: list[int], seconds: float) -> bool:
    return found_within(seconds, lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def host_state() -> tuple[list[str], str, list[str]]:
    """What a fabric must not touch: this machine's links, mounts and named namespaces."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return names_in("/sys/class/net"), mounts, names_in("/run/netns")


def names_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir()) if Path(folder).exists() else []


def test_down_leaves_nothing_and_up_touches_nothing_of_this_machine(name: str) -> None:
    before = host_state()
    with Fabric(nodes=2, name=name) as fabric:
        assert host_state() == before
        daemon = fabric.nodes["node1"].popen(["sleep", "600"])
        pids = [*processes_of(name), daemon.pid]
        assert len(pids) == 1 + 2 * 3 + 1
    assert daemon.wait(5) == -signal.SIGKILL
    assert gone_within([pid for pid in pids if pid != os.getpid()], 5)
    assert name not in records.names()
    assert host_state() == before


def test_cgroups_that_a_runtime_made_for_a_node_are_removed(name: str) -> None:
    with Fabric(nodes=1, name=name) as fabric:
        node = fabric.nodes["node1"]
        script = "for t in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir -p $t/$0/pod/x; done"
        node.run(["sh", "-c", script, node.cgroup], check=False)
        made = cgroups_of(name)
        assert made
        assert node.cgroup == f"{name}-node1"
    assert cgroups_of(name) == []


def cgroups_of(name: str) -> list[Path]:
    top = Path("/sys/fs/cgroup")
    return [*top.glob(f"{name}-*"), *top.glob(f"*/{name}-*")]


def test_threads_and_descriptors_of_this_process_do_not_grow(name: str) -> None:
    import threading

    def cycle() -> None:
        with Fabric(nodes=1, name=name) as fabric:
            fabric.nodes["node1"].run(["true"])

    cycle()
    before = len(names_in("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        cycle()
    assert (len(names_in("/proc/self/fd")), threading.active_count()) == before


def test_a_failure_on_the_way_up_leaves_nothing(name: str) -> None:
    from integration.fabric.namespaces import ToolError

    broken = Fabric(nodes=2, name=name, mtu=7)
    with pytest.raises(ToolError):
        broken.up()
    assert name not in records.names()


def test_kill_9_of_the_fabric_ends_every_process_of_it(name: str) -> None:
    command(name, "up", "--nodes", "2")
    record = records.read(name)
    assert record is not None
    holders = [holder.pid for holder in record.holders]
    inside = command(name, "exec", "node1", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!")
    assert inside.stdout.strip().isdecimal()
    sleeper = _pid_inside(record.holders, "sleep")
    os.kill(record.owner.pid, signal.SIGKILL)
    assert gone_within([*holders, sleeper], 5)


def test_up_after_kill_9_removes_the_leftovers_and_comes_up(name: str) -> None:
    command(name, "up", "--nodes", "1")
    record = records.read(name)
    assert record is not None
    os.kill(record.owner.pid, signal.SIGKILL)
    assert name not in standalone.running() or gone_within([record.owner.pid], 5)
    command(name, "up", "--nodes", "1")
    assert "node1" in command(name, "status").stdout
    command(name, "down")
    assert name not in records.names()


def test_down_removes_what_a_killed_fabric_left(name: str) -> None:
    command(name, "up", "--nodes", "1")
    record = records.read(name)
    assert record is not None
    os.kill(record.owner.pid, signal.SIGKILL)
    assert gone_within([record.owner.pid], 5)
    assert "dead" in command(name, "list").stdout
    assert "removed" in command(name, "down").stdout
    assert name not in records.names()


def test_a_holder_that_outlived_its_fabric_is_ended_by_pid_and_start_time(name: str) -> None:
    """It can't happen by itself; if it does, the next clean-up ends it, and nobody with a reused pid."""
    stray = subprocess.Popen(["sleep", "600"])
    innocent = subprocess.Popen(["sleep", "600"])
    try:
        folder = records.claim(name)
        dead = records.Process(pid=stray.pid, started=1)
        reused = records.Process(innocent.pid, started=1)
        records.write(records.Record(name, dead, True, (records.Process.of(stray.pid), reused)))
        records.remove(name)
        assert stray.wait(5) == -signal.SIGKILL
        assert innocent.poll() is None
        assert not folder.exists()
    finally:
        for process in (stray, innocent):
            process.kill()
            process.wait()


def test_down_leaves_a_fabric_alone_that_belongs_to_a_program(name: str) -> None:
    with Fabric(nodes=0, name=name):
        refused = command(name, "down", check=False)
        assert refused.returncode == 1
        assert str(os.getpid()) in refused.stderr
        assert "vm1" in command(name, "status").stdout


def _pid_inside(holders: tuple[records.Process, ...], comm: str) -> int:
    """The process with that name whose parent is a holder."""
    parents = {holder.pid for holder in holders}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text(encoding="ascii", errors="replace")
                if f"({comm})" in stat and int(stat.rpartition(")")[2].split()[1]) in parents:
                    return int(entry.name)
    raise AssertionError(f"no process {comm} in the machines")
