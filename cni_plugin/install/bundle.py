"""A bundle: what its manifest lists, and whether a folder has just that.

The manifest (``packaging/manifest.py``) has one line per entry: ``f MODE SHA256 PATH``, ``d MODE - PATH``,
``l - TARGET PATH``. A copy is made from the manifest and not from the folder: links that a careless copy
turned into files, and modes that it lost, are right again. It must not know where a bundle is put.
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

from cni_plugin.install import files
from cni_plugin.install.place import NAMES, Refused

MANIFEST = "azvnet-lib/MANIFEST"
NEEDED = (*NAMES, "azvnet-python")
DIGITS = 12
"""Of the manifest's digest in the name of a version."""
AGAIN = "Unpack the bundle again (tar, or cp -a; never zip)."
_LINE = re.compile(r"f (0[0-7]{3}) ([0-9a-f]{64}) (.+)|d (0[0-7]{3}) - (.+)|l - (\S+) (.+)")
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""ELF's e_machine (elf.h)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the manifest."""

    kind: str
    """``f`` file, ``d`` folder, ``l`` link."""
    mode: int
    what: str
    """SHA-256 of a file, target of a link."""
    path: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder with a manifest."""

    folder: Path
    manifest: bytes
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """The bundle of a folder; that it is whole is not said.

        Raises:
            Refused: it has no manifest, or one that is none of ours.
        """
        try:
            manifest = (folder / MANIFEST).read_bytes()
        except OSError as error:
            reason = f"{folder} is no bundle: {MANIFEST} can't be read: {error.strerror}"
            raise Refused(reason, "Name the folder that has azvnet and azvnet-lib with --bundle.") from error
        entries = tuple(_entries(folder, manifest))
        missing = {*NEEDED, "azvnet-lib"} - {entry.path for entry in entries}
        if missing:
            raise Refused(f"{folder / MANIFEST} does not list {', '.join(sorted(missing))}", AGAIN)
        return cls(folder, manifest, entries)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: two bundles with the same one are the same, file by file."""
        return hashlib.sha256(self.manifest).hexdigest()

    def require_architecture(self) -> None:
        """Whether this machine can execute it.

        Raises:
            Refused: it is for another machine.
        """
        own = machine(Path("/proc/self/exe"))
        for name in ("azvnet", "azvnet-python"):
            if not (self.folder / name).exists():
                continue  # the copy says so
            its = machine(self.folder / name)
            if its != own:
                reason = f"the bundle {self.folder} is for {_MACHINES.get(its, 'another architecture')}"
                raise Refused(
                    f"{reason}, this machine is {_MACHINES.get(own, own)}", "Take the other bundle."
                )

    def copy(self, target: Path) -> None:
        """Copy it into an empty folder, and bring every file to the disk.

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
        for entry in (*self.entries, Entry("f", 0o644, "", MANIFEST)):
            if entry.kind != "l":
                (target / entry.path).chmod(entry.mode)
                files.sync(target / entry.path)
        target.chmod(0o755)
        files.sync(target)

    def _copy_file(self, name: str, to: Path) -> None:
        try:
            source = (self.folder / name).open("rb")
        except OSError as error:
            reason = f"the bundle {self.folder} is incomplete: {name}: {error.strerror}"
            raise Refused(reason, AGAIN) from error
        with source, to.open("xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)

    def differences(self, folder: Path | None = None, owner: int | None = None) -> Iterator[str]:
        """What a folder (this one) has otherwise than the manifest says; ``owner``: of everything, too."""
        folder = folder or self.folder
        listed = {entry.path for entry in self.entries} | {MANIFEST}
        for entry in (*self.entries, Entry("f", 0o644, self.digest, MANIFEST)):
            problem = _difference(folder / entry.path, entry, owner)
            if problem:
                yield f"{entry.path}: {problem}"
        for found in _walk(folder):
            if found not in listed:
                yield f"{found}: not of this version"


def _entries(folder: Path, manifest: bytes) -> Iterator[Entry]:
    for line in manifest.decode(errors="surrogateescape").splitlines():
        match = _LINE.fullmatch(line)
        path = match and (match[3] or match[5] or match[7])
        if match is None or path is None or not _stays_inside(path):
            raise Refused(f"{folder / MANIFEST} has a line that is none: {line!r}", AGAIN)
        if match[6]:
            if not _stays_inside(f"{PurePosixPath(path).parent}/{match[6]}"):
                raise Refused(f"{folder / MANIFEST} has a link that leads out of it: {line!r}", AGAIN)
            yield Entry("l", 0o777, match[6], path)
        elif match[3]:
            yield Entry("f", int(match[1], 8), match[2], path)
        else:
            yield Entry("d", int(match[4], 8), "", path)


def _stays_inside(path: str) -> bool:
    depth = 0
    for part in PurePosixPath(path).parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or part == "/":
            return False
    return depth > 0


def _difference(path: Path, entry: Entry, owner: int | None) -> str:
    try:
        found = path.lstat()
        if (
            stat.S_IFMT(found.st_mode)
            != {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK}[entry.kind]
        ):
            return f"is no {({'f': 'file', 'd': 'folder', 'l': 'link'})[entry.kind]}"
        if entry.kind == "l":
            target = str(path.readlink())
            if target != entry.what:
                return f"leads to {target} instead of {entry.what}"
        elif stat.S_IMODE(found.st_mode) != entry.mode:
            return f"has mode {stat.S_IMODE(found.st_mode):04o} instead of {entry.mode:04o}"
        if owner is not None and (found.st_uid, found.st_gid) != (owner, owner):
            return f"belongs to {found.st_uid}:{found.st_gid} instead of {owner}:{owner}"
        if entry.kind == "f" and _digest(path) != entry.what:
            return "has another content"
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(folder: Path) -> Iterator[str]:
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield str((Path(at) / name).relative_to(folder))


def machine(program: Path) -> int:
    """``e_machine`` of an ELF file, with its class and order of bytes; 0: it is none, or can't be read."""
    try:
        with program.open("rb") as file:
            head = file.read(20)
    except OSError:
        return 0
    return int.from_bytes(head[18:20], "little") if head[:6] == b"\x7fELF\x02\x01" else 0
