"""The names of what is counted of changes to the NIC and of requests, for counting and showing it.

Pure. It must not know how a NIC is changed: it is loaded even if none is.
"""

from __future__ import annotations

from bisect import bisect_left

READS = "provision_reads"
THROTTLED = "provision_throttled"
ADDED, REMOVED = "provision_added", "provision_removed"
WRITE_SECONDS = "provision_write_seconds"
NO_ANSWER, NO_TOKEN = "none", "no-token"
"""Codes of requests that no status answers."""
OK, INTERRUPTED = "ok", "interrupted"
"""Outcomes of a write beside the kinds of refusals."""
BUCKETS = (10, 20, 30, 45, 60, 75, 90, 120, 150, 200, 300)
"""Seconds: 39 recorded writes took 71 in the median and 198 at most."""

_WRITES = "provision_writes "
_BUCKET = "provision_write_bucket "


def writes_ended(outcome: str) -> str:
    """The counter of writes that ended as this outcome."""
    return _WRITES + outcome


def outcome_of(counter: str) -> str:
    """The outcome that a counter counts writes of; empty: it counts something else."""
    return counter.removeprefix(_WRITES) if counter.startswith(_WRITES) else ""


def bucket(index: int) -> str:
    """The counter of writes that took at most ``BUCKETS[index]`` seconds, and more than the one before; the
    last one counts those that took longer.
    """
    return f"{_BUCKET}{BUCKETS[index] if index < len(BUCKETS) else 'more'}"


def bucket_of(seconds: float) -> str:
    """The counter of writes that take so long."""
    return bucket(bisect_left(BUCKETS, seconds))
