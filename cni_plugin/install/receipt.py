"""What an installation created on a node: ``installed.json`` in the prefix, for uninstalling.

It is written before the things that it lists are created: after a kill it may list something that is missing,
but never miss something that exists.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cni_plugin import atomic
from cni_plugin.install.place import Refused

RECORD = "installed.json"


@dataclass(slots=True)
class Record:
    """All paths are the node's own."""

    made: list[str] = field(default_factory=list)
    """Directories that were not there before."""
    bin_dirs: list[str] = field(default_factory=list)
    """Directories in which the two names were put."""
    command_dirs: list[str] = field(default_factory=list)
    """Directories in which the command ``azvnet`` may have been put."""
    conflists: dict[str, str | None] = field(default_factory=dict)
    """Conflists that were written, with what was there before."""

    @classmethod
    def read(cls, prefix: Path) -> Record:
        """The record of a prefix; an empty one when there is none. Raises Refused: it can't be read."""
        path = prefix / RECORD
        try:
            content = json.loads(path.read_bytes())
            made, bin_dirs, conflists = content["made"], content["bin_dirs"], content["conflists"]
            return cls(list(made), list(bin_dirs), list(content.get("command_dirs", ())), dict(conflists))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(
                f"{path} can't be read: {error}",
                "Move it away; then remove the conflist and empty directories by hand.",
            ) from error

    def write(self, prefix: Path) -> None:
        """Put it in place, if it says anything new."""
        content = json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"
        path = prefix / RECORD
        if not path.exists() or path.read_bytes() != content:
            atomic.write_file(path, content)

    def add_made(self, directories: list[Path]) -> None:
        """Remember directories."""
        self.made += [str(each) for each in directories if str(each) not in self.made]
