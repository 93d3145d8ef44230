"""A call and its reply, raw.

Owns what both ways a call can come (the executable's own environment and stdin, the agent's socket) have in
common. It must not know what a call means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Call:
    """What a runtime asks, raw."""

    environ: Mapping[str, str]
    stdin: bytes
    netns_fd: int | None = None
    """CNI_NETNS, opened by whom the runtime called; None when it could not be opened or is not set."""
    as_ipam: bool = False
    """Called by the name ``azvnet-ipam``."""
    call_id: str = ""
    """Correlation id, in logs and in the ``details`` of errors."""
    caller_alive: Callable[[], bool] = field(default=_always)
    """Whether anybody still waits for the reply; an ADD that nobody waits for is rolled back."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the runtime gets, raw."""

    stdout: bytes = b""
    exit_code: int = 0
    warnings: tuple[str, ...] = ()
    """Lines for stderr."""
    error: BaseException | None = None
    """What went wrong, for the log."""
    log_level: str = ""
    """``logLevel`` of the netconf; empty where it was not read."""
    log_file: str = ""
    """``logFile`` of the netconf; empty for the default."""
