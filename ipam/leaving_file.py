"""The addresses that are being removed from the NIC, in a file next to the store.

A store that is lost in the meantime is rebuilt from what is alive, and nothing alive shows these
addresses: the source still lists them, and no pod has them. It must not know what is done with them.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipam.state_file import replace_document

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ipam.model import IPAddress

NAME = "leaving.json"


def kept_in(directory: Path) -> frozenset[IPAddress]:
    """What was written last; nothing where there is no file, or one that was not written here."""
    try:
        return frozenset(map(ip_address, json.loads((directory / NAME).read_bytes())))
    except (OSError, ValueError, TypeError):
        return frozenset()


def keep_in(directory: Path, ips: Collection[IPAddress]) -> None:
    """Write them by a rename, within a transaction of the store that writes: one at a time.

    Raises OSError.
    """
    if kept_in(directory) == ips:
        return
    replace_document(directory / NAME, sorted(map(str, ips)))
