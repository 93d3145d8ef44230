"""A node with thousands of links and addresses that change all the time, as with kube-proxy in IPVS mode."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from cni_plugin.kernel import encode
from cni_plugin.kernel.netlink import Netlink
from tests.netns.conftest import NewAgent
from tests.netns.node import ADDRESS, Node, ping
from tests.waiting import eventually

BareNode = Callable[..., Node]
PAIRS = 2_500
ADDRESSES = 2_000
AGENT_LOG = "/var/log/azvnet/agent.log"
QUICK = {"reconcile_seconds": 0.3, "refresh_seconds": 0.3}


@contextmanager
def crowd(node: Node) -> Iterator[None]:
    """5,000 links and 2,000 addresses more, and others that are added and deleted at any moment."""
    links = [f"link add a{number} type veth peer name b{number}" for number in range(PAIRS)]
    addresses = [
        f"address add 10.{80 + number // 250}.{number % 250}.1/32 dev lo" for number in range(ADDRESSES)
    ]
    node.sandbox.batch(*links, *addresses)
    with (
        churn(node, "link add z type bridge", "link del z"),
        churn(node, "address add 10.99.0.1/32 dev lo", "address del 10.99.0.1/32 dev lo"),
    ):
        eventually(lambda: node.sandbox.ask(interrupted), "a list of the links is interrupted by changes")
        yield


@contextmanager
def churn(node: Node, *lines: str) -> Iterator[None]:
    """Repeat changes."""
    with node.sandbox.popen(["ip", "-force", "-batch", "-"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        pipe, ended = process.stdin.fileno(), threading.Event()
        text = ("\n".join(lines) + "\n").encode() * 100

        def feed() -> None:
            with suppress(BrokenPipeError):
                while not ended.is_set():
                    os.write(pipe, text)

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            yield
        finally:
            ended.set()
            process.kill()
            feeder.join()


def interrupted() -> bool:
    """Whether the kernel marks lists of the links as interrupted, one after the other."""
    host = Netlink()
    return not any(host._dump_once(encode.dump_links())[1] for _ in range(5))


def test_pods_come_and_go_while_thousands_of_links_change(bare_node: BareNode) -> None:
    node = bare_node()
    with crowd(node):
        assert node.status().ok
        for name in ("c1", "c2", "c3"):
            pod = node.sandbox.pod(name)
            added = node.add(pod).done()
            assert ping(pod, ADDRESS)
            checked = node.check(pod, added).done()
            assert "interrupted" not in checked.stderr
            node.delete(pod).done()
    assert node.residue() == []
    assert [record for record in node.log() if record["level"] != "info"] == []


@pytest.mark.with_agent("it is the agent's own work")
def test_an_agent_starts_adopts_and_repairs_while_thousands_of_links_change(
    bare_node: BareNode, new_agent: NewAgent
) -> None:
    node = bare_node()
    before = [node.sandbox.pod(name) for name in ("c1", "c2")]
    given = [node.add(pod).done().address for pod in before]
    with crowd(node):
        node.sandbox.run("sh", "-c", "rm /run/azvnet/azvnet.db*")
        new_agent(node, **QUICK)
        assert sorted(node.held()) == sorted(given), (
            "each of them was found, however often the list was interrupted"
        )
        pod = node.sandbox.pod("c3")
        assert node.add(pod).done().address not in given
        node.sandbox.run("ip", "route", "flush", "proto", "155")
        eventually(
            lambda: all(ping(each, ADDRESS) for each in (pod, *before)), "the agent put the routes back"
        )
        assert "interrupted" not in node.sandbox.path(AGENT_LOG).read_text()
        for each in (pod, *before):
            node.delete(each).done()
    assert node.residue() == []
