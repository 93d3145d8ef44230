"""``azvnet show``: one pod's attachment from end to end, as the kernel and the store have it.

It reads and shows, whatever state the node is in, and writes nothing. Exit code 0; 1 when nothing was found;
2 when several pods were, which are listed then.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from cni_plugin import __version__
from cni_plugin.cli import drawing
from cni_plugin.cli.table import NOTHING, Paint, table
from cni_plugin.kernel.encode import RT_SCOPE_LINK

if TYPE_CHECKING:
    from cni_plugin.cli.facts import Attached, End, Facts, Provision, Survey

NOT_FOUND, SEVERAL = 1, 2
HEADER = ("POD", "CONTAINER", "IFNAME", "ADDRESS", "HOST VETH")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to show, and how."""
    parser.add_argument(
        "target",
        metavar="POD|ADDRESS|INTERFACE|CONTAINER",
        type=_target,
        help="a pod (NAME or NAMESPACE/NAME), an address, a link of the node, or a container id "
        "(or a prefix of one)",
    )
    parser.add_argument(
        "--output",
        choices=("picture", "ascii", "json"),
        help="a picture for people (ascii: where the locale is not UTF-8), or JSON for programs",
    )


def _target(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def run(options: argparse.Namespace) -> int:
    """Show it."""
    from cni_plugin.cli import facts
    from cni_plugin.node import Node

    node = Node(os.environ)
    try:
        seen = facts.survey(node)
    except OSError as error:
        sys.stderr.write(f"azvnet show: links can't be read: {error.strerror or error}\n")
        return NOT_FOUND
    found = facts.find_attached(options.target, seen, node)
    if not found:
        sys.stderr.write(
            f"azvnet show: {_nothing(options.target, facts.unheld_reason(options.target, seen), seen)}\n"
        )
        return NOT_FOUND
    several = len({each.attachment.container_id for each in found}) > 1
    if options.output == "json":
        shown = [attachment_document(facts.gather(each, seen, node)) for each in found]
        json.dump(
            {"version": __version__, "takenAt": seen.taken_at, "attachments": shown}, sys.stdout, indent=2
        )
        sys.stdout.write("\n")
    elif several:
        sys.stdout.write(table(HEADER, [_row(each) for each in found], Paint(), {}))
    else:
        pictures = [facts.gather(each, seen, node) for each in found]
        _write_pictures(pictures, options.output, seen)
    if several:
        sys.stderr.write(f"azvnet show: {options.target} names several pods: choose one by its container\n")
    return SEVERAL if several else 0


def _write_pictures(pictures: list[Facts], output: str | None, seen: Survey) -> None:
    strokes = {"picture": drawing.LINES, "ascii": drawing.ASCII}.get(output or "")
    strokes = strokes or drawing.strokes_for(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stdout.write("\n".join(drawing.picture(each, strokes, seen.taken_at) for each in pictures))


def _nothing(target: str, unheld: str, seen: Survey) -> str:
    shown = drawing.printable(target)
    if unheld:
        return f"no pod has {shown}: {unheld}"
    what = f"no pod, address, interface or container of azvnet is called {shown}"
    return f"{what}; {seen.store_error}" if seen.store_error else what


def _row(known: Attached) -> tuple[str, ...]:
    cells = (
        known.owner.pod or NOTHING,
        known.attachment.container_id,
        known.attachment.ifname,
        ", ".join(str(each.ip) for each in known.held) or NOTHING,
        known.host_link.name if known.host_link is not None else NOTHING,
    )
    return tuple(map(drawing.printable, cells))


def attachment_document(facts: Facts) -> dict[str, Any]:
    """An attachment as JSON; docs/show.md describes the keys."""
    owner = facts.owner
    return {
        "podNamespace": owner.pod_namespace,
        "podName": owner.pod_name,
        "podUID": owner.pod_uid,
        "containerID": facts.attachment.container_id,
        "ifname": facts.attachment.ifname,
        "network": owner.network,
        "holder": owner.holder.value,
        "confirmed": facts.confirmed,
        "since": facts.since or None,
        "callID": owner.call_id or None,
        "netns": owner.netns or None,
        "addresses": [_address(each) for each in facts.addresses],
        "podEnd": _end(facts.pod),
        "hostEnd": _end(facts.host),
        "paired": facts.paired,
        "unknown": dict(facts.unknown),
    }


def _address(each: Provision) -> dict[str, Any]:
    link = each.nic_link
    return {
        "address": str(each.address),
        "gateway": str(each.gateway),
        "source": each.source or None,
        "nicMAC": each.nic_mac or None,
        "nicLink": None if link is None else {"name": link.name, "index": link.index, "mtu": link.mtu},
        "nicTable": each.table or None,
        "ipConfiguration": each.configuration or None,
    }


def _end(end: End | None) -> dict[str, Any] | None:
    if end is None:
        return None
    return {
        "name": end.link.name,
        "index": end.link.index,
        "peerIndex": end.link.lower or None,
        "mac": end.link.mac,
        "mtu": end.link.mtu,
        "up": end.link.up,
        "kind": end.link.kind,
        "master": end.master or None,
        "addresses": [f"{each.ip}/{each.prefixlen}" for each in end.addresses],
        "routes": [
            {
                "destination": str(each.dst),
                "gateway": None if each.gateway is None else str(each.gateway),
                "protocol": drawing.PROTOCOLS.get(each.protocol, str(each.protocol)),
                "scope": "link" if each.scope == RT_SCOPE_LINK else "global",
            }
            for each in end.routes
        ],
        "neighbours": [
            {"address": str(each.ip), "mac": each.mac, "state": drawing.neighbour_state(each.state)}
            for each in end.neighbours
        ],
    }
