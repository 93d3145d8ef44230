"""Where things belong on a node, and where they are seen from here.

An operator names paths as the node has them. With ``--root`` the node's files are mounted elsewhere, as in a
container: every path is then walked as if that directory were ``/``, links included. Owns that translation
and the error that ends a command; nothing here is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREFIX = Path("/opt/azvnet")
BIN_DIR = Path("/opt/cni/bin")
CONF_DIR = Path("/etc/cni/net.d")
COMMAND_DIR = Path("/usr/local/bin")
CONFLIST = "10-azvnet.conflist"
NAMES = ("azvnet", "azvnet-ipam")
"""What a runtime executes."""
MAX_LINKS = 40
"""As the kernel's own limit (path_resolution(7))."""


class Refused(Exception):
    """Refusal to continue; the reason, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.reason = reason
        self.remedy = remedy


def beneath(root: Path, path: Path) -> Path:
    """Where ``path`` of a node whose root is ``root`` really is; what does not exist is taken as written.

    Raises:
        Refused: it is not absolute, or its links form a loop.
    """
    if not path.is_absolute():
        raise Refused(f"{path} is not an absolute path", "Name it as the node has it, from /.")
    left = list(reversed(path.parts[1:]))
    at: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            del at[-1:]
            continue
        try:
            target = (root.joinpath(*at, part)).readlink()
        except OSError:  # no link, or nothing there
            at.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise Refused(f"the symbolic links of {path} form a loop", "Look at it with `namei -l`.")
        if target.is_absolute():
            at = []
        left.extend(reversed([each for each in target.parts if each != "/"]))
    return root.joinpath(*at)


@dataclass(frozen=True, slots=True)
class Place:
    """One node's directories. Paths named ``real_...`` are the ones to work with here."""

    root: Path = Path("/")
    prefix: Path = PREFIX
    bin_dir: Path = BIN_DIR
    conf_dir: Path = CONF_DIR
    command_dir: Path = COMMAND_DIR

    def real(self, path: Path) -> Path:
        """Where a path of the node is, seen from here.

        Raises:
            Refused: as ``beneath``; or there is no such root.
        """
        if not self.root.is_dir():
            raise Refused(
                f"the root {self.root} is not a directory", "--root is where the node's / is mounted."
            )
        return beneath(self.root.resolve(), path)

    def shown(self, path: Path) -> Path:
        """The reverse: a path seen from here, as the node has it."""
        root = self.root.resolve()
        return Path("/") / path.relative_to(root) if path.is_relative_to(root) else path

    @property
    def real_prefix(self) -> Path:
        """Versions, ``current``, the lock and the record are in it."""
        return self.real(self.prefix)

    @property
    def real_bin_dir(self) -> Path:
        """Where the runtime looks for plugins."""
        return self.real(self.bin_dir)

    @property
    def real_conf_dir(self) -> Path:
        """Where the runtime looks for networks."""
        return self.real(self.conf_dir)

    @property
    def real_command_dir(self) -> Path:
        """Where a shell looks for ``azvnet``."""
        return self.real(self.command_dir)

    def target(self, name: str) -> str:
        """What the link of this name in the runtime's directory contains.

        Absolute, as the node has it: a relative one would break where the directory is mounted or linked
        elsewhere, as a runtime's plugin directory often is.
        """
        return str(self.prefix / "current" / name)

    def is_ours(self, link: Path) -> bool:
        """Whether something in the runtime's directory is a link into the prefix, current or not."""
        try:
            target = link.readlink()
        except OSError:
            return False
        return self.real(self.shown(link.parent) / target).is_relative_to(self.real_prefix)
