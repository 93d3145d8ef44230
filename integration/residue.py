"""What a node holds that a pod could leave behind, as comparable facts.

Owns taking and comparing. Looks at the kernel, at files and into azvnet's store with programs of its
own, never through the plugin. Numbers that change by themselves (interface indexes, counters, learned
neighbours) are left out, so two equal states compare equal.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

_STORE = "/run/azvnet/azvnet.db"
_READ_STORE = f"""
import os, sqlite3
if os.path.exists("{_STORE}"):
    rows = sqlite3.connect("file:{_STORE}?mode=ro", uri=True, timeout=10).execute(
        "SELECT address, container_id, ifname FROM address WHERE container_id IS NOT NULL ORDER BY ip")
    for row in rows: print(*row)
"""


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
    """Links, addresses, routes, rules, permanent neighbours, packet filter, files of CNI, reservations."""
    readers = (_links, _routes, _filters, _files, _reservations)
    return Snapshot(frozenset(fact for read in readers for fact in read(node)))


def reservations(node: Machine) -> dict[str, str]:
    """Which address is held by whom: address → ``container id/ifname``. Empty when there is no store."""
    lines = node.run([sys.executable, "-I", "-S", "-c", _READ_STORE]).stdout.splitlines()
    return {line.split()[0].split("/")[0]: "/".join(line.split()[1:]) for line in lines}


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
            if str(route["dst"]).startswith("fe80::") and route.get("table") == "local":
                continue  # follows a link-local address, some seconds later (RFC 4862, 5.4)
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


def _reservations(node: Machine) -> Iterator[str]:
    for address, holder in reservations(node).items():
        yield f"reservation {address} {holder}"
