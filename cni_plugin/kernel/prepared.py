"""Requests that were compiled when the bundle was built: packaging/prepare.py fills this module in there.

Empty in the source tree, where every request is compiled when it is needed. With it, an ordinary call does
without pyroute2, whose import takes longer than all the kernel work of a pod.
"""

from __future__ import annotations

from typing import Any

COMPILED: dict[str, bytes] = {}
"""Requests with nothing to be filled in, by what they were compiled from (``messages``)."""

TEMPLATES: dict[tuple[object, ...], Any] = {}
"""Bytes, and where which value stands in them, by the shapes of the values (``templates.Template``)."""
