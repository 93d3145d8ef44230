"""A node whose NIC the cluster's operator writes: what the agent says, marks, withdraws and tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipam.provision import exchange, offers
from ipam.provision.plan import Sizes
from ipam.value import replace
from tests.statuses import with_status
from tests.unit.ipam.arm_service import ArmService
from tests.unit.ipam.cluster import NAME, ApiServer, FollowedMachine
from tests.unit.ipam.machine import COOLDOWN, SHRINK_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.ipam.node import Node

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(node: Node, monkeypatch: pytest.MonkeyPatch) -> FollowedMachine:
    return FollowedMachine(
        node, ArmService(), Sizes(shrink_after=SHRINK_AFTER), api=ApiServer(), patch=monkeypatch
    )


def test_a_pod_that_waits_is_served_by_the_operator(machine: FollowedMachine) -> None:
    assert not machine.add_pod(1)
    machine.run(60)
    assert len(machine.on_nic()) == 16
    assert machine.add_pod(1)
    machine.run(60)
    assert machine.phase == "idle"
    assert machine.arm.puts == 1


def test_an_idle_pool_shrinks_after_a_while_by_what_the_agent_offered(machine: FollowedMachine) -> None:
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    machine.run(60)
    machine.waiting_pods = set()
    assert machine.add_pod(1)
    most = len(machine.on_nic())
    machine.run(SHRINK_AFTER - 100)
    assert len(machine.on_nic()) == most
    machine.run(600)
    assert len(machine.on_nic()) - 1 <= 24
    machine.run(200)
    assert machine.ipam.leaving() == frozenset(), "nothing is held back when it is over"
    assert machine.offered == ()
    assert machine.free() | set(machine.pods.values()) == machine.on_nic()


def surplus(machine: FollowedMachine) -> None:
    """A node at rest whose pool is far too large, and of which the agent is asked to offer 32 addresses."""
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    machine.run(60)
    machine.waiting_pods = set()
    while not asked(machine):
        machine.wait(30)
        machine.refresh()
        machine.follow()
        machine.operator.work()


def until(machine: FollowedMachine, condition: Callable[[], bool]) -> None:
    """Let the agent look, every second, until it is so."""
    for _ in range(10):
        if condition():
            return
        machine.follow()
        machine.wait(1)
    assert condition()


def offer(machine: FollowedMachine) -> None:
    """The same, and the agent has offered them."""
    surplus(machine)
    until(machine, lambda: len(machine.offered) == 32)


def asked(machine: FollowedMachine) -> int:
    node = machine.api.read()
    return 0 if node is None else node.status.surplus


def test_what_is_offered_is_marked_first_and_published_next(machine: FollowedMachine) -> None:
    surplus(machine)
    assert machine.offered == ()
    until(machine, lambda: bool(machine.offered))
    assert len(machine.offered) == 32
    assert len(machine.ipam.leaving()) == 32
    assert {ip for each in offers.read(machine.ipam.lasting).offers for ip in each.addresses} == (
        machine.ipam.leaving()
    )
    assert [machine.add_pod(number) for number in range(17)].count(True) == 16


def test_pods_that_wait_get_what_was_offered_and_not_begun(machine: FollowedMachine) -> None:
    offer(machine)
    started = [machine.add_pod(number) for number in range(20)]
    assert started.count(True) == 16
    until(machine, lambda: machine.offered == ())
    for _ in range(3):
        machine.follow()
    assert not machine.add_pod(20), "the operator has not seen yet that it was withdrawn"
    machine.operator.work()
    until(machine, lambda: machine.ipam.leaving() == frozenset())
    assert all(machine.add_pod(number) for number in range(16, 20))


def test_what_has_begun_to_go_is_not_given_out_though_pods_wait(machine: FollowedMachine) -> None:
    offer(machine)
    waited: list[bool] = []

    def pods_come() -> None:
        waited.extend(machine.add_pod(len(waited) + number) for number in range(17))
        machine.follow()

    machine.while_waiting = [pods_come]
    machine.operator.work()
    machine.while_waiting = []
    assert waited[:17].count(True) == 16
    assert len(machine.on_nic()) == 16
    assert set(machine.pods.values()) == machine.on_nic()


def test_an_operator_that_saw_no_renewal_for_a_minute_begins_nothing(machine: FollowedMachine) -> None:
    offer(machine)
    machine.operator._look()
    machine.wait(61)
    puts = machine.arm.puts
    machine.operator.work()
    machine.wait(61)
    machine.operator.work()
    assert machine.arm.puts == puts
    machine.run(60)
    assert machine.arm.puts == puts + 1


def test_cut_off_from_the_api_server_it_gives_out_what_nobody_can_take_any_more(
    machine: FollowedMachine,
) -> None:
    offer(machine)
    machine.api.away = True
    for _ in range(100):
        machine.follow()
        machine.wait(5)
    assert len(machine.ipam.leaving()) == 32, "the operator may have begun"
    for _ in range(50):
        machine.follow()
        machine.wait(5)
    assert machine.phase == "no-api"
    assert machine.ipam.leaving() == frozenset()
    assert all(machine.add_pod(number) for number in range(48))
    machine.api.away = False
    machine.run(120)
    assert set(machine.pods.values()) <= machine.on_nic()
    assert machine.phase == "idle"


def test_another_resource_takes_nothing_that_was_offered_in_the_one_before(machine: FollowedMachine) -> None:
    offer(machine)
    machine.api.delete()
    machine.known = None
    machine.run(60)
    assert machine.offered == ()
    assert len(machine.ipam.leaving()) == 32, "who read the former one may have begun"
    machine.run(1300)
    assert len(machine.on_nic()) <= 24
    assert machine.free() == machine.on_nic()


def test_switched_off_and_on_again_what_was_offered_stays_marked(machine: FollowedMachine) -> None:
    offer(machine)
    marked = machine.ipam.leaving()
    machine.mode = "off"
    machine.start()
    machine.run(120)
    assert machine.ipam.leaving() == marked
    machine.mode = "node"
    machine.start()
    machine.run(120)
    assert machine.ipam.leaving() >= marked & machine.on_nic()
    machine.mode = "operator"
    machine.start()
    machine.run(900)
    assert machine.ipam.leaving() == frozenset()
    assert machine.free() == machine.on_nic()


def test_a_machine_that_was_made_again_does_not_believe_what_was_said_of_the_former(
    machine: FollowedMachine,
) -> None:
    machine.run(60)
    assert machine.add_pod(1)
    node = machine.api.read()
    assert node is not None
    former = replace(node.spec, machine=replace(node.spec.machine, vm_id="vm-0"))
    machine.api.write_spec(exchange.with_spec(NAME, former, node.resource_version))
    gone = replace(node.status, configurations=node.status.configurations[:1], last_read_time="later")
    node = machine.api.read()
    assert node is not None
    machine.api.write_status(with_status(NAME, gone, node.resource_version))
    machine.start()
    machine.follow()
    machine.follow()
    assert machine.ipam.leaving() == frozenset()
    assert machine.follower.progress.vanished == ()
    machine.run(60)
    assert machine.phase == "idle"


def test_pods_whose_addresses_were_wiped_are_named_and_told_to_the_operator(machine: FollowedMachine) -> None:
    machine.run(60)
    assert all(machine.add_pod(number) for number in range(2))
    machine.lag = 1e9
    machine.wipe(*machine.pods.values())
    machine.run(30)
    assert {each.owner.pod for each in machine.follower.progress.vanished} == {
        "default/pod-0",
        "default/pod-1",
    }
    node = machine.api.read()
    assert node is not None
    assert set(node.spec.vanished) == set(machine.pods.values())
    held = set(machine.pods.values())
    for pod in list(machine.pods):
        machine.delete_pod(pod)
    machine.wait(COOLDOWN + 1)
    assert [machine.add_pod(number) for number in range(2, 20)].count(True) == 14
    assert not held & set(machine.pods.values())


def test_a_resource_of_another_time_is_not_believed_before_the_nic_was_read_again(
    machine: FollowedMachine,
) -> None:
    """The node was in mode ``node`` for an hour, and its NIC has other addresses since."""
    machine.run(60)
    machine.mode = "node"
    machine.start()
    machine.wipe()
    machine.run(1200)
    assert all(machine.add_pod(number) for number in range(5))
    machine.mode = "operator"
    machine.start()
    machine.follow()
    machine.follow()
    assert machine.ipam.leaving() == frozenset()
    assert machine.follower.progress.vanished == ()
    machine.run(60)
    assert machine.phase == "idle"
    assert machine.ipam.leaving() == frozenset()


def test_a_dry_run_marks_and_offers_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FollowedMachine(node, ArmService(), Sizes(), dry_run=True, api=ApiServer(), patch=monkeypatch)
    machine.run(60)
    found = machine.api.read()
    assert found is not None
    assert found.spec.dry_run
    machine.run(SHRINK_AFTER + 60)
    assert machine.offered == ()
    assert machine.ipam.leaving() == frozenset()


def test_counts_that_change_are_written_every_ten_seconds_and_otherwise_every_two_minutes(
    machine: FollowedMachine,
) -> None:
    machine.run(120)
    generation = machine.api.document["metadata"]["generation"]  # type: ignore[index]
    for _ in range(60):
        machine.follow()
        machine.wait(5)
    assert machine.api.document["metadata"]["generation"] - generation in {2, 3}  # type: ignore[index]
    generation = machine.api.document["metadata"]["generation"]  # type: ignore[index]
    for number in range(12):
        machine.add_pod(number)
        machine.follow()
        machine.wait(5)
    assert machine.api.document["metadata"]["generation"] - generation in range(5, 8)  # type: ignore[index]


def test_an_operator_that_says_nothing_is_a_problem_that_is_told(machine: FollowedMachine) -> None:
    for _ in range(14):
        machine.follow()
        assert machine.phase == "starting" or machine.clock() > 1055
        machine.wait(5)
    assert machine.phase == "no-operator"
    assert machine.follower.progress.remedy
    machine.run(60)
    assert machine.phase == "idle"
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    for _ in range(20):
        machine.follow()
        machine.wait(5)
    assert machine.phase == "no-operator", "it had said that all is well"
