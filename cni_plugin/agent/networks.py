"""The networks whose pods run here: which configuration calls come with, and how their source is read.

Owns remembering that. It must not read a source by itself.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from cni_plugin.addresses import allocate
from cni_plugin.agent.settings import Settings
from cni_plugin.cni import errors, netconf
from cni_plugin.cni.netconf import NetConf
from ipam import sources
from ipam.model import DEFAULT_COOLDOWN_SECONDS, Listing, SourceConfig

FORGOTTEN_AFTER = 86400.0
"""Seconds after which a source that no call came with any more is not read any more."""
MOST_NETWORKS = 16


class Networks:
    """What calls come with.

    Args:
        changed: set when addresses come from somewhere else than before.
    """

    def __init__(self, changed: threading.Event) -> None:
        self._changed = changed
        self._known: tuple[Network, ...] = ()
        """The last one that a call came with is the first."""

    @property
    def netconf(self) -> NetConf | None:
        """The last configuration a call came with that uses our IPAM."""
        return self._known[0].netconf if self._known else None

    @property
    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again, as the calls' netconf says."""
        netconf = self.netconf
        return netconf.our_ipam().cooldown if netconf else DEFAULT_COOLDOWN_SECONDS

    def sources(self) -> list[SourceConfig]:
        """Where the networks' addresses come from, without those that no call came with for a day."""
        since = time.monotonic() - FORGOTTEN_AFTER
        return [allocate.source_config(each.netconf) for each in self._known if each.seen_at > since]

    def note(self, document: dict[str, Any]) -> None:
        """A call came with this configuration: it says where addresses come from."""
        ipam = document.get("ipam")
        if not isinstance(ipam, dict) or ipam.get("type") != netconf.OUR_IPAM:
            return
        key = (ipam, document.get("master"))
        known = next((each for each in self._known if each.key == key), None)
        if known is not None and known is self._known[0]:
            known.seen_at = time.monotonic()
            return
        if known is None and (conf := _read(document)) is not None:
            known = Network(key, conf)
            self._changed.set()
        if known is not None:
            known.seen_at = time.monotonic()
            others = [each for each in self._known if each is not known]
            self._known = (known, *others[: MOST_NETWORKS - 1])


class Network:
    """A configuration, by what in it says where addresses come from."""

    def __init__(self, key: tuple[object, object], conf: NetConf) -> None:
        self.key = key
        self.netconf = conf
        self.seen_at = 0.0
        """When a call came with it (``time.monotonic``)."""


def _read(document: dict[str, Any]) -> NetConf | None:
    try:
        conf = netconf.parse_netconf({**document, "prevResult": None}, lenient=True)
        conf.our_ipam()
    except errors.CniError:
        return None
    return conf


class SourceReader:
    """Reads any source, ``arm`` as well, as the settings say. Only the agent imports what that needs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def use(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._settings = settings

    def __call__(self, config: SourceConfig, seconds: float, before: str) -> Listing:
        """As ``ipam.sources.read``."""
        return sources.read(config, seconds, before, arm=self._settings.arm)
