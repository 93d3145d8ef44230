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
from cni_plugin.kernel import rules

if TYPE_CHECKING:
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.kernel.rules import RoutingRule
    from cni_plugin.node import Node

KIND = "routing_rule"
SHARED = False


def ensure(node: Node) -> str:
    """As ``HostState.ensure``. A rule of ours that nothing needs is removed: without such rules of others the
    main table is asked anyway, so pods lose nothing.
    """
    found = node.routing_rules()
    taking, used = _found(found)
    done = []
    if taking is not None and used is None and taking.priority:
        done.append(_add(taking.priority - 1, node.host))
    done += [_delete(each.priority, node.host) for each in found if each.ours and each is not used]
    return ", ".join(done)


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``: packets to pods are taken by another rule, since ours is missing or can't be
    in front of it. The kernel puts a rule behind others of the same priority, so nothing precedes one with 0.
    """
    taking, used = _found(node.routing_rules())
    if taking is None or used is not None or not in_use:
        return []
    return [f"routing rule {taking.priority} precedes the routes to pods: what it matches reaches none"]


def _found(every: Sequence[RoutingRule]) -> tuple[RoutingRule | None, RoutingRule | None]:
    """The first rule before the main table that takes packets to pods, and the one for pods before it."""
    in_front = list(takewhile(lambda rule: not rule.ends, every))
    taking = next((rule for rule in in_front if rule.takes_pods), None)
    before = takewhile(lambda rule: rule is not taking, in_front)
    return taking, next((rule for rule in before if rule.for_pods), None) if taking is not None else None


def _add(priority: int, host: Netlink) -> str:
    try:
        with suppress(FileExistsError):  # another call has just added it
            host.change([rules.new_rule(priority)])
    except OSError as error:
        raise KernelRefused(
            f"the node's routing rules take packets to pods, and ours can't be added: {error.strerror}",
            f"Run `ip rule add priority {priority} lookup main suppress_prefixlength 31 suppress_ifgroup 0`.",
        ) from error
    return f"routing rule {priority} was added: rule {priority + 1} takes packets to pods"


def _delete(priority: int, host: Netlink) -> str:
    with suppress(FileNotFoundError):  # another call has just removed it
        host.change([rules.delete_rule(priority)])
    return f"routing rule {priority} of azvnet was removed: it is not needed any more"


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``: our rules, by priority."""
    return {str(each.priority): "absent" for each in node.routing_rules() if each.ours}


def kept(values: dict[str, str], users: str) -> str:
    """As ``HostState.kept``."""
    return f"routing rule {', '.join(values)} stays, {users} may need it"


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``."""
    del place
    return ", ".join(_delete(int(priority), node.host) for priority in values)
