"""The conflist of an installation: whether it may be written, and what was there before.

Owns whose a conflist is; ``conflist`` puts it in place, as for the agent. It must not know what a netconf
means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cni_plugin.conflist import ConflistFile, NotInPlace, missing_plugins, programs_of
from cni_plugin.install.place import CONFLIST, NAMES, Place, Refused
from cni_plugin.install.receipt import Record

DEFAULT = (Path(__file__).parents[2] / "conf" / CONFLIST).read_bytes()
"""The conflist that is shipped; in the bundle it is beside the modules."""


@dataclass(frozen=True, slots=True)
class ConflistPlan:
    """What is to be in the runtime's CNI configuration directory."""

    file: ConflistFile
    content: bytes
    before: bytes | None
    """What is there now."""

    @classmethod
    def plan(cls, place: Place, source: Path | None) -> ConflistPlan:
        """The plan for ``source``; None: for the conflist that is there, or else the default.

        Raises:
            Refused: it can't be used, or its place is another plugin's.
        """
        destination = place.real_conf_dir / CONFLIST
        file = ConflistFile(source or destination, destination)
        before = destination.read_bytes() if destination.exists() else None
        if before is not None and not names_us(before):
            raise Refused(
                f"{destination} is not azvnet's: it does not name the plugin",
                "Move it away, or leave the network alone with --no-conflist.",
            )
        if source is None and before is None:
            return cls(file, DEFAULT, None)
        try:
            return cls(file, file.read(), before)
        except NotInPlace as error:
            raise Refused(str(error), "Correct it, or name another with --conflist.") from error

    def put_in_place(self, place: Place, record: Record, prefix: Path) -> bool:
        """Write it, when it differs; False: it was there already. Raises Refused: it can't be written."""
        if self.file.is_in_place(self.content):
            return False
        before = None if self.before is None else self.before.decode(errors="surrogateescape")
        record.conflists.setdefault(str(place.shown(self.file.destination)), before)
        record.write(prefix)
        write_conflist(self.file, self.content)
        return True

    def missing_plugins(self, bin_dir: Path) -> list[str]:
        """Other plugins that the conflist names and the directory does not have."""
        return [each for each in missing_plugins(self.content, bin_dir) if each not in NAMES]


def write_conflist(file: ConflistFile, content: bytes) -> None:
    """Put a conflist in place. Raises Refused: it can't be written."""
    try:
        file.put_in_place(content)
    except NotInPlace as error:
        raise Refused(str(error), "Name another directory with --conf-dir, or use --no-conflist.") from error


def names_us(content: bytes) -> bool:
    """Whether a runtime that uses this conflist executes azvnet."""
    return any(name in NAMES for name in programs_of(content))
