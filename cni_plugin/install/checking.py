"""Whether an installation is intact: checked file by file, nothing is changed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from cni_plugin.conflist import ConflistFile, NotInPlace
from cni_plugin.install import trial
from cni_plugin.install.bundle import Bundle
from cni_plugin.install.place import CONFLIST, NAMES, Place, Refused
from cni_plugin.install.receipt import Record
from cni_plugin.install.releases import ROOT, Version, Versions

INSTALL = "Run azvnet install from the bundle."


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    what: str
    where: str
    state: str
    """``ok``, maybe with a remark; otherwise what is wrong."""
    remedy: str = ""
    """Empty: nothing is wrong."""


def check_installation(place: Place) -> Iterator[Finding]:
    """Everything that an installation consists of."""
    versions = Versions(place.real_prefix)
    current = versions.current()
    where = str(place.prefix / "current")
    if current is None:
        yield Finding("current", where, "does not lead to a version", INSTALL)
    else:
        yield Finding("current", where, f"ok: {current.name}")
        yield from _files(place, current)
    yield from _directories(place, versions)
    yield from _names(place)
    if current is not None:
        yield _answer(place, current)
    yield _conflist(place)


def _files(place: Place, current: Version) -> Iterator[Finding]:
    where = place.shown(current.directory)
    try:
        bundle = Bundle.read(current.directory)
    except Refused as error:
        yield Finding("files", str(where), error.reason, INSTALL)
        return
    differences = list(bundle.differences(owner=ROOT))
    for each in differences:
        path, _, problem = each.partition(": ")
        yield Finding("file", str(where / path), problem, INSTALL)
    if not differences:
        yield Finding("files", str(where), f"ok: {len(bundle.entries)} as the manifest says")


def _directories(place: Place, versions: Versions) -> Iterator[Finding]:
    for directory in (place.real_prefix, versions.directory):
        if directory.is_dir():
            found = directory.stat()
            if found.st_uid != ROOT or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                problem = (
                    f"others besides root can write: {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
                )
                where = place.shown(directory)
                yield Finding(
                    "directory", str(where), problem, f"chown root:root {where}; chmod 0755 {where}"
                )


def _names(place: Place) -> Iterator[Finding]:
    for name in NAMES:
        path = place.real_bin_dir / name
        where = str(place.bin_dir / name)
        if not path.is_symlink():
            problem = "is not a link" if path.exists() else "is missing"
            yield Finding("plugin", where, problem, INSTALL)
        elif str(path.readlink()) != place.target(name):
            yield Finding("plugin", where, f"leads to {path.readlink()}", INSTALL)
        else:
            yield Finding("plugin", where, f"ok: leads to {place.target(name)}")


def _answer(place: Place, current: Version) -> Finding:
    try:
        trial.require_answer(current.directory / "azvnet")
        said = trial.version(current.directory / "azvnet")
    except Refused as error:
        return Finding("VERSION", str(place.prefix / "current/azvnet"), error.reason, error.remedy)
    return Finding("VERSION", str(place.prefix / "current/azvnet"), f"ok: azvnet {said} answers")


def _conflist(place: Place) -> Finding:
    path = place.real_conf_dir / CONFLIST
    where = str(place.conf_dir / CONFLIST)
    try:
        expected = where in Record.read(place.real_prefix).conflists
    except Refused as error:
        return Finding("record", str(place.prefix), error.reason, error.remedy)
    if not path.exists():
        if expected:
            return Finding("conflist", where, "is missing", INSTALL)
        return Finding("conflist", where, "ok: none was installed")
    file = ConflistFile(path, path)
    try:
        file.read()
    except NotInPlace as error:
        return Finding("conflist", where, str(error), "Correct it, or azvnet install --conflist FILE.")
    others = ", ".join(file.sorts_before())
    return Finding("conflist", where, f"ok, but the runtime prefers {others}" if others else "ok")
