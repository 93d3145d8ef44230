"""Removing an installation: in reverse order, and only what it created.

First the conflist, so that no pod is sent to a plugin that is going; last the directories that were not there
before. It must not touch what pods have in the kernel.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cni_plugin import atomic
from cni_plugin.conflist import ConflistFile
from cni_plugin.install import links, network
from cni_plugin.install.installing import LOCK, Say, alone, explained, require_root
from cni_plugin.install.place import CONFLIST, Place, Refused
from cni_plugin.install.receipt import RECORD, Record
from cni_plugin.install.releases import Versions, in_use
from ipam.quoting import one_line
from ipam.state_file import sync

_LOGS = re.compile(r"(azvnet|agent)\.log(\.\d+)?")
_STATE = re.compile(
    r"azvnet\.db(\.new|\.(corrupt|newer)-[\dTZ.]+)?(-wal|-shm|-journal)?"
    r"|(store|source(-[0-9a-f]{8})?|adoption|attachments|nics)\.lock"
    r"|(agent|http)\.sock(\.[0-9a-f]{8})?"
    r"|sysctls-before\.json"
    r"|\.?(traffic|networks|nics|nics-ipv6|leaving|operator|ipv6-forwarding-before)\.json(\.[0-9a-f]+)?"
)
"""Names in the state directories (docs/architecture.md, "State"). They are named by the environment, so only
what is known by its name is removed, and nothing below it."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The removal that is requested."""

    place: Place
    attachments: int
    """Attachments that are alive on the node."""
    force: bool = False
    purge: tuple[Path, ...] = ()
    """The state directories, if they are to be removed too."""
    logs: Path | None = None
    """The log of calls, if it and its rotated files are to be removed too."""
    with_conflist: bool = False
    """Whoever wrote it: the agent does, on nodes where it is a pod."""
    agent: str = ""
    """Where an agent listens; empty: none does."""


def uninstall(removal: Removal, say: Say) -> None:
    """Remove the installation. Raises Refused: pods or processes still use it; or a file can't be changed."""
    require_root()
    place = removal.place
    with explained():
        prefix = place.real_prefix
        _require_unused(removal)
        if not prefix.is_dir():
            _take_conflist(removal, say)
            _take_names(place, [str(place.bin_dir), str(place.command_dir)], say)
            _take_state(removal, say)
            say(f"nothing is installed in {place.prefix}")
            return
        with alone(prefix):
            versions, record = Versions(prefix), Record.read(prefix)
            _require_not_running(removal, versions)
            _restore_conflists(place, record, say)
            _take_conflist(removal, say)
            known = {*record.bin_dirs, *record.command_dirs, str(place.bin_dir), str(place.command_dir)}
            _take_names(place, sorted(known), say)
            _take_prefix(prefix, versions, say)
            _take_state(removal, say)
            _take_directories(place, record, prefix)
    if prefix.is_dir():
        say(f"note: {place.prefix} stays: it has files that are not part of the installation")


def _require_unused(removal: Removal) -> None:
    if removal.force:
        return
    if removal.agent:
        raise Refused(
            f"an agent listens at {removal.agent}",
            "Stop it (systemctl stop azvnet-agent, or delete its DaemonSet), or use --force.",
        )
    if removal.attachments:
        many = "1 attachment is" if removal.attachments == 1 else f"{removal.attachments} attachments are"
        remedy = "Drain the node, or use --force: then their DEL will fail."
        raise Refused(f"{many} alive on this node", remedy)


def _require_not_running(removal: Removal, versions: Versions) -> None:
    if removal.force:
        return
    running = in_use(list(versions.all()), but=os.getpid())
    if running:
        which = ", ".join(sorted(each.name for each in running))
        raise Refused(
            f"processes of {which} are running",
            "Stop the agent (systemctl stop azvnet-agent), or use --force.",
        )


def _restore_conflists(place: Place, record: Record, say: Say) -> None:
    for name, before in record.conflists.items():
        path = place.real(Path(name))
        if not path.is_file() or not network.names_us(path.read_bytes()):
            continue
        if before is None:
            path.unlink()
            sync(path.parent)
            say(f"removed {name}")
        else:
            file = ConflistFile(path, path)
            network.write_conflist(file, before.encode(errors="surrogateescape"))
            say(f"{name} is back to what it was before")


def _take_conflist(removal: Removal, say: Say) -> None:
    """Remove the one with the usual name, or warn of it: a runtime that finds it calls a missing plugin."""
    place = removal.place
    left = place.real_conf_dir / CONFLIST
    ConflistFile(left, left).clear_left_overs(older_than=0)
    if not left.is_file() or not network.names_us(left.read_bytes()):
        return
    if removal.with_conflist:
        left.unlink()
        sync(left.parent)
        say(f"removed {place.conf_dir / CONFLIST}")
    else:
        say(
            f"note: {place.conf_dir / CONFLIST} stays, since install did not write it; until it is removed, "
            "new pods fail"
        )


def _take_state(removal: Removal, say: Say) -> None:
    for directory in removal.purge:
        _take_known(removal.place, directory, _STATE, say)
    if removal.logs is not None:
        _take_known(removal.place, removal.logs.parent, _LOGS, say)


def _take_known(place: Place, directory: Path, known: re.Pattern[str], say: Say) -> None:
    """Remove what has a name of ours from a directory, and the directory if nothing else is in it."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if known.fullmatch(path.name) and not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
    try:
        directory.rmdir()
        say(f"removed {place.shown(directory)}")
    except OSError:
        left = sorted(path.name for path in directory.iterdir())
        if left:
            say(f"note: {place.shown(directory)} stays: it has {one_line(', '.join(left))}")


def _take_names(place: Place, directories: list[str], say: Say) -> None:
    for directory in directories:
        links.clear_left_overs(place, place.real_conf_dir)
        for path in links.take_away(place, place.real(Path(directory))):
            say(f"removed {place.shown(path)}")


def _take_prefix(prefix: Path, versions: Versions, say: Say) -> None:
    with contextlib.suppress(FileNotFoundError):
        (prefix / "current").unlink()
    versions.clear_left_overs()
    for each in list(versions.all()):
        atomic.remove_tree(each.directory)
        say(f"removed {each.name}")
    with contextlib.suppress(OSError):  # something else is in it
        versions.directory.rmdir()


def _take_directories(place: Place, record: Record, prefix: Path) -> None:
    """The record goes with the prefix: without it nothing can be undone."""
    made = sorted((place.real(Path(each)) for each in record.made), key=lambda each: -len(each.parts))
    for directory in made:
        if not prefix.is_relative_to(directory):
            with contextlib.suppress(OSError):
                directory.rmdir()
    for name in (RECORD, LOCK):
        with contextlib.suppress(FileNotFoundError):
            (prefix / name).unlink()
    for directory in (prefix, *(each for each in made if prefix.is_relative_to(each) and each != prefix)):
        with contextlib.suppress(OSError):
            directory.rmdir()
