"""``azvnet plan --subnet`` on an emulated node: what docs/plan.md shows, and a role that is too narrow."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from integration.calls import call
from integration.fabric import Fabric
from integration.pages import DOCS, Command, commands
from integration.plugins import BIN, install_ours
from ipam.sources.arm_subnet import READS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess


NETCONF = {
    "cniVersion": "1.1.0",
    "name": "azvnet",
    "type": "azvnet",
    "ipam": {"type": "azvnet-ipam", "environment": "imds"},
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Fabric]:
    with Fabric(nodes=2, addresses=30, vnet_hosts=0, imds_limit=None) as made:
        for node in made.nodes.values():
            install_ours(node)
        call(made.nodes["node1"], "STATUS", NETCONF, container_id="").done()
        yield made


@pytest.fixture
def fabric(shared: Fabric) -> Iterator[Fabric]:
    yield shared
    shared.arm.roles.give("reader")
    shared.clear_faults()


def plan(fabric: Fabric, *words: str) -> CompletedProcess[str]:
    return fabric.nodes["node1"].run([f"{BIN}/azvnet", "plan", *words], check=False)


def subnet(fabric: Fabric) -> str:
    estate = fabric.estate
    return (
        f"/subscriptions/{estate.subscription}/resourceGroups/{estate.resource_group}/providers/"
        "Microsoft.Network/virtualNetworks/vnet1/subnets/nodes"
    )


@pytest.mark.parametrize(
    "shown", [*commands((DOCS / "plan.md").read_text())], ids=lambda each: each.text[:20]
)
def test_the_page_shows_what_is_printed(fabric: Fabric, shown: Command) -> None:
    words = shlex.split(shown.text.replace("SUBSCRIPTION", fabric.estate.subscription))
    done = plan(fabric, *words[2:])
    assert (done.stdout, done.stderr) == ("\n".join(shown.prints) + "\n", "")


def test_json_says_what_azure_counts(fabric: Fabric) -> None:
    done = plan(fabric, "--subnet", subnet(fabric), "--nodes", "1", "--output", "json")
    document = json.loads(done.stdout)
    assert document["live"]["used"] == document["subnet"]["uses"]["others"] == 2 * 31
    assert document["subnet"]["prefixLength"] == 20


def test_a_role_that_is_too_narrow_is_told_in_one_line(fabric: Fabric) -> None:
    fabric.arm.roles.give(READS)
    assert plan(fabric, "--subnet", subnet(fabric), "--nodes", "1").returncode == 0
    fabric.arm.roles.give(READS[:1])
    done = plan(fabric, "--subnet", subnet(fabric), "--nodes", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"azvnet plan: GET .*/usages: 403: AuthorizationFailed: .*\n", done.stderr)
    assert READS[1] in done.stderr


def test_what_is_given_comes_before_what_the_node_has(fabric: Fabric) -> None:
    done = plan(
        fabric, "--from-node", "--nodes", "3", "--max-pods", "20", "--size", "/25", "--output", "json"
    )
    document = json.loads(done.stdout)
    assert (document["perNode"]["pods"], document["subnet"]["prefixLength"]) == (20, 25)


def test_a_node_without_a_pool_says_so(fabric: Fabric) -> None:
    done = fabric.nodes["node2"].run([f"{BIN}/azvnet", "plan", "--from-node", "--nodes", "3"], check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"azvnet plan: there is no store .*\. The first call, or the agent, creates it\.\n", done.stderr
    )


def test_without_azure_it_says_how_to_ask_by_hand(fabric: Fabric) -> None:
    fabric.fault("imds", refused=True)
    done = plan(fabric, "--subnet", subnet(fabric), "--nodes", "1")
    assert done.returncode == 2
    assert re.fullmatch(
        r"azvnet plan: cannot find out which cloud this is: .* `az network vnet list-usage` .*\n", done.stderr
    )
