"""What the kernel tells of links and routes: no change is missed, and no news, or own pods, are no work."""

from __future__ import annotations

import os
from ipaddress import ip_interface

import pytest

from cni_plugin.datapath import Endpoint, transparent
from cni_plugin.datapath.names import names_of
from cni_plugin.kernel import sysctl
from cni_plugin.kernel.family import IPV4
from cni_plugin.kernel.host_cache import WATCHED
from cni_plugin.kernel.netlink import Netlink
from cni_plugin.kernel.watch import RTMGRP_LINK, Watch
from ipam.model import Attachment
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


FOREIGN = {
    "link add v0 type veth peer name v1": True,
    "link set v1 up": True,
    "link set v0 up": True,
    "link set v0 group 7": True,
    "link add d0 group 155 type bridge": True,
    "address add 10.9.0.4/24 dev v0": True,
    "route add 10.9.1.0/24 dev v0": True,
    "route add default dev v0 table 200": True,
    "rule add from 10.9.0.0/24 lookup 200": True,
    "nexthop add id 7 dev v0": True,
    "sysctl ipv6/conf/v0/disable_ipv6 0": True,
    "route add fd00:9::/64 dev v0": True,
    "route add ::/0 dev v0": True,
    "sysctl ipv4/ip_forward 1": True,
    "sysctl ipv4/conf/v0/forwarding 0": True,
    "sysctl ipv4/ip_forward 0": True,
    "link set v0 down": True,
    "link del v0": True,
    "link add p0 index 100000 group 155 type veth peer name p1 index 100001 group 155": False,
    "link set p1 up": False,
    "link set p0 up": False,
    "link set p0 alias words": False,
    "link property add dev p0 altname azvnet-0": False,
    "link set p0 type veth": False,
    "route add 10.9.0.7/32 dev p0": False,
    "sysctl ipv6/conf/p0/disable_ipv6 0": False,
    "route add fd00:9::7/128 dev p0": False,
    "route add fd00:9:1::/64 dev p0": False,
    "route add ::/0 dev p0 metric 7": True,
    "route del ::/0 dev p0 metric 7": True,
    "neighbour add 10.9.0.7 lladdr 02:00:00:00:00:02 dev p0": False,
    "sysctl ipv4/conf/p0/forwarding 1": False,
    "route del 10.9.0.7/32 dev p0": False,
    "link set p0 group 0": True,
    "link set p0 mtu 1400": True,
    "link set p0 group 155": False,
    "link set p0 down": False,
    "link del p0": False,
}


def test_who_is_not_told_of_pods_is_told_of_everything_else(sandbox: Sandbox) -> None:
    """As they are made by an ADD: in their group, with an index above what the kernel counts up to."""

    def work() -> list[str]:
        for name in ("disable_ipv6", "addr_gen_mode"):  # nothing happens by itself later
            sysctl.write(f"ipv6/conf/default/{name}", "1")
        watch = Watch(WATCHED, of_pods=False)
        wrong = []
        for line, told in FOREIGN.items():
            watch.changed()
            if line.startswith("sysctl"):
                _, name, value = line.split()
                sysctl.write(name, value)
            else:
                sandbox.batch(line)
            seen = watch.changed(), watch.changed()
            if seen != (told, False):
                wrong.append(f"{line}: {seen}")
        watch.close()
        return wrong

    assert sandbox.ask(work) == []


def test_nothing_that_an_add_or_a_del_does_is_told(sandbox: Sandbox) -> None:
    pod = sandbox.pod("c1")

    def work() -> list[bool]:
        watch, host, told = Watch(WATCHED, of_pods=False), Netlink(), [False]
        attachment = Attachment(pod.container_id, "eth0")
        names = names_of(attachment)
        addresses = (ip_interface("10.9.0.7/24"), ip_interface("fd00:9::7/64"))
        endpoint = Endpoint(names, "azure", addresses, 1500, names.pod_mac)
        netns_fd = os.open(pod.netns, os.O_RDONLY)
        watch.changed()
        for _ in range(3):
            transparent.attach(endpoint, host, netns_fd)
            told.append(watch.changed())
            transparent.detach(names, host)
            told.append(watch.changed())
        return told

    assert not any(sandbox.ask(work))


def test_more_changes_than_can_be_kept_are_a_change(sandbox: Sandbox) -> None:
    def work() -> list[bool]:
        watch = Watch(RTMGRP_LINK | IPV4.route_group)
        watch.changed()
        sandbox.batch("link add v0 type veth peer name v1", *["link set v0 up", "link set v0 down"] * 2000)
        told = [watch.changed(), watch.changed()]
        sandbox.batch("link del v0")
        return [*told, watch.changed(), watch.changed()]

    assert sandbox.ask(work) == [True, False, True, False]
