"""Decisions about the host in small files of the state directory, which calls without the agent read.

It must not know what is decided.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def replace_document(path: Path, document: dict[str, Any]) -> None:
    """Write a file by a rename: whoever reads finds the old document or the new one, whenever we are killed.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")  # no other thread or container has it
    try:
        temporary.write_text(json.dumps(document))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
