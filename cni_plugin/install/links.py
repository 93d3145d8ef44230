"""The names that a runtime executes, in its plugin directory: links to the current version.

Links, because the program finds its files through ``/proc/self/exe``: a call that began before a switch stays
with the version that it began with. Owns whose a name is. It must not know versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cni_plugin import atomic
from cni_plugin.install.place import NAMES, Place, Refused


def require_possible(place: Place) -> None:
    """Whether the names can be put there; leaves everything as it was.

    Raises:
        Refused: one of them is somebody else's.
        OSError: the directory can't be written.
    """
    directory = place.real_bin_dir
    for name in NAMES:
        path = directory / name
        if (path.exists() or path.is_symlink()) and not place.is_ours(path):
            raise Refused(
                f"{path} is there already, and does not lead into {place.prefix}",
                "Remove it (by azvnet uninstall, if that created it), or choose another --bin-dir.",
            )
    if list(_wrong(place)):
        atomic.require_writable(directory)


def put_links(place: Place) -> bool:
    """Make both lead to the current version; False: they did already."""
    wrong = list(_wrong(place))
    for name in wrong:
        atomic.put_link(place.real_bin_dir / name, place.target(name))
    return bool(wrong)


def take_away(place: Place, directory: Path) -> list[Path]:
    """Remove them from a directory, where they are ours; returns what was removed."""
    clear_left_overs(place, directory)
    taken = [directory / name for name in NAMES if place.is_ours(directory / name)]
    for path in taken:
        path.unlink()
    return taken


def clear_left_overs(place: Place, directory: Path) -> None:
    """Remove what an installer into this prefix left when it was killed."""
    for path in directory.iterdir() if directory.is_dir() else ():
        ours = any(atomic.is_left_over(path, of=name) for name in NAMES) and place.is_ours(path)
        if ours or atomic.is_probe(path):
            path.unlink(missing_ok=True)


def _wrong(place: Place) -> Iterator[str]:
    for name in NAMES:
        path = place.real_bin_dir / name
        if not path.is_symlink() or str(path.readlink()) != place.target(name):
            yield name
