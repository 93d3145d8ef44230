"""What the kernel tells of links and routes: no change is missed, and no news are no work."""

from __future__ import annotations

import pytest

from cni_plugin.kernel.family import IPV4
from cni_plugin.kernel.watch import RTMGRP_LINK, Watch
from tests.netns.sandbox import Sandbox

pytestmark = pytest.mark.alone("about a part of the agent, without one")

CHANGES = [
    ("link add v0 type veth peer name v1", True),
    ("link set v0 up", True),
    ("link set v0 alias words", True),
    ("link set v0 down", True),
    ("link set v0 address 02:00:00:00:00:01", True),
    ("route add 10.9.0.1/32 dev v1", True),
    ("route del 10.9.0.1/32 dev v1", True),
    ("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v1", False),
    ("link del v0", True),
]


def test_each_change_of_a_link_or_route_is_told_once(sandbox: Sandbox) -> None:
    def work() -> list[str]:
        watch = Watch(RTMGRP_LINK | IPV4.route_group)
        wrong = [] if watch.changed() and not watch.changed() else ["the first look"]
        for line, told in CHANGES:
            sandbox.batch("link set v1 up") if "10.9" in line else None
            watch.changed()
            sandbox.batch(line)
            seen = watch.changed(), watch.changed()
            if seen != (told, False):
                wrong.append(f"{line}: {seen}")
        watch.close()
        return wrong

    assert sandbox.ask(work) == []


def test_more_changes_than_can_be_kept_are_a_change(sandbox: Sandbox) -> None:
    def work() -> list[bool]:
        watch = Watch(RTMGRP_LINK | IPV4.route_group)
        watch.changed()
        sandbox.batch("link add v0 type veth peer name v1", *["link set v0 up", "link set v0 down"] * 2000)
        told = [watch.changed(), watch.changed()]
        sandbox.batch("link del v0")
        return [*told, watch.changed(), watch.changed()]

    assert sandbox.ask(work) == [True, False, True, False]
