"""A pool that follows demand: pods come and go, Azure is slow, full, away or interrupted."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING

import pytest

from ipam import nic_counts as counts
from ipam.ipam import Ipam
from ipam.model import IPAddress
from ipam.provision import nic_document, offers
from ipam.provision.pace import AT_REST_SECONDS
from ipam.provision.plan import Sizes
from ipam.provision.progress import IDLE, LISTED_SECONDS, LISTING, NOT_LISTED, Demand
from ipam.provision.refusals import Kind, Refusal
from ipam.sources.arm_answer import ArmAnswer
from ipam.value import replace
from tests.unit.ipam.arm_service import ArmService, refusal
from tests.unit.ipam.machine import COOLDOWN, SHRINK_AFTER, KilledError, Machine
from tests.unit.ipam.node import ANY, Node, attachment, owner

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(node: Node) -> Machine:
    return Machine(node, ArmService(), Sizes(shrink_after=SHRINK_AFTER))


@pytest.fixture(params=["nic", "instance"])
def either(request: pytest.FixtureRequest, node: Node) -> Machine:
    return Machine(node, ArmService(uniform=request.param == "instance"), Sizes(shrink_after=SHRINK_AFTER))


def test_a_nic_without_addresses_for_pods_is_given_a_batch(either: Machine) -> None:
    assert not either.add_pod(1)
    either.run(60)
    assert len(either.on_nic()) == 16, "one for the pod that waits, and eight"
    assert either.add_pod(1)
    assert either.phase == IDLE
    assert either.arm.puts == 1


def test_pods_that_are_scheduled_are_written_for_before_any_of_them_asks(either: Machine) -> None:
    either.run(60)
    assert either.arm.puts == 1
    either.scheduled = lambda held: Demand(coming=40 - held, per_second=0.0)
    either.run(60)
    assert either.waiting_pods == set()
    assert either.arm.puts == 2, "one write for all of them"
    assert all(either.add_pod(number) for number in range(40))
    assert either.provisioner.progress.coming == 40
    either.run(60)
    assert either.provisioner.progress.coming == 0
    assert either.arm.puts == 2, "those that have got their address are not counted again as those that come"


def test_of_what_is_scheduled_nothing_is_known_the_pool_goes_by_those_that_ask(either: Machine) -> None:
    either.run(60)
    assert either.provisioner.progress.coming is None
    for number in range(40):
        either.add_pod(number)
    either.run(60)
    assert either.arm.puts == 2


def test_pods_beyond_the_pool_are_served_by_one_more_write(either: Machine) -> None:
    either.run(60)
    started = [either.add_pod(number) for number in range(40)]
    assert started.count(True) == 16
    either.run(60)
    assert all(either.add_pod(number) for number in range(40) if not started[number])
    assert either.arm.puts == 2


def test_an_idle_pool_shrinks_after_a_while_and_not_before(either: Machine) -> None:
    for number in range(60):
        either.add_pod(number)
        either.run(10)
    for number in range(60):
        either.add_pod(number) if f"default/pod-{number}" in either.waiting_pods else None
    most = len(either.on_nic())
    for pod in list(either.pods)[:-2]:
        either.delete_pod(pod)
    either.run(SHRINK_AFTER)
    assert len(either.on_nic()) == most
    either.run(SHRINK_AFTER + 600)
    assert len(either.on_nic()) - 2 <= 24
    assert either.phase == IDLE
    assert set(either.pods.values()) <= either.on_nic()
    assert either.ipam.leaving() == frozenset(), "nothing is held back when it is over"


def test_a_pool_at_rest_asks_azure_once_in_ten_minutes(machine: Machine) -> None:
    machine.run(100)
    before = machine.asked
    machine.run(3600)
    assert machine.asked - before <= 6
    assert machine.arm.puts == 1


def test_what_others_put_on_the_nic_is_used_and_never_removed(machine: Machine) -> None:
    machine.arm.add_foreign("theirs")
    machine.run(60)
    machine.waiting_pods |= {f"default/pod-{number}" for number in range(50)}
    machine.run(60)
    machine.waiting_pods.clear()
    machine.run(3000)
    assert "theirs" in machine.arm.names
    assert IPv4Address("10.0.0.200") in machine.on_nic()
    assert len(machine.on_nic()) <= 24


def test_an_address_that_is_being_taken_away_is_given_to_nobody(machine: Machine) -> None:
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    machine.run(60)
    machine.waiting_pods = set()
    given: list[bool] = []
    machine.while_waiting = [lambda: given.append(machine.add_pod(len(given)))]
    machine.run(SHRINK_AFTER + 300)
    assert given, "pods came while addresses were taken away"
    assert all(given)
    assert machine.arm.puts >= 2
    assert set(machine.pods.values()) <= machine.on_nic()


def test_an_address_that_azure_gives_again_can_be_used_again(machine: Machine) -> None:
    machine.lag = 40.0
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    machine.run(200)
    machine.waiting_pods = set()
    machine.run(SHRINK_AFTER + 20)
    number = 0
    while machine.arm.puts < 3:
        machine.add_pod(number := number + 1)
        machine.run(5)
    machine.run(300)
    assert machine.ipam.leaving() == frozenset()
    free = [each for each in machine.ipam.addresses(COOLDOWN) if each.state.value == "free"]
    assert len(free) + len(machine.pods) == len(machine.on_nic())


@pytest.mark.parametrize("uniform", [False, True])
def test_killed_at_any_request_it_resumes_and_loses_nothing(tmp_path: Path, *, uniform: bool) -> None:
    """Up by two steps and down again, killed at the first, second, ... request of each life."""
    for kill_every in (1, 2, 3, 4, 6, 9):
        folder = tmp_path / str(kill_every)
        folder.mkdir()
        machine = Machine(Node(folder), ArmService(uniform=uniform), Sizes(shrink_after=60.0))
        for wanted, until in ((40, 8), (0, 24)):
            machine.waiting_pods = {f"default/none-{number}" for number in range(wanted)}
            for _ in range(until):
                machine.kill_at = machine.asked + kill_every
                try:
                    machine.run(20)
                except KilledError:
                    machine.start()
                if len(machine.pods) < 3:
                    machine.add_pod(len(machine.pods))
        machine.kill_at = None
        machine.run(400)
        assert set(machine.pods.values()) <= machine.on_nic()
        assert len(machine.on_nic()) - len(machine.pods) in range(8, 25), kill_every
        assert machine.ipam.leaving() == frozenset()
        assert machine.arm.puts <= 8, "nothing is asked for twice"


def test_no_live_pod_ever_loses_its_address_in_a_random_history(tmp_path: Path) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        sizes = Sizes(shrink_after=30.0, batch=4, low=2, high=6, prefixes=seed % 3 == 2)
        machine = Machine(Node(folder), ArmService(subnet="10.0.0.0/22"), sizes)
        machine.lag = chance.choice([0.0, 45.0])
        numbers = iter(range(10_000))

        def churn(machine: Machine = machine, chance: random.Random = chance) -> None:
            if chance.random() < 0.6:
                machine.add_pod(next(numbers))  # noqa: B023
            elif machine.pods:
                machine.delete_pod(chance.choice(list(machine.pods)))

        machine.while_waiting = [churn]
        for _ in range(50):
            for _ in range(chance.randrange(6)):
                churn()
            machine.waiting_pods.clear()
            if chance.random() < 0.1:
                machine.start()
            if chance.random() < 0.1:
                machine.arm.instead.append(("PUT", refusal(429, "TooManyRequests", retry_after="20")))
            machine.run(20)
            assert set(machine.pods.values()) <= machine.on_nic()


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (refusal(429, "TooManyRequests", retry_after="100"), "throttled"),
        (refusal(429, "RetryableErrorDueToAnotherOperation"), "busy"),
        (refusal(403, "LinkedAuthorizationFailed"), "forbidden"),
        (refusal(500, "InternalServerError"), "server-error"),
        (refusal(404, "ResourceNotFound"), "not-found"),
    ],
)
def test_a_refusal_is_a_state_that_says_what_to_do_and_ends_by_itself(
    machine: Machine, answer: ArmAnswer, state: str
) -> None:
    machine.arm.instead.append(("PUT", answer))
    machine.provisioner.step()
    assert (machine.phase, machine.provisioner.progress.is_problem) == (state, True)
    assert machine.provisioner.progress.remedy
    machine.run(150)
    assert machine.phase == IDLE
    assert len(machine.on_nic()) == 16


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        (refusal(404, "ResourceNotFound"), 2),
        (refusal(401, "InvalidAuthenticationToken"), 2),
        (Refusal(Kind.OTHER_MACHINE, "the Node is another machine"), 2),
        (refusal(500, "InternalServerError"), 1),
        (refusal(403, "AuthorizationFailed"), 1),
    ],
)
def test_the_nic_is_looked_up_again_where_it_may_have_moved(
    machine: Machine, answer: ArmAnswer | Refusal, times: int
) -> None:
    machine.arm.instead.append(("PUT", answer))
    machine.run(150)
    assert machine.looked_up == times


def test_status_says_what_is_being_done_to_the_nic(machine: Machine) -> None:
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    said: list[str] = []

    def look() -> None:
        progress = machine.provisioner.progress
        said.append(f"{progress.phase}: {progress.text}")

    machine.while_waiting = [look]
    machine.run(60)
    machine.waiting_pods = set()
    machine.run(SHRINK_AFTER + 100)
    assert set(said) == {
        "growing: adding 48 addresses to the NIC",
        "shrinking: taking 32 addresses from the NIC",
    }
    assert machine.log == [
        "info: adding 48 addresses to the NIC",
        "info: the NIC has 49 IP configurations now",
        "info: taking 32 addresses from the NIC",
        "info: the NIC has 17 IP configurations now",
    ]


def test_retry_after_is_waited_for_and_pauses_grow(machine: Machine) -> None:
    machine.arm.instead.append(("PUT", refusal(429, "TooManyRequests", retry_after="100")))
    began = machine.clock()
    while machine.arm.puts < 2:
        machine.run(5)
    assert machine.clock() - began >= 100
    machine.arm.instead.extend([("GET", refusal(503, "ServiceUnavailable"))] * 100)
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    before = machine.asked
    machine.run(3600)
    assert machine.asked - before < 30


def test_azure_away_for_hours_keeps_no_pod_from_an_address_that_is_free(machine: Machine) -> None:
    machine.run(60)
    machine.arm.instead.extend([("GET", refusal(503, "ServiceUnavailable"))] * 1000)
    assert all(machine.add_pod(number) for number in range(16))
    machine.run(7200)
    assert machine.phase == "server-error"
    machine.arm.instead.clear()
    machine.run(1000)
    assert machine.add_pod(16)


@pytest.mark.parametrize(
    ("code", "phase"),
    [("SubnetIsFull", "subnet-full"), ("PrivateIPAddressesPerVnetLimitReached", "vnet-full")],
)
def test_in_a_full_network_addresses_are_for_pods_that_wait(machine: Machine, code: str, phase: str) -> None:
    machine.arm.instead.append(("PUT", refusal(400, code, "The virtual network's limit is 65536.")))
    machine.waiting_pods = {"default/none"}
    machine.run(60)
    assert len(machine.on_nic()) == 1
    assert machine.phase == phase
    machine.run(1200)
    assert len(machine.on_nic()) == 17, "batches again"
    assert machine.phase == IDLE
    writes = machine.arm.puts
    machine.waiting_pods = {f"default/none-{number}" for number in range(90)}
    machine.run(60)
    assert machine.arm.puts == writes + 1, "as many as are needed at once"


def test_in_a_full_subnet_as_many_pods_are_served_as_there_are_addresses(machine: Machine) -> None:
    """A PUT for more is refused as a whole: half as many are requested next."""
    before = len(machine.arm.names)
    machine.arm.room = before + 5
    machine.waiting_pods = {f"default/none-{number}" for number in range(11)}
    machine.run(1200)
    assert len(machine.arm.names) == machine.arm.room
    added = [line.split()[2] for line in machine.log if line.startswith("info: adding")]
    assert added[:5] == ["32", "11", "5", "6", "3"], "and up to twice as many after some that were there"
    machine.arm.room = None
    machine.run(1200)
    assert len(machine.arm.names) >= before + 11


def test_when_not_even_one_address_was_left_one_is_requested_next(machine: Machine) -> None:
    machine.arm.room = len(machine.arm.names)
    machine.waiting_pods = {"default/none"}
    machine.run(30)
    machine.waiting_pods = {f"default/none-{number}" for number in range(20)}
    machine.run(1200)
    added = [line.split()[2] for line in machine.log if line.startswith("info: adding")]
    assert added[0] == "16"
    assert set(added[1:]) == {"1"}


def test_in_a_full_virtual_network_blocks_are_taken_and_in_a_full_subnet_they_are_not(node: Node) -> None:
    machine = Machine(node, ArmService(), Sizes(prefixes=True))
    machine.waiting_pods = {"default/none"}
    machine.arm.instead.append(
        (
            "PUT",
            refusal(400, "PrivateIPAddressesPerVnetLimitReached", "The virtual network's limit is 65536."),
        )
    )
    machine.run(60)
    assert (machine.phase, len(machine.on_nic())) == ("vnet-full", 16)
    machine.run(1200)
    machine.waiting_pods = {f"default/none-{number}" for number in range(17)}
    machine.arm.instead.extend([("PUT", refusal(400, "SubnetIsFull"))] * 2)
    machine.run(120)
    assert (machine.phase, len(machine.on_nic())) == ("subnet-full", 17), "one for the pod"


def test_an_operation_that_fails_later_leaves_nothing_behind(machine: Machine) -> None:
    machine.arm.outcome = {"status": "Failed", "error": {"code": "SubnetIsFull", "message": "full"}}
    machine.provisioner.step()
    assert machine.phase == "subnet-full"
    machine.arm.outcome = {"status": "Succeeded"}
    machine.run(1200)
    assert len(machine.on_nic()) == 16
    assert machine.phase == IDLE


def test_where_no_block_is_free_single_addresses_are_taken(node: Node) -> None:
    machine = Machine(node, ArmService(), Sizes(prefixes=True))
    machine.arm.instead.append(("PUT", refusal(400, "NoAvailableIPAddressesInSubnet")))
    machine.run(60)
    assert len(machine.on_nic()) == 16
    assert machine.phase == "no-block"


def test_single_addresses_are_taken_where_azure_ignores_the_length_of_blocks(
    node: Node,
) -> None:
    machine = Machine(node, ArmService(), Sizes(prefixes=True))
    machine.arm.ignores_lengths = True
    machine.run(120)
    assert machine.phase == "no-block"
    assert machine.log.count("warning: blocks were requested, but Azure gave single addresses") == 1
    assert len(machine.on_nic()) == 17, "one that was wanted as a block, and a batch"


def test_blocks_go_as_a_whole_when_no_pod_uses_any_of_it(node: Node) -> None:
    machine = Machine(node, ArmService(subnet="10.0.0.0/23"), Sizes(prefixes=True, shrink_after=60.0))
    machine.waiting_pods = {f"default/none-{number}" for number in range(60)}
    machine.run(60)
    assert len(machine.on_nic()) == 80
    assert machine.phase == IDLE
    machine.waiting_pods = set()
    highest = max(machine.on_nic(), key=int)
    machine.ipam.reserve(attachment("pod"), owner("pod"), replace(ANY, requested=(highest,)))
    machine.pods[attachment("pod")] = highest
    machine.run(600)
    assert highest in machine.on_nic()
    assert len(machine.on_nic()) == 16
    assert ip_network(f"{highest}/28", strict=False)[0] in machine.on_nic()


def test_what_the_source_does_not_list_yet_is_awaited_and_not_asked_for_again(machine: Machine) -> None:
    machine.lag = 200.0
    machine.run(100)
    assert (machine.phase, machine.provisioner.progress.in_flight) == (LISTING, 16)
    machine.run(200)
    assert (machine.phase, machine.provisioner.progress.in_flight) == (IDLE, 0)
    assert machine.arm.puts == 1


def test_the_source_is_read_again_at_each_look_until_it_agrees_with_the_nic(machine: Machine) -> None:
    def look(seconds: float) -> None:
        machine.node.clock.advance(seconds)
        machine.provisioner.step()

    machine.lag = 20.0
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    look(0)
    assert machine.provisioner.progress.in_flight == 48
    look(25)
    look(0)
    assert machine.provisioner.progress.in_flight == 0
    machine.waiting_pods = set()
    look(0)
    look(SHRINK_AFTER)
    assert len(machine.ipam.leaving()) == 32
    look(25)
    look(0)
    assert machine.ipam.leaving() == frozenset()


def test_a_source_that_never_lists_them_is_told(machine: Machine) -> None:
    machine.lag = 1e9
    machine.run(LISTED_SECONDS + 100)
    assert machine.phase == NOT_LISTED
    assert machine.arm.puts == 1


def test_what_is_wiped_is_noticed_and_made_again(either: Machine) -> None:
    """As an update of a scale set's model does."""
    either.run(60)
    either.wipe()
    either.run(900)
    assert len(either.on_nic()) == 16
    assert either.phase == IDLE
    assert either.arm.puts == 2
    assert all(either.add_pod(number) for number in range(16))


def test_an_address_that_somebody_took_from_the_nic_is_given_to_nobody(machine: Machine) -> None:
    machine.run(60)
    machine.lag = 1e9
    machine.arm.nic["properties"]["ipConfigurations"].pop()
    machine.arm.revision += 1
    machine.start()
    machine.provisioner.step()
    given = [machine.add_pod(number) for number in range(16)]
    assert given.count(True) == 15


def test_pods_whose_addresses_were_wiped_are_named_though_the_source_still_lists_them(
    either: Machine,
) -> None:
    either.run(60)
    assert all(either.add_pod(number) for number in range(3))
    gone = dict(list(either.pods.items())[:2])
    either.lag = 1e9
    either.wipe(*gone.values())
    either.run(AT_REST_SECONDS + 60)
    assert either.vanished == {
        "default/pod-0": gone[attachment("pod-0")],
        "default/pod-1": gone[attachment("pod-1")],
    }
    either.run(60)
    assert len(either.vanished) == 2, "they stay named"
    for pod in gone:
        either.delete_pod(pod)
    either.run(5)
    assert either.vanished == {}


def test_pods_that_lost_what_the_source_lists_no_more_are_named_within_two_minutes(machine: Machine) -> None:
    machine.run(60)
    assert machine.add_pod(1)
    machine.run(100)
    machine.wipe(*machine.pods.values())
    machine.run(120)
    assert set(machine.vanished) == {"default/pod-1"}


def test_the_alarm_is_over_when_the_address_is_back(machine: Machine) -> None:
    machine.run(60)
    assert machine.add_pod(1)
    entries = list(machine.arm.nic["properties"]["ipConfigurations"])
    machine.wipe(*machine.pods.values())
    machine.run(AT_REST_SECONDS + 60)
    assert set(machine.vanished) == {"default/pod-1"}
    machine.arm.nic["properties"]["ipConfigurations"] = entries
    machine.arm.revision += 1
    machine.run(120)
    assert machine.vanished == {}
    assert machine.ipam.leaving() == frozenset()


def test_a_dry_run_names_the_pods_as_well(node: Node) -> None:
    arm = ArmService()
    Machine(node, arm, Sizes()).run(60)
    machine = Machine(node, arm, Sizes(), dry_run=True)
    machine.refresh()
    assert machine.add_pod(1)
    machine.wipe(*machine.pods.values())
    machine.run(AT_REST_SECONDS + 60)
    assert set(machine.vanished) == {"default/pod-1"}
    assert machine.ipam.leaving() == frozenset()


def test_a_wiped_address_is_given_to_nobody_after_its_pod(machine: Machine) -> None:
    """One that a pod held when the NIC was read, and one that was cooling down."""
    machine.run(60)
    assert all(machine.add_pod(number) for number in range(2))
    held, cooling = machine.pods.values()
    machine.delete_pod(attachment("pod-1"))
    machine.lag = 1e9
    machine.wipe(held, cooling)
    machine.start()
    machine.provisioner.step()
    machine.delete_pod(attachment("pod-0"))
    machine.node.clock.advance(COOLDOWN + 1)
    assert [machine.add_pod(number) for number in range(10, 26)].count(True) == 14
    assert not {held, cooling} & set(machine.pods.values())


def lose_store(machine: Machine) -> None:
    """The store is gone, and the next call makes one of what is alive."""
    for path in machine.node.run_dir.glob("azvnet.db*"):
        path.unlink()
    assert machine.ipam.needs_adoption()
    machine.ipam.adopt(())


def test_a_store_lost_in_mid_removal_gives_nothing_away_that_is_leaving(machine: Machine) -> None:
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    machine.run(60)
    machine.waiting_pods = set()
    machine.run(300)
    machine.lag = 200.0
    most = len(machine.on_nic())
    leaving: set[IPAddress] = set()
    given: list[bool] = []

    def lose() -> None:
        if not leaving and (marked := machine.ipam.leaving()):
            leaving.update(marked)
            lose_store(machine)
            machine.refresh()
            given.extend(machine.add_pod(number) for number in range(most))

    machine.while_waiting = [lose]
    machine.run(SHRINK_AFTER + 60)
    assert leaving, "it was lost in mid-removal"
    assert given.count(True) == most - len(leaving)
    assert not leaving & set(machine.pods.values())
    assert not leaving & machine.on_nic()


def test_what_leaves_is_kept_back_until_the_source_was_read_into_the_new_store(machine: Machine) -> None:
    machine.run(300)
    machine.lag = 200.0
    wiped = min(machine.on_nic(), key=int)
    machine.wipe(wiped)
    machine.start()
    machine.provisioner.step()
    assert machine.ipam.leaving() == {wiped}
    lose_store(machine)
    machine.provisioner.step()
    machine.refresh()
    assert [machine.add_pod(number) for number in range(16)].count(True) == 15


def test_what_was_offered_to_the_operator_is_held_back_until_nobody_can_take_it(machine: Machine) -> None:
    """The mode was ``operator`` a moment ago, and the operator may have begun."""
    machine.run(60)
    offered = tuple(sorted(machine.on_nic(), key=int))[:4]
    machine.ipam.mark_leaving([offered], 0.0)
    given = offers.Offer("azvnet-0123456789abcdef", offered, machine.clock())
    offers.keep(machine.ipam.lasting, offers.Offers("uid", (given,)))
    machine.start()
    machine.run(offers.KEPT_SECONDS - 100)
    assert machine.ipam.leaving() == set(offered)
    machine.wipe(offered[0])
    machine.run(700)
    assert machine.ipam.leaving() == frozenset(), "one is gone, the others can be used again"
    free = [each for each in machine.ipam.addresses(COOLDOWN) if each.state.value == "free"]
    assert {each.address.ip for each in free} == machine.on_nic()
    assert set(offered[1:]) < machine.on_nic()


def test_what_is_done_is_counted_and_outlives_the_agent(machine: Machine) -> None:
    machine.waiting_pods = {f"default/none-{number}" for number in range(40)}
    machine.run(60)
    machine.waiting_pods = set()
    machine.start()
    machine.run(SHRINK_AFTER + 60)
    counted = machine.ipam.overview().counters
    added, removed = counted[counts.ADDED], counted[counts.REMOVED]
    assert removed > 0
    assert added - removed == len(machine.on_nic()) == machine.provisioner.progress.configurations - 1
    assert counted[counts.writes_ended(counts.OK)] == machine.arm.puts == 2
    assert counted[counts.READS] == len(machine.arm.requests) - 2
    assert counts.THROTTLED not in counted


def test_a_nic_is_given_no_more_ip_configurations_than_it_can_have(node: Node) -> None:
    machine = Machine(node, ArmService(subnet="10.0.0.0/22"), Sizes(maximum=400))
    machine.run(60)
    machine.waiting_pods = {f"default/none-{number}" for number in range(400)}
    machine.run(120)
    assert machine.phase == "nic-full"
    assert len(machine.arm.names) == 256
    assert machine.arm.puts == 2


def test_a_dry_run_tells_what_it_would_remove(node: Node) -> None:
    arm = ArmService()
    before = Machine(node, arm, Sizes())
    before.waiting_pods = {f"default/none-{number}" for number in range(40)}
    before.run(60)
    machine = Machine(node, arm, Sizes(shrink_after=SHRINK_AFTER), dry_run=True)
    machine.refresh()
    machine.run(SHRINK_AFTER + 60)
    assert machine.log == ["info: dry run: would remove 32 addresses"]
    assert (arm.puts, len(machine.on_nic())) == (1, 48)


def test_counts_are_true_while_a_pause_lasts(machine: Machine) -> None:
    machine.arm.instead.append(("PUT", refusal(429, "TooManyRequests", retry_after="1000")))
    machine.provisioner.step()
    machine.scheduled = lambda held: Demand(coming=7, per_second=0.0)
    machine.provisioner.step()
    assert (machine.phase, machine.provisioner.progress.coming) == ("throttled", 7)


def test_pods_that_are_bound_one_after_the_other_are_written_for_in_advance(machine: Machine) -> None:
    machine.run(60)
    assert len(machine.on_nic()) == 16
    machine.scheduled = lambda held: Demand(coming=0, per_second=1.0)
    machine.run(60)
    assert len(machine.on_nic()) > 60


def test_a_failed_configuration_that_no_source_lists_is_removed(machine: Machine) -> None:
    machine.run(60)
    (name,) = nic_document.new_names(1)
    machine.arm.add_foreign(name)
    machine.arm.nic["properties"]["ipConfigurations"][-1]["properties"]["provisioningState"] = "Failed"
    machine.lag = 1e9
    machine.start()
    machine.run(60)
    assert name not in machine.arm.names
    assert len(machine.on_nic()) == 16


def test_the_maximum_is_a_state_when_pods_need_more(node: Node) -> None:
    machine = Machine(node, ArmService(), Sizes(maximum=16))
    machine.run(60)
    assert [machine.add_pod(number) for number in range(17)].count(True) == 16
    machine.run(60)
    assert machine.phase == "maximum"
    assert len(machine.on_nic()) == 16


def test_a_dry_run_changes_nothing_and_tells_its_plan_once(node: Node) -> None:
    machine = Machine(node, ArmService(), Sizes(), dry_run=True)
    machine.run(3 * AT_REST_SECONDS)
    assert (machine.arm.puts, machine.asked) == (0, 3), "it is read as often as one at rest"
    assert machine.log == ["info: dry run: would add 16 addresses"]
    assert machine.phase == "dry-run"
    assert isinstance(machine.ipam, Ipam)
