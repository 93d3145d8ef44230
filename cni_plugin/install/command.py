"""The command ``azvnet`` for people: a link to the current version in a directory of their PATH.

Pods do not need it, so an installation never fails because of it: the directory may be missing or read-only,
as /usr often is, or have another program of that name. Owns that one link. It must not know versions.
"""

from __future__ import annotations

from cni_plugin import atomic
from cni_plugin.install.place import NAMES, Place

NAME = NAMES[0]


def put_command(place: Place) -> bool:
    """Make the link lead to the current version; False: it does already, or can't."""
    directory = place.real_command_dir
    if not directory.is_dir() or _is_foreign(place):
        return False
    try:
        return atomic.put_link(directory / NAME, place.target(NAME))
    except OSError:
        return False


def why_missing(place: Place) -> str:
    """Why the command is missing although its directory exists; empty if it is not."""
    if _is_foreign(place):
        return f"{place.command_dir / NAME} is another program"
    directory = place.real_command_dir
    if directory.is_dir() and not place.is_ours(directory / NAME):
        return f"{place.command_dir} can't be written"
    return ""


def _is_foreign(place: Place) -> bool:
    path = place.real_command_dir / NAME
    return (path.exists() or path.is_symlink()) and not place.is_ours(path)
