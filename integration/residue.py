"""What a node holds that a pod, or a whole installation, could leave behind, as comparable facts.

Owns taking and comparing. Looks at the kernel, at files and into azvnet's store with programs of its
own, never through the plugin. Numbers that change by themselves (interface indexes, counters, learned
neighbours) are left out, so two equal states compare equal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.fabric.holder import COPIED, KEPT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

_STORE = "/run/azvnet/azvnet.db"
_CHANGES_BY_ITSELF = re.compile(r"_count$|random|flush$|fastopen_key")
_OF_RUNTIME = re.compile(
    r"/run/(containerd|kernel-settings|netns|xtables\.lock|lock)\b|/run/containerd[^/]*/"
    r"|/var/lib/(containerd|kubelet|systemd)/|/var/log/(pods|containers)/|/etc/kubernetes/"
    r"|/var/lib/cni/results/$"
)
"""Files and folders of containerd, the kubelet, kube-proxy and iptables; of libcni the folder alone."""
_READ_STORE = f"""
import os, sqlite3
if os.path.exists("{_STORE}"):
    rows = sqlite3.connect("file:{_STORE}?mode=ro", uri=True, timeout=10).execute(
        "SELECT interface, container_id, ifname FROM address WHERE container_id IS NOT NULL ORDER BY ip")
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
    """Links, addresses, routes, rules, permanent neighbours, packet filter, files of CNI, reservations. Not
    azvnet's own table of nf_tables, which stays from the first pod until azvnet is uninstalled.
    """
    readers = (_links, _routes, _filters_of_others, _files, _reservations)
    return Snapshot(frozenset(fact for read in readers for fact in read(node)))


def whole(node: Machine) -> Snapshot:
    """The same, with every sysctl of its network and every file of its own, its runtime's apart."""
    readers = (_links, _routes, _filters, _sysctls, _own_files)
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


def _filters_of_others(node: Machine) -> Iterator[str]:
    return (fact for fact in _filters(node) if not fact.startswith("filter inet azvnet "))


def _filters(node: Machine) -> Iterator[str]:
    table = chain = ""
    for line in node.run(["nft", "--stateless", "list", "ruleset"], check=False).stdout.splitlines():
        text = line.strip()
        if text.startswith("table "):
            table = text.removeprefix("table ").removesuffix("{").strip()
        elif text.startswith(("chain ", "map ", "set ")):
            chain = text.removesuffix("{").strip()
        elif text not in ("", "}"):
            yield f"filter {table} {chain}: {text}"


def _files(node: Machine) -> Iterator[str]:
    listed = node.run(["find", "/run/netns", "/var/lib/cni", "-type", "f"], check=False).stdout
    for path in sorted(listed.splitlines()):
        yield f"file {path}"


def _reservations(node: Machine) -> Iterator[str]:
    for address, holder in reservations(node).items():
        yield f"reservation {address} {holder}"


def _sysctls(node: Machine) -> Iterator[str]:
    root = Path("/proc/sys/net")

    def look() -> list[str]:
        found = []
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_file() and not _CHANGES_BY_ITSELF.search(name):
                with contextlib.suppress(OSError):  # some can only be written
                    found.append(f"sysctl {name} = {path.read_text().strip()}")
        return found

    yield from node.in_network(look)


def _own_files(node: Machine) -> Iterator[str]:
    """What the node's disk has that the machine below has not, and what is in /run."""
    inside = Path(f"/proc/{node.holder_pid}/root")
    places = {Path("/run"): inside / "run"}
    places |= {Path(name): inside / name.lstrip("/") for name in KEPT}
    disk = Path(f"/proc/{node.process_ids[0]}/root{node.folder}")
    places |= {Path(name): disk / "copied" / name.lstrip("/") / "upper" for name in COPIED}
    for shown, folder in places.items():
        for path in sorted(folder.rglob("*")):
            at = shown / path.relative_to(folder)
            if _OF_RUNTIME.match(f"{at}/"):
                continue
            with contextlib.suppress(FileNotFoundError):  # it went while it was looked at
                yield f"file {at} {_described(path)}"


def _described(path: Path) -> str:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        content = f"-> {path.readlink()}"
    elif stat.S_ISREG(found.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        content = ""
    return f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid} {content}".rstrip()
