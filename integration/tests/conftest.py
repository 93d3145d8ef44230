"""Fixtures of tests that run real executables in emulated nodes; each test has a fabric of its own."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from integration import plugins
from integration.fabric import Fabric

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

CONF = Path(__file__).parents[2] / "conf"


class MakeFabric(Protocol):
    """Bring a fabric up whose nodes have all plugins; it is taken down after the test."""

    def __call__(self, *, nodes: int = 1, addresses: int = 16, peered_hosts: int = 0) -> Fabric: ...


@pytest.fixture
def make_fabric() -> Iterator[MakeFabric]:
    with contextlib.ExitStack() as stack:

        def make(*, nodes: int = 1, addresses: int = 16, peered_hosts: int = 0) -> Fabric:
            fabric = stack.enter_context(Fabric(nodes=nodes, addresses=addresses, peered_hosts=peered_hosts))
            for node in fabric.nodes.values():
                plugins.install_ours(node)
                plugins.install_reference(node)
            return fabric

        yield make


@pytest.fixture
def fabric(make_fabric: MakeFabric) -> Fabric:
    """One node with 16 addresses, and one VNet host."""
    return make_fabric()


@pytest.fixture
def node(fabric: Fabric) -> Machine:
    """The one node."""
    return fabric.nodes["node1"]


def shipped(name: str) -> dict[str, Any]:
    """A conflist as it stands in conf/."""
    loaded: dict[str, Any] = json.loads((CONF / name).read_text())
    return loaded
