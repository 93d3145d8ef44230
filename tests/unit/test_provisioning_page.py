"""docs/provisioning.md says what the code does: its tables are held against planner, states and emulator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from integration.fabric import armroles
from ipam.provision.nic_document import named_by_us, new_names
from ipam.provision.pace import READS, SECONDS_PER_READ, SECONDS_PER_WRITE, WRITES
from ipam.provision.plan import Counts, Sizes, plan
from ipam.provision.progress import PHASES

PAGE = (Path(__file__).parents[2] / "docs/provisioning.md").read_text()


def rows(header: str) -> list[list[str]]:
    """The rows of the table with this header."""
    lines = PAGE[PAGE.index(f"\n{header}\n") + 1 :].splitlines()[2:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


WORKED = rows("| pods | free | on the way | waiting | pods per minute | step |")


@pytest.mark.parametrize("row", WORKED, ids=" ".join)
def test_the_worked_table_is_what_the_planner_does(row: list[str]) -> None:
    held, free, in_flight, waiting, per_minute, step = map(int, row)
    counts = Counts(held, free, in_flight=in_flight, waiting=waiting, arrivals=per_minute / 60)
    found = plan(Sizes(), counts, surplus_for=Sizes().shrink_after)
    assert found.add - found.remove == step


def test_every_state_is_explained() -> None:
    explained = {
        word for row in rows("| state | means | what to do |") for word in re.findall(r"`([^`]+)`", row[0])
    }
    assert explained == {"off", *PHASES}


def test_the_role_is_the_one_with_which_the_emulator_lets_a_node_work() -> None:
    (role,) = re.findall(r"```json\n(\{\n.*?)```", PAGE, re.DOTALL)
    assert set(json.loads(role)["Actions"]) == armroles.NIC_WRITER


def test_the_actions_for_scale_sets_are_those_with_which_a_node_of_one_is_tested() -> None:
    line = r"^Instances of Uniform scale sets need (.*?) besides"
    (sentence,) = re.findall(line, PAGE, re.DOTALL | re.MULTILINE)
    instance, nics = armroles.INSTANCE, armroles.INSTANCE_NIC
    wanted = {f"{instance}/read", f"{instance}/write", f"{nics}/read"}
    assert set(re.findall(r"`([^`]+)`", sentence)) == wanted


def test_every_action_that_a_reference_needs_is_listed() -> None:
    listed = {row[1].strip("`") for row in rows("| the NIC has | action |")}
    network = {each for each in armroles.JOINS.values() if each.startswith("Microsoft.Network/")}
    assert {armroles.JOINS["subnet"], *listed} == network


def test_names_and_budget_are_as_the_page_says() -> None:
    assert all(named_by_us(name) and len(name) == len("azvnet-") + 16 for name in new_names(3))
    assert (WRITES, 60 / SECONDS_PER_WRITE) == (4, 2)
    assert (READS, 60 / SECONDS_PER_READ) == (20, 12)
