"""One name, one thing: no two modules, classes or functions that mean different things share a name.

A reader who searches for a name finds what is meant. The few exceptions stand with their reasons.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMAND = "a command's module in cli/ is named as the command"
EACH_COMMAND = "every command has these two functions, and cli/__init__ calls them"
EACH_SOURCE = "every source reads, and makes a listing of what it read"
EACH_STATE = "every part of the host's state has these, and host/__init__ calls them"
OTHER_PROGRAM = "the operator is a program of its own, whose parts are called as those of the agent are"
LEVELS = "the errors of addressing, and those of the CNI contract"
ONE_THING = "the pydantic model, and the same model without pydantic, which a call uses"
WORK = "the background work of the agent, as each of its pages needs it"
TWO_LEVELS = "what the node does, with the kernel's help, and its part within a transaction of the store"

EXCEPTIONS = {
    "module": {
        "agent": COMMAND,
        "install": COMMAND,
        "plan": COMMAND,
        "schema": COMMAND,
        "status": COMMAND,
        "operator": "a command, the program that it is, and what that program does",
        "metrics": OTHER_PROGRAM,
        "pages": OTHER_PROGRAM,
        "service": OTHER_PROGRAM,
        "settings": OTHER_PROGRAM,
        "settings_models": OTHER_PROGRAM,
        "settings_schema": OTHER_PROGRAM,
        "errors": LEVELS,
        "ipam": "the package, and the class that is its face",
        "reclaim": "which address is free again, and what has to happen in the kernel before it is",
    },
    "class": {
        "NetConf": ONE_THING,
        "IpamConf": ONE_THING,
        "Settings": ONE_THING,
        "Conflist": ONE_THING,
        "Work": "the background work of the agent, as each of its pages needs it",
    },
    "function": {
        "adopt": TWO_LEVELS,
        "check": EACH_STATE,
        "ensure": EACH_STATE,
        "recorded": EACH_STATE,
        "restore": EACH_STATE,
        "refresh": TWO_LEVELS,
        "release_dead": TWO_LEVELS,
        "reserve": TWO_LEVELS,
        "arguments": EACH_COMMAND,
        "run": EACH_COMMAND,
        "parse": EACH_SOURCE,
        "read": EACH_SOURCE,
    },
}


def _named() -> Iterator[tuple[str, str, str]]:
    """Kind, name and place of every module, and of what it defines. A function that begins with ``_`` is its
    module's own: nobody else can mean it.
    """
    for path in sorted([*(ROOT / "cni_plugin").rglob("*.py"), *(ROOT / "ipam").rglob("*.py")]):
        place = str(path.relative_to(ROOT))
        yield "module", path.parent.name if path.name == "__init__.py" else path.stem, place
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                yield "class", node.name, f"{place}:{node.lineno}"
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield "function", node.name, f"{place}:{node.lineno}"


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_no_two_share_a_name(kind: str) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for what, name, place in _named():
        if what == kind:
            places[name].append(place)
    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert not {name: where for name, where in shared.items() if name not in EXCEPTIONS[kind]}
