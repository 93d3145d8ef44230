"""Docker's programs from Debian's or Ubuntu's packages, unpacked and not installed.

Installing them would start a daemon on this machine, with a bridge and packet filters of its own.
Owns the unpacked folder. Must not know how dockerd is run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from integration.kind.places import CACHE, KindError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FOLDER = CACHE / "programs"


def unpacked() -> bool:
    """Whether nothing has to be downloaded."""
    return (_FOLDER / ".complete").exists()


def docker() -> Path:
    """The folder that the packages were unpacked into, as if it were ``/``. Raises KindError."""
    if not unpacked():
        shutil.rmtree(_FOLDER, ignore_errors=True)
        packages = _FOLDER / "packages"
        packages.mkdir(parents=True)
        (archive,) = _download("docker.io", packages)
        # dockerd is linked with it; a machine without LVM lacks it.
        depends = _output(["dpkg-deb", "--field", str(archive), "Depends"])
        library = re.search(r"libdevmapper[\w.]+", depends)
        archives = [archive, *(_download(library[0], packages) if library else ())]
        for each in archives:
            _output(["dpkg-deb", "--extract", str(each), str(_FOLDER)])
        shutil.rmtree(packages)
        (_FOLDER / ".complete").touch()
    return _FOLDER


def search_path(folder: Path) -> str:
    """The folders with its programs, as part of ``PATH``."""
    return f"{folder}/usr/bin:{folder}/usr/sbin"


def library_path(folder: Path) -> str:
    """The folders with its libraries, as ``LD_LIBRARY_PATH``."""
    return ":".join(str(each) for pattern in ("lib/*-gnu", "usr/lib/*-gnu") for each in folder.glob(pattern))


def _download(package: str, folder: Path) -> list[Path]:
    download = ["apt-get", "download", "--quiet", "-o", "Acquire::Retries=3", package]
    try:
        _output(download, folder)
    except KindError:
        # The package lists are missing, or older than the mirror.
        _output(["apt-get", "update", "--quiet", "-o", "DPkg::Lock::Timeout=300"])
        _output(download, folder)
    return list(folder.glob(f"{package}_*.deb"))


def _output(command: Sequence[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise KindError(
            f"{command[0]} is missing: our own Docker comes from Debian's packages; with a Docker of this "
            "machine: DOCKER=system make kind"
        ) from error
    if done.returncode:
        raise KindError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
