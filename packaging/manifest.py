"""The bundle's manifest: every file, link and directory with its mode and SHA-256.

    manifest.py write BUNDLE    write BUNDLE/azvnet-lib/MANIFEST
    manifest.py check BUNDLE    exit code 1 and one line per difference when a copy is not the same

A copy that followed links instead of copying them, lost a mode or a file, is found here and not at the
first pod. One line per entry, sorted: ``f MODE SHA256 PATH``, ``d MODE - PATH``, ``l - TARGET PATH``.
"""

from __future__ import annotations

import hashlib
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

MANIFEST = Path("azvnet-lib/MANIFEST")


def entries(bundle: Path) -> Iterator[str]:
    """The lines of the manifest of what is there now."""
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle)
        if name == MANIFEST:
            continue
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield f"l - {path.readlink()} {name}"
        elif stat.S_ISDIR(mode):
            yield f"d {stat.S_IMODE(mode):04o} - {name}"
        else:
            yield f"f {stat.S_IMODE(mode):04o} {hashlib.sha256(path.read_bytes()).hexdigest()} {name}"


def main() -> int:
    """The command line."""
    if len(sys.argv) != 3 or sys.argv[1] not in {"write", "check"}:
        print(__doc__, file=sys.stderr)
        return 2
    bundle = Path(sys.argv[2])
    found = list(entries(bundle))
    manifest = bundle / MANIFEST
    if sys.argv[1] == "write":
        manifest.write_text("".join(f"{line}\n" for line in found))
        return 0
    wanted = manifest.read_text().splitlines()
    differences = [f"missing or changed: {line}" for line in sorted(set(wanted) - set(found))]
    differences += [f"not expected:       {line}" for line in sorted(set(found) - set(wanted))]
    print("\n".join(differences), end="\n" if differences else "", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
