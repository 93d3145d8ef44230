"""A node with routing rules of its own: host and pods reach each other all the same, by one rule of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_plugin import host
from cni_plugin.cli.looking import look
from cni_plugin.cni.errors import KernelRefused
from cni_plugin.host.traffic import PodNetwork
from cni_plugin.kernel.host_cache import KnownHost
from cni_plugin.node import Node as Engine
from integration.fabric import syscalls as sc
from tests.netns.calls import Executable
from tests.netns.conftest import NewAgent
from tests.netns.node import ADDRESS, GATEWAY, OUTSIDE, SUBNET, Node, ping
from tests.netns.sandbox import Pod
from tests.waiting import eventually

BareNode = Callable[..., Node]
QUICK = {"reconcile_seconds": 0.2, "refresh_seconds": 0.3}
PLATFORM = "168.63.129.16"
CAP_NET_ADMIN = 12
OURS = "from all lookup main suppress_prefixlength 31 suppress_ifgroup default proto 155"
TAKING = {
    "by the node's address": f"from {ADDRESS} lookup 200",
    "by the subnet": f"from {SUBNET} lookup 200",
    "by the incoming link": "iif lo lookup 200",
    "by the destination": "to 10.0.0.0/8 lookup 200",
    "everything": "lookup 200",
    "everything without a mark": "not from all fwmark 0x1 lookup 200",
}
HARMLESS = {
    "by a mark": "fwmark 0x1 lookup 200",
    "by the link a socket is bound to": "oif eth0 lookup 200",
    "for one address": f"to {OUTSIDE} lookup 200",
    "into the main table": "lookup main suppress_prefixlength 0",
    "behind the main table": f"from {ADDRESS} lookup 200 priority 32768",
    "that refuses": f"from {ADDRESS} to {OUTSIDE}/24 prohibit",
}


def rules(node: Node) -> list[str]:
    """As ``ip rule`` prints them: priority and what follows."""
    printed = node.sandbox.run("ip", "rule").stdout.splitlines()
    return [" ".join(line.split()) for line in printed]


def ours(node: Node) -> list[int]:
    """The priorities of azvnet's rules."""
    return [int(line.partition(":")[0]) for line in rules(node) if line.endswith("proto 155")]


def source_table(node: Node, *added: str) -> None:
    """A table as cloud agents make it, and rules that lead there."""
    node.sandbox.batch(
        f"route add default via {GATEWAY} dev eth0 table 200", *(f"rule add {rule}" for rule in added)
    )


def reaches(node: Node, pod: Pod, address: str) -> bool:
    """Whether the host reaches the pod from its address, and the pod the host."""
    done = node.sandbox.run("ping", "-n", "-c1", "-W1", "-I", ADDRESS, address, check=False)
    return done.returncode == 0 and ping(pod, ADDRESS)


@pytest.mark.parametrize("what", TAKING)
def test_host_and_pods_reach_each_other_whatever_rules_precede_the_main_table(
    busy_node: Node, what: str
) -> None:
    source_table(busy_node, TAKING[what])
    pods = busy_node.sandbox.pods("c1", "c2")
    first, second = (busy_node.add(pod).done() for pod in pods)
    assert reaches(busy_node, pods[0], first.address), rules(busy_node)
    assert ping(pods[0], second.address)
    assert rules(busy_node)[1:3] == [f"32764: {OURS}", rules(busy_node)[2]]
    assert rules(busy_node)[2].startswith("32765:")
    assert len(ours(busy_node)) == 1, "one for the node, not one for each pod"


def test_rules_that_were_there_after_the_first_pod_are_preceded_at_the_next(busy_node: Node) -> None:
    pods = busy_node.sandbox.pods("c1", "c2")
    first = busy_node.add(pods[0]).done()
    source_table(busy_node, TAKING["by the node's address"])
    busy_node.add(pods[1]).done()
    assert reaches(busy_node, pods[0], first.address)


def test_only_routes_to_pods_are_taken_and_none_of_the_platform(busy_node: Node) -> None:
    """Sent packets are counted: those to the platform leave as the node's own rule has it."""
    busy_node.sandbox.batch(
        "link add other type veth peer name far", "link set far up", "link set other up arp off"
    )
    busy_node.sandbox.batch(
        f"route add {PLATFORM}/32 via {GATEWAY} dev eth0",
        "route add default dev other table 200",
        f"rule add from {ADDRESS} lookup 200",
    )
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod).done()
    assert ours(busy_node) == [32764]

    def sent() -> int:
        return int(
            busy_node.sandbox.ask(lambda: Path("/sys/class/net/other/statistics/tx_packets").read_text())
        )

    assert reaches(busy_node, pod, added.address)
    before = sent()
    busy_node.sandbox.run("ping", "-n", "-c1", "-W1", "-I", ADDRESS, PLATFORM, check=False)
    assert sent() == before + 1


@pytest.mark.parametrize("what", [*HARMLESS, "of a VRF", "none at all"])
def test_nothing_is_done_where_no_rule_takes_packets_to_pods(busy_node: Node, what: str) -> None:
    if what == "of a VRF":  # the kernel adds it with the first VRF
        busy_node.sandbox.batch("rule add l3mdev priority 1000")
    elif what in HARMLESS:
        source_table(busy_node, HARMLESS[what])
    before = rules(busy_node)
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod).done()
    assert rules(busy_node) == before
    assert reaches(busy_node, pod, added.address)


def test_a_foreign_rule_of_the_same_priority_is_left_alone(busy_node: Node) -> None:
    source_table(busy_node, TAKING["by the node's address"], "fwmark 0x1 lookup 200 priority 32764")
    before = rules(busy_node)
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod).done()
    assert ours(busy_node) == [32764]
    assert reaches(busy_node, pod, added.address)
    busy_node.sandbox.batch(f"rule del from {ADDRESS} lookup 200")
    busy_node.add(busy_node.sandbox.pod("c2")).done()
    assert rules(busy_node) == [line for line in before if "32765" not in line]


@pytest.mark.with_agent("it is the agent's own work")
def test_the_rule_follows_those_of_others_while_pods_live(bare_node: BareNode, new_agent: NewAgent) -> None:
    node = bare_node()
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("c1")
    added = node.add(pod).done()
    assert ours(node) == []
    source_table(node, TAKING["by the node's address"])
    eventually(lambda: ours(node) == [32764], "it precedes a rule that was added")
    assert reaches(node, pod, added.address)
    node.sandbox.batch("rule add from 10.10.0.99 lookup 200")
    eventually(lambda: ours(node) == [32762], "and one that the kernel put in front of it")
    node.sandbox.run("ip", "rule", "flush", "protocol", "155")
    eventually(lambda: ours(node) == [32762], "it is back after a flush of foreign rules")
    assert reaches(node, pod, added.address)
    node.sandbox.batch(f"rule del from {ADDRESS} lookup 200", "rule del from 10.10.0.99 lookup 200")
    eventually(lambda: ours(node) == [], "and gone when nothing needs it")
    assert reaches(node, pod, added.address)


@pytest.mark.alone("with an agent the rule is back before anybody looks")
def test_where_it_is_missing_status_and_check_say_so(node: Node) -> None:
    source_table(node, TAKING["by the node's address"])
    pod = node.sandbox.pod("c1")
    added = node.add(pod).done()

    def named() -> tuple[str, ...]:
        return node.sandbox.ask(lambda: look(Engine({})).in_the_way)

    assert named() == ()
    node.sandbox.run("ip", "rule", "flush", "protocol", "155")
    words = "routing rule 32765 precedes the routes to pods"
    assert [each.startswith(words) for each in named()] == [True]
    assert words in node.check(pod, added).done().stderr


def test_a_rule_that_nothing_can_precede_is_named(busy_node: Node) -> None:
    source_table(busy_node, f"from {ADDRESS} lookup 200 priority 0")
    before = rules(busy_node)
    busy_node.add(busy_node.sandbox.pod("c1")).done()
    assert rules(busy_node) == before
    (named,) = busy_node.sandbox.ask(lambda: look(Engine({})).in_the_way)
    assert named.startswith("routing rule 0 precedes the routes to pods")


def test_rules_that_the_kernel_does_not_list_are_a_problem(busy_node: Node) -> None:
    def ask() -> list[str]:
        engine = Engine({})
        engine.host.close()
        return host.check(engine)

    assert "routing_rule can't be checked: Bad file descriptor" in busy_node.sandbox.ask(ask)


@pytest.mark.alone("an agent makes the rule as soon as the table is there")
def test_an_add_that_may_not_make_the_rule_fails_and_says_how(busy_node: Node) -> None:
    source_table(busy_node, TAKING["by the node's address"])

    def ensure() -> tuple[str, str]:
        engine = Engine({})
        sc.drop_capability(CAP_NET_ADMIN)
        try:
            host.routing_rule.ensure(engine)
        except KernelRefused as error:
            return str(error), error.details
        return "", ""

    error, remedy = busy_node.sandbox.ask(ensure)
    assert error.endswith("Operation not permitted")
    done = busy_node.sandbox.run("sh", "-ec", remedy.partition("`")[2].partition("`")[0])
    assert done.returncode == 0
    before = rules(busy_node)
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod).done()
    assert rules(busy_node) == before, "whoever made it, one is enough"
    assert reaches(busy_node, pod, added.address)


def test_rules_are_listed_once_by_an_executable_and_not_again_by_an_agent(busy_node: Node) -> None:
    source_table(busy_node, TAKING["by the node's address"])

    def ask() -> list[int]:
        Engine({}).ensure_run_dir()
        host.ensure(Engine({}), "azvnet", PodNetwork())
        asked = []
        for engine in (Engine({}), Engine({}, known_host=KnownHost())):
            for _ in range(2):
                host.ensure(engine, "azvnet", PodNetwork())
                engine.routing_rules()
                asked.append(engine.host.sequence)
        return asked

    assert busy_node.sandbox.ask(ask) == [1, 1, 1, 1]


@pytest.mark.alone("the command is the same")
def test_uninstall_removes_it(node: Node, executable: Executable, tmp_path: Path) -> None:
    source_table(node, TAKING["by the node's address"])
    before = rules(node)
    pod = node.sandbox.pod("c1")
    node.add(pod).done()
    assert ours(node) == [32764]

    def uninstall(*options: str) -> subprocess.CompletedProcess[str]:
        places = [f"--{name}={tmp_path}/{name}" for name in ("prefix", "bin-dir", "conf-dir")]
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **executable.environ}
        argv = ["env", *(f"{name}={value}" for name, value in environ.items())]
        return node.sandbox.run(*argv, str(executable.program), "uninstall", *places, *options)

    assert "routing rule 32764 stays, since pods that are still attached" in uninstall("--force").stdout
    assert ours(node) == [32764]
    node.delete(pod).done()
    assert "routing rule 32764 of azvnet was removed" in uninstall().stdout
    assert rules(node) == before
