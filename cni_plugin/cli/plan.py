"""``azvnet plan``: how many addresses a cluster needs, which subnet fits, and when it is full.

Exit code 0: it fits; 1: it does not, or that is not known; 2: it can't be answered, and one line says why.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.cli.plan_views import SubnetPlan, plan_document, plan_text
from cni_plugin.cli.table import Paint
from ipam import planning
from ipam.azure_limits import BLOCK
from ipam.errors import IpamError
from ipam.planning import CannotPlan, Cluster, Growth, Surge

if TYPE_CHECKING:
    from ipam.sources.arm_subnet import SubnetId, SubnetUsage

TOO_SMALL, NOT_ANSWERED = 1, 2
MOST = 1_000_000
"""The largest count that is accepted: more is a typing error."""
KUBELET = 110
"""Pods on a node, unless its settings say otherwise (kubelet configuration, "maxPods")."""
IMDS_SECONDS = 10.0
"""Seconds for finding out on which cloud this machine is."""
LONGEST_PLAN = 120
"""Months."""
_GROWTH = re.compile(r"(\d+(?:\.\d+)?)\s*(%|nodes?|pods?)/(day|week|month|year)")
_UNITS = {"%": "percent", "node": "nodes", "pod": "pods"}
_PERIODS = {"day": 1.0, "week": 7.0, "month": planning.MONTH, "year": 12 * planning.MONTH}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The cluster, its subnet, and how the plan is shown."""
    parser.add_argument(
        "--nodes", metavar="N", type=_count, help="nodes of the cluster; with --subnet those to be added"
    )
    parser.add_argument(
        "--max-pods",
        metavar="N",
        type=_positive,
        help=f"pods with an address of their own that may run on a node (default: {KUBELET}, the kubelet's)",
    )
    parser.add_argument(
        "--surge",
        metavar="N|N%",
        type=_surge,
        default=Surge(1),
        help="nodes that an upgrade adds before it removes others, a percentage is rounded up (default: 1)",
    )
    parser.add_argument(
        "--growth",
        metavar="AMOUNT/PERIOD",
        type=_growth,
        default=Growth(),
        help="such as 5%%/month, 3nodes/week, 200pods/day; a node is added for each --max-pods pods",
    )
    parser.add_argument(
        "--months",
        metavar="N",
        type=_months,
        default=12,
        help="how far ahead to plan (default: 12)",
    )
    parser.add_argument("--prefixes", action="store_true", help="/28 blocks instead of single addresses")
    parser.add_argument(
        "--batch",
        metavar="N",
        type=_positive,
        help="a node's single addresses come in multiples of N (default: 1)",
    )
    _add_subnet(parser)
    parser.add_argument(
        "--output",
        choices=("text", "json", "svg"),
        default="text",
        help="text, JSON for programs, or a picture (default: text)",
    )


def _add_subnet(parser: argparse.ArgumentParser) -> None:
    """Which subnet the plan is for."""
    parser.add_argument(
        "--used",
        metavar="N",
        type=_count,
        help="addresses of the subnet that something else uses (default: 0)",
    )
    parser.add_argument(
        "--size",
        metavar="/N",
        type=_length,
        help="check whether a subnet of this size is large enough, such as /20",
    )
    parser.add_argument(
        "--from-node",
        action="store_true",
        help="take --max-pods and --size from this node's pool, where they are not given",
    )
    parser.add_argument(
        "--subnet",
        metavar="ID",
        type=_subnet,
        help="ask Azure how full the subnet with this resource id is, and plan for the rest of it",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="the agent's settings: how --subnet reaches Azure Resource Manager (keys arm.*)",
    )


def _count(words: str) -> int:
    number = int(words) if words.isascii() and words.isdigit() else -1
    if not 0 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{words!r} is not a number from 0 to {MOST:,}")
    return number


def _positive(words: str) -> int:
    number = _count(words)
    if not number:
        raise argparse.ArgumentTypeError("0 is too few: at least 1")
    return number


def _months(words: str) -> int:
    number = _positive(words)
    if number > LONGEST_PLAN:
        raise argparse.ArgumentTypeError(f"{number:,} months are too many: at most {LONGEST_PLAN}")
    return number


def _surge(words: str) -> Surge:
    return Surge(_count(words.removesuffix("%")), words.endswith("%"))


def _growth(words: str) -> Growth:
    found = _GROWTH.fullmatch(words.strip())
    if found is None:
        message = f"{words!r} is not AMOUNT/PERIOD, such as 5%/month, 3nodes/week or 200pods/day"
        raise argparse.ArgumentTypeError(message)
    amount = float(found[1])
    if amount > MOST:
        raise argparse.ArgumentTypeError(f"{found[1]} is too much: at most {MOST:,}")
    return Growth(amount, _UNITS[found[2].rstrip("s")], _PERIODS[found[3]])


def _length(words: str) -> int:
    digits = words.removeprefix("/")
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    if not planning.LARGEST <= number <= planning.SMALLEST:
        raise argparse.ArgumentTypeError(
            f"{words!r} is not the size of a subnet: Azure has /{planning.LARGEST} to /{planning.SMALLEST}"
        )
    return number


def _subnet(words: str) -> SubnetId:
    from ipam.sources.arm_subnet import subnet_id

    try:
        return subnet_id(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(options: argparse.Namespace) -> int:
    """Plan it."""
    try:
        plan = _plan(options)
    except IpamError as error:
        sys.stderr.write(f"azvnet plan: {error}{'. ' if error.remedy else ''}{error.remedy}\n")
        return NOT_ANSWERED
    if options.output == "json":
        sys.stdout.write(json.dumps(plan_document(plan), indent=2) + "\n")
    elif options.output == "svg":
        from cni_plugin.cli.plan_chart import chart

        sys.stdout.write(chart(plan))
    else:
        sys.stdout.write(plan_text(plan, Paint()))
    return 0 if plan.recommended is not None and plan.is_known_to_fit else TOO_SMALL


def _plan(options: argparse.Namespace) -> SubnetPlan:
    _check(options)
    batch = options.batch or 1
    pods, size = _of_this_node() if options.from_node else (KUBELET, None)
    node = planning.per_node(options.max_pods or pods, batch=batch, prefixes=options.prefixes)
    asked = options.nodes or 0, node, options.surge, options.growth
    if options.subnet is None:
        return SubnetPlan(Cluster(*asked, options.used or 0), options.months, options.size or size, batch)
    live = _usage(options)
    cluster = Cluster(*asked, live.used, live.elsewhere)
    return SubnetPlan(cluster, options.months, live.prefix.prefixlen, batch, live)


def _check(options: argparse.Namespace) -> None:
    """Raises CannotPlan: options contradict each other, or one is missing."""
    if options.prefixes and options.batch:
        what = f"--batch is for single addresses, and --prefixes are blocks of {BLOCK}"
        raise CannotPlan(what, "Give one of the two.")
    if options.subnet is None and options.nodes is None:
        raise CannotPlan("how many nodes there are is not given", "Give --nodes, or --subnet.")
    if options.subnet is None:
        return
    if options.used is not None or options.size is not None:
        raise CannotPlan("Azure says how large and how full a --subnet is", "Omit --used and --size.")
    if options.growth.unit == "percent" and options.growth.amount and not options.nodes:
        what = "--growth in percent is of --nodes, and the nodes that are in a --subnet are not counted"
        raise CannotPlan(what, "Give it in nodes or pods, such as 3nodes/week.")


def _of_this_node() -> tuple[int, int]:
    """How many addresses the pool has for pods, and the prefix length of their subnet.

    Raises:
        CannotPlan: there are none, or they are of several NICs.
        StoreUnavailable: the store can't be read.
    """
    from cni_plugin.node import Node

    known = [each for each in Node(os.environ).view.addresses() if each.listed and each.address.version == 4]
    found = {(each.nic_mac, each.address.network) for each in known}
    if not found:
        raise CannotPlan("this node's pool has no addresses yet", "Give --max-pods and --size.")
    if len(found) > 1:
        subnets = ", ".join(f"{network} on {mac}" for mac, network in sorted(found, key=str))
        raise CannotPlan(f"this node's pool is of several subnets: {subnets}", "Give --max-pods and --size.")
    ((_, network),) = found
    return len(known), network.prefixlen


def _usage(options: argparse.Namespace) -> SubnetUsage:
    """The usage of the subnet as Azure Resource Manager reports it.

    Raises:
        SourceUnreadable: it does not report it.
        CannotPlan: the settings can't be read.
    """
    from cni_plugin.agent.settings import Settings
    from ipam import sources
    from ipam.settings_file import SettingsError

    try:
        settings = Settings.read(options.config)
    except SettingsError as error:
        raise CannotPlan(f"settings: {error}", "Correct them, or omit --config.") from error
    return sources.subnet_usage(options.subnet, IMDS_SECONDS, settings.arm)
