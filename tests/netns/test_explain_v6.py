"""``azvnet explain`` of IPv6: what it says is what becomes of packets, hop by hop."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest

from tests.netns.calls import Executable
from tests.netns.node import Node
from tests.netns.test_ipv6 import FIRST_V6, OUTSIDE_V6, attached, with_both

WEB = str(FIRST_V6)
INSIDE = "fd00:10:0:7::7"
"""An address of the virtual network, in another subnet."""


class Explain(Protocol):
    """Runs the command on the node."""

    def __call__(self, start: str, to: str, *options: str) -> dict[str, Any]: ...


@pytest.fixture
def dual(busy_node: Node) -> Node:
    """A node whose network gives its pods addresses of both families."""
    return with_both(busy_node)


@pytest.fixture
def explain(dual: Node, executable: Executable) -> Explain:
    def run(start: str, to: str, *options: str) -> dict[str, Any]:
        argv = ("explain", "--from", start, "--to", to, "--output", "json", *options)
        done = executable.command(dual.sandbox, *argv)
        assert done.stderr == "", done.stderr
        read: dict[str, Any] = json.loads(done.stdout)
        return read

    return run


def test_a_pods_own_address_outside_is_noted(dual: Node, explain: Explain) -> None:
    attached(dual, ipMasq=False)
    (note,) = [each for each in explain(WEB, OUTSIDE_V6)["notes"] if "secondary" in each]
    assert note.startswith(f"{WEB} is a secondary address")
    assert explain(WEB, INSIDE)["notes"] == []
