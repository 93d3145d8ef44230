"""What the error of an ADD that finds no free address says about addresses on the way.

It must not know who provides them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ipam.errors import PoolExhausted, SourceEmpty

if TYPE_CHECKING:
    from cni_plugin.node import Node


@contextmanager
def told(pod: str, node: Node) -> Iterator[None]:
    """If the body finds no address, report the pod to the node, and add to the error what is done about it.

    Raises:
        PoolExhausted, SourceEmpty: those of the body.
    """
    try:
        yield
    except (PoolExhausted, SourceEmpty) as error:
        words = node.outlook(pod) if node.outlook is not None else ""
        if not words:
            raise
        text = f"{error}; {words}"
        if isinstance(error, PoolExhausted):
            raise PoolExhausted(text, error.remedy, family=error.family) from error
        raise SourceEmpty(text, error.remedy) from error
