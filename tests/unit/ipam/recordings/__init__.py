"""Answers of the real service, each with where it was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def recorded(name: str) -> dict[str, Any]:
    """One of the files here, without its origin."""
    document: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    del document["origin"]
    return document
