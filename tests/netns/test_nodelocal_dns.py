"""NodeLocal DNS: a cache on the node, on a link that leads nowhere, whose packets are not tracked."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from integration import dnscache, witness
from integration.dnscache import LISTENS, LISTENS_V6, PORT
from ipam.model import SourceConfig
from tests.netns.node import ADDRESS
from tests.netns.test_ipv6 import ADDRESS_V6, ips, with_both
from tests.netns.test_masquerade import servers
from tests.netns.test_nics import list_second, plug, second

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from tests.netns.calls import Executable
    from tests.netns.node import Node
    from tests.netns.sandbox import Pod, Sandbox


@pytest.fixture
def dual(busy_node: Node) -> Node:
    return with_both(busy_node)


@pytest.fixture
def two_nics(busy_node: Node) -> Node:
    plug(busy_node)
    list_second(busy_node, 5, 6)
    busy_node.pool(lambda pool: pool.refresh(SourceConfig("file"), deadline=5, force=True))
    return busy_node


@contextmanager
def cache(sandbox: Sandbox, addresses: Sequence[str]) -> Iterator[None]:
    """The cache, until the end of the block; it answers with the address that it saw."""
    sandbox.batch(*dnscache.link(addresses))
    for rule in dnscache.rules(addresses):
        sandbox.run(*rule)
    with servers(sandbox, "", [place(each) for each in addresses]):
        yield


def place(address: str) -> str:
    return f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"


def seen(pod: Pod, addresses: Sequence[str]) -> set[str]:
    """Whom the cache saw, over TCP and UDP, at each of its addresses."""
    places = [place(each) for each in addresses]
    return {
        line
        for kind in ("tcp", "udp")
        for line in pod.run("python3", "-c", witness.ASK, kind, *places).stdout.splitlines()
    }


def untracked(sandbox: Sandbox, program: str, address: str) -> int:
    """Packets to the cache that its rules took out of tracking."""
    listed = sandbox.run(program, "-w", "-t", "raw", "-nvxL", "PREROUTING").stdout.splitlines()
    return sum(int(line.split()[0]) for line in listed if address in line)


def explained(node: Node, executable: Executable, start: str, to: str) -> dict[str, Any]:
    argv = ("explain", "--from", start, "--to", place(to), "--udp", "--probe", "--output", "json")
    done = executable.command(node.sandbox, *argv, LANG="C.UTF-8")
    read: dict[str, Any] = json.loads(done.stdout)
    return read


@pytest.mark.parametrize("strict", [0, 1, 2])
def test_a_pod_asks_the_nodes_dns_cache_under_its_own_address(
    busy_node: Node, executable: Executable, strict: int
) -> None:
    node = busy_node
    for name in ("all", "default", "eth0"):
        node.sandbox.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={strict}")
    before = node.sandbox.pod("before")
    first = node.add(before).done().address
    with cache(node.sandbox, LISTENS):
        later = node.sandbox.pod("later")
        address = node.add(later).done().address
        assert seen(before, LISTENS) == {first}
        assert seen(later, LISTENS) == {address}
        for each in LISTENS:
            assert untracked(node.sandbox, "iptables", each) > 0, "the rules are those that packets meet"
            said = explained(node, executable, address, each)
            assert (said["verdict"], said["source"]) == ("delivered", address)
            assert said["reason"] == "the node has the address itself"
            assert said["probe"]["arrived"]


def test_a_pod_asks_it_whatever_the_network_masquerades(busy_node: Node) -> None:
    node = busy_node
    with cache(node.sandbox, LISTENS):
        pod = node.sandbox.pod("c1")
        address = node.add(pod, conf=node.conf(ipMasq=False)).done().address
        assert seen(pod, LISTENS) == {address}
        node.sandbox.run("nft", "delete", "table", "inet", "azvnet")
        assert seen(pod, LISTENS) == {address}, "nothing in the table is needed for it"


def test_a_pod_of_the_second_nic_asks_it_though_its_packets_have_a_table_of_their_own(two_nics: Node) -> None:
    node = two_nics
    with cache(node.sandbox, LISTENS):
        pod = node.sandbox.pod("c1")
        address = node.add(pod, conf=second(node)).done().address
        assert address.startswith("10.20.")
        assert seen(pod, LISTENS) == {address}


def test_a_pod_asks_it_over_ipv6_under_its_own_address(dual: Node, executable: Executable) -> None:
    node = dual
    pod = node.sandbox.pod("c1")
    own, own_v6 = (each.partition("/")[0] for each in ips(node.add(pod).done().result))
    with cache(node.sandbox, (*LISTENS, *LISTENS_V6)):
        assert seen(pod, LISTENS_V6) == {own_v6}
        assert seen(pod, LISTENS) == {own}
        for each in LISTENS_V6:
            assert untracked(node.sandbox, "ip6tables", each) > 0
            said = explained(node, executable, own_v6, each)
            assert (said["verdict"], said["source"]) == ("delivered", own_v6)


def test_a_pod_in_the_nodes_network_and_the_node_ask_it_too(dual: Node) -> None:
    node = dual
    node.add(node.sandbox.pod("c1")).done()
    with cache(node.sandbox, (LISTENS[0], LISTENS_V6[0])):
        for each, own in ((LISTENS[0], ADDRESS), (LISTENS_V6[0], ADDRESS_V6)):
            argv = ("python3", "-c", witness.ASK, "udp", place(each))
            found = node.sandbox.run(*argv).stdout.strip()
            assert found in {each, own}, "by the cache's address, as any local one asks itself"
