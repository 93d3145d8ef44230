"""Many pods at once on one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration import residue
from integration.cluster import wait_until
from integration.cluster.crowd import Crowd

if TYPE_CHECKING:
    from integration.cluster import Cluster
    from integration.cluster.api import Api

pytestmark = pytest.mark.timeout(600)

PODS = 100


def test_hundred_pods_at_once_have_an_address_each_and_leave_nothing(installed: Cluster, api: Api) -> None:
    node = installed.nodes["node1"].machine
    before = residue.snapshot(node)
    with Crowd(api, node.name, PODS) as crowd:
        crowd.come()
        addresses = {each.address for each in crowd.members.values()}
        assert len(addresses) == PODS
        assert addresses == set(residue.reservations(node))
        assert addresses <= {str(address) for address in node.pod_addresses}
        crowd.go()

    # The API server forgets a pod a moment before its sandbox has gone.
    wait_until(
        "nothing of the pods is left", lambda: not residue.snapshot(node).added_to(before), patience=60
    )
    assert residue.snapshot(node).missing_from(before) == []
    failed = installed.get("events", "--field-selector=reason=FailedCreatePodSandBox")["items"]
    assert [event["message"] for event in failed] == []
