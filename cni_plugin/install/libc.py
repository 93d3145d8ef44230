"""Whether the node's C library is new enough for a bundle, where running it can't tell.

From a container (``--root``) a bundle is tried with the container's libraries, while the node's runtime will
execute it with the node's. As long as an agent handles the calls this goes unnoticed; without it every call
fails. So the node's library is read. It must not execute anything of the node.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from cni_plugin.install.bundle import Bundle, machine
from cni_plugin.install.place import Place, Refused

NAME = "libc.so.6"
DIRECTORIES = ("/lib64", "/usr/lib64", "/lib/*-linux-gnu", "/usr/lib/*-linux-gnu", "/lib", "/usr/lib")
"""Where distributions have it; the last two may have one of another architecture."""
Number = tuple[int, int]
_NEEDED = re.compile(rb"\0GLIBC_(\d+)\.(\d+)")
_BANNER = re.compile(rb"GNU C Library [^\0\n]*? version (\d+)\.(\d+)")


def require(place: Place, bundle: Bundle) -> str:
    """Check it; returns a note if it can't be found from here. Raises Refused: it is too old."""
    if place.root == Path("/"):
        return ""  # the trial shows it
    needed = max(_numbers_needed(bundle), default=(0, 0))
    own = machine(Path("/proc/self/exe"))
    found = next((path for path in _candidates(place) if machine(path) == own), None)
    has = next(_find(_BANNER, found), None) if found else None
    if has is None or found is None:
        return f"cannot find {NAME} under {place.root}; glibc version not checked"
    if has < needed:
        raise Refused(
            f"the node's C library is glibc {_text(has)} ({place.shown(found)}), "
            f"the bundle needs {_text(needed)}",
            "Use a newer system on the node, or build the bundle on an older one.",
        )
    return ""


def _numbers_needed(bundle: Bundle) -> Iterator[Number]:
    for entry in bundle.entries:
        if entry.kind == "f" and (entry.path == "azvnet-python" or ".so" in entry.path):
            yield from _find(_NEEDED, bundle.directory / entry.path)


def _candidates(place: Place) -> Iterator[Path]:
    for pattern in DIRECTORIES:
        directory, _, wildcard = pattern.partition("*")
        parent = place.real(Path(directory))
        for path in sorted(parent.glob(f"*{wildcard}")) if wildcard else [parent]:
            real = place.real(place.shown(path) / NAME)
            if real.is_file():
                yield real


def _find(pattern: re.Pattern[bytes], path: Path) -> Iterator[Number]:
    """Numbers in a file that may be large; none in one that can't be read."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield from [(int(match[1]), int(match[2])) for match in pattern.finditer(content)]
    except (OSError, ValueError):
        return


def _text(number: Number) -> str:
    return f"{number[0]}.{number[1]}"
