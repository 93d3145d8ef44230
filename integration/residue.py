"""What a node holds that a pod could leave behind, as comparable facts.

Owns taking and comparing. Must not know which plugin made what. Numbers that change by themselves
(interface indexes, counters, learned neighbours) are left out, so two equal states compare equal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Facts of a node at one moment, one line each: ``link …``, ``route …``, ``file …``."""

    facts: frozenset[str]

    def added_to(self, before: Snapshot, *kinds: str) -> list[str]:
        """What is here and was not there ``before``; only facts of ``kinds``, when given."""
        return [f for f in sorted(self.facts - before.facts) if not kinds or f.split()[0] in kinds]

    def missing_from(self, before: Snapshot, *kinds: str) -> list[str]:
        """What was there ``before`` and is not here."""
        return before.added_to(self, *kinds)


def snapshot(node: Machine) -> Snapshot:
    """Links, addresses, routes, rules, permanent neighbours, packet filter, namespaces, CNI's files."""
    return Snapshot(frozenset((*_links(node), *_routes(node), *_filters(node), *_files(node))))


def _objects(node: Machine, *arguments: str) -> list[dict[str, Any]]:
    printed = node.run(["ip", "-json", *arguments]).stdout.strip()
    found: list[dict[str, Any]] = json.loads(printed) if printed else []
    return [each for each in found if each]


def _links(node: Machine) -> Iterator[str]:
    for link in _objects(node, "address"):
        yield f"link {link['ifname']} mac={link.get('address')} mtu={link['mtu']}"
        for address in link.get("addr_info", ()):
            if address.get("local"):
                yield f"address {link['ifname']} {address['local']}/{address['prefixlen']}"


def _routes(node: Machine) -> Iterator[str]:
    for family in ("-4", "-6"):
        for route in _objects(node, family, "route", "show", "table", "all"):
            kept = {k: v for k, v in route.items() if k not in ("flags", "expires", "pref", "metrics")}
            yield f"route {json.dumps(kept, sort_keys=True)}"
        for rule in _objects(node, family, "rule"):
            yield f"rule {family} {json.dumps(rule, sort_keys=True)}"
    for neighbour in _objects(node, "neighbour", "show", "nud", "permanent"):
        yield f"neighbour {neighbour['dst']} {neighbour['dev']} {neighbour.get('lladdr')}"


def _filters(node: Machine) -> Iterator[str]:
    chain = ""
    for line in node.run(["nft", "--stateless", "list", "ruleset"], check=False).stdout.splitlines():
        text = line.strip()
        if text.startswith(("table ", "chain ", "map ", "set ")):
            chain = text.removesuffix("{").strip()
        elif text not in ("", "}"):
            yield f"filter {chain}: {text}"


def _files(node: Machine) -> Iterator[str]:
    listed = node.run(["find", "/run/netns", "/var/lib/cni", "-type", "f"], check=False).stdout
    for path in sorted(listed.splitlines()):
        yield f"file {path}"
