"""Which networks the agent knows from the calls that come in."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cni_plugin.agent import networks as module
from cni_plugin.agent.networks import MOST_NETWORKS, Networks

CONF = {"cniVersion": "1.1.0", "name": "n", "type": "azvnet"}


def conf(file: str, **more: object) -> dict[str, Any]:
    return {**CONF, "ipam": {"type": "azvnet-ipam", "environment": "file", "file": file, **more}}


def files(networks: Networks) -> list[str]:
    return [each.file for each in networks.sources()]


@pytest.fixture
def networks() -> Networks:
    return Networks(threading.Event())


def test_the_sources_of_all_networks_are_known_the_last_one_first(networks: Networks) -> None:
    networks.note(conf("/a"))
    networks.note(conf("/b", cooldown=5))
    assert files(networks) == ["/b", "/a"]
    assert networks.cooldown == 5
    networks.note(conf("/a"))
    assert files(networks) == ["/a", "/b"]


def test_only_a_new_one_wakes_the_agents_work() -> None:
    changed = threading.Event()
    networks = Networks(changed)
    for file in ("/a", "/b"):
        networks.note(conf(file))
        assert changed.is_set()
        changed.clear()
    for file in ("/a", "/a", "/b"):
        networks.note(conf(file))
        assert not changed.is_set()


@pytest.mark.parametrize(
    "document",
    [{}, {"ipam": "x"}, {**CONF, "ipam": {"type": "host-local"}}, {"ipam": {"type": "azvnet-ipam"}}],
)
def test_what_is_not_ours_or_not_valid_changes_nothing(networks: Networks, document: dict[str, Any]) -> None:
    networks.note(document)
    assert (networks.sources(), networks.netconf) == ([], None)


def test_one_that_no_call_comes_with_any_more_is_forgotten(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks.note(conf("/old"))
    monkeypatch.setattr(module, "FORGOTTEN_AFTER", -1.0)
    assert networks.sources() == []


def test_no_more_than_a_few_are_remembered(networks: Networks) -> None:
    for number in range(3 * MOST_NETWORKS):
        networks.note(conf(f"/{number}"))
    assert len(networks.sources()) == MOST_NETWORKS
