"""One cluster for the tests of this folder. Its nodes begin with one address each for pods, and the operator.

It goes before other tests have theirs: two clusters at once are a lot for a small machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster import Cluster
from integration.cluster.api import Api
from integration.e2e import diagnosis
from integration.e2e.growth.operated import Operated
from integration.e2e.scene import dropped
from integration.e2e.space import own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def operated() -> Iterator[Operated]:
    """Three nodes, one of them with the newest containerd; every node is Ready."""
    with Cluster(3, 1, dns=False, newest_containerd={"node2"}) as cluster, Api(cluster.kubeconfig) as api:
        made = Operated(cluster, api)
        try:
            made.install()
        except Exception as error:
            error.add_note(diagnosis.story(cluster))
            raise
        yield made


@pytest.fixture
def namespace(operated: Operated) -> Iterator[str]:
    """A namespace of the test's own. It goes after the test, with all that is in it; nobody waits."""
    with own_namespace(operated.cluster) as name:
        yield name


@pytest.fixture(autouse=True)
def only_what_is_ours(operated: Operated) -> Iterator[None]:
    """No pod ever sends from an address that its NIC does not own, and nothing of others changes on a NIC."""
    before = dropped(operated.cluster)
    yield
    assert dropped(operated.cluster) == before
    assert operated.changed_by_others() == []
