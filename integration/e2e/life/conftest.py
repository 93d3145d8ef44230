"""One cluster for the tests of this folder. It begins with nodes that have no plugin; no test leaves pods.

It goes before other tests have theirs: two clusters at once are a lot for a small machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster import Cluster, rollout, wait_until
from integration.cluster.api import Api
from integration.e2e.scene import dropped
from integration.e2e.space import own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESSES = 112
"""Of every node: enough for a hundred pods at once."""


@pytest.fixture(scope="package")
def life() -> Iterator[Cluster]:
    """Two nodes, one with the oldest containerd that is supported, one with the newest. Nothing tells
    whether azvnet is on them.
    """
    with Cluster(2, ADDRESSES, dns=False, newest_containerd={"node2"}) as made:
        rollout.load(made)
        yield made
        assert not dropped(made)


@pytest.fixture
def installed(life: Cluster) -> Cluster:
    """``life`` with azvnet installed by its manifest, every node Ready."""
    rollout.install(life)
    return life


@pytest.fixture
def bare(life: Cluster) -> Cluster:
    """``life`` with nodes that have nothing of azvnet, and no plugin that a network needs."""
    if any(node.run(["ls", "/opt/azvnet"], check=False).returncode == 0 for node in life.nodes.values()):
        rollout.uninstall(life)
    wait_until("no node is Ready", lambda: life.ready_nodes() == [], patience=60)
    return life


@pytest.fixture
def api(life: Cluster) -> Iterator[Api]:
    """The API server of ``life``, for what is too much for kubectl."""
    with Api(life.kubeconfig) as made:
        yield made


@pytest.fixture
def namespace(life: Cluster) -> Iterator[str]:
    """A namespace of the test's own. It goes after the test, with all that is in it; nobody waits."""
    with own_namespace(life) as name:
        yield name
