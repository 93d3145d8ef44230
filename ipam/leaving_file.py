"""The addresses that are being removed from the NIC, in a file that outlives the store and a reboot.

A store that is lost in the meantime, also by a reboot, is rebuilt from what is alive, and nothing alive
shows these addresses: the source still lists them, and no pod has them. It must not know what is done with
them.
"""

from __future__ import annotations

import json
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipam.state_file import make_lasting, replace_document
from ipam.store.source_records import LEAVING_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ipam.model import IPAddress

NAME = "leaving.json"


def kept_in(directory: Path) -> frozenset[IPAddress]:
    """What was written last; nothing if there is no file, if it can't have been written here, or if it is so
    old that the store it was written for has forgotten the marks.
    """
    path = directory / NAME
    try:
        if time.time() - path.stat().st_mtime > LEAVING_SECONDS:
            return frozenset()
        return frozenset(map(ip_address, json.loads(path.read_bytes())))
    except (OSError, ValueError, TypeError):
        return frozenset()


def keep_in(directory: Path, ips: Collection[IPAddress]) -> None:
    """Write them by a rename, within a writing transaction of the store, of which there is one at a time.

    Raises OSError.
    """
    if kept_in(directory) == ips and not (ips and _ages(directory / NAME)):
        return
    replace_document(directory / NAME, sorted(map(str, ips)))


def make_lasting_in(directory: Path) -> None:
    """Make what was written outlive a power failure. Not within a transaction: a disk may take seconds.

    Raises OSError.
    """
    make_lasting(directory / NAME)


def _ages(path: Path) -> bool:
    """Whether a file that is still right has to be written again, or will soon count as too old."""
    return time.time() - path.stat().st_mtime > LEAVING_SECONDS / 2
