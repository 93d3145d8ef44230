"""One dual-stack cluster for the tests of this folder, with azvnet installed by its chart.

It goes before other tests have theirs: two clusters at once are a lot for a small machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster import Cluster, images, rollout
from integration.e2e import diagnosis
from integration.e2e.space import Space, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESSES = 64


@pytest.fixture(scope="package")
def dual() -> Iterator[Cluster]:
    """Two Ready nodes, whose pods get an address of each family; CoreDNS answers."""
    with Cluster(2, ADDRESSES, dual_stack=True, newest_containerd={"node2"}) as made:
        rollout.install(made)
        made.load_image(images.e2e())
        made.wait_dns()
        yield made
        if left := diagnosis.left_behind(made):
            pytest.fail("left on the nodes by pods that are gone:\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def namespace(dual: Cluster) -> Iterator[str]:
    """A namespace of the test's own. It goes after the test, with all that is in it; nobody waits."""
    with own_namespace(dual) as name:
        yield name


@pytest.fixture
def space(dual: Cluster, namespace: str) -> Space:
    """The same namespace, with what a test does in it."""
    return Space(dual, namespace)
