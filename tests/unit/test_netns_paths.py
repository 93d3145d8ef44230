"""What the path of a namespace can tell about it afterwards: an address is freed when it tells too much."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cni_plugin.kernel import netns

OTHER = "4:1"
"""No namespace has this identity: their inodes start far above."""


def test_a_namespace_that_is_gone_from_a_folder_that_is_seen_is_replaced(tmp_path: Path) -> None:
    assert netns.is_replaced(str(tmp_path / "cni-1"), OTHER)


def test_nothing_is_certain_of_a_folder_that_is_not_seen(tmp_path: Path) -> None:
    assert not netns.is_replaced(str(tmp_path / "netns" / "cni-1"), OTHER)


def test_a_plain_file_says_nothing(tmp_path: Path) -> None:
    """A mount that a container does not see shows the file below it."""
    below = tmp_path / "cni-1"
    below.touch()
    assert not netns.is_replaced(str(below), OTHER)


@pytest.mark.parametrize("pid", [os.getpid(), 1 << 22], ids=["another process", "no process"])
def test_a_process_id_is_not_taken_for_the_same_process(pid: int) -> None:
    """An agent in a container asks its own /proc for a number that the host gave."""
    device = Path("/proc/self/ns/net").stat().st_dev
    assert not netns.is_replaced(f"/proc/{pid}/ns/net", f"{device}:1")
