"""What the bundle's binaries ask of a node: glibc no newer than 2.35, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.bundle.places import Bundle

FLOOR = (2, 35)
GLIBC = {
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
}


def _objdump(path: Path) -> str:
    return subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=True).stdout


def _sections(path: Path) -> str:
    return subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True).stdout


def _allowed() -> tuple[int, int]:
    """Libraries of the build machine are part of the bundle, so what it has is the least we can ask.

    Releases are built on Debian 12, whose libraries keep to the floor; a bundle made on a newer system
    is for that system.
    """
    name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    major, minor = (int(part) for part in name.split()[1].split("."))
    return FLOOR if (major, minor) <= (2, 36) else (major, minor)


def test_no_symbol_needs_a_glibc_newer_than_2_35(each_bundle: Bundle) -> None:
    needed = {
        (path.name, (int(major), int(minor)))
        for path in each_bundle.elves()
        for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", _objdump(path))
    }
    assert needed
    assert not {(name, version) for name, version in needed if version > _allowed()}


def test_every_library_is_in_the_bundle_or_glibc_itself(each_bundle: Bundle) -> None:
    elves = {path.name: path for path in each_bundle.elves()}
    missing = {
        (name, library)
        for name, path in elves.items()
        for library in re.findall(r"NEEDED\s+(\S+)", _objdump(path))
        if library not in elves and library not in GLIBC
    }
    assert not missing


def test_no_run_path_leads_out_of_the_bundle(each_bundle: Bundle) -> None:
    for path in each_bundle.elves():
        for entry in re.findall(r"(?:RUNPATH|RPATH)\s+(\S+)", _objdump(path)):
            for folder in entry.split(":"):
                place = Path(os.path.normpath(folder.replace("$ORIGIN", str(path.parent))))
                assert place == each_bundle.path or each_bundle.path in place.parents, (path, folder)


def test_the_frozen_interpreter_finds_its_libraries_without_the_environment(each_bundle: Bundle) -> None:
    assert re.search(r"RPATH\s+\$ORIGIN/azvnet-lib\b", _objdump(each_bundle.python))


def test_nothing_carries_debug_information(each_bundle: Bundle) -> None:
    assert not [path for path in each_bundle.elves() if ".debug_info" in _sections(path)]


def test_expat_is_not_linked(each_bundle: Bundle) -> None:
    assert not [path for path in each_bundle.elves() if "libexpat" in _objdump(path)]


@pytest.mark.parametrize("name", ["azvnet", "azvnet-ipam"])
def test_the_names_that_runtimes_call_lead_to_an_executable_of_the_bundle(bundle: Bundle, name: str) -> None:
    target = (bundle.path / name).resolve()
    assert target.parent == bundle.path.resolve()
    assert os.access(target, os.X_OK)


def test_the_launcher_needs_no_library_at_all(bundle: Bundle) -> None:
    launcher = bundle.azvnet
    assert not launcher.is_symlink()
    assert "NEEDED" not in _objdump(launcher)
    assert "INTERP" not in _objdump(launcher)
