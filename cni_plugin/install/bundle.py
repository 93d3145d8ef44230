"""A bundle: what its manifest lists, and whether a directory matches it.

The manifest (``packaging/manifest.py``) has one line per entry: ``f MODE SHA256 PATH``, ``d MODE - PATH``,
``l - TARGET PATH``. A copy is made from the manifest, not from the directory: this repairs links that an
earlier copy turned into files, and modes that it lost. Nothing of a manifest is written, read or linked
outside of the bundle. It must not know where a bundle is put.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cni_plugin.install.place import NAMES, Refused
from ipam.quoting import quoted
from ipam.state_file import sync

MANIFEST = "azvnet-lib/MANIFEST"
NEEDED = (*NAMES, "azvnet-python")
DIGITS = 12
"""Digits of the manifest's digest in the name of a version."""
AGAIN = "Unpack the bundle again (tar, or cp -a; never zip)."
_LINE = re.compile(r"f (0[0-7]{3}) ([0-9a-f]{64}) (.+)|d (0[0-7]{3}) - (.+)|l - (\S+) (.+)")
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""ELF's e_machine (elf.h)."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One line of the manifest."""

    kind: str
    """``f`` file, ``d`` directory, ``l`` link."""
    mode: int
    what: str
    """SHA-256 of a file, target of a link."""
    path: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory with a manifest."""

    directory: Path
    manifest: bytes
    entries: tuple[ManifestEntry, ...]

    @classmethod
    def read(cls, directory: Path) -> Bundle:
        """The bundle of a directory; whether it is complete is not checked.

        Raises:
            Refused: it has no manifest, or one that is malformed.
        """
        try:
            manifest = (directory / MANIFEST).read_bytes()
        except OSError as error:
            reason = f"{directory} is not a bundle: {MANIFEST} can't be read: {error.strerror}"
            raise Refused(
                reason, "Name the directory that has azvnet and azvnet-lib with --bundle."
            ) from error
        entries = tuple(_entries(directory, manifest))
        missing = {*NEEDED, "azvnet-lib"} - {entry.path for entry in entries}
        if missing:
            raise Refused(f"{directory / MANIFEST} does not list {', '.join(sorted(missing))}", AGAIN)
        return cls(directory, manifest, entries)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: two bundles with the same one are the same, file by file."""
        return hashlib.sha256(self.manifest).hexdigest()

    def require_architecture(self) -> None:
        """Whether this machine can execute it. Raises Refused: it is for another machine."""
        own = machine(Path("/proc/self/exe"))
        for name in ("azvnet", "azvnet-python"):
            if not (self.directory / name).exists():
                continue  # the copy reports it
            its = machine(self.directory / name)
            if its != own:
                reason = f"the bundle {self.directory} is for {_MACHINES.get(its, 'another architecture')}"
                raise Refused(
                    f"{reason}, this machine is {_MACHINES.get(own, own)}",
                    "Use the bundle for this machine's architecture.",
                )

    def copy(self, target: Path) -> None:
        """Copy it into an empty directory, and bring every file to the disk.

        Raises:
            Refused: a file of the manifest is missing.
            OSError: the copy can't be written.
        """
        for entry in self.entries:
            to = target / entry.path
            if entry.kind == "d":
                to.mkdir()
            elif entry.kind == "l":
                to.symlink_to(entry.what)
            else:
                self._copy_file(entry.path, to)
        self._copy_file(MANIFEST, target / MANIFEST)
        for entry in (*self.entries, ManifestEntry("f", 0o644, "", MANIFEST)):
            if entry.kind != "l":
                (target / entry.path).chmod(entry.mode)
                sync(target / entry.path)
        target.chmod(0o755)
        sync(target)

    def _copy_file(self, name: str, to: Path) -> None:
        try:
            source = (self.directory / name).open("rb")
        except OSError as error:
            reason = f"the bundle {self.directory} is incomplete: {name}: {error.strerror}"
            raise Refused(reason, AGAIN) from error
        with source, to.open("xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)

    def differences(self, directory: Path | None = None, owner: int | None = None) -> Iterator[str]:
        """How a directory (default: this one) differs from the manifest; ``owner``: checked as well."""
        directory = directory or self.directory
        listed = {entry.path for entry in self.entries} | {MANIFEST}
        for entry in (*self.entries, ManifestEntry("f", 0o644, self.digest, MANIFEST)):
            problem = _difference(directory / entry.path, entry, owner)
            if problem:
                yield f"{entry.path}: {problem}"
        for found in _walk(directory):
            if found not in listed:
                yield f"{found}: not of this version"


def _entries(directory: Path, manifest: bytes) -> Iterator[ManifestEntry]:
    """What the manifest lists, directories before what is in them.

    Raises:
        Refused: a line is malformed, or leads out of the bundle.
    """
    listed: dict[PurePosixPath, ManifestEntry] = {PurePosixPath(): ManifestEntry("d", 0o755, "", "")}
    for line in manifest.decode(errors="surrogateescape").removesuffix("\n").split("\n"):
        entry = _entry(line)
        path = PurePosixPath(entry.path if entry else "")
        parent = listed.get(path.parent)
        # Below real directories alone, so that no link of the bundle itself leads a later entry elsewhere.
        if entry is None or path in listed or parent is None or parent.kind != "d":
            raise Refused(f"{directory / MANIFEST} has a malformed line: {quoted(line)}", AGAIN)
        listed[path] = entry
    for path, entry in listed.items():
        if entry.kind == "l" and _leads_to(path.parent, PurePosixPath(entry.what)) not in listed:
            line = f"l - {entry.what} {entry.path}"
            raise Refused(f"{directory / MANIFEST} has a link that leads out of it: {quoted(line)}", AGAIN)
        if entry.path:
            yield entry


def _entry(line: str) -> ManifestEntry | None:
    match = _LINE.fullmatch(line)
    path = match and (match[3] or match[5] or match[7])
    if match is None or path is None or not line.isprintable():
        return None
    # As written: pathlib would drop "." and repeated slashes, and keep two at the start.
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return None
    if match[6]:
        return ManifestEntry("l", 0o777, match[6], path)
    if match[3]:
        return ManifestEntry("f", int(match[1], 8), match[2], path)
    return ManifestEntry("d", int(match[4], 8), "", path)


def _leads_to(parent: PurePosixPath, target: PurePosixPath) -> PurePosixPath | None:
    """Where a link in ``parent`` leads; None: out of the bundle, or through other links, so it is unknown."""
    at, names = list(parent.parts), list(target.parts)
    while names and names[0] == "..":
        if not at:
            return None
        at.pop()
        names.pop(0)
    if not names or ".." in names or target.is_absolute():
        return None
    return PurePosixPath(*at, *names)


def _difference(path: Path, entry: ManifestEntry, owner: int | None) -> str:
    try:
        found = path.lstat()
        if (
            stat.S_IFMT(found.st_mode)
            != {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK}[entry.kind]
        ):
            return f"is not a {({'f': 'file', 'd': 'directory', 'l': 'link'})[entry.kind]}"
        if entry.kind == "l":
            target = str(path.readlink())
            if target != entry.what:
                return f"leads to {target} instead of {entry.what}"
        elif stat.S_IMODE(found.st_mode) != entry.mode:
            return f"has mode {stat.S_IMODE(found.st_mode):04o} instead of {entry.mode:04o}"
        if owner is not None and (found.st_uid, found.st_gid) != (owner, owner):
            return f"belongs to {found.st_uid}:{found.st_gid} instead of {owner}:{owner}"
        if entry.kind == "f" and _digest(path) != entry.what:
            return "has different content"
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(directory: Path) -> Iterator[str]:
    for at, directories, names in os.walk(directory):
        for name in (*directories, *names):
            yield str((Path(at) / name).relative_to(directory))


def machine(program: Path) -> int:
    """``e_machine`` of an ELF file, with its class and byte order; 0: it is not one, or can't be read."""
    try:
        with program.open("rb") as file:
            head = file.read(20)
    except OSError:
        return 0
    return int.from_bytes(head[18:20], "little") if head[:6] == b"\x7fELF\x02\x01" else 0
