"""The conflist: the file that makes the node's network known to the runtime.

Owns putting it in place: atomically, only when it differs, and never removing it. When that may be done is
decided by its users (``agent.network_ready``, ``install``). The runtime reads the directory
at any time and takes the first file by name (libcni, ``ConfFiles``), so there is never a half-written one,
and what sorts before is named. It must not know who asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from cni_plugin import atomic
from cni_plugin.cni import errors, netconf

EXTENSIONS = (".conf", ".conflist", ".json")
"""What libcni takes for a network configuration."""
LEFT_OVER_SECONDS = 60.0
"""A temporary file that is still being written is never that old."""


class NotInPlace(Exception):
    """The conflist can't be put in place; says why, and what to do."""


class ConflistFile:
    """One conflist and where it belongs; ``bin_dir``: where its plugins have to be, None if anywhere."""

    def __init__(self, source: Path, destination: Path, bin_dir: Path | None = None) -> None:
        self._source = source
        self.destination = destination
        self._bin_dir = bin_dir
        self._last: bytes | None = None
        self.netconf: dict[str, Any] = {}
        """What our plugin in it gets on stdin; empty before it was read successfully."""

    def read(self) -> bytes:
        """The conflist to install, checked as far as our own plugin goes.

        Raises:
            NotInPlace: it can't be read, is not a conflist, or has no plugin of ours in it.
        """
        try:
            content = self._source.read_bytes()
        except OSError as error:
            raise NotInPlace(f"cannot read the conflist {self._source}: {error.strerror}") from error
        if content != self._last:
            self.netconf = _our_netconf(self._source, content)
            self._last = content
        return content

    def require_plugins(self, content: bytes) -> None:
        """Check that the conflist's plugins are in the plugin directory, where that is known.

        Raises:
            NotInPlace: a plugin is missing, so every pod would fail.
        """
        directory = self._bin_dir
        missing = [] if directory is None else missing_plugins(content, directory)
        if missing:
            names = ", ".join(missing)
            raise NotInPlace(
                f"the conflist {self._source} names {names}, and {directory} does not have it: install the "
                "plugin (distributions have it as containernetworking-plugins or kubernetes-cni), or remove "
                "it from the conflist"
            )

    def is_in_place(self, content: bytes) -> bool:
        """Whether the runtime finds just this content."""
        try:
            return self.destination.read_bytes() == content
        except OSError:
            return False

    def netconf_in_place(self) -> dict[str, Any]:
        """What our plugin gets by the conflist that the runtime finds now; empty: by none."""
        try:
            return _our_netconf(self.destination, self.destination.read_bytes())
        except (OSError, NotInPlace):
            return {}

    def put_in_place(self, content: bytes) -> None:
        """Write it beside its place and rename it.

        Raises:
            NotInPlace: the directory is missing, read-only, full, ...
        """
        try:
            self.clear_left_overs()
            atomic.write_file(self.destination, content)
        except OSError as error:
            raise self._not_written(error) from error

    def sorts_before(self) -> list[str]:
        """Names of other configurations that the runtime prefers to this one."""
        try:
            names = sorted(entry.name for entry in self.destination.parent.iterdir())
        except OSError:
            return []
        own = self.destination.name
        return [name for name in names if name < own and name.endswith(EXTENSIONS)]

    def clear_left_overs(self, older_than: float = LEFT_OVER_SECONDS) -> None:
        """Remove temporary files of killed writers; another agent may be writing one right now."""
        for path in self.destination.parent.glob(f".{self.destination.name}.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > older_than:
                    path.unlink()

    def _not_written(self, error: OSError) -> NotInPlace:
        directory = self.destination.parent
        what = f"cannot write the conflist {self.destination}: {error.strerror}"
        if not directory.is_dir():
            what += f"; {directory} does not exist: is a container runtime installed?"
        return NotInPlace(what)


def programs_of(content: bytes) -> list[str]:
    """The plugins and IPAM plugins that a runtime executes for a conflist; none if it is not a conflist."""
    try:
        plugins = _plugins_of(json.loads(content))
    except (ValueError, RecursionError):
        return []
    named = [each for plugin in plugins for each in (plugin, plugin.get("ipam")) if isinstance(each, dict)]
    types = [each.get("type") for each in named]
    return list(dict.fromkeys(each for each in types if isinstance(each, str) and each))


def missing_plugins(content: bytes, directory: Path) -> list[str]:
    """Plugins that a conflist names and a directory does not have. Links count wherever they lead: in a
    container they may lead to what only the host has.
    """
    return [name for name in programs_of(content) if not os.path.lexists(directory / name)]


def _plugins_of(document: object) -> list[dict[str, Any]]:
    plugins = document.get("plugins") if isinstance(document, dict) else None
    return [each for each in plugins if isinstance(each, dict)] if isinstance(plugins, list) else []


def _our_netconf(path: Path, content: bytes) -> dict[str, Any]:
    """What our plugin will get on stdin when the runtime uses this conflist."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotInPlace(f"the conflist {path} is not valid JSON: {error}") from error
    for plugin in _plugins_of(document):
        ipam = plugin.get("ipam")
        as_ipam = plugin.get("type") != netconf.OUR_PLUGIN
        if as_ipam and not (isinstance(ipam, dict) and ipam.get("type") == netconf.OUR_IPAM):
            continue
        ours = plugin | {
            key: document[key] for key in ("cniVersion", "cniVersions", "name") if key in document
        }
        try:
            netconf.require_supported(netconf.parse_netconf(ours), as_ipam=as_ipam)
        except errors.CniError as error:
            raise NotInPlace(f"the conflist {path} would fail every pod: {error}") from error
        return ours
    raise NotInPlace(f"the conflist {path} has no plugin azvnet, and none whose ipam is {netconf.OUR_IPAM}")
