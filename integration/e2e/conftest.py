"""One cluster for all end-to-end tests of a run, and what they have in common.

The layer runs in one process, so ``cluster`` is shared by all files. It starts without a CNI plugin;
a test that needs one takes ``ready_cluster``. A test that breaks something repairs it. Tests that break
azvnet itself, or its nodes, are in ``life``, those of both families in ``dual``: each folder has a cluster of
its own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.cluster import Cluster, images, rollout
from integration.e2e import diagnosis
from integration.e2e.scene import Scene, dropped
from integration.e2e.space import Space, own_namespace

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

FOLDER = Path(__file__).parent
NODES = 3
ADDRESSES = 64
SMALL = "node3"
"""A node with a few addresses only. It has a taint, so a pod runs there when a test names the node."""
SMALL_ADDRESSES = 4
SHARED = ("cluster", "life", "dual")
"""Fixtures that are clusters which tests share."""


PATIENCE = 300
"""Seconds for one test; the first one of a run waits for the cluster as well."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a test of this folder the time that a cluster takes, unless it says how long it needs."""
    for item in items:
        if item.path.is_relative_to(FOLDER) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes that have registered; nothing tells whether they are Ready. One has the newest
    containerd, the others the oldest that is supported.
    """
    with Cluster(NODES, ADDRESSES, newest_containerd={"node2"}, fabric={"peered_hosts": 1}) as made:
        made.fabric.remove_addresses(SMALL, ADDRESSES - SMALL_ADDRESSES)
        made.kubectl("taint", "node", SMALL, "azvnet.test/few-addresses=:NoSchedule")
        yield made


@pytest.fixture(scope="session")
def ready_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with azvnet installed by its manifest, every node Ready, CoreDNS answering."""
    assert cluster.ready_nodes() == [], "nodes were Ready before azvnet was there"
    rollout.install(cluster)
    cluster.load_image(images.e2e())
    cluster.wait_dns()
    yield cluster
    if left := diagnosis.left_behind(cluster):
        pytest.fail("left on the nodes by pods that are gone:\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def namespace(ready_cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own. It goes after the test, with all that is in it; nobody waits."""
    with own_namespace(ready_cluster) as name:
        yield name


@pytest.fixture
def space(ready_cluster: Cluster, namespace: str) -> Space:
    """The same namespace, with what a test does in it."""
    return Space(ready_cluster, namespace)


@pytest.fixture(scope="session")
def scene(ready_cluster: Cluster) -> Iterator[Scene]:
    """Pods on two nodes that all tests may talk to and none may change."""
    with Scene.up(ready_cluster) as made:
        yield made


@pytest.fixture(autouse=True)
def no_drops(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test makes a node send what Azure would drop: a source address that its NIC does not own."""
    used = [name for name in SHARED if name in request.fixturenames]
    if not used:
        yield
        return
    shared: Cluster = request.getfixturevalue(used[0])
    before = dropped(shared)
    yield
    assert dropped(shared) == before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what Kubernetes and the nodes say to the report of a test that failed."""
    report = yield
    used = getattr(item, "funcargs", {})
    for name in SHARED:
        if report.failed and call.excinfo is not None and name in used:
            with contextlib.suppress(Exception):  # the failure itself is worth more than its story
                report.sections.append(("Kubernetes", diagnosis.story(used[name])))
    return report
