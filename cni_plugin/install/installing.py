"""The steps of an installation and a rollback, in the order that keeps calls working.

Until the switch nothing that a call uses is touched, and the switch is one rename; killed anywhere, either
the old version works or the new one. The conflist is last: with it, the runtime takes the node's network for
ready. Owns that order. It must not know what a call does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cni_plugin import atomic
from cni_plugin.install import command, libc, links, trial
from cni_plugin.install.bundle import AGAIN, Bundle
from cni_plugin.install.network import ConflistPlan
from cni_plugin.install.place import Place, Refused
from cni_plugin.install.receipt import Record
from cni_plugin.install.releases import ROOT, Version, Versions
from ipam.filelock import file_lock

Say = Callable[[str], None]
KEEP = 2
LOCK = ".lock"
PATIENCE = 120.0
"""Seconds for another installer to finish; an installation takes a few."""
FRESH = "Free some space, or install with another --prefix."
_REMEDIES = {
    errno.EROFS: "It is on a read-only file system: use another one (--prefix, --bin-dir, --conf-dir).",
    errno.ENOSPC: FRESH,
    errno.EDQUOT: FRESH,
    errno.ENOTDIR: "Part of the path is not a directory: use another (--prefix, --bin-dir, --conf-dir).",
}


@dataclass(frozen=True, slots=True)
class Order:
    """The installation that is requested."""

    place: Place
    keep: int = KEEP
    """Versions that stay, the current one included."""
    with_conflist: bool = True
    conflist: Path | None = None
    """Path as seen from here, unlike those of the place."""


def install(order: Order, bundle_directory: Path, say: Say) -> None:
    """Put a bundle on the node, or what is missing of it.

    Raises:
        Refused: nothing was installed; the previous version works as before.
    """
    require_root()
    bundle = Bundle.read(bundle_directory)
    bundle.require_architecture()
    note = libc.require(order.place, bundle)
    with explained():
        record, made = Record(), list[Path]()
        atomic.make_directories(order.place.real_prefix, made.extend)
        with alone(order.place.real_prefix):
            record = Record.read(order.place.real_prefix)
            record.add_made([order.place.shown(each) for each in made])
            _install(order, bundle, record, say)
    if note:
        say(f"note: {note}")


def _install(order: Order, bundle: Bundle, record: Record, say: Say) -> None:
    place = order.place
    versions = Versions(place.real_prefix)
    network = _prepare(order, record, versions)
    before = versions.current()
    version = versions.find(bundle) or _add(versions, bundle)
    trial.require_answer(version.directory / "azvnet")
    done = []
    if version != before:
        versions.switch(version)
        done.append(f"{version.name} is current" + (f", {before.name} was" if before else ""))
    done += _after_switch(place, record, network)
    removed = versions.prune(order.keep)
    done += [f"removed {each.name}" for each in removed]
    if not done:
        say(f"{version.name} is installed already: nothing to do")
    for line in done:
        say(line)
    _warn(place, network, say)


def roll_back(order: Order, say: Say) -> None:
    """Switch to the version that was current before. Raises Refused: there is no intact one."""
    require_root()
    place = order.place
    with explained():
        if not place.real_prefix.is_dir():
            raise Refused(f"nothing is installed in {place.prefix}", "Install a bundle.")
        with alone(place.real_prefix):
            versions = Versions(place.real_prefix)
            record = Record.read(place.real_prefix)
            _prepare(Order(place, with_conflist=False), record, versions)
            version, before = versions.previous(), versions.current()
            if version is None:
                raise Refused(f"{versions.directory} has no other intact version", "Install a bundle.")
            trial.require_answer(version.directory / "azvnet")
            versions.switch(version)
            say(f"{version.name} is current" + (f", {before.name} was" if before else ""))
            for line in _after_switch(place, record, None):
                say(line)


def _prepare(order: Order, record: Record, versions: Versions) -> ConflistPlan | None:
    """Everything that can refuse, before anything is changed."""
    place, prefix = order.place, order.place.real_prefix
    if trial.is_noexec(prefix):
        reason = f"the file system of {prefix} is mounted noexec: no call could be executed"
        raise Refused(reason, "Remount it, or install with another --prefix.")

    def will_make(directories: list[Path]) -> None:
        record.add_made([place.shown(each) for each in directories])
        record.write(prefix)

    network = ConflistPlan.plan(place, order.conflist) if order.with_conflist else None
    atomic.make_directories(place.real_bin_dir, will_make)
    if network is not None:
        atomic.make_directories(place.real_conf_dir, will_make)
        network.file.clear_left_overs()
        if not network.file.is_in_place(network.content):
            atomic.require_writable(place.real_conf_dir)
    for directory in (place.real_bin_dir, place.real_conf_dir, place.real_command_dir):
        links.clear_left_overs(place, directory)
    links.require_possible(place)
    if str(place.bin_dir) not in record.bin_dirs:
        record.bin_dirs.append(str(place.bin_dir))
    if place.real_command_dir.is_dir() and str(place.command_dir) not in record.command_dirs:
        record.command_dirs.append(str(place.command_dir))
    record.write(prefix)
    versions.clear_left_overs()
    atomic.make_directories(versions.directory, lambda _: None)
    return network


def _add(versions: Versions, bundle: Bundle) -> Version:
    with atomic.staged(versions.directory) as stage:
        bundle.copy(stage)
        for difference in bundle.differences(stage, owner=ROOT):
            raise Refused(f"the bundle {bundle.directory} is damaged: {difference}", AGAIN)
        trial.require_answer(stage / "azvnet")
        return versions.add(stage, bundle, trial.version(stage / "azvnet"))


def _after_switch(place: Place, record: Record, network: ConflistPlan | None) -> Iterator[str]:
    if links.put_links(place):
        yield f"{place.bin_dir} has azvnet and azvnet-ipam"
    if command.put_command(place):
        yield f"{place.command_dir} has azvnet"
    if network is not None and network.put_in_place(place, record, place.real_prefix):
        yield f"{place.shown(network.file.destination)} is written"


def _warn(place: Place, network: ConflistPlan | None, say: Say) -> None:
    if reason := command.why_missing(place):
        say(f"note: {reason}: the command line is {place.bin_dir / command.NAME}")
    if network is None:
        return
    for other in network.file.sorts_before():
        say(f"note: the runtime prefers {place.conf_dir / other}: azvnet is used only if that calls it")
    for plugin in network.missing_plugins(place.real_bin_dir):
        say(f"note: the conflist names the plugin {plugin}, which {place.bin_dir} does not have")


def require_root() -> None:
    """Check that this process may install. Raises Refused: it does not run as root."""
    if os.geteuid() != ROOT:
        raise Refused("only root can install and uninstall", "Run it as root.")


@contextlib.contextmanager
def alone(prefix: Path) -> Iterator[None]:
    """Hold the lock of a prefix: one installer at a time.

    Raises:
        Refused: another process holds it for too long.
        OSError: its file can't be created.
    """
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(file_lock(prefix / LOCK, deadline))
                break
            except FileNotFoundError:  # an uninstall removed the prefix meanwhile
                prefix.mkdir(parents=True, exist_ok=True)
            except TimeoutError as error:
                reason = f"another azvnet install or uninstall holds {prefix / LOCK}"
                raise Refused(reason, "Wait for it, or end it: `fuser` shows its process.") from error
        yield


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """An error of the file system as a refusal."""
    try:
        yield
    except OSError as error:
        path = f"{error.filename2 or error.filename or 'a file'} can't be changed"
        remedy = _REMEDIES.get(error.errno or 0, "Look at it, and at `findmnt -T` of its directory.")
        raise Refused(f"{path}: {error.strerror}", remedy) from error
