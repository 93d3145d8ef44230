"""The containerd of the tests leaves nothing on the machine, however the test ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import plugins
from integration.containerd import Containerd, ContainerdError, cgroups, images
from integration.tests.conftest import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine


@pytest.fixture
def busy(node: Machine) -> Iterator[Containerd]:
    """A containerd with a pod in which a container runs."""
    plugins.write_conflist(node, shipped("10-azvnet.conflist"))
    with Containerd(node) as containerd:
        containerd.run_container(containerd.run_pod("pod"), ["sleep", "1000"])
        yield containerd


def mounts(node: Machine) -> list[str]:
    """What containerd mounted in a node."""
    listed = node.run(["cat", "/proc/self/mounts"]).stdout.splitlines()
    points = [line.split()[1] for line in listed]
    return [point for point in points if "containerd/" in point or "/netns/" in point]


@pytest.mark.parametrize("daemon_killed", [False, True], ids=["running", "killed"])
def test_stop_ends_every_process_mount_and_cgroup(busy: Containerd, daemon_killed: bool) -> None:
    node, shims, pid = busy.node, busy.shims(), busy.pid
    contained = cgroups.processes(busy.cgroup)
    assert shims
    assert len(contained) >= 2, "pause and sleep"
    assert mounts(node)
    if daemon_killed:
        busy.end_daemon(kill=True)

    busy.stop()
    busy.stop()

    assert [p for p in (pid, *shims, *contained) if Path(f"/proc/{p}").exists()] == []
    assert mounts(node) == []
    assert [h for h in cgroups.hierarchies() if (h / busy.cgroup.strip("/")).exists()] == []


def test_failure_inside_the_block_cleans_up_and_is_not_hidden(node: Machine) -> None:
    pids = []

    def fail() -> None:
        with Containerd(node) as containerd:
            pids.append(containerd.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_start_that_fails_says_what_containerd_said(node: Machine) -> None:
    node.run(["mkdir", "-p", "/run/containerd/containerd.sock/in-the-way"])
    with pytest.raises(ContainerdError, match=r"(?s)does not run.*containerd\.sock"):
        Containerd(node).start()


def test_root_group_is_never_emptied() -> None:
    for root in ("", "/", "//"):
        with pytest.raises(ValueError, match="root"):
            cgroups.remove(root)


def test_image_archive_is_the_same_every_time(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!/bin/true\n")
    image = images.Image("azvnet.test/x:1", ["/x"], {"x": program}, {"y": "x"})
    for name in ("one", "two"):
        images.write_archive(tmp_path / name, [image])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
