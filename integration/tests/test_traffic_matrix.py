"""Every kind of packet from every kind of sender: the page and ``azvnet explain`` say what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.tests.pods import dropped
from integration.traffic.ends import LOST
from integration.traffic.family import IPV4, IPV6, Family
from integration.traffic.measure import Explained, measure
from integration.traffic.scene import FAMILIES, NODE, PUBLIC, scene
from integration.traffic.table import PAGE, table, with_table, written

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(600)


LOSES = {4: {"no_egress", "platform"}, 6: {"no_egress_v6"}}
"""What the fabric drops of what is sent to be dropped."""


@pytest.fixture(scope="module", params=FAMILIES, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> Family:
    assert isinstance(request.param, Family)
    return request.param


@pytest.fixture(scope="module")
def measured(family: Family) -> Iterator[list[Explained]]:
    """Every cell; the fabric dropped nothing but what was sent to be dropped."""
    with scene(family) as made:
        found = measure(made)
        lost = [each for each in found if each.cell.answer == LOST]
        assert set(dropped(made.fabric)) == LOSES[family.version]
        assert {each.cell.wire for each in lost} == {lost[0].cell.sender.address}
        yield found


def test_the_table_on_the_page_is_what_is_measured(family: Family, measured: list[Explained]) -> None:
    text = table([each.cell for each in measured])
    assert text == written(PAGE.read_text(), family), "run make traffic-matrix"


def test_explain_agrees_with_every_packet(measured: list[Explained]) -> None:
    assert [each.disagreement for each in measured if each.disagreement] == []


def test_what_leaves_the_node_arrives_as_it_left(measured: list[Explained]) -> None:
    """But for node ports and host ports of another node, which translates again, and for what Azure makes of
    a public address.
    """
    for cell in (each.cell for each in measured):
        changed = cell.public or "of another node" in cell.target.title
        assert cell.answer in {cell.wire, LOST} or not cell.wire or changed


def test_only_what_a_public_address_sends_to_the_internet_leaves_with_it(measured: list[Explained]) -> None:
    public = {each.cell.target.title for each in measured if each.cell.public}
    assert public == {"the Internet"}
    senders = {each.cell.sender.title for each in measured if each.cell.public}
    assert senders == {PUBLIC}


def test_the_node_itself_is_never_refused_nor_translated(measured: list[Explained]) -> None:
    seen = {each.cell.seen for each in measured if each.cell.sender.title == NODE}
    (node,) = {each.cell.sender.address for each in measured if each.cell.sender.title == NODE}
    assert seen == {node}


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = PAGE.read_text()
    changed = with_table(page, IPV6, "| other |\n")
    assert written(changed, IPV6) == "| other |\n"
    assert written(changed, IPV4) == written(page, IPV4)
    assert with_table(changed, IPV6, written(page, IPV6)) == page
