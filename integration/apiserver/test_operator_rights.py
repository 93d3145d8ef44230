"""The chart with the operator on a real API server: what is accepted, and who may do what.

No pod runs: there are etcd and the API server, tokens as a kubelet gets them, and what Helm renders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.apiserver.operator_place import AGENT, NAMESPACE, OPERATOR, Place, applied, node_of
from integration.cluster.api import ApiError
from integration.cluster.apiserver import AZVNET_NODES
from integration.fabric import Fabric
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = ("node1", "node2")
PATIENCE = 60.0

pytestmark = [pytest.mark.xdist_group("operator-rights"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("apiserver")
    fabric = Fabric(nodes=1, addresses=2, vnet_hosts=1, imds_limit=None)
    with fabric, applied(fabric, folder) as made:
        for node in NODES:
            made.server.add_node(node)
        eventually(lambda: "not bound" in unbound(made), "the policy is in force", patience=PATIENCE)
        yield made


def unbound(place: Place) -> str:
    """What the policy says to a token of the agents that no pod has."""
    return place.account(AGENT).create(node_of("node1"))


def test_the_definition_is_accepted_and_structural(place: Place) -> None:
    found = place.admin.get("customresourcedefinition", "azvnetnodes.azvnet.io")
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}, "no NonStructuralSchema"


def test_kubectl_shows_the_nodes_like_a_dashboard(place: Place) -> None:
    place.put("seen", machine={"resourceId": "/vm"})
    status = {"revision": 1, "nic": {"name": "nic0"}, "addresses": 16, "state": "growing", "text": "16 more"}
    assert place.account(OPERATOR).patch("seen/status", {"status": status}) == ""
    header, line = place.admin.kubectl("get", "azn", "seen").stdout.splitlines()
    assert header.split() == ["NAME", "NIC", "ADDRESSES", "USED", "FREE", "WAITING", "STATE", "AGE"]
    assert line.split()[:7] == ["seen", "nic0", "16", "3", "2", "1", "growing"]
    wide = place.admin.kubectl("get", "azn", "seen", "--output=wide").stdout
    assert wide.split()[8:10] == ["VM", "TEXT"]
    assert "/vm" in wide
    place.server.api.delete(f"{AZVNET_NODES}/seen")


@pytest.mark.parametrize(
    ("spec", "words"), [({"seen": -1}, "spec.seen"), ({"renewTime": "x" * 65}, "Too long")]
)
def test_values_beyond_their_bounds_are_refused(place: Place, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiError, match=words):
        place.put("odd", **spec)


def test_an_agent_writes_the_resource_of_its_own_node(place: Place) -> None:
    place.server.api.delete(f"{AZVNET_NODES}/node1")
    agent = place.agent("node1")
    assert agent.create(node_of("node1")) == ""
    assert agent.replace(place.with_spec("node1", seen=3)) == ""
    assert place.node("node1")["spec"]["seen"] == 3


def test_an_agent_writes_no_other_nodes_resource_and_is_told_why(place: Place) -> None:
    place.put("node1")
    agent = place.agent("node2")
    words = "the agent on node node2 may only write the AzvnetNode node2, not "
    assert f"{words}node1" in agent.replace(place.with_spec("node1", seen=5))
    assert f"{words}node3" in agent.create(node_of("node3"))
    assert "seen" not in place.node("node1")["spec"]


def test_a_token_that_is_bound_to_no_node_writes_nothing(place: Place) -> None:
    said = unbound(place)
    assert "the token is not bound to a pod on a node" in said
    assert "with the token that the kubelet mounts into its pod" in said


def test_an_agent_changes_no_status_and_deletes_nothing(place: Place) -> None:
    place.put("node1")
    agent = place.agent("node1")
    changed = {**place.node("node1"), "status": {"surplus": 9}}
    said = agent.ask("PUT", f"{AZVNET_NODES}/node1/status", changed)
    assert 'cannot update resource "azvnetnodes/status"' in said
    assert agent.replace(changed) == ""
    assert "status" not in place.node("node1"), "nor by the other way"
    assert "cannot delete resource" in agent.ask("DELETE", f"{AZVNET_NODES}/node1")


def test_the_operator_changes_no_spec_and_the_policy_does_not_stand_in_its_way(place: Place) -> None:
    place.put("node1")
    operator = place.account(OPERATOR)
    assert 'cannot patch resource "azvnetnodes"' in operator.patch("node1", {"spec": {"seen": 7}})
    change = {"spec": {"seen": 7}, "status": {"surplus": 4}}
    assert operator.patch("node1/status", change) == ""
    found = place.node("node1")
    assert found["status"]["surplus"] == 4
    assert "seen" not in found["spec"]


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("get", "secrets"),
        ("create", "pods"),
        ("patch", "nodes"),
        ("delete", "pods"),
        ("create", "pods/exec"),
        ("update", "leases.coordination.k8s.io"),
        ("create", "azvnetnodes.azvnet.io"),
    ],
)
def test_the_operator_may_nothing_else(place: Place, verb: str, what: str) -> None:
    who = f"--as=system:serviceaccount:{NAMESPACE}:{OPERATOR}"
    asked = ["auth", "can-i", verb, what, "--namespace=default", who]
    assert place.admin.kubectl(*asked, check=False).stdout.strip() == "no"
