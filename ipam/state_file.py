"""Small files of the node's state, which every process of the node reads.

It must not know what is in them.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_document(path: Path, document: object) -> None:
    """Write JSON by a rename: whoever reads finds the old document or the new one, whenever we are killed.

    The directory is created if need be. Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")  # no other thread or container has it
    try:
        temporary.write_text(json.dumps(document))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def make_lasting(path: Path) -> None:
    """Have a file that was replaced outlive a power failure too; nothing where there is none.

    A rename alone may leave an empty file behind then (fsync(2)). Raises OSError.
    """
    for each in (path, path.parent):
        with contextlib.suppress(FileNotFoundError):
            sync(each)


def sync(path: Path) -> None:
    """Sync a file or directory to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
