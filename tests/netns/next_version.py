"""The product as a later version of it would be: another protocol, in the launcher and in the Python.

Owns making such a bundle of the one under test. The agent of that version does not speak version 1 of the
protocol any more, which is the worst that a later one could do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.netns.ways import ROOT, Executables, stand_in

PROTOCOL = Path("cni_plugin/agent/protocol.py")
LAUNCHER = ROOT / "packaging" / "launcher"
COMPILE = """
import importlib._bootstrap_external as external, sys
source, target = sys.argv[1:]
code = compile(open(source).read(), source, "exec", optimize=2, dont_inherit=True)
open(target, "wb").write(external._code_to_timestamp_pyc(code))
"""


def next_version(of: Executables, scratch: Path) -> Executables:
    """A bundle of the next version below ``scratch``."""
    bundle = scratch / "bundle"
    if of.environ:
        _copy_sources(scratch / "source")
        bundle.mkdir()
        stand_in(bundle / "azvnet-python", scratch / "source")
    else:
        # Links to the same files, but for those that differ.
        shutil.copytree(of.bundle, bundle, copy_function=_link, symlinks=True)
        _replace_module(bundle / "azvnet-lib", scratch)
        (bundle / "azvnet").unlink()
    _build_launcher(bundle / "azvnet", scratch)
    return Executables("the next version", bundle, of.environ)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _copy_sources(target: Path) -> None:
    for package in ("cni_plugin", "ipam"):
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    (target / PROTOCOL).write_text(_later(ROOT / PROTOCOL, r"^VERSION: Final = 1$", "VERSION: Final = 2"))


def _replace_module(contents: Path, scratch: Path) -> None:
    source = scratch / "protocol.py"
    source.write_text(_later(ROOT / PROTOCOL, r"^VERSION: Final = 1$", "VERSION: Final = 2"))
    compiled = contents / PROTOCOL.with_suffix(".pyc")
    compiled.unlink()
    subprocess.run([sys.executable, "-c", COMPILE, source, compiled], check=True)


def _build_launcher(target: Path, scratch: Path) -> None:
    folder = scratch / "launcher"
    folder.mkdir()
    shutil.copy(LAUNCHER / "build.sh", folder)
    source = folder / "launcher.c"
    source.write_text(_later(LAUNCHER / "launcher.c", r"\bVERSION = 1\b", "VERSION = 2"))
    subprocess.run([folder / "build.sh", target], check=True)


def _later(path: Path, this: str, that: str) -> str:
    text, times = re.subn(this, that, path.read_text(), flags=re.MULTILINE)
    assert times == 1, f"{path} does not say its version as expected"
    return text
