"""Changing directories so that readers see either the old or the new state, even after a power cut.

Everything is created under a temporary name beside its place, synced to the disk, and renamed (rename(2) is
atomic). Such names begin with ``.`` and end with ``.tmp``, by which leftovers of a killed process are
recognised. It must not know what is written.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ipam.state_file import sync

PROBE = "nowhere"


def own_name(near: Path) -> Path:
    """A path beside ``near`` that nobody else has."""
    return near.with_name(f".{near.name}.{secrets.token_hex(8)}.tmp")


def is_left_over(path: Path, of: str = "") -> bool:
    """Whether it has a name of ``own_name``."""
    return path.name.startswith(f".{of}") and path.name.endswith(".tmp")


def put_link(link: Path, target: str) -> bool:
    """Create or replace a symbolic link in one step; False: it was correct already."""
    with contextlib.suppress(OSError):
        if str(link.readlink()) == target:
            return False
    with _replacing(link) as temporary:
        temporary.symlink_to(target)
    return True


def write_file(path: Path, content: bytes) -> None:
    """Create or replace a small file, mode 0644, in one step."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        sync(temporary)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = own_name(path)
    try:
        yield temporary
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def require_writable(directory: Path) -> None:
    """Check that a name can be created in a directory; leaves it as it was. Raises OSError: it can't."""
    probe = own_name(directory / "azvnet-probe")
    probe.symlink_to(PROBE)
    probe.unlink(missing_ok=True)


def is_probe(path: Path) -> bool:
    """Whether it is a leftover of ``require_writable`` in a killed process."""
    try:
        return is_left_over(path, of="azvnet-probe") and str(path.readlink()) == PROBE
    except OSError:
        return False


def remove_tree(directory: Path) -> None:
    """Remove a directory: rename it first, so that nothing finds half of it."""
    gone = directory if is_left_over(directory) else own_name(directory)
    if gone != directory:
        directory.rename(gone)
    shutil.rmtree(gone)


def make_directories(directory: Path, before: Callable[[list[Path]], None]) -> None:
    """Make a directory and missing parents, mode 0755; ``before`` is called with those that will be made."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    if not missing:
        return
    before(missing)
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir()
        each.chmod(0o755)  # whatever the umask
        sync(each.parent)


@contextlib.contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """A new directory inside ``directory``, removed again unless it was renamed meanwhile."""
    stage = own_name(directory / "new")
    stage.mkdir(mode=0o755)
    try:
        yield stage
    finally:
        if stage.exists():
            shutil.rmtree(stage, ignore_errors=True)
