"""The libraries that the bundle takes from the node: glibc's, and nothing else.

Owns finding out which, by what the ELF files themselves ask for. It must not know packages.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from azvnet_image.debian import ImageError

MACHINES = {62: "amd64", 183: "arm64"}
"""ELF's e_machine (elf.h) → as container platforms are called."""
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_INTERPRETER = re.compile(r"Requesting program interpreter: (.+)\]")


def architecture(program: Path) -> str:
    """What an ELF file is for.

    Raises:
        ImageError: it is not one, or is for a machine without an image.
    """
    head = program.read_bytes()[:20]
    machine = int.from_bytes(head[18:20], "little")
    if head[:6] != b"\x7fELF\x02\x01" or machine not in MACHINES:
        raise ImageError(f"{program} is not an ELF program for {' or '.join(TRIPLETS)}")
    return MACHINES[machine]


def elf_files(bundle: Path) -> list[Path]:
    """The ELF files of a directory, without links."""
    files = (path for path in sorted(bundle.rglob("*")) if path.is_file() and not path.is_symlink())
    return [path for path in files if _is_elf(path)]


def interpreter(program: Path) -> Path:
    """The dynamic loader that a program asks for."""
    match = _INTERPRETER.search(_readelf("--program-headers", [program]))
    if match is None:
        raise ImageError(f"{program} does not name a dynamic loader")
    return Path(match[1])


def needed(bundle: Path, directories: Iterable[Path]) -> dict[str, Path]:
    """What the bundle's files need and do not bring, and what those need, by the name that is asked for.

    Raises:
        ImageError: this machine does not have it.
    """
    own = {path.name for path in bundle.rglob("*.so*")}
    wanted = _needs(elf_files(bundle)) - own
    found: dict[str, Path] = {}
    while wanted:
        name = wanted.pop()
        found[name] = _find(name, directories)
        wanted |= _needs([found[name]]) - own - found.keys()
    return found


def _find(name: str, directories: Iterable[Path]) -> Path:
    for directory in directories:
        if (directory / name).exists():
            return directory / name
    raise ImageError(f"the bundle needs {name}, and this machine does not have it")


def _needs(files: list[Path]) -> set[str]:
    return set(_NEEDED.findall(_readelf("--dynamic", files))) if files else set()


def _readelf(option: str, files: list[Path]) -> str:
    command = ["readelf", option, "--wide", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
