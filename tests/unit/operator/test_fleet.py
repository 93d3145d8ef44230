"""What the leading operator remembers of refusals."""

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
from ipam.provision.exchange import AzvnetNode, Machine, NicShown, NodeSpec, NodeStatus
from ipam.provision.nic_writer import NicTarget
from ipam.provision.pace import FIRST_PAUSE, LONGEST_PAUSE, SCARCE_SECONDS
from ipam.provision.refusals import FULL, Kind, Refusal
from tests.unit.operator.api_server import ApiServer, View

PROVIDERS = "/subscriptions/s/resourceGroups/g/providers"
SUBNET = f"{PROVIDERS}/Microsoft.Network/virtualNetworks/v/subnets/nodes"
NOW = 5000.0


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

    def node(self, name: str) -> NodeRecord:
        machine = f"{PROVIDERS}/Microsoft.Compute/virtualMachines/{name}"
        self.term.nodes.changed(NodeSeen(name, f"uid-{name}", f"azure://{machine}"))
        spec = NodeSpec(machine=Machine(machine, location="westeurope"))
        status = NodeStatus(revision=1, nic=NicShown(id=f"nic-{name}", subnet=SUBNET))
        self.fleet.changed(Heard(name, AzvnetNode(name, spec=spec, status=status)))
        return self.fleet.records[name]


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> Led:
    monkeypatch.setattr("ipam.provision.pace.chance", lambda: 0.0)
    return Led()


@pytest.mark.parametrize("kind", FULL)
def test_what_a_nic_gave_back_others_in_a_full_network_may_ask_for(led: Led, kind: Kind) -> None:
    free, each = led.node("free"), led.node("n")
    each.asked = 1
    led.fleet._failed(each, Refusal(kind, "no"))
    assert led.fleet.around(each).room == 0
    led.fleet.note_room(free, 16)
    assert led.fleet.around(each).room == 16


@pytest.mark.parametrize("kind", FULL)
def test_in_a_full_network_nodes_pause_together_and_none_longer_for_having_failed_more(
    led: Led, kind: Kind
) -> None:
    each = led.node("n")
    for _ in range(5):
        led.fleet._failed(each, Refusal(kind, "no"))
    assert each.not_before == NOW + FIRST_PAUSE / 2


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize(("asked", "most"), [(1, 1), (2, 1), (9, 4)])
def test_where_there_was_no_address_left_half_is_tried_next_and_others_there_are_told(
    led: Led, kind: Kind, asked: int, most: int
) -> None:
    each, neighbour = led.node("n"), led.node("neighbour")
    each.asked = asked
    led.fleet._failed(each, Refusal(kind, "no"))
    assert each.no_block_until == 0.0
    if asked > 1:
        assert led.fleet.around(each).room == most
    assert [led.fleet.around(record).full for record in (each, neighbour)] == [kind, kind]
    led.now += SCARCE_SECONDS
    assert led.fleet.around(each).full is None


def test_where_no_block_was_left_single_addresses_are_taken_for_ten_minutes(led: Led) -> None:
    each = led.node("n")
    each.asked = 16
    led.fleet._failed(each, Refusal(Kind.NO_BLOCK, "no"))
    assert each.no_block_until == NOW + SCARCE_SECONDS
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
