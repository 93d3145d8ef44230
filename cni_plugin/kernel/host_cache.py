"""State of the host that every ADD needs and that hardly ever changes.

Owns caching it, and when the cache is stale: the kernel notifies of every change of an address, and the MTU
of the uplink is always read. For a process that handles many calls. It must not know what it is used for.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cni_plugin.kernel import netns, rules
from cni_plugin.kernel.family import IPV4, IPV6, Family
from cni_plugin.kernel.watch import (
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV4_RULE,
    RTMGRP_IPV6_RULE,
    RTMGRP_LINK,
    RTMGRP_NEXTHOP,
    Watch,
    of_routing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugin.kernel.decode import Link, WayOut
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.kernel.rules import RoutingRule
    from ipam.model import IPAddress

UPLINK_SECONDS = 5.0
"""Seconds for which the choice of an uplink is cached."""
MOST_UPLINKS = 64


class KnownHost:
    """A cache for the namespace that its users are in, the host's; thread-safe.

    Raises:
        OSError: the kernel refuses the subscription.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # to find the way out the rules are read
        self._watch = Watch(IPV4.address_group)
        self._changed = True
        self.identity = netns.own_identity()
        """Of the host's namespace, as ``netns.identity``: a process stays in it."""
        self._addresses: frozenset[IPAddress] = frozenset()
        groups = {IPV4.number: RTMGRP_IPV4_RULE, IPV6.number: RTMGRP_IPV6_RULE}
        self._rule_watches = {number: Watch(group) for number, group in groups.items()}
        self._rules: dict[int, list[RoutingRule]] = {}
        self._uplinks: dict[object, tuple[str, float]] = {}
        self._routing = Watch(RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_NEXTHOP)
        self._way_out: WayOut | None = None
        self._way_out_until = 0.0

    def addresses(self, host: Netlink) -> frozenset[IPAddress]:
        """The IPv4 addresses that the links of the host carry, as ``Netlink.own_addresses``."""
        with self._lock:  # concurrent callers wait for the list
            self._changed = self._watch.changed() or self._changed
            if self._changed:
                self._addresses = host.own_addresses()
                self._changed = False
            return self._addresses

    def rules(self, host: Netlink, family: Family = IPV4) -> list[RoutingRule]:
        """The routing rules of a family."""
        with self._lock:
            number = family.number
            if self._rule_watches[number].changed() or number not in self._rules:
                self._rules.pop(number, None)
                self._rules[number] = rules.dumped(host, family)
            return self._rules[number]

    def way_out(self, ask: Callable[[], WayOut]) -> WayOut:
        """The cached result of ``ask``; called again when routes, rules or that link change, and after a
        while, since the kernel does not notify of a route that comes back with its link.
        """
        with self._lock:
            known = self._way_out
            index = known.link.index if known is not None and known.link is not None else 0
            changed = self._routing.changed(of_routing(index))
            if known is None or changed or time.monotonic() >= self._way_out_until:
                self._way_out = None
                self._way_out = known = ask()
                self._way_out_until = time.monotonic() + UPLINK_SECONDS
            return known

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
