"""Bundles of a few files: the real launcher, a stand-in for the frozen Python, packaging's manifest."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "azvnet-lib/MANIFEST"
_specification = importlib.util.spec_from_file_location("bundle_manifest", ROOT / "packaging" / "manifest.py")
assert _specification is not None
assert _specification.loader is not None
_manifest = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_manifest)


class Forge:
    """Makes bundles, each with another number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        compile_c = ["gcc", "-std=gnu11", "-O1", "-static", "-s"]
        for name, source in (
            ("azvnet", ROOT / "packaging" / "launcher" / "launcher.c"),
            ("azvnet-python", Path(__file__).with_name("stand_in.c")),
        ):
            subprocess.run([*compile_c, "-o", folder / name, source], check=True)

    def bundle(self) -> Path:
        """A new one; its programs are shared with the others, as hard links."""
        number = next(self._numbers)
        bundle = self.folder / f"bundle-{number}"
        library = bundle / "azvnet-lib"
        (library / "deep" / "empty").mkdir(parents=True)
        for name in ("azvnet", "azvnet-python"):
            os.link(self.folder / name, bundle / name)
        (bundle / "azvnet-ipam").symlink_to("azvnet")
        answer = json.dumps(
            {"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"], "number": number}
        )
        for name in ("answer", "again"):
            (library / name).write_text(answer)
        (library / "version").write_text(f"azvnet 9.{number}\n")
        (library / "deep" / "file").write_text("x" * 100_000)
        (library / "deep" / "link").symlink_to("../answer")
        seal(bundle)
        return bundle


def seal(bundle: Path) -> Path:
    """Write the manifest of what is there."""
    for path in (bundle, *bundle.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent == bundle else 0o644)
    (bundle / MANIFEST).unlink(missing_ok=True)
    (bundle / MANIFEST).write_text("".join(f"{line}\n" for line in _manifest.entries(bundle)))
    (bundle / MANIFEST).chmod(0o644)
    return bundle


def number_of(bundle: Path) -> int:
    """What VERSION of this bundle says."""
    number: int = json.loads((bundle / "azvnet-lib" / "answer").read_text())["number"]
    return number
