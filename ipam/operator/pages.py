"""The operator's pages: whether it is alive and ready, and its metrics.

It must not know how HTTP is spoken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.operator.metrics import OperatorExposition

if TYPE_CHECKING:
    from ipam.operator.main import Operator

_TEXT = "text/plain; charset=utf-8"


class OperatorPages:
    """Safe for threads."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._metrics = OperatorExposition(operator)

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a page."""
        if path == "/metrics":
            content_type, body = self._metrics.encode(accept)
            return 200, content_type, body
        if path == "/healthz":
            return _verdict("ok", "stuck", self._operator.why_not_alive())
        if path == "/readyz":
            return _verdict("ready", "not ready", self._operator.why_not_ready())
        return 404, _TEXT, b"/metrics /healthz /readyz\n"


def _verdict(good: str, bad: str, why_not: str) -> tuple[int, str, bytes]:
    return (503, _TEXT, f"{bad}: {why_not}\n".encode()) if why_not else (200, _TEXT, f"{good}\n".encode())
