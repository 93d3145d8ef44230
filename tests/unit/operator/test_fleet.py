"""What the leading operator remembers of refusals, and whom it wakes when addresses become free."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ipam.operator.census import NodeSeen
from ipam.operator.common import Common
from ipam.operator.fleet import Heard
from ipam.operator.record import NodeRecord, Said
from ipam.operator.settings import Settings
from ipam.operator.term import Term
from ipam.provision.exchange import AzvnetNode, Machine, NicShown, NodeSpec, NodeStatus, PoolReport
from ipam.provision.nic_writer import NicTarget
from ipam.provision.pace import FIRST_PAUSE, LONGEST_PAUSE, SCARCE_SECONDS
from ipam.provision.refusals import FULL, Kind, Refusal
from tests.unit.operator.api_server import ApiServer, View

PROVIDERS = "/subscriptions/s/resourceGroups/g/providers"
SUBNET = f"{PROVIDERS}/Microsoft.Network/virtualNetworks/v/subnets/nodes"
NOW = 5000.0
LONG = NOW + 600.0
"""The end of a pause."""


class Led:
    """A term of which nothing runs."""

    def __init__(self) -> None:
        self.now = NOW
        self.told: list[tuple[str, str]] = []
        view: Any = View(ApiServer())

        def tell(level: str, text: str) -> None:
            self.told.append((level, text))

        settings = Settings.of({"arm": {"credential": "managed-identity"}})
        self.term = Term(Common(settings, view, lambda: True, lambda: self.now, tell, Counter()))
        self.fleet = self.term.fleet

    def node(self, name: str, refused: Kind | None = None, **pool: int) -> NodeRecord:
        """One that may be tried again after a long pause."""
        machine = f"{PROVIDERS}/Microsoft.Compute/virtualMachines/{name}"
        self.term.nodes.changed(NodeSeen(name, f"uid-{name}", f"azure://{machine}"))
        spec = NodeSpec(machine=Machine(machine, location="westeurope"), pool=PoolReport(**pool))
        status = NodeStatus(revision=1, nic=NicShown(id=f"nic-{name}", subnet=SUBNET))
        self.fleet.changed(Heard(name, AzvnetNode(name, spec=spec, status=status)))
        record = self.fleet.records[name]
        record.refused, record.not_before = refused, LONG
        return record

    def woken(self) -> set[str]:
        """Nodes that need not wait any more."""
        return {each.node.name for each in self.fleet.all_records() if each.not_before <= self.now}


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> Led:
    monkeypatch.setattr("ipam.provision.pace.chance", lambda: 0.0)
    return Led()


@pytest.mark.parametrize(
    ("room", "woken"),
    [
        (0, set()),
        (1, {"five"}),
        (5, {"five"}),
        (6, {"five", "three"}),
        (8, {"five", "three"}),
        (9, {"five", "three", "one"}),
        (1000, {"five", "three", "one"}),
    ],
)
def test_addresses_that_became_free_wake_those_that_lack_the_most_and_no_more_than_they_serve(
    led: Led, room: int, woken: set[str]
) -> None:
    free = led.node("free")
    for name, lacks in (("one", 1), ("five", 5), ("none", 0), ("three", 3)):
        led.node(name, Kind.SUBNET_FULL, waiting=lacks)
    led.node("busy", Kind.BUSY, waiting=9)
    led.fleet._dirty.clear()
    led.fleet.note_room(free, room)
    assert led.woken() == led.fleet._dirty == woken


@pytest.mark.parametrize(
    ("pool", "lacks"),
    [
        ({"waiting": 7}, 7),
        ({"waiting": 7, "free": 2}, 5),
        ({"waiting": 7, "in_flight": 3}, 4),
        ({"waiting": 7, "free": 2, "in_flight": 3}, 2),
    ],
)
def test_a_node_that_is_woken_asks_for_what_its_pods_lack_and_for_no_more_than_is_there(
    led: Led, pool: dict[str, int], lacks: int
) -> None:
    free, each = led.node("free"), led.node("n", Kind.VNET_FULL, **pool)
    led.fleet.note_room(free, 1)
    assert each.most == 1
    led.fleet.note_room(free, 100)
    assert each.most == lacks
    led.fleet.note_room(free, 1)
    assert each.most == lacks, "what it may ask for already is not taken from it"


def test_pods_that_are_bound_to_a_node_lack_an_address_before_they_ask(led: Led) -> None:
    free, each = led.node("free"), led.node("n", Kind.VNET_FULL, waiting=1)
    for number in range(4):
        document = {"metadata": {"name": f"p{number}", "uid": f"{number}"}, "spec": {"nodeName": "n"}}
        led.term.pods.changed(led.term.pods.brief(document))
    led.fleet.note_room(free, 100)
    assert each.most == 4


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize(("asked", "most"), [(1, 1), (2, 1), (9, 4)])
def test_where_there_was_no_address_left_half_is_tried_next_and_others_there_are_told(
    led: Led, kind: Kind, asked: int, most: int
) -> None:
    each, neighbour = led.node("n"), led.node("neighbour")
    each.asked = asked
    led.fleet._failed(each, Refusal(kind, "no"))
    assert (each.most, each.refused, each.no_block_until) == (most, kind, 0.0)
    assert [led.fleet.around(record).full for record in (each, neighbour)] == [kind, kind]
    led.now += SCARCE_SECONDS
    assert led.fleet.around(each).full is None


def test_where_no_block_was_left_single_addresses_are_taken_for_ten_minutes(led: Led) -> None:
    each = led.node("n")
    each.asked = 16
    led.fleet._failed(each, Refusal(Kind.NO_BLOCK, "no"))
    assert (each.no_block_until, each.most) == (NOW + SCARCE_SECONDS, 0)
    assert led.fleet.around(each).full is None


@pytest.mark.parametrize(
    ("kind", "again"), [(Kind.NOT_FOUND, True), (Kind.NO_IDENTITY, True), (Kind.BUSY, False)]
)
def test_a_nic_is_looked_up_again_when_it_was_not_found(led: Led, kind: Kind, again: bool) -> None:
    each = led.node("n")
    each.target = target = NicTarget("id", "nic", "")
    led.fleet._failed(each, Refusal(kind, "no"))
    assert each.target is (None if again else target)


def test_what_failed_is_told_and_the_nic_is_read_before_anything_else(led: Led) -> None:
    each = led.node("n")
    each.unsure = False
    refusal = Refusal(Kind.BUSY, "another operation")
    led.fleet._failed(each, refusal)
    assert each.unsure
    assert each.trouble == Said("busy", "another operation", refusal.remedy)
    assert led.told == [("warning", "n: busy: another operation")]


def test_pauses_get_longer_with_each_failure_and_last_as_long_as_azure_says(led: Led) -> None:
    each = led.node("n")
    for failures in (1, 2, 3):
        led.fleet._failed(each, Refusal(Kind.BUSY, "no"))
        assert each.not_before == NOW + FIRST_PAUSE * 2 ** (failures - 1) / 2
    led.fleet._failed(each, Refusal(Kind.BUSY, "no", LONGEST_PAUSE * 2))
    assert each.not_before == NOW + LONGEST_PAUSE * 2
    assert each.failures == 4


def test_a_node_does_not_pay_for_requests_that_were_throttled(led: Led) -> None:
    """All pause then, and its next failure is its first."""
    each = led.node("n")
    led.fleet._failed(each, Refusal(Kind.THROTTLED, "no"))
    assert (each.failures, each.not_before) == (0, NOW + FIRST_PAUSE / 2)
    each.failures = 3
    led.fleet._failed(each, Refusal(Kind.THROTTLED, "no"))
    assert (each.failures, each.not_before) == (3, NOW + FIRST_PAUSE * 4 / 2)
