"""The networks whose pods run here: the configurations of recent calls, and how their sources are read.

Owns remembering them. It must not decide when a source is read.
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
"""Seconds after the last call that used a source until it is no longer read."""
MOST_NETWORKS = 16


class Networks:
    """The configurations of recent calls; ``changed`` is set when addresses come from another source."""

    def __init__(self, changed: threading.Event) -> None:
        self._changed = changed
        self._known: tuple[Network, ...] = ()
        """Most recent first."""

    @property
    def netconf(self) -> NetConf | None:
        """The most recent configuration that uses our IPAM."""
        return self._known[0].netconf if self._known else None

    @property
    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again, as the calls' netconf says."""
        netconf = self.netconf
        return netconf.our_ipam.cooldown if netconf else DEFAULT_COOLDOWN_SECONDS

    def sources(self) -> list[SourceConfig]:
        """The networks' sources, except those that no call used for a day."""
        since = time.monotonic() - FORGOTTEN_AFTER
        return [allocate.source_config(each.netconf) for each in self._known if each.seen_at > since]

    def note(self, document: dict[str, Any]) -> None:
        """Remember the configuration of a call: it names a source of addresses."""
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

    def replace(
        self, before: dict[str, Any], now: dict[str, Any]
    ) -> tuple[SourceConfig, SourceConfig] | None:
        """Forget a configuration in whose place there is another; the two sources, or None if nothing else
        has to be forgotten: the source is the same, or another network uses it.
        """
        old, new = _read(before), _read(now)
        if old is None or new is None:
            return None
        key = (before.get("ipam"), before.get("master"))
        if key != (now.get("ipam"), now.get("master")):
            self._known = tuple(each for each in self._known if each.key != key)
        source, other = allocate.source_config(old), allocate.source_config(new)
        used = {each.key for each in (*self.sources(), other)}
        return None if source.key in used else (source, other)


class Network:
    """A configuration, by what in it says where addresses come from."""

    def __init__(self, key: tuple[object, object], conf: NetConf) -> None:
        self.key = key
        self.netconf = conf
        self.seen_at = 0.0
        """Time of the last call with it (``time.monotonic``)."""


def _read(document: dict[str, Any]) -> NetConf | None:
    try:
        conf = netconf.parse_netconf({**document, "prevResult": None}, lenient=True)
        _ = conf.our_ipam
    except errors.CniError:
        return None
    return conf


class SourceReader:
    """Reads any source, ``arm`` as well, as the settings say. Only the agent imports what that needs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listings: dict[str, Listing] = {}

    @property
    def listings(self) -> tuple[Listing, ...]:
        """What each source listed when it was last read successfully by this process."""
        return tuple(self._listings.values())

    def use(self, settings: Settings) -> None:
        """Apply new settings."""
        self._settings = settings

    def __call__(self, config: SourceConfig, seconds: float, before: str) -> Listing:
        """As ``ipam.sources.read``."""
        listing = sources.read(config, seconds, before, arm=self._settings.arm, public=True)
        if any(nic.addresses for nic in listing.nics):  # an empty document is not trusted
            self._listings = {**self._listings, config.key: listing}
        return listing
