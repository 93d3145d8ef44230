"""Which Nodes the cluster has, as far as it concerns the operator.

It must not know how they are listed, nor what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipam.provision import provider_id
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Json = dict[str, Any]


class NodeSeen(Value):
    """A Node of Kubernetes."""

    name: str
    uid: str
    provider_id: str
    """Empty: nobody has set it."""


class Nodes:
    """``watching.Sink``: which Nodes there are. ``moved`` is told of those that came, changed or went."""

    def __init__(self, moved: Callable[[str], None]) -> None:
        self._moved = moved
        self._nodes: dict[str, NodeSeen] = {}

    def brief(self, document: Json) -> NodeSeen:
        """See there."""
        metadata = document["metadata"]
        return NodeSeen(str(metadata["name"]), str(metadata["uid"]), provider_id.of_node(document))

    def reset(self, objects: Iterable[NodeSeen]) -> None:
        """See there."""
        before, self._nodes = self._nodes, {each.name: each for each in objects}
        for name in before.keys() | self._nodes.keys():
            self._moved(name)

    def changed(self, each: NodeSeen) -> None:
        """See there."""
        if self._nodes.get(each.name) != each:
            self._nodes[each.name] = each
            self._moved(each.name)

    def deleted(self, each: NodeSeen) -> None:
        """See there."""
        self._nodes.pop(each.name, None)
        self._moved(each.name)

    def get(self, name: str) -> NodeSeen | None:
        """The Node of that name."""
        return self._nodes.get(name)
