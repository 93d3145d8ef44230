"""Notifying systemd of the service's state: sd_notify(3).

Without systemd (no NOTIFY_SOCKET) nothing happens.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(state: str) -> None:
    """Send a state, such as ``READY=1``. It is not an error if the manager does not listen."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.send(state.encode())
    except OSError:
        return


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds between two watchdog notifications, half of systemd's timeout; None without a watchdog."""
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
        meant = int(environ.get("WATCHDOG_PID", "") or os.getpid()) == os.getpid()
    except ValueError:
        return None
    return microseconds / 2_000_000 if meant and microseconds > 0 else None
