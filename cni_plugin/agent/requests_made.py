"""Requests that the agent has sent to the API server of its cluster and to Azure Resource Manager: counts.

Owns that they are added up safely, from several threads and over changes of settings. It must not know how a
request is sent, nor how the counts are shown.
"""

from __future__ import annotations

import threading
from collections import Counter

Counted = Counter[tuple[str, str, str]]
"""By method, resource and code."""


class RequestsMade:
    """Since the agent was started. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._api: Counted = Counter()
        self._arm: Counted = Counter()

    def api(self, method: str, resource: str, code: str) -> None:
        """Count a request to the API server."""
        with self._lock:
            self._api[method, resource, code] += 1

    def arm(self, method: str, resource: str, code: str) -> None:
        """Count a request to Azure Resource Manager."""
        with self._lock:
            self._arm[method, resource, code] += 1

    def counted(self) -> tuple[Counted, Counted]:
        """Those to the API server, and those to Azure Resource Manager, at this moment."""
        with self._lock:
            return self._api.copy(), self._arm.copy()
