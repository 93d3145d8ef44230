"""Which boot of which machine this is, to recognise a store that another one wrote.

It must not know what follows from it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ipam.errors import StoreUnavailable
from ipam.value import Value

if TYPE_CHECKING:
    from pathlib import Path

_ID_LENGTH = 32


class NodeIdentity(Value):
    """The files with the ids."""

    boot_id_file: Path
    machine_id_file: Path

    def boot_id(self) -> str:
        """A new one after each start of the kernel. Raises StoreUnavailable: it can't be read."""
        try:
            boot_id = self.boot_id_file.read_text().strip()
        except OSError as error:
            message = f"can't tell whether the node was restarted: {error}"
            raise StoreUnavailable(message, f"Make {self.boot_id_file} readable.") from error
        if not boot_id:
            message = f"can't tell whether the node was restarted: {self.boot_id_file} is empty"
            raise StoreUnavailable(message, "It has to hold the boot id of the kernel.")
        return boot_id

    def machine_id(self) -> str:
        """Different on each machine, even if machines share a kernel (containers that are nodes) or a copy of
        its memory. Empty if this process does not see it: an image without systemd has none.
        """
        with suppress(OSError, UnicodeDecodeError):
            found = self.machine_id_file.read_text().strip()
            if len(found) == _ID_LENGTH:  # "uninitialized" at the first start, see machine-id(5)
                return found
        return ""


def is_ours(stored: tuple[str, str], boot_id: str, machine_id: str) -> bool:
    """Whether a store with this (boot id, machine id) was written by this start of this machine."""
    return stored[0] == boot_id and (stored[1] == machine_id or not stored[1] or not machine_id)
