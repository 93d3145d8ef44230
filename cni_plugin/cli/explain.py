"""``azvnet explain``: the path of a packet, hop by hop, and what drops it.

Exit code 0: delivered; 1: dropped, or nothing of that name was found; 2: several pods have it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cni_plugin.cli.drawing import printable
from cni_plugin.cli.table import NOTHING, Paint, table

if TYPE_CHECKING:
    from cni_plugin.cli.facts import Facts, Survey
    from cni_plugin.cli.journey import Journey
    from cni_plugin.cli.probe import Answer
    from cni_plugin.node import Node
    from ipam.model import IPAddress

DROPPED, SEVERAL = 1, 2
WRONG = 2
"""As argparse: a command line that can't be used."""
HEADER = ("WHERE", "INTERFACE", "ROUTE", "RULE", "ACTION")


class Target(argparse.Namespace):
    """``ADDRESS[:PORT]``, or ``[ADDRESS]:PORT``; a link-local address of IPv6 with ``%LINK`` (RFC 4007)."""

    ip: IPAddress
    port: int
    link: str

    def __str__(self) -> str:
        address = f"{self.ip}%{self.link}" if self.link else str(self.ip)
        if not self.port:
            return address
        return f"{address}:{self.port}" if self.ip.version == 4 else f"[{address}]:{self.port}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The packet, and how its path is shown."""
    parser.add_argument(
        "--from",
        dest="start",
        metavar="POD|ADDRESS",
        required=True,
        help="a pod (NAME or NAMESPACE/NAME), its address, an address of the node, or one outside",
    )
    parser.add_argument(
        "--to",
        metavar="ADDRESS[:PORT]",
        required=True,
        type=_target,
        help="the destination, ADDRESS%%LINK if it is link-local; without a port an ICMP echo is sent",
    )
    parser.add_argument("--udp", action="store_true", help="UDP instead of TCP")
    parser.add_argument(
        "--probe", action="store_true", help="also send a real packet, and show what happens to it"
    )
    parser.add_argument(
        "--output",
        choices=("text", "json"),
        default="text",
        help="text, or JSON for programs (default: text)",
    )


def _target(text: str) -> Target:
    host, colon, port = text.rpartition(":")
    if text.count(":") > 1 and not host.startswith("["):
        host, colon, port = text, "", ""
    try:
        address, _, link = (host if colon else text).strip("[]").partition("%")
        ip = ip_address(address)
        number = int(port) if colon else 0
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS or ADDRESS:PORT") from None
    if not 0 <= number <= 65535 or (colon and not number):
        raise argparse.ArgumentTypeError(f"{number} is not a port")
    if link and not (ip.version == 6 and ip.is_link_local):
        raise argparse.ArgumentTypeError(f"{ip} is not link-local, so it has no %{link}")
    return Target(ip=ip, port=number, link=link)


def run(options: argparse.Namespace) -> int:
    """Explain it."""
    from cni_plugin.cli import facts
    from cni_plugin.cli.journey import DELIVERED, Traveller
    from cni_plugin.node import Node

    node = Node(os.environ)
    target: Target = options.to
    try:
        seen = facts.survey(node)
        source = _source(options.start, target.ip, seen, node)
    except (LookupError, OSError) as error:
        sys.stderr.write(f"azvnet explain: {error}\n")
        return SEVERAL if isinstance(error, KeyError) else DROPPED
    pods = _pods(source, target.ip, seen, node)
    if target.ip.version == 6 and target.ip.is_link_local and not target.link and source not in pods:
        sys.stderr.write(f"azvnet explain: name the link, for example {target.ip}%eth0\n")
        return WRONG
    answer = _probe(options, pods.get(source), source) if options.probe else None
    translated = (ip_address(answer.source), ip_address(answer.target)) if answer and answer.source else None
    if translated is not None:
        pods |= _pods(source, translated[1], seen, node)
    protocol = ("udp" if options.udp else "tcp") if target.port else "icmp"
    journey = Traveller(node, seen, pods, protocol, target.port, translated, target.link).follow(
        source, target.ip
    )
    if options.output == "json":
        document = _document(options.start, target, protocol, journey, answer)
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(_text(journey, source, target, protocol, answer))
    return 0 if journey.verdict == DELIVERED and (answer is None or answer.arrived) else DROPPED


def _source(start: str, target: IPAddress, seen: Survey, node: Node) -> IPAddress:
    """The address that the packet comes from.

    Raises:
        LookupError: nothing has that name; KeyError: several pods do.
    """
    from cni_plugin.cli import facts

    found = [each for each in facts.find_attached(start, seen, node) if each.held]
    addresses = [held.ip for each in found for held in each.held if held.ip.version == target.version]
    if len({each.attachment.container_id for each in found}) > 1:
        named = ", ".join(each.attachment.container_id for each in found)
        raise KeyError(f"{printable(start)} names several pods: choose one by its container ({named})")
    ip = facts.ip_of(start)
    if ip is not None:
        return ip
    if not addresses:
        raise LookupError(f"no pod with an IPv{target.version} address is called {printable(start)}")
    return addresses[0]


def _pods(source: IPAddress, target: IPAddress, seen: Survey, node: Node) -> dict[IPAddress, Facts]:
    """The facts of the pods at both ends, and of the other interfaces of the first one, by address."""
    from cni_plugin.cli import facts

    def has(ip: IPAddress, known: facts.Attached) -> bool:
        return ip in {held.ip for held in known.held}

    containers = {each.attachment.container_id for each in seen.known if has(source, each)}
    wanted = [each for each in seen.known if each.attachment.container_id in containers or has(target, each)]
    gathered = [(each, facts.gather(each, seen, node)) for each in wanted]
    return {held.ip: found for each, found in gathered for held in each.held}


def _probe(options: argparse.Namespace, pod: Facts | None, source: IPAddress) -> Answer:
    from cni_plugin.cli import probe

    to: Target = options.to
    link = to.link
    if pod is not None and pod.pod is not None and to.ip.version == 6 and to.ip.is_link_local:
        link = link or pod.pod.link.name
    return probe.send(pod, source, to.ip, to.port, udp=options.udp, link=link)


def _document(
    start: str, target: Target, protocol: str, journey: Journey, answer: Answer | None
) -> dict[str, Any]:
    document = {
        "from": start,
        "to": str(target),
        "protocol": protocol,
        "verdict": journey.verdict,
        "source": str(journey.source),
        "reason": journey.reason,
        "hops": [
            {
                "where": hop.where,
                "interface": hop.interface,
                "rule": hop.rule or None,
                "route": hop.route or None,
                "action": hop.action,
            }
            for hop in journey.hops
        ],
        "notes": list(journey.notes),
    }
    return document if answer is None else document | {"probe": answer.document()}


def _text(journey: Journey, source: IPAddress, target: Target, protocol: str, answer: Answer | None) -> str:
    paint = Paint()
    rows = [
        (hop.where, hop.interface, hop.route or NOTHING, hop.rule or NOTHING, hop.action)
        for hop in journey.hops
    ]
    port = f" port {target.port}" if target.port else ""
    colour = "good" if journey.verdict == "delivered" else "bad"
    lines = [
        f"{protocol} from {source} to {target.ip}{port}",
        "",
        table(HEADER, rows, paint, {}),
        f"{paint(journey.verdict, colour)}: {journey.reason}",
        *(f"note: {note}" for note in journey.notes),
    ]
    if answer is not None:
        lines.append(f"probe: {answer}")
    return "\n".join(lines) + "\n"
