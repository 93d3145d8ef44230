"""Which modules of the product go into which bundle, and which must not.

There are two: that of the nodes, and that of the operator, which runs once in a cluster and has the client
of the Kubernetes API in it. Neither carries what only the other one can use. Owns that division. It must
not know how a bundle is made.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import kubernetes_client

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("node", "operator")
OPERATOR = ("cni_plugin.operator", "ipam.operator")
COMMAND = "cni_plugin.cli.operator"
"""The only one that the operator's bundle has: the others look at a node."""
OF_A_NODE = ("cni_plugin.process", "cni_plugin.verbs", "ipam.sources.wireserver")
"""What the operator's modules import and never use: no runtime calls it, and it reads no wireserver."""
OF_THE_CLIENT = (
    "dateutil",
    "durationpy",
    "kubernetes",
    "oauthlib",
    "requests_oauthlib",
    "websocket",
    "yaml",
)
"""The client of the Kubernetes API with what only it needs."""
OF_NEITHER = (
    "aiohappyeyeballs",
    "aiohttp",
    "aiohttp_retry",
    "aiosignal",
    "attr",
    "attrs",
    "frozenlist",
    "multidict",
    "propcache",
    "yarl",
)
"""What the client needs for asyncio, which is not used; ``azure.core`` would load it if it were there."""


def own(kind: str) -> list[str]:
    """The product's modules in a bundle."""
    every = modules()
    if kind == "node":
        return [name for name in every if not _is_in(name, OPERATOR)]
    wanted = {"cni_plugin.entry", COMMAND, *(name for name in every if _is_in(name, OPERATOR))}
    kept: set[str] = set()
    while wanted - kept:
        name = (wanted - kept).pop()
        kept.add(name)
        found = {name.rpartition(".")[0], *_imported(every[name])} & every.keys()
        wanted |= {each for each in found if not _is_in(each, OF_A_NODE)}
    return sorted(kept)


def left_out(kind: str) -> list[str]:
    """The modules, of the product and of the client, that a bundle must not have."""
    if kind == "node":
        return [*OPERATOR, *OF_THE_CLIENT, *OF_NEITHER]
    every, here = modules(), own(kind)
    client = kubernetes_client.left_out(every[name] for name in here)
    return [*sorted(every.keys() - set(here)), *client, *OF_NEITHER]


def modules() -> dict[str, Path]:
    """Every module of the product, with its file."""
    found = {}
    for package in ("cni_plugin", "ipam"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imported(path: Path) -> Iterator[str]:
    """What a module imports, at its top or inside a function."""
    for node in kubernetes_client.executed(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in packages)
