"""What the benchmark reads of the kernel while others work."""

from __future__ import annotations

import os
import threading

import pytest

from integration.bench.place import fine_cpu_seconds

pytestmark = pytest.mark.slow


def test_threads_may_end_while_their_time_is_read() -> None:
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            threads = [threading.Thread(target=int) for _ in range(20)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()

    busy = threading.Thread(target=come_and_go)
    busy.start()
    try:
        assert all(fine_cpu_seconds(os.getpid()) > 0 for _ in range(2000))
    finally:
        done.set()
        busy.join()
