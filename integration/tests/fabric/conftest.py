"""The fixtures of the fabric, for its own tests."""

from __future__ import annotations

from integration.fabric.pytest_plugin import fabric, make_fabric, shared_fabric

__all__ = ["fabric", "make_fabric", "shared_fabric"]
