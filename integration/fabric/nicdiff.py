"""What a writer changed on a NIC that is not its own: for tests that nothing else is ever touched. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_ALWAYS_NEW = {"etag", "provisioningState"}
"""Fields that change with every write, whatever is written."""


def foreign_changes(before: Any, after: Any, own: Callable[[str], bool]) -> list[str]:
    """The differences between two documents of a NIC, but for the IP configurations that are ``own``.

    Args:
        before: a NIC as ARM shows it.
        after: the same NIC later.
        own: whether the writer may add, change and remove the configuration of that name.
    """
    return list(_differences("", _comparable(before, own), _comparable(after, own)))


def _comparable(document: Any, own: Callable[[str], bool]) -> dict[str, Any]:
    """The document without what may change; configurations by name, since their order means nothing."""
    properties = dict(document["properties"])
    entries = properties.pop("ipConfigurations")
    foreign = {entry["name"]: entry for entry in entries if not own(entry["name"])}
    return {**document, "properties": properties, "ipConfigurations": foreign}


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted((before.keys() | after.keys()) - _ALWAYS_NEW):
            yield from _differences(f"{path}/{name}", before.get(name), after.get(name))
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"
