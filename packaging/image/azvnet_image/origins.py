"""Whose each file of the bundle is: ours, a Python distribution's, a Debian package's.

Owns that question, and that no file is left without an answer. It must not know how the answer is written.
"""

from __future__ import annotations

import platform
import sys
import sysconfig
from collections import defaultdict
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath

from azvnet_image import debian
from azvnet_image.debian import ImageError, Package

OWN = ("azvnet", "azvnet-ipam", "azvnet-probe", "azvnet-lib/MANIFEST")
BOOTLOADER = "azvnet-python"
LIBRARY = "azvnet-lib/"
OWN_DIRECTORIES = ("cni_plugin", "conf", "ipam")


@dataclass(frozen=True, slots=True)
class Origins:
    """Files of the bundle, by who made them. Paths are relative to the bundle."""

    own: list[str] = field(default_factory=list)
    distributions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By the name of the Python distribution."""
    packages: dict[Package, list[str]] = field(default_factory=lambda: defaultdict(list))


def origins(bundle: Path) -> Origins:
    """Who made which file of a bundle, which was built on this machine.

    Raises:
        ImageError: it is not known where a file comes from.
    """
    found = Origins()
    by_file = _distribution_files()
    from_system: dict[str, Path] = {}
    for path in sorted(bundle.rglob("*")):
        name = str(path.relative_to(bundle))
        if path.is_dir() and not path.is_symlink():
            continue
        inside = name.removeprefix(LIBRARY)
        if name in OWN or inside.split("/")[0] in OWN_DIRECTORIES:
            found.own.append(name)
        elif name == BOOTLOADER:
            found.distributions["pyinstaller"].append(name)
        elif distribution := by_file.get(_source(inside)):
            found.distributions[distribution].append(name)
        else:
            from_system[name] = _of_system(inside)
    packages = debian.owners(from_system.values())
    for name, file in from_system.items():
        found.packages[packages[file]].append(name)
    return found


def static_libraries() -> dict[Path, Package]:
    """What is linked into the launcher and the probe, by the file that the linker takes."""
    return debian.owners([Path(f"/usr/lib/{platform.machine()}-linux-musl/libc.a")])


def _distribution_files() -> dict[str, str]:
    """Every file of the installed distributions, with the name of its distribution."""
    return {
        str(file): distribution.name.lower().replace("_", "-")
        for distribution in metadata.distributions()
        for file in distribution.files or ()
        if not file.is_absolute() and ".." not in file.parts
    }


def _source(inside: str) -> str:
    """The file of the distribution that a file of the bundle was made of."""
    return inside.removesuffix("c") if inside.endswith(".pyc") else inside


def _of_system(inside: str) -> Path:
    """The file of this machine that a file of the bundle was made of.

    Raises:
        ImageError: there is none.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    candidates = [stdlib / _source(inside), _multiarch() / inside]
    parts = PurePosixPath(inside).parts
    if len(parts) > 1 and parts[0] == stdlib.name:
        candidates.append(stdlib / PurePosixPath(*parts[1:]))
    if inside == sysconfig.get_config_var("INSTSONAME"):
        # packaging/libpython.sh links it anew from the objects that the distribution has for that.
        directory = Path(str(sysconfig.get_config_var("LIBPL")))
        candidates.insert(0, directory / f"libpython{sys.version_info[0]}.{sys.version_info[1]}-pic.a")
    for candidate in candidates:
        if candidate.exists():
            return candidate
    where = "extend packaging/image/azvnet_image/origins.py"
    raise ImageError(f"it is not known where {inside} of the bundle comes from: {where}")


def _multiarch() -> Path:
    """Where the distribution has the libraries of this architecture."""
    return Path("/usr/lib") / str(sysconfig.get_config_var("MULTIARCH"))
