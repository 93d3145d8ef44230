"""Which modules of the official Kubernetes client the operator's bundle does without.

The client has a module for each API group and each type of Kubernetes, about 800, and loads them when
somebody names what is in them (``_exports`` of its packages). What nobody names is left out. Owns finding
that out from the sources. It must not know what the operator does with them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib import util
from pathlib import Path

PACKAGE = "kubernetes"
LAZY = ("kubernetes.client", "kubernetes.client.api", "kubernetes.client.models")
"""Packages that load what they export when it is named."""
NEVER = ("kubernetes.aio",)
"""The same client for asyncio."""


def left_out(sources: Iterable[Path]) -> list[str]:
    """The client's modules that neither these sources nor what they load can reach.

    Args:
        sources: the modules of the product that are in the bundle.
    """
    every = dict(_modules())
    exports = {package: exported(every[package]) for package in LAZY}
    by_name = {name: f"{package}{module}" for package in LAZY for name, module in exports[package].items()}
    wanted = {PACKAGE}
    for source in sources:
        wanted |= _mentioned(ast.parse(source.read_text()), by_name) & every.keys()
    kept: set[str] = set()
    while wanted - kept:
        name = (wanted - kept).pop()
        kept |= {name}
        wanted |= {each for each in _parents(name) if each in every}
        package = name if every[name].name == "__init__.py" else name.rpartition(".")[0]
        tree = ast.parse(every[name].read_text())
        found = _mentioned(tree, {} if name in LAZY else by_name, package) & every.keys()
        wanted |= {each for each in found if not each.startswith(NEVER)}
    return sorted(every.keys() - kept)


def exported(package: Path) -> dict[str, str]:
    """What a package of the client loads when it is named, with the module, relative to the package."""
    for node in ast.walk(ast.parse(package.read_text())):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(each, ast.Name) and each.id == "_exports" for each in targets):
                found: dict[str, str] = ast.literal_eval(node.value)
                return found
    raise SystemExit(f"kubernetes_client: {package} has no _exports any more: see how it loads its modules")


def _modules() -> Iterator[tuple[str, Path]]:
    """Every module of the client, with its file."""
    spec = util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("kubernetes_client: the client is not installed: run packaging/venv.sh")
    root = Path(spec.submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _mentioned(tree: ast.AST, by_name: dict[str, str], package: str = "") -> set[str]:
    """Modules that a file names: in an import, or by something of them that is loaded when it is named."""
    found: set[str] = set()
    for node in executed(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            found |= {by_name[alias.name] for alias in node.names if alias.name in by_name}
        elif isinstance(node, ast.Attribute) and node.attr in by_name:
            found.add(by_name[node.attr])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # The type of an answer is given by its name: "V1Lease", "List[V1Pod]".
            words = node.value.replace("[", " ").replace("]", " ").replace(",", " ").split()
            found |= {by_name[word] for word in words if word in by_name}
    return {each for each in found if each.partition(".")[0] == PACKAGE}


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a syntax tree without what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from executed(node)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for end in range(1, len(parts)):
        yield ".".join(parts[:end])
