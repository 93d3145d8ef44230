"""The conflist: the file that makes the node's network known to the runtime.

Owns putting it in place: atomically, only when it differs, and never removing it. When that may be done is
decided by its users (``agent.network_ready``, ``install``). The runtime reads the directory
at any time and takes the first file by name (libcni, ``ConfFiles``), so there is never a half-written one,
and what sorts before is named.
"""

from __future__ import annotations

import contextlib
import json
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
        self._destination = destination
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
            return self._destination.read_bytes() == content
        except OSError:
            return False

    def put_in_place(self, content: bytes) -> None:
        """Write it beside its place and rename it.

        Raises:
            NotInPlace: the directory is missing, read-only, full, ...
        """
        try:
            self.clear_left_overs()
            atomic.write_file(self._destination, content)
        except OSError as error:
            raise self._not_written(error) from error

    def sorts_before(self) -> list[str]:
        """Names of other configurations that the runtime prefers to this one."""
        try:
            names = sorted(entry.name for entry in self._destination.parent.iterdir())
        except OSError:
            return []
        own = self._destination.name
        return [name for name in names if name < own and name.endswith(EXTENSIONS)]

    @property
    def destination(self) -> Path:
        """Where it belongs."""
        return self._destination

    def clear_left_overs(self, older_than: float = LEFT_OVER_SECONDS) -> None:
        """Remove temporary files of killed writers; another agent may be writing one right now."""
        for path in self._destination.parent.glob(f".{self._destination.name}.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > older_than:
                    path.unlink()

    def _not_written(self, error: OSError) -> NotInPlace:
        directory = self._destination.parent
        what = f"cannot write the conflist {self._destination}: {error.strerror}"
        if not directory.is_dir():
            what += f"; {directory} does not exist: is a container runtime installed?"
        return NotInPlace(what)


def missing_plugins(content: bytes, directory: Path) -> list[str]:
    """Plugins that a conflist names and a directory does not have. Links count wherever they lead: in a
    container they may lead to what only the host has.
    """
    wanted: list[Any] = []
    for plugin in plugins_of(content):
        ipam = plugin.get("ipam")
        wanted += [plugin.get("type"), ipam.get("type") if isinstance(ipam, dict) else None]
    names = dict.fromkeys(each for each in wanted if isinstance(each, str) and each)
    return [name for name in names if not (directory / name).is_symlink() and not (directory / name).exists()]


def plugins_of(content: bytes) -> list[dict[str, Any]]:
    """The plugins of a conflist; none if it is not a conflist."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return []
    plugins = document.get("plugins") if isinstance(document, dict) else None
    return [each for each in plugins if isinstance(each, dict)] if isinstance(plugins, list) else []


def _our_netconf(path: Path, content: bytes) -> dict[str, Any]:
    """What our plugin will get on stdin when the runtime uses this conflist."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotInPlace(f"the conflist {path} is not valid JSON: {error}") from error
    plugins = document.get("plugins") if isinstance(document, dict) else None
    for plugin in plugins if isinstance(plugins, list) else ():
        ipam = plugin.get("ipam") if isinstance(plugin, dict) else None
        as_ipam = isinstance(ipam, dict) and ipam.get("type") == netconf.OUR_IPAM
        if as_ipam or (isinstance(plugin, dict) and plugin.get("type") == "azvnet"):
            of_list = {key: document[key] for key in ("cniVersion", "cniVersions", "name") if key in document}
            ours = {**plugin, **of_list}
            try:
                conf = netconf.parse_netconf(ours)
                netconf.require_supported(conf, as_ipam=plugin.get("type") != "azvnet")
            except errors.CniError as error:
                raise NotInPlace(f"the conflist {path} would fail every pod: {error}") from error
            return ours
    raise NotInPlace(f"the conflist {path} has no plugin azvnet, and none whose ipam is {netconf.OUR_IPAM}")
