"""What the distribution's package manager says of files of this machine.

Owns asking dpkg. It must not know what the files are for.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

INFO = Path("/var/lib/dpkg/info")
DOC = Path("/usr/share/doc")


class ImageError(Exception):
    """The image can't be made here; says why, and what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package."""

    name: str
    version: str
    architecture: str
    source: str
    """Name of the source package."""
    stanza: str
    """As in dpkg's status file."""

    @property
    def copyright(self) -> bytes | None:
        """Its licences; None where the machine has left them out."""
        try:
            return (DOC / self.name / "copyright").read_bytes()
        except OSError:
            return None


def owners(files: Iterable[Path]) -> dict[Path, Package]:
    """The packages that own files of this machine; checks that the files are unchanged.

    Raises:
        ImageError: a file belongs to no package, or was changed.
    """
    names = _search(files)
    packages = {name: _package(name) for name in sorted(set(names.values()))}
    sums = {name: _sums(name) for name in packages}
    for file, name in names.items():
        wanted = next((sums[name][each] for each in _spellings(file) if each in sums[name]), None)
        if wanted and hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != wanted:
            raise ImageError(f"{file} is not what {name} had: apt-get install --reinstall {name}")
    return {file: packages[names[file.resolve()]] for file in files}


def distribution() -> dict[str, str]:
    """os-release(5) of this machine."""
    lines = Path("/etc/os-release").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip('"') for name, _, value in pairs}


def _search(files: Iterable[Path]) -> dict[Path, str]:
    """Package names by real path."""
    real = sorted({file.resolve() for file in files})
    if not real:
        return {}
    asked = [str(spelling) for file in real for spelling in _spellings(file)]
    found = {}
    for line in (_dpkg("dpkg-query", "--search", *asked) or "").splitlines():
        names, _, path = line.partition(": ")
        found[Path(path)] = names.split(", ")[0]
    owned = {file: found[each] for file in real for each in _spellings(file) if each in found}
    if lost := [str(file) for file in real if file not in owned]:
        raise ImageError(f"{', '.join(lost[:5])}: in no Debian package. Build the image on Debian or Ubuntu")
    return owned


def _spellings(real: Path) -> tuple[Path, ...]:
    """/usr/lib/x is in the database as /lib/x where the package is older than the merge of the two."""
    return (real, Path("/") / real.relative_to("/usr")) if real.is_relative_to("/usr") else (real,)


def _sums(name: str) -> dict[Path, str]:
    """MD5 sums by path; empty where the package brings none."""
    for path in (INFO / f"{name}.md5sums", INFO / f"{name.partition(':')[0]}.md5sums"):
        if path.is_file():
            pairs = (line.split(None, 1) for line in path.read_text().splitlines())
            return {Path("/") / file: value for value, file in pairs}
    return {}


def _package(name: str) -> Package:
    fields = ("Package", "Version", "Architecture", "source:Package")
    asked = "".join(f"${{{field}}}\\n" for field in fields)
    found = _dpkg("dpkg-query", "--show", f"--showformat={asked}", name)
    stanza = _dpkg("dpkg-query", "--status", name)
    if found is None or stanza is None:
        raise ImageError(f"dpkg does not know {name} any more")
    package, version, architecture, source = found.splitlines()[:4]
    return Package(package, version, architecture, source, stanza)


def _dpkg(*command: str) -> str | None:
    """What it prints; None if it knows nothing of what was asked for."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ImageError("there is no dpkg here: build the image on Debian or Ubuntu") from error
    return done.stdout or None  # exit code 1: one of many was not found
