"""What the host has that every ADD has to know and that hardly ever changes.

Owns remembering it, and knowing when that is not true any more: the kernel tells of every change of an
address, and the MTU of the uplink is always asked for. For a process that carries out many calls. It must not
know what it is asked for.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cni_plugin.kernel import netns
from cni_plugin.kernel.family import IPV4
from cni_plugin.kernel.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugin.kernel.decode import Link
    from cni_plugin.kernel.netlink import Netlink
    from ipam.model import IPAddress

UPLINK_SECONDS = 5.0
"""How long the choice of an uplink stands before the routes are asked again."""
MOST_UPLINKS = 64


class KnownHost:
    """What is known of the host's namespace, in which its users are; any number of threads may use one.

    Raises:
        OSError: the kernel allows no subscription.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch = Watch(IPV4.address_group)
        self._changed = True
        self.identity = netns.own_identity()
        """Of the host's namespace, as ``netns.identity``: a process stays in it."""
        self._addresses: frozenset[IPAddress] = frozenset()
        self._uplinks: dict[object, tuple[str, float]] = {}

    def addresses(self, host: Netlink) -> frozenset[IPAddress]:
        """The IPv4 addresses that the links of the host carry, as ``Netlink.own_addresses``."""
        with self._lock:  # whoever comes while the list is made waits for it
            self._changed = self._watch.changed() or self._changed
            if self._changed:
                self._addresses = host.own_addresses()
                self._changed = False
            return self._addresses

    def uplink_mtu(self, key: object, host: Netlink, find: Callable[[], Link]) -> int:
        """The MTU, as it is now, of the uplink that ``find`` found a moment ago for the same ``key``.

        Raises:
            UplinkUnclear: ``find`` found none.
        """
        name, until = self._uplinks.get(key, ("", 0.0))
        mtu = host.mtu(name) if time.monotonic() < until else 0
        if mtu:
            return mtu
        link = find()
        if len(self._uplinks) >= MOST_UPLINKS:
            self._uplinks.clear()
        self._uplinks[key] = link.name, time.monotonic() + UPLINK_SECONDS
        return link.mtu
