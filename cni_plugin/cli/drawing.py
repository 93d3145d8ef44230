"""An attachment as a picture in text: the pod's end, the node's end, and the NIC behind it.

Owns the layout: boxes, their content, and line breaks. Pure: it must not look anything up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cni_plugin.checks import span
from cni_plugin.kernel.encode import RT_SCOPE_LINK
from cni_plugin.kernel.rules import NIC_PRIORITY
from ipam.value import Value

if TYPE_CHECKING:
    from cni_plugin.cli.facts import End, Facts
    from cni_plugin.kernel.decode import KernelRoute, Neighbour

Row = tuple[str, str]

WIDTH, GAP, LABEL = 46, 8, 11
"""Columns of a box, between two boxes, and of a label. Two boxes side by side fit into 100 columns."""
STATES = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}
"""States of neighbours (rtnetlink(7), NUD_*)."""
PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp", 155: "azvnet"}
"""Origin of a route (include/uapi/linux/rtnetlink.h, RTPROT_*)."""


class Strokes(Value):
    """What lines are drawn with."""

    across: str
    down: str
    corners: tuple[str, str, str, str]
    """Upper left, upper right, lower left, lower right."""
    cable: tuple[str, str, str]
    """Left end, middle, right end of a veth pair."""
    bottom_tee: str
    top_tee: str


LINES = Strokes("─", "│", ("┌", "┐", "└", "┘"), ("╞", "═", "╡"), "┬", "┴")
ASCII = Strokes("-", "|", ("+", "+", "+", "+"), ("+", "=", "+"), "+", "+")


def strokes_for(environ: Mapping[str, str]) -> Strokes:
    """What the terminal can show according to its locale (locale(7): LC_ALL, LC_CTYPE, LANG)."""
    chosen = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    return LINES if chosen.lower().replace("-", "").endswith("utf8") else ASCII


def picture(facts: Facts, strokes: Strokes, taken_at: float) -> str:
    """The whole picture; every line ends with a newline."""
    left = _box("pod", _end_rows(facts.pod, facts, "podEnd"), strokes)
    node = _box("node", _end_rows(facts.host, facts, "hostEnd"), strokes, below=True)
    right = [*node, *_box("NIC", _nic_rows(facts), strokes, above=True)]
    left += [" " * WIDTH] * (len(right) - len(left))
    right += [" " * WIDTH] * (len(left) - len(right))
    lines = [f"{name.ljust(LABEL)}{text}" for name, text in _head(facts, taken_at)]
    left[1], cable, right[1] = _cable(facts, strokes, left[1], right[1])
    between = [" " * GAP, cable, *[" " * GAP] * (len(left) - 2)]
    lines += ["".join(row).rstrip() for row in zip(left, between, right, strict=True)]
    if facts.paired is False:
        lines.append("The two ends are not each other's peers: this is not one pair.")
    return "\n".join(lines) + "\n"


def _cable(facts: Facts, strokes: Strokes, one: str, other: str) -> tuple[str, str, str]:
    """The line that connects both ends, as far as that is known."""
    if facts.pod is None and facts.host is None:
        return one, " " * GAP, other
    start, middle, end = strokes.cable
    mark = {True: middle * 2, False: "><", None: "??"}[facts.paired]
    side = middle * ((GAP - 2) // 2)
    return one[:-1] + start, f"{side}{mark}{side}", end + other[1:]


def _head(facts: Facts, taken_at: float) -> Iterator[Row]:
    owner, unknown = facts.owner, facts.unknown
    name = owner.pod or _unknown(unknown["pod"])
    yield "pod", printable(f"{name}, uid {owner.pod_uid}" if owner.pod_uid else name)
    yield "container", printable(facts.attachment.container_id)
    network = f"network {owner.network}" if owner.network else "network not known"
    yield "interface", printable(f"{facts.attachment.ifname}, {network}, {_made_by(facts)}")
    yield "namespace", printable(owner.netns or _unknown(unknown["netns"]))
    yield "since", _since(facts, taken_at)
    yield "CNI call", printable(owner.call_id or _unknown(unknown["callID"]))


def _made_by(facts: Facts) -> str:
    if facts.owner.holder.value == "delegated":
        return "made by another plugin, address from azvnet-ipam"
    return "made by azvnet" if facts.confirmed is not False else "made by azvnet, ADD not finished"


def _since(facts: Facts, taken_at: float) -> str:
    if not facts.since:
        return _unknown(facts.unknown["since"])
    when = datetime.fromtimestamp(facts.since, tz=UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}Z, {span(taken_at - facts.since)} ago"


def _unknown(why: str) -> str:
    return f"not known: {why}"


def _end_rows(end: End | None, facts: Facts, key: str) -> Iterator[Row]:
    if end is None:
        yield "", _unknown(facts.unknown[key])
        return
    link = end.link
    yield link.name, f"index {link.index}, peer {link.lower or 'none'}"
    yield "MAC", f"{link.mac or 'none'}, MTU {link.mtu}, {'up' if link.up else 'down'}"
    if end.master:
        yield "port of", end.master
    yield from _listed("address", (f"{each.ip}/{each.prefixlen}" for each in end.addresses))
    yield from _listed("route", map(route_text, end.routes))
    yield from _listed("neighbour", map(_neighbour_text, end.neighbours))


def _listed(label: str, texts: Iterable[str]) -> Iterator[Row]:
    """One row for each, with the label before the first."""
    for number, text in enumerate([*texts] or ["none"]):
        yield label if number == 0 or text == "none" else "", text


def route_text(route: KernelRoute, link: str = "") -> str:
    """As ``ip route`` writes it, with or without the name of its link."""
    words = "default" if not route.dst.prefixlen else str(route.dst)
    if route.dst.prefixlen == route.dst.max_prefixlen:
        words = str(route.dst.network_address)
    if route.gateway is not None:
        words += f" via {route.gateway}"
    words += f" dev {link}" if link else ""
    return words + (" scope link" if route.scope == RT_SCOPE_LINK else "")


def neighbour_state(state: int) -> str:
    """The state of a neighbour in a word."""
    return next((word for bit, word in STATES.items() if state & bit), "none")


def _neighbour_text(neighbour: Neighbour) -> str:
    return f"{neighbour.ip} {neighbour.mac or 'no MAC'} {neighbour_state(neighbour.state)}"


def _nic_rows(facts: Facts) -> Iterator[Row]:
    unknown = facts.unknown
    if not facts.addresses:
        yield "", _unknown(unknown["addresses"])
    for each in facts.addresses:
        if each.nic_link is not None:
            yield each.nic_link.name, f"index {each.nic_link.index}, MTU {each.nic_link.mtu}"
        else:
            yield "link", _unknown(unknown["nic"])
        yield "MAC", each.nic_mac or _unknown(unknown["nic"])
        yield "address", f"{each.address}, gateway {each.gateway}"
        if each.table:
            yield "table", f"{each.table}, rules {NIC_PRIORITY}"
        yield "IP config", each.configuration or unknown["ipConfiguration"]
        yield "source", each.source or "none"


def _box(
    title: str, rows: Iterable[Row], strokes: Strokes, *, above: bool = False, below: bool = False
) -> list[str]:
    """Rows in a frame; with tees where something stands above or below."""
    inner = WIDTH - 4
    upper_left, upper_right, lower_left, lower_right = strokes.corners
    top = f"{strokes.across} {title} ".ljust(WIDTH - 2, strokes.across)
    bottom = strokes.across * (WIDTH - 2)
    middle = (WIDTH - 2) // 2
    if above:
        top = top[:middle] + strokes.top_tee + top[middle + 1 :]
    if below:
        bottom = bottom[:middle] + strokes.bottom_tee + bottom[middle + 1 :]
    body = [line for label, text in rows for line in _row(printable(label), printable(text), inner)]
    return [
        f"{upper_left}{top}{upper_right}",
        *(f"{strokes.down} {line.ljust(inner)} {strokes.down}" for line in body),
        f"{lower_left}{bottom}{lower_right}",
    ]


def _row(label: str, text: str, width: int) -> Iterator[str]:
    """A label and its text, broken into lines."""
    indent = LABEL if label or not text.startswith("not known") else 0
    if len(label) >= LABEL:  # a long name of a link: its text begins below
        indent = max(len(label) + 1, LABEL)
    lines = broken(text, width - indent)
    yield f"{label.ljust(indent)}{lines[0]}"
    yield from (f"{' ' * indent}{line}" for line in lines[1:])


def broken(text: str, width: int) -> Sequence[str]:
    """Text in lines of at most ``width`` columns, broken between words where that is possible."""
    lines = [""]
    for word in text.split(" "):
        room = width - len(lines[-1]) - bool(lines[-1])
        if len(word) <= room:
            lines[-1] += f" {word}" if lines[-1] else word
            continue
        pieces = [word[start : start + width] for start in range(0, len(word), width)]
        lines += pieces if lines[-1] else [pieces[0], *pieces[1:]]
    return [line for line in lines if line] or [""]


def printable(text: str) -> str:
    """Without control characters, since link names can be any bytes."""
    return "".join(each if each.isprintable() else "?" for each in text)
