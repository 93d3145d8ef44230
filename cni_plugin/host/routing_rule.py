"""Packets to pods follow the routes to pods, whatever routing rules the node has.

Cloud agents and people write rules like ``from 10.1.0.4 lookup 200``: what the node sends from that address
to a pod is then routed by a table that has no pods in it, and the strict source check drops what a pod sends
to that address, because the answer would not leave by the pod's link. Where such rules precede the main
table, one rule of ours precedes them. It takes the routes to pods from the main table and nothing else:
single addresses, over links that are not in the default group.

Owns that rule. It must not know pods, nor change a rule that is not ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.cni.errors import KernelRefused
from cni_plugin.host import traffic
from cni_plugin.kernel import rules
from cni_plugin.kernel.family import IPV4, IPV6, Family

if TYPE_CHECKING:
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.kernel.rules import RoutingRule
    from cni_plugin.node import Node

KIND = "routing_rule"
SHARED = False
KEPT = "routing rule {} stays"
FAMILIES = (IPV4, IPV6)


def ensure(node: Node) -> str:
    """As ``HostState.ensure``. A rule of ours that is not needed is removed: without such rules of others the
    main table is used anyway, so pods lose nothing.
    """
    return ", ".join(filter(None, (ensure_of(family, node) for family in FAMILIES)))


def ensure_of(family: Family, node: Node) -> str:
    """As ``ensure``, for the rules of one family."""
    found = node.routing_rules(family)
    taking, used = _found(found)
    done = []
    if taking is not None and used is None and taking.priority:
        done.append(_add(taking.priority - 1, family, node.host))
    too_much = (each for each in found if each.ours and each is not used)
    done += [_delete(each.priority, family, node.host) for each in too_much]
    return ", ".join(done)


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``: another rule takes packets to pods, since ours is missing or can't precede it.
    The kernel puts a rule after others of the same priority, so nothing can precede one with priority 0.
    """
    if not in_use:
        return []
    named = []
    for family in _in_use(node):
        taking, used = _found(node.routing_rules(family))
        if taking is not None and used is None:
            rule = f"routing rule {taking.priority}{_of(family)}"
            named.append(f"{rule} precedes the routes to pods: packets that it matches reach no pod")
    return named


def _in_use(node: Node) -> tuple[Family, ...]:
    """The families that pods have addresses of."""
    return FAMILIES if traffic.has_ipv6(traffic.read_networks(node.run_dir)) else (IPV4,)


def _of(family: Family) -> str:
    return "" if family is IPV4 else " (IPv6)"


def _found(every: Sequence[RoutingRule]) -> tuple[RoutingRule | None, RoutingRule | None]:
    """The first rule before the main table that takes packets to pods, and the one for pods before it."""
    in_front = list(takewhile(lambda rule: not rule.ends, every))
    taking = next((rule for rule in in_front if rule.takes_pods), None)
    before = takewhile(lambda rule: rule is not taking, in_front)
    return taking, next((rule for rule in before if rule.for_pods), None) if taking is not None else None


def _add(priority: int, family: Family, host: Netlink) -> str:
    try:
        with suppress(FileExistsError):  # another call has just added it
            host.change([rules.new_rule(priority, family)])
    except OSError as error:
        option, length = "" if family is IPV4 else "-6 ", rules.longest_of_networks(family)
        raise KernelRefused(
            f"the node's routing rules take packets to pods, and ours can't be added: {error.strerror}",
            f"Run `ip {option}rule add priority {priority} lookup main suppress_prefixlength {length} "
            "suppress_ifgroup 0`.",
        ) from error
    return f"routing rule {priority}{_of(family)} was added: rule {priority + 1} takes packets to pods"


def _delete(priority: int, family: Family, host: Netlink) -> str:
    with suppress(FileNotFoundError):  # another call has just removed it
        host.change([rules.delete_rule(priority, family)])
    return f"routing rule {priority}{_of(family)} of azvnet was removed: it is no longer needed"


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``: our rules, by priority."""
    found = ((family, each) for family in FAMILIES for each in node.routing_rules(family))
    return {f"{each.priority}{_of(family)}": "absent" for family, each in found if each.ours}


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``."""
    del place
    done = []
    for value in values:
        priority, _, of_ipv6 = value.partition(" ")
        done.append(_delete(int(priority), IPV6 if of_ipv6 else IPV4, node.host))
    return ", ".join(done)
