"""``azvnet status``: the pool, who holds which address, where addresses come from, and the agent.

It reads and shows, whatever state the node is in, and writes nothing. Exit code 0, or 3 when something is
wrong: the last line says what.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cni_plugin import __version__, checks
from cni_plugin.checks import span
from cni_plugin.cli.table import NOTHING, Paint, table
from ipam.quoting import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_plugin.cli.looking import Picture, Seen
    from ipam.model import AddressStatus, SourceState

WRONG = 3
STATES = ("free", "assigned", "cooling", "quarantined")
LONGEST_PROBLEM = 1000
"""Characters of a problem in the last line."""
UNDER_WAY_SECONDS = 60.0
"""An ADD that takes longer was killed."""
COLOURS = {
    "ok": "good",
    "free": "good",
    "ready": "good",
    "assigned": "good",
    "unconfirmed": "odd",
    "changed": "odd",
    "cooling": "odd",
    "quarantined": "odd",
    "missing": "bad",
    "down": "bad",
    "no-route": "bad",
    "unknown": "bad",
}
ATTACHMENTS = (
    "POD",
    "CONTAINER",
    "IFNAME",
    "ADDRESS",
    "HOST VETH",
    "HOST INDEX",
    "POD INDEX",
    "SINCE",
    "STATE",
)
ADDRESSES = ("ADDRESS", "STATE", "FOR", "WHO OR WHY")


def arguments(parser: argparse.ArgumentParser) -> None:
    """How to show it."""
    parser.add_argument(
        "--output",
        choices=("table", "json"),
        default="table",
        help="a table, or JSON for programs (default: table)",
    )
    parser.add_argument(
        "--addresses", action="store_true", help="also list every address, its state and the reason for it"
    )


def run(options: argparse.Namespace) -> int:
    """Show it."""
    from cni_plugin.cli.looking import look
    from cni_plugin.node import Node

    picture = look(Node(os.environ))
    problems = find_problems(picture)
    if options.output == "json":
        json.dump(status_document(picture, problems, with_addresses=options.addresses), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(text(picture, problems, Paint(), with_addresses=options.addresses))
    return WRONG if problems else 0


def find_problems(picture: Picture) -> list[str]:
    """What is wrong, in words, the causes before their consequences."""
    agent, overview = picture.agent, picture.overview
    states = Counter(each.state for each in picture.attachments)
    late = sum(each.state == "unconfirmed" and _is_late(each, picture) for each in picture.attachments)
    running = agent.state == "running"
    sources = overview.sources if overview is not None else ()
    warnings = [*(agent.warnings if agent.ready else ()), *picture.in_the_way]
    found = [
        *checks.store_problems(picture.store, picture.store_error, states["unknown"], agent_runs=running),
        *checks.agent_problems(agent.state, agent.reason, ready=agent.ready),
        *(checks.Problem(checks.HOST, each) for each in warnings),
        *checks.source_problems(sources, agent_runs=running),
        *checks.pool_addresses(picture.addresses, picture.on_host, sources),
        *([] if running else checks.exhausted_pool(picture.pool)),
        *checks.attachment_problems(states, late),
    ]
    # What the agent also reports is listed once.
    return [*dict.fromkeys(filter(None, [picture.kernel_error, *(each.text for each in found)]))]


def _is_late(seen: Seen, picture: Picture) -> bool:
    return not 0 <= picture.taken_at - seen.since < UNDER_WAY_SECONDS


# For programs


def status_document(picture: Picture, problems: list[str], *, with_addresses: bool) -> dict[str, Any]:
    """Everything as JSON; docs/agent.md describes the keys."""
    overview = picture.overview
    shown: dict[str, Any] = {
        "version": __version__,
        "takenAt": picture.taken_at,
        "runDir": picture.run_dir,
        "agent": picture.agent.document(),
        "store": {"state": picture.store, "error": picture.store_error},
        "pool": None,
        "source": None,
        "attachments": [each.document() for each in picture.attachments],
        "problems": problems,
    }
    if overview is not None:
        source = overview.source
        families = {f"ipv{version}": _counts_document(each) for version, each in picture.pool.items()}
        shown["pool"] = {**_counts_document(picture.counts), "families": families}
        shown["source"] = {
            "name": source.source,
            "lastSuccess": source.last_success_at,
            "age": source.success_age,
            "listed": source.listed,
            "failures": source.failures,
            "error": source.error,
            "remedy": source.remedy,
        }
    if with_addresses:
        shown["addresses"] = [_address_document(each) for each in picture.addresses]
    return shown


def _counts_document(counts: Counter[str]) -> dict[str, int]:
    return {
        **{state: counts[state] for state in STATES},
        "onHost": counts[checks.ON_HOST],
        "total": counts.total(),
    }


def _address_document(each: AddressStatus) -> dict[str, Any]:
    held = each.reservation
    return {
        "address": str(each.address),
        "gateway": str(each.gateway),
        "nicMac": each.nic_mac,
        "source": each.source,
        "state": each.state.value,
        "listed": each.listed,
        "secondsLeft": each.cooling_left or each.quarantine_left,
        "reason": each.reason,
        "containerID": held.attachment.container_id if held else "",
        "ifname": held.attachment.ifname if held else "",
    }


# For people


def text(picture: Picture, problems: list[str], paint: Paint, *, with_addresses: bool) -> str:
    """Everything as tables."""
    parts = ["".join(f"{paint(name.ljust(8), 'head')}{words}\n" for name, words in _head(picture, paint))]
    if picture.attachments:
        rows = [_attachment_row(each, picture) for each in picture.attachments]
        parts.append(table(ATTACHMENTS, rows, paint, COLOURS))
    if with_addresses and picture.addresses:
        rows = [_address_row(each) for each in picture.addresses]
        parts.append(table(ADDRESSES, rows, paint, COLOURS))
    if problems:
        words = "; ".join(one_line(each.rstrip("."), LONGEST_PROBLEM) for each in problems)
        parts.append(paint(f"wrong: {words}", "bad") + "\n")
    return "\n".join(parts)


def _head(picture: Picture, paint: Paint) -> list[tuple[str, str]]:
    overview = picture.overview
    lines = [("agent", _agent_words(picture, paint))]
    if overview is None:
        return [*lines, ("store", picture.store_error)]
    if picture.store == "other-boot":
        lines.append(("store", "from before the last boot; the next call rebuilds it from what is alive"))
    lines.append(("source", _source_words(overview.source)))
    lines += [("pool", words) for words in _pool_words(picture.pool)]
    if picture.agent.provision:
        lines.append(("growth", one_line(picture.agent.provision, LONGEST_PROBLEM)))
    return lines


def _pool_words(pool: dict[int, Counter[str]]) -> Iterator[str]:
    """A line for each family; a pool of one does not name it."""
    for version, counts in pool.items():
        states = [f"{counts[state]} {state}" for state in STATES]
        if counts[checks.ON_HOST]:
            states.append(f"{counts[checks.ON_HOST]} carried by the host itself")
        of = f"IPv{version} " if len(pool) > 1 else ""
        yield f"{counts.total()} {of}addresses: {', '.join(states)}"


def _agent_words(picture: Picture, paint: Paint) -> str:
    agent = picture.agent
    if agent.state == "none":
        return "none: the executable handles calls itself"
    if agent.state != "running":
        return paint(f"{agent.state}: {agent.reason}", "bad")
    words = [f"pid {agent.pid}"] if agent.pid else []
    if agent.version:
        words += [f"version {agent.version}", f"up {span(picture.taken_at - agent.started)}", agent.socket]
    words.append(paint("ready", "good") if agent.ready else paint("not ready", "bad"))
    return ", ".join(words)


def _source_words(source: SourceState) -> str:
    if source.last_success_at is None:
        words = f"{source.source or 'none'}, never read"
    elif source.success_age is None:
        when = datetime.fromtimestamp(source.last_success_at, tz=UTC)
        words = f"{source.source}, read {when:%Y-%m-%d %H:%M:%S}Z, before the node was started"
    else:
        words = f"{source.source}, read {span(source.success_age)} ago"
    words += f", {source.listed} addresses listed"
    return f"{words}; failing: {source.error}" if source.failures else words


def _attachment_row(each: Seen, picture: Picture) -> tuple[str, ...]:
    return (
        each.owner.pod or NOTHING,
        each.attachment.container_id[:12],
        each.attachment.ifname,
        ", ".join(each.addresses) or each.address or NOTHING,
        each.host_veth or NOTHING,
        str(each.host_index or NOTHING),
        str(each.pod_index or NOTHING),
        f"{span(picture.taken_at - each.since)} ago" if each.since else NOTHING,
        each.state,
    )


def _address_row(each: AddressStatus) -> tuple[str, ...]:
    held = each.reservation
    who = checks.holder_name(held) if held is not None else ""
    left = each.cooling_left or each.quarantine_left
    return (
        str(each.address),
        each.state.value,
        span(left) if left else NOTHING,
        who or each.reason or NOTHING,
    )
