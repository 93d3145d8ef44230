"""``azvnet operator`` as a process, killed at each step of growing, of shrinking and of clearing a NIC.

It is killed at requests that the emulated Azure and the played agents see, so that no step is missed however
fast it goes by.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from integration.apiserver.operator_site import Site, site_with_agents
from integration.fabric.armlog import POLL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.apiserver.operator_site import OperatorProcess

MANY, FEW = 12, 1
WRITING = [
    ("GET", False, "it is noted, and the NIC was not read"),
    ("PUT", False, "the NIC was read"),
    ("PUT", True, "it is written, and the answer was not seen"),
    (POLL, True, "the operation is under way"),
]
"""The request at which the leader is killed, whether it is carried out all the same, what is done then."""
MARKING = [
    ("marks", False, "addresses are marked in the node's store"),
    ("marks", True, "they are published, and not noted"),
]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_agents(tmp_path) as made:
        yield made


def killed(
    site: Site, leader: OperatorProcess, step: tuple[str, bool, str], change: Callable[[], None]
) -> OperatorProcess:
    """Make a change, and have the leader killed at that step of it; who follows it."""
    kind, after, words = step
    site.soon(lambda: leader.leads)
    with site.killing(leader, kind, after=after):
        change()
        site.soon(lambda: leader.process.poll() is not None)
    assert leader.process.returncode == -signal.SIGKILL, words
    return site.operator()


@pytest.mark.parametrize(
    ("pods", "steps"), [(MANY, WRITING), (FEW, MARKING + WRITING)], ids=["growing", "shrinking"]
)
def test_a_leader_that_is_killed_at_any_step_is_followed_without_a_loss(
    site: Site, pods: int, steps: list[tuple[str, bool, str]]
) -> None:
    leader = site.operator()
    for step in steps:
        site.scale(MANY + FEW - pods)
        site.soon(lambda: pods == FEW or all(len(site.names(each)) < MANY - 2 for each in site.agents))
        site.settled()
        leader = killed(site, leader, step, lambda: site.scale(pods))
        site.settled()


@pytest.mark.parametrize("step", WRITING, ids=lambda step: f"{step[0]}-{step[1]}")
def test_a_leader_that_is_killed_while_it_clears_a_nic_is_followed(
    site: Site, step: tuple[str, bool, str]
) -> None:
    leader = site.operator()
    site.scale(5)
    site.settled()
    site.abandon("node3")
    killed(site, leader, step, lambda: site.server.api.delete("/api/v1/nodes/node3"))
    site.cleared("node3")
    site.settled()
