"""One cluster for all end-to-end tests of a run, and what they have in common.

The layer runs in one process, so ``cluster`` is shared by all files. It starts without a CNI plugin;
a test that needs one takes ``ready_cluster``. A test that breaks something repairs it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from integration.cluster import Cluster
from integration.plugins import bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = 2
ADDRESSES = 64


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes that have registered; nothing tells whether they are Ready. One has the oldest containerd
    that is supported, the other the newest.
    """
    with Cluster(NODES, ADDRESSES, newest_containerd={"node2"}) as made:
        yield made


@pytest.fixture(scope="session")
def ready_cluster(cluster: Cluster) -> Cluster:
    """The cluster with the built executables on its nodes, every node Ready, CoreDNS answering."""
    bundle()
    cluster.install_cni("azvnet")
    cluster.wait_nodes_ready()
    cluster.wait_dns()
    return cluster


@pytest.fixture
def namespace(ready_cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, removed with all that is in it when the test has ended."""
    name = f"t-{secrets.token_hex(4)}"
    ready_cluster.kubectl("create", "namespace", name)
    yield name
    ready_cluster.kubectl("delete", "namespace", name, "--timeout=120s", timeout=150)
