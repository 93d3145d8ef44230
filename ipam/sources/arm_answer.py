"""An answer from Azure Resource Manager, without anything of the SDK.

It must not know what was requested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ipam.value import Value, field

Ask = Callable[[str, str, dict[str, Any] | None, str], "ArmAnswer"]
"""One request: method, path with query (or a URL of the same endpoint), body, ETag for If-Match.

It raises ``NotAnswered`` and ``managed_identity.NoToken``.
"""


class ArmAnswer(Value):
    """One answer, whatever its status."""

    status: int
    document: dict[str, Any]
    """Empty where there was none."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""


class NotAnswered(Exception):
    """No answer came, or what came is not one. The request may have been carried out."""
