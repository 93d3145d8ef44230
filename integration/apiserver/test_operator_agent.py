"""``provision.mode: operator`` on a node: the frozen agent, a real API server, and the test as the operator.

What the operator does to the NIC is done to the emulated Azure at once; what it says is written to the status
of the node's resource.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import pytest

from integration.apiserver.operator_site import AGENT_RULES
from integration.cluster.api import ApiError
from integration.cluster.apiserver import AZVNET_NODES
from integration.provisioned import NodeOfCluster
from ipam.provision import exchange, nic_document
from ipam.value import replace
from tests.statuses import with_status
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster.apiserver import ApiServer
    from integration.fabric import Fabric
    from ipam.provision.exchange import AzvnetNode

PATIENCE = 120.0
SCENES = ("grows", "shrinks", "cut-off", "offered", "begun", "removed", "modes")

pytestmark = pytest.mark.timeout(600)


def prepare(server: ApiServer) -> None:
    """What the fixture ``server`` has in it."""
    server.define_azvnet_nodes()
    server.give_role("azvnet", AGENT_RULES, "kube-system", "azvnet")


class FollowingNode(NodeOfCluster):
    """A node that follows the operator, and that operator's hands."""

    def __init__(self, fabric: Fabric, server: ApiServer, name: str) -> None:
        super().__init__(fabric, server, name)
        self.path = f"{AZVNET_NODES}/{name}"

    def configure(self, **provision: Any) -> None:
        super().configure(**{"mode": "operator", **provision})

    @property
    def nic(self) -> str:
        return f"{self.name}-nic0"

    def resource(self) -> AzvnetNode | None:
        try:
            return exchange.read(self.server.api.get(self.path))
        except ApiError:
            return None

    def told(self) -> AzvnetNode:
        """Its resource; the API server may have come back a moment ago."""
        found = eventually(self.resource, "its resource can be read", patience=PATIENCE)
        assert found is not None
        return found

    def say(self, **changes: Any) -> None:
        """Write the status; the agent writes the spec meanwhile."""
        for _ in range(20):
            node = self.told()
            status = replace(node.status, observed_generation=node.generation, **changes)
            document = with_status(self.name, status, node.resource_version)
            with contextlib.suppress(ApiError):
                self.server.api.call("PUT", f"{self.path}/status", document)
                return
        raise AssertionError("the agent keeps writing")

    def report(self, **more: Any) -> None:
        """Say what the NIC has."""
        revision = self.told().status.revision + 1
        self.say(
            revision=revision,
            nic=exchange.NicShown(name=self.nic, mac=nic_document.mac_of(self.document())),
            configurations=nic_document.configurations(self.document()),
            last_read_time=f"read {revision}",
            **{"state": "idle", "text": "", "surplus": 0, "releasing": (), **more},
        )

    def add_addresses(self, number: int) -> None:
        names = nic_document.new_names(number)
        self.fabric.arm.edit_nic(
            self.nic, lambda nic: nic.update(nic_document.with_new(nic, names, blocks=False))
        )

    def remove(self, *names: str) -> None:
        self.fabric.arm.edit_nic(self.nic, lambda nic: nic.update(nic_document.without(nic, names)))

    def quarantined(self) -> int:
        return int((self.status().get("pool") or {}).get("quarantined", 0))

    def at_rest(self) -> None:
        """Followed, and the pool is known to both."""
        eventually(lambda: self.resource() is not None, "it writes its resource", patience=PATIENCE)
        self.report()
        eventually(lambda: self.told().spec.seen == 1, "it follows", patience=PATIENCE)

    def with_offers(self) -> tuple[str, ...]:
        """Six addresses, four of which the operator asked for and the agent offers."""
        self.start()
        self.at_rest()
        self.add_addresses(4)
        self.report()
        eventually(lambda: self.free == 6, "the pool has six", patience=PATIENCE)
        self.say(surplus=4)
        eventually(lambda: len(self.told().spec.releasing) == 4, "four are offered", patience=PATIENCE)
        return self.told().spec.releasing


@pytest.fixture
def node(request: pytest.FixtureRequest, fabric: Fabric, server: ApiServer) -> Iterator[FollowingNode]:
    made = FollowingNode(fabric, server, f"node{SCENES.index(request.param) + 1}")
    yield made
    made.end()
    assert made.nothing_was_dropped()


def of(*scenes: str) -> pytest.MarkDecorator:
    """Which node it is told on."""
    return pytest.mark.parametrize("node", scenes, indirect=True)


@of("grows")
def test_a_pod_that_waits_is_told_to_the_operator_and_gets_what_that_adds(node: FollowingNode) -> None:
    node.start()
    node.at_rest()
    eventually(lambda: node.told().spec.pool.free == 2, "it says what is free", patience=PATIENCE)
    assert "virtualMachines" in node.told().spec.machine.resource_id
    for number in range(2):
        node.add(f"{node.name}-pod-{number}").done()
    refused = node.add(f"{node.name}-late")
    assert "addresses are on the way" in refused.document["msg"]
    eventually(lambda: node.told().spec.pool.waiting == 1, "it says that one waits", patience=PATIENCE)
    node.say(state="growing", text="adding 4 addresses to the NIC")
    eventually(lambda: node.says("growing: adding 4 addresses"), "status has it", patience=PATIENCE)
    node.add_addresses(4)
    node.report()
    eventually(lambda: node.add(f"{node.name}-late").ok, "the pod starts", patience=PATIENCE)
    assert all(node.reaches_the_network(pod) for pod in node.pods)
    assert node.fabric.arm.log.count(kind="PUT") == 0, "the agent wrote nothing in Azure"
    assert node.resident_bytes < 110 << 20


@of("shrinks")
def test_what_is_offered_is_given_to_nobody_until_it_is_gone_or_given_back(node: FollowingNode) -> None:
    names = node.with_offers()
    assert node.quarantined() == 4
    for number in range(2):
        node.add(f"{node.name}-pod-{number}").done()
    node.say(releasing=names[:2], surplus=0, state="shrinking")
    assert not node.add(f"{node.name}-late").ok
    eventually(lambda: node.told().spec.releasing == names[:2], "the others are withdrawn", patience=PATIENCE)
    assert not node.add(f"{node.name}-late").ok, "the operator has not seen it yet"
    node.say()
    eventually(lambda: node.add(f"{node.name}-late").ok, "they are given out again", patience=PATIENCE)
    assert node.quarantined() == 2, "what has begun to go stays marked"
    node.remove(*names[:2])
    node.report()
    eventually(lambda: node.told().spec.releasing == (), "nothing is offered", patience=PATIENCE)
    node.say()
    eventually(lambda: node.quarantined() == 0, "nothing is held back", patience=PATIENCE)
    assert all(node.reaches_the_network(pod) for pod in node.pods)


@of("cut-off")
def test_without_the_api_server_pods_get_what_is_free(node: FollowingNode) -> None:
    node.start()
    node.at_rest()
    node.server.stop()
    try:
        for number in range(2):
            node.add(f"{node.name}-pod-{number}").done()

        def told() -> bool:
            return (
                "no more addresses can be added now (no-api)" in node.add(f"{node.name}-late").document["msg"]
            )

        eventually(told, "a pod that waits is told why", patience=PATIENCE)
        assert node.is_ready() is False, "there is no address left"
    finally:
        node.server.start()
    eventually(lambda: node.told().spec.pool.held == 2, "it goes on by itself", patience=PATIENCE)
    node.add_addresses(1)
    node.report()
    eventually(lambda: node.add(f"{node.name}-late").ok, "and follows", patience=PATIENCE)


@of("offered", "begun", "removed")
def test_an_agent_killed_in_mid_removal_gives_nothing_away(
    node: FollowingNode, request: pytest.FixtureRequest
) -> None:
    scene = request.node.callspec.params["node"]
    names = node.with_offers()
    if scene != "offered":
        node.say(releasing=names, surplus=0, state="shrinking")
    node.end(signal.SIGKILL)
    if scene == "removed":
        node.remove(*names)
        node.report()
    for number in range(2):
        node.add(f"{node.name}-pod-{number}").done()
    assert not node.add(f"{node.name}-late").ok, "without the agent"
    node.start()
    eventually(lambda: node.told().spec.pool.held == 2, "it runs again", patience=PATIENCE)
    if scene != "removed":
        assert not node.add(f"{node.name}-late").ok, "and with the next one"
        node.say(releasing=names, surplus=0)
        node.remove(*names)
        node.report()
    eventually(lambda: node.told().spec.releasing == (), "it is over", patience=PATIENCE)
    node.add_addresses(1)
    node.report()
    eventually(lambda: node.add(f"{node.name}-late").ok, "what is new is given out", patience=PATIENCE)
    assert all(node.reaches_the_network(pod) for pod in node.pods)


@of("modes")
def test_the_mode_is_switched_under_live_pods(node: FollowingNode) -> None:
    node.start(mode="off")
    eventually(lambda: node.free == 2, "the pool is there", patience=PATIENCE)
    node.add(f"{node.name}-first").done()
    assert node.resource() is None
    node.configure()
    node.at_rest()
    node.add_addresses(4)
    node.report()
    eventually(lambda: node.free == 5, "the pool has six", patience=PATIENCE)
    node.say(surplus=4)
    eventually(lambda: len(node.told().spec.releasing) == 4, "four are offered", patience=PATIENCE)
    node.configure(mode="node")
    eventually(lambda: node.fabric.arm.log.count(kind="GET") > 0, "it reads the NIC", patience=PATIENCE)
    eventually(lambda: len(node.ours) >= 8, "and adds what is missing", patience=PATIENCE)
    assert node.quarantined() == 4, "the operator may have begun to take them"
    node.add(f"{node.name}-second").done()
    node.configure(mode="off")
    eventually(lambda: node.status()["agent"]["provision"] == "", "nobody changes the NIC", patience=PATIENCE)
    assert node.quarantined() == 4
    assert all(node.reaches_the_network(pod) for pod in node.pods)
