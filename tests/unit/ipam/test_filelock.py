"""A lock is that of the file at its path, also where somebody removes that file."""

from __future__ import annotations

import fcntl
import time
from typing import TYPE_CHECKING

import pytest

from ipam.filelock import file_lock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_was_removed_before_it_was_locked_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.lock"
    flock = fcntl.flock
    attempts = 0

    def flock_too_late(descriptor: int, how: int) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            path.unlink()
        flock(descriptor, how)

    monkeypatch.setattr("ipam.filelock.fcntl.flock", flock_too_late)
    with file_lock(path, time.monotonic() + 10):
        assert path.exists()
        with pytest.raises(TimeoutError, match="locked by another"), file_lock(path, time.monotonic()):
            pass
    assert attempts == 3
