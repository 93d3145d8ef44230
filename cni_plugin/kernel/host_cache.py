"""State of the host that every ADD needs and that hardly ever changes.

Owns caching it, and when the cache is stale: the kernel notifies of every change. For a process that handles
many calls. It must not know what it is used for.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from cni_plugin.kernel import netns, nftables, rules
from cni_plugin.kernel.family import IPV4, IPV6, Family
from cni_plugin.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni_plugin.kernel.watch import (
    ANYTHING,
    RTM_DELADDR,
    RTM_NEWADDR,
    RTMGRP_IPV4_NETCONF,
    RTMGRP_IPV4_RULE,
    RTMGRP_IPV6_NETCONF,
    RTMGRP_IPV6_RULE,
    RTMGRP_LINK,
    RTMGRP_NEXTHOP,
    Watch,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugin.kernel.rules import RoutingRule
    from ipam.model import IPAddress

T = TypeVar("T")

ANSWER_SECONDS = 5.0
"""Seconds for which an answer is cached at most: the kernel does not notify of a route that comes back with
its link."""
MOST_ANSWERS = 64
ADDRESSES = {RTM_NEWADDR, RTM_DELADDR}
_OF_IPV4 = IPV4.address_group | IPV4.route_group | RTMGRP_IPV4_RULE | RTMGRP_IPV4_NETCONF
_OF_IPV6 = IPV6.route_group | RTMGRP_IPV6_RULE | RTMGRP_IPV6_NETCONF
WATCHED = RTMGRP_LINK | RTMGRP_NEXTHOP | _OF_IPV4 | _OF_IPV6


class KnownHost:
    """A cache for the namespace that its users are in, the host's; thread-safe.

    Raises:
        OSError: the kernel refuses the subscription.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # one answer may need another
        self.identity = netns.own_identity()
        """Identity of the host's namespace, as ``netns.identity`` has it: a process stays in it."""
        self._watch = Watch(WATCHED, of_pods=False)
        self._answers: dict[object, tuple[Any, float]] = {}
        self._addresses: frozenset[IPAddress] | None = None
        self._packet_filter: Netlink | None = None

    def answer(self, key: object, ask: Callable[[], T]) -> T:
        """The cached result of ``ask``, which is called again after a change of a link that is not a pod's,
        of a route, a routing rule or the host's forwarding, and after a while. Raises what it raises.
        """
        with self._lock:  # concurrent callers wait for the answer
            self._forget_what_changed()
            known: tuple[T, float] | None = self._answers.get(key)
            if known is None or time.monotonic() >= known[1]:
                self._answers.pop(key, None)
                if len(self._answers) >= MOST_ANSWERS:
                    self._answers.clear()
                known = ask(), time.monotonic() + ANSWER_SECONDS
                self._answers[key] = known
            return known[0]

    def _forget_what_changed(self) -> None:
        changes = self._watch.changes()
        if not changes:
            return
        if not changes.isdisjoint(ADDRESSES) or ANYTHING in changes:
            self._addresses = None
        if not changes <= ADDRESSES:
            self._answers.clear()

    def addresses(self, host: Netlink) -> frozenset[IPAddress]:
        """The IPv4 addresses that the links of the host carry, as ``Netlink.own_addresses``; cached until one
        changes, since there may be thousands (kube-proxy with IPVS).
        """
        with self._lock:
            self._forget_what_changed()
            if self._addresses is None:
                self._addresses = host.own_addresses()
            return self._addresses

    def rules(self, host: Netlink, family: Family) -> list[RoutingRule]:
        """The routing rules of a family."""
        return self.answer(("rules", family.version), lambda: rules.dumped(host, family))

    def packet_rules_answer(self, key: object, ask: Callable[[], T]) -> T:
        """As ``answer``; called again also when a table of nf_tables has changed. Raises OSError, too."""
        with self._lock:
            if self._packet_filter is None:
                self._packet_filter = Netlink(protocol=NETLINK_NETFILTER)
            return self.answer((key, nftables.generation(self._packet_filter)), ask)
