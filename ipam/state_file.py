"""Small files next to the store, which every process of the node reads.

It must not know what is in them.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_document(path: Path, document: object) -> None:
    """Write JSON by a rename: whoever reads finds the old document or the new one, whenever we are killed.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")  # no other thread or container has it
    try:
        temporary.write_text(json.dumps(document))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
