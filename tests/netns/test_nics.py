"""A node with two NICs: what a pod sends leaves by the NIC that owns its address, as Azure demands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cni_plugin.cli.looking import look
from cni_plugin.node import Node as Engine
from ipam.model import SourceConfig
from tests.netns.calls import Executable
from tests.netns.conftest import NewAgent
from tests.netns.node import ADDRESS, FABRIC, GATEWAY, INTERFACES, OUTSIDE, RUN_DIR, Node, ping
from tests.netns.sandbox import NETNS_DIR, Pod
from tests.waiting import eventually

BareNode = Callable[..., Node]
QUICK = {"reconcile_seconds": 0.2, "refresh_seconds": 0.3, "reclaim_seconds": 0.5}
INVALID, UPLINK_UNCLEAR = 7, 105
SECOND_MAC = "00:0d:3a:00:00:02"
SECOND_ADDRESS, SECOND_GATEWAY, SECOND_SUBNET = "10.20.0.4", "10.20.0.1", "10.20.0.0/16"
NEIGHBOUR = "10.20.0.99"
"""A machine in the second NIC's subnet."""
PLATFORM = "168.63.129.16"
HOST_STATE = (
    *(("ip", "-4", "rule"), ("ip", "-4", "route", "show", "table", "all"), ("ip", "-o", "link")),
    ("sysctl", "net.ipv4.conf.eth0", "net.ipv4.conf.eth1", "net.ipv4.conf.all", "net.ipv4.conf.default"),
)


def plug(node: Node) -> None:
    """Attach the second NIC."""
    wire(node, SECOND_ADDRESS, SECOND_GATEWAY, NEIGHBOUR, SECOND_SUBNET)
    node.sandbox.batch(
        f"address add {SECOND_ADDRESS}/16 dev eth1",
        f"route add default via {SECOND_GATEWAY} dev eth1 metric 200",
    )


def wire(node: Node, address: str, gateway: str, neighbour: str, owned: str) -> None:
    """Attach a NIC, without an address yet. The fabric drops what does not come from the NIC that owns it."""
    node.sandbox.batch(
        f"link add eth1 address {SECOND_MAC} type veth peer name wire1 netns {FABRIC}", "link set eth1 up"
    )
    node.sandbox.batch(
        "link set wire1 up",
        f"address add {gateway}/32 dev wire1",
        f"address replace {neighbour}/32 dev lo",
        f"route add {address}/32 dev wire1",
        f"route add {owned} via {address} dev wire1",
        namespace=FABRIC,
    )
    for end in ("wire", "wire1"):
        node.sandbox.run("ip", "netns", "exec", FABRIC, "sysctl", "-qw", f"net.ipv4.conf.{end}.rp_filter=1")


def list_second(node: Node, *numbers: int) -> None:
    """Have the source list such addresses of the second NIC, beside what it lists of the first."""
    list_nic(node, SECOND_SUBNET, SECOND_ADDRESS, [f"10.20.0.{number}" for number in numbers])


def list_nic(node: Node, prefix: str, own: str, others: Sequence[str]) -> None:
    """Have the source list a second NIC, beside what it lists of the first."""
    path = node.sandbox.path(INTERFACES)
    document = json.loads(path.read_text())
    listed = [{"Address": own, "IsPrimary": True}, *({"Address": each} for each in others)]
    subnet = {"Prefix": prefix, "IPAddresses": listed}
    mac = SECOND_MAC.replace(":", "").upper()
    second = {"MacAddress": mac, "IsPrimary": False, "IPSubnets": [subnet]}
    path.write_text(json.dumps({"Interfaces": [document["Interfaces"][0], second]}))


@pytest.fixture
def two_nics(busy_node: Node) -> Node:
    plug(busy_node)
    list_second(busy_node, 5, 6, 7)
    busy_node.pool(lambda pool: pool.refresh(SourceConfig("file"), deadline=5, force=True))
    return busy_node


@pytest.fixture
def bare_two_nics(bare_node: BareNode) -> Node:
    node = bare_node()
    plug(node)
    list_second(node, 5, 6, 7)
    return node


def second(node: Node, named: str = "master") -> dict[str, object]:
    """The netconf of the second NIC's network, which names it in one of the two ways."""
    more = {"master": "eth1"} if named == "master" else {"ipam": {"subnet": SECOND_SUBNET}}
    return node.conf(name="second", **more)


def ours(node: Node) -> list[str]:
    """azvnet's rules, as ``ip rule`` prints them."""
    printed = node.sandbox.run("ip", "rule").stdout.splitlines()
    return [" ".join(line.split()) for line in printed if "proto 155" in line]


def table(node: Node) -> int:
    """The table of the second NIC."""
    return 15500 + int(node.sandbox.ip("link", "show", "dev", "eth1")[0]["ifindex"])


def routes(node: Node) -> list[str]:
    """What is in that table."""
    printed = node.sandbox.run("ip", "route", "show", "table", str(table(node)), check=False).stdout
    return [" ".join(line.split()) for line in printed.splitlines()]


def host_state(node: Node) -> list[str]:
    return [node.sandbox.run(*argv).stdout for argv in HOST_STATE]


def unreached(pod: Pod, *more: str) -> list[str]:
    """What the pod does not reach of what any pod does."""
    every = (ADDRESS, SECOND_ADDRESS, GATEWAY, SECOND_GATEWAY, NEIGHBOUR, OUTSIDE, *more)
    return [each for each in every if not ping(pod, each)]


def are_reached(node: Node, addresses: list[str], *, outside: Sequence[str], own: Sequence[str]) -> None:
    """Pods are reached at all these: from outside, and by the node from each of its own addresses."""
    fabric = Pod("fabric", f"{NETNS_DIR}/{FABRIC}", node.sandbox)
    for source in outside:
        assert [ping(fabric, each, "-I", source) for each in addresses] == [True] * len(addresses)
    for address in addresses:
        for source in own:
            done = node.sandbox.run("ping", "-n", "-c1", "-W1", "-I", source, address, check=False)
            assert not done.returncode, f"the node reaches {address} from {source}"


def _strictness(node: Node, value: int) -> None:
    for name in ("all", "default", "eth0", "eth1"):
        node.sandbox.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={value}")


@pytest.mark.parametrize(("strict", "named"), [(0, "master"), (1, "master"), (1, "subnet"), (2, "subnet")])
def test_pods_of_both_nics_reach_everybody_whatever_the_source_check(
    two_nics: Node, strict: int, named: str
) -> None:
    node = two_nics
    _strictness(node, strict)
    first, one, two = node.sandbox.pods("c1", "c2", "c3")
    usual = node.add(first).done().address
    addresses = [node.add(pod, conf=second(node, named)).done().address for pod in (one, two)]
    assert addresses == ["10.20.0.5", "10.20.0.6"]
    assert unreached(first, *addresses) == []
    assert unreached(one, usual, addresses[1]) == []
    are_reached(node, [usual, *addresses], outside=(NEIGHBOUR, OUTSIDE), own=(ADDRESS, SECOND_ADDRESS))


def test_one_table_and_the_fewest_rules_serve_all_pods_of_a_nic(two_nics: Node) -> None:
    node = two_nics
    for pod in node.sandbox.pods("c1", "c2"):
        node.add(pod, conf=second(node)).done()
    assert ours(node) == [
        "30154: from all lookup main suppress_prefixlength 31 suppress_ifgroup default proto 155",
        f"30155: from 10.20.0.5 lookup {table(node)} proto 155",
        f"30155: from 10.20.0.6/31 lookup {table(node)} proto 155",
    ], "and none for the node's own address"
    assert routes(node) == [
        f"default via {SECOND_GATEWAY} dev eth1 proto 155 onlink",
        "unreachable default proto 155 metric 4294967295",
        f"{SECOND_SUBNET} dev eth1 proto 155 scope link",
        f"throw {PLATFORM} proto 155",
        "throw 169.254.0.0/16 proto 155",
    ]


def test_pods_of_the_default_routes_nic_leave_by_it_to_the_other_subnet_too(two_nics: Node) -> None:
    """Everything else follows the node's own routes: to bridges and tunnels, for example."""
    node = two_nics
    node.add(node.sandbox.pod("c1")).done()
    number = 15500 + int(node.sandbox.ip("link", "show", "dev", "eth0")[0]["ifindex"])
    assert {each.rpartition(" lookup ")[2] for each in ours(node)[1:]} == {f"{number} proto 155"}
    printed = node.sandbox.run("ip", "route", "show", "table", str(number)).stdout.splitlines()
    assert [" ".join(line.split()) for line in printed] == [
        "10.10.0.0/16 dev eth0 proto 155 scope link",
        f"{SECOND_SUBNET} via {GATEWAY} dev eth0 proto 155 onlink",
    ]


@pytest.mark.alone("an agent has read the source by then")
def test_the_first_pod_of_a_node_with_rules_by_source_has_an_address(bare_two_nics: Node) -> None:
    """Before anything is listed nobody knows whose packets leave by which NIC, and none is called primary."""
    node = bare_two_nics
    path = node.sandbox.path(INTERFACES)
    text = path.read_text()
    path.write_text(text.replace('"IsPrimary": true, "IPSubnets"', '"IsPrimary": false, "IPSubnets"'))
    for number, (address, gateway) in enumerate(((ADDRESS, GATEWAY), (SECOND_ADDRESS, SECOND_GATEWAY))):
        node.sandbox.batch(
            f"route add default via {gateway} dev eth{number} table {200 + number}",
            f"rule add from {address} lookup {200 + number}",
        )
    pod = node.sandbox.pod("c1")
    assert node.add(pod).address == "10.10.0.5"
    assert unreached(pod) == []


def test_show_names_the_table_of_the_nic(two_nics: Node, executable: Executable) -> None:
    node = two_nics
    added = node.add(node.sandbox.pod("c1"), conf=second(node)).done()
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **executable.environ}
    argv = ["env", *(f"{name}={value}" for name, value in environ.items()), str(executable.program)]
    argv += ["show", added.address]
    (shown,) = json.loads(node.sandbox.run(*argv, "--output", "json").stdout)["attachments"]
    assert [each["nicTable"] for each in shown["addresses"]] == [table(node)]
    assert f"{table(node)}, rules 30155" in node.sandbox.run(*argv).stdout


def test_a_second_nic_that_has_no_address_changes_nothing(two_nics: Node) -> None:
    """What pods of the first send leaves by it anyway."""
    node = two_nics
    node.sandbox.batch("address flush dev eth1")
    before = node.sandbox.run("ip", "rule").stdout
    for number, conf in enumerate((node.conf(), node.conf(master="eth0"))):
        node.add(node.sandbox.pod(f"c{number}"), conf=conf).done()
    assert node.sandbox.run("ip", "rule").stdout == before


def test_rules_of_the_operator_that_do_the_same_are_enough(two_nics: Node) -> None:
    node = two_nics
    node.sandbox.batch(
        f"route add default via {SECOND_GATEWAY} dev eth1 table 200",
        f"rule add from {SECOND_SUBNET} lookup 200",
    )
    pod = node.sandbox.pod("c1")
    node.add(pod, conf=second(node)).done()
    assert [each for each in ours(node) if "from all" not in each] == []
    assert unreached(pod) == []


def test_a_rule_in_front_that_leads_elsewhere_is_an_error(two_nics: Node) -> None:
    node = two_nics
    node.sandbox.batch(
        f"route add default via {GATEWAY} dev eth0 table 200",
        f"rule add from {SECOND_SUBNET} lookup 200 priority 9",
    )
    failed = node.add(node.sandbox.pod("c1"), conf=second(node))
    assert failed.code == UPLINK_UNCLEAR
    assert "does not leave by eth1" in failed.msg
    assert not node.residue()


def test_a_table_of_somebody_else_is_left_alone(two_nics: Node) -> None:
    node = two_nics
    theirs = f"{OUTSIDE} via {GATEWAY} dev eth0"
    node.sandbox.batch(f"route add {theirs} table {table(node)}")
    pod = node.sandbox.pod("c1")
    node.add(pod, conf=second(node)).done()
    assert routes(node) == [theirs]
    assert all(f"lookup {table(node) + 100000} " in each for each in ours(node)[1:])
    assert unreached(pod) == []


def test_with_the_last_pod_of_the_nic_rules_and_table_are_gone(two_nics: Node) -> None:
    node = two_nics
    before = [node.sandbox.run(*argv).stdout for argv in HOST_STATE[:2]]
    first, second_pod, usual = node.sandbox.pods("c1", "c2", "c3")
    for pod in (first, second_pod):
        node.add(pod, conf=second(node)).done()
    node.delete(first, conf=second(node)).done()
    assert unreached(second_pod) == []
    node.delete(second_pod, conf=second(node)).done()
    assert routes(node) == []
    assert ours(node) == []
    node.add(usual).done()
    node.delete(usual).done()
    assert [node.sandbox.run(*argv).stdout for argv in HOST_STATE[:2]] == before


def test_gc_of_the_last_pod_removes_them_too(two_nics: Node) -> None:
    node = two_nics
    node.add(node.sandbox.pod("c1"), conf=second(node)).done()
    conf = {**second(node), "cni.dev/valid-attachments": []}
    node.call("GC", conf=conf).done()
    assert routes(node) == []
    assert ours(node) == []


@pytest.mark.parametrize("strict", [0, 1])
@pytest.mark.parametrize("networks", ["of two NICs", "of one NIC"])
def test_each_interface_of_a_pod_answers_by_itself_and_the_first_one_asks(
    two_nics: Node, networks: str, strict: int
) -> None:
    """As Multus makes them. Of two default routes the kernel takes each in turn: several packets are sent."""
    node = two_nics
    pod = node.sandbox.pod("c1")
    pod.run("sysctl", "-qw", f"net.ipv4.conf.all.rp_filter={strict}")
    conf = second(node) if networks == "of two NICs" else node.conf()
    first = node.add(pod).done()
    other = node.add(pod, conf=conf, ifname="net1").done()
    fabric = Pod("fabric", f"{NETNS_DIR}/{FABRIC}", node.sandbox)
    for address in (first.address, other.address):
        for source in (OUTSIDE, NEIGHBOUR, GATEWAY):
            answers = [ping(fabric, address, "-I", source) for _ in range(4)]
            assert answers == [True] * 4, f"from {source} to {address}"
        assert ping(pod, OUTSIDE, "-I", address)
    for ifname in ("eth0", "net1"):
        assert ping(pod, OUTSIDE, "-I", ifname)
    asked = [pod.run("ip", "route", "get", OUTSIDE).stdout for _ in range(4)]
    assert all(f" src {first.address} " in each for each in asked), asked
    node.check(pod, first).done()
    node.check(pod, other, conf=conf, ifname="net1").done()
    node.delete(pod).done()
    assert unreached(pod) == [], "the other one is left"
    node.delete(pod, conf=conf, ifname="net1").done()
    assert node.add(pod, conf=conf, ifname="net1").ok
    assert unreached(pod) == []


@pytest.mark.parametrize("named", ["master", "subnet"])
@pytest.mark.parametrize(
    ("broken", "words"), [("link set eth1 down", "down"), ("address flush dev eth1", "no IPv4")]
)
def test_a_nic_that_cannot_be_used_is_named_by_add_and_status(
    two_nics: Node, broken: str, words: str, named: str
) -> None:
    node = two_nics
    node.sandbox.batch(broken)
    conf = second(node, named)
    failed = node.add(node.sandbox.pod("c1"), conf=conf)
    assert failed.code == UPLINK_UNCLEAR
    assert "eth1" in failed.msg
    assert words in failed.msg
    assert not node.veths()
    assert "10.20.0.5" not in node.held()
    status = node.status(conf=conf)
    assert status.code == 51, "the pods that the NIC has do not get out either"
    assert words in status.msg
    assert ours(node) == []


def test_a_subnet_in_which_no_nic_is_names_those_there_are(two_nics: Node) -> None:
    first, pod = two_nics.sandbox.pods("c1", "c2")
    two_nics.add(first).done()  # the source is read
    for asked, code, words in (
        ("192.168.0.0/24", UPLINK_UNCLEAR, "10.20.0.0/16"),
        ("10.0.0.0/8", UPLINK_UNCLEAR, "2 NICs"),
        ("second", INVALID, "not a network"),
    ):
        failed = two_nics.add(pod, conf=two_nics.conf(ipam={"subnet": asked}))
        assert (failed.code, asked in failed.msg, words in failed.msg) == (code, True, True)
    assert len(two_nics.held()) == 1


@pytest.mark.alone("with an agent they are back before anybody looks")
@pytest.mark.parametrize("gone", ["rule", "route"])
def test_what_is_missing_is_named_and_the_next_add_puts_it_back(two_nics: Node, gone: str) -> None:
    node = two_nics
    pods = node.sandbox.pods("c1", "c2")
    added = node.add(pods[0], conf=second(node)).done()

    def named() -> tuple[str, ...]:
        return node.sandbox.ask(lambda: look(Engine({})).in_the_way)

    assert named() == ()
    node.sandbox.run(
        "ip", gone, "flush", *(["table", str(table(node))] if gone == "route" else []), "proto", "155"
    )
    (words,) = [each for each in named() if "NIC" in each]
    assert words.startswith(f"the routing rules or the table of NIC {SECOND_MAC} (eth1) are incomplete")
    assert words in node.check(pods[0], added, conf=second(node)).done().stderr
    node.add(pods[1], conf=second(node)).done()
    assert named() == ()
    assert unreached(pods[0]) == []


def test_another_link_with_the_nics_mac_is_named_and_changes_nothing(two_nics: Node) -> None:
    """As a VF is for a moment, before it is enslaved: the pods of the NIC still reach everybody."""
    node = two_nics
    pods = node.sandbox.pods("c1", "c2")
    node.add(pods[0], conf=second(node)).done()
    before = ours(node), routes(node)
    node.sandbox.batch(f"link add enP2s1 address {SECOND_MAC} type ifb")
    (words,) = node.sandbox.ask(lambda: look(Engine({})).in_the_way)
    assert words.startswith(f"eth1, enP2s1 have the MAC of NIC {SECOND_MAC}:")
    node.add(pods[1]).done()
    assert (ours(node)[1:3], routes(node)) == (before[0][1:3], before[1])
    assert unreached(pods[0]) == []
    node.sandbox.batch("link delete enP2s1")
    assert node.sandbox.ask(lambda: look(Engine({})).in_the_way) == ()


def _killed_at(node: Node, verb: str, pod: Pod, step: int) -> bool:
    """Make a call that is killed right before its change ``step`` of the kernel; whether it came there."""

    def call() -> None:
        from cni_plugin.cni import contract
        from cni_plugin.cni.call import Call
        from cni_plugin.kernel.netlink import Netlink
        from cni_plugin.kernel.templates import Request

        change, left = Netlink.change, iter(range(step - 1))

        def counted(self: Netlink, requests: Sequence[Request]) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            change(self, requests)

        Netlink.change = counted  # type: ignore[method-assign]
        environ = {"CNI_COMMAND": verb, "CNI_CONTAINERID": pod.container_id, "CNI_NETNS": pod.netns}
        document = json.dumps(second(node)).encode()
        contract.handle(Call({**environ, "CNI_IFNAME": "eth0"}, document), Engine({}))

    return node.sandbox.fork(call).wait() == -signal.SIGKILL


@pytest.mark.alone("the executable itself is killed")
def test_a_call_that_is_killed_between_any_two_steps_leaves_nothing_for_good(two_nics: Node) -> None:
    node = two_nics
    pod, other = node.sandbox.pods("c1", "c2")
    node.add(other).done()
    node.delete(other).done()
    before = [node.sandbox.run(*argv).stdout for argv in HOST_STATE[:2]]

    def undone(step: int) -> None:
        node.delete(pod, conf=second(node)).done()
        left = [node.sandbox.run(*argv).stdout for argv in HOST_STATE[:2]]
        assert left == before, f"killed before step {step}"

    steps = 0
    while _killed_at(node, "ADD", pod, steps + 1):
        steps += 1
        if steps % 2:
            node.add(pod, conf=second(node)).done()
            assert unreached(pod) == [], f"killed before step {steps}"
        undone(steps)
    assert steps > 8, "of an ADD"
    undone(0)
    steps = 0
    node.add(pod, conf=second(node)).done()
    while _killed_at(node, "DEL", pod, steps + 1):
        steps += 1
        undone(steps)
        node.add(pod, conf=second(node)).done()
    assert steps > 4, "of a DEL"


@pytest.mark.with_agent("it is the agent's own work")
def test_the_agent_restores_what_networkd_flushes(bare_two_nics: Node, new_agent: NewAgent) -> None:
    node = bare_two_nics
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("c1")
    node.add(pod, conf=second(node)).done()
    before = ours(node), routes(node)
    node.sandbox.run("ip", "rule", "flush", "proto", "155")
    node.sandbox.run("ip", "route", "flush", "table", str(table(node)))
    eventually(lambda: (ours(node), routes(node)) == before, "rules and table are back")
    assert unreached(pod) == []


@pytest.mark.with_agent("it is the agent's own work")
def test_a_nic_that_is_removed_and_added_again_carries_its_pods_again(
    bare_two_nics: Node, new_agent: NewAgent
) -> None:
    """Meanwhile nothing of them leaves by the other NIC, and the other NIC's pods go on."""
    node = bare_two_nics
    new_agent(node, **QUICK)
    pods = node.sandbox.pods("c1", "c2")
    node.add(pods[0], conf=second(node)).done()
    node.add(pods[1]).done()
    old = table(node)
    node.sandbox.batch("link delete eth1")
    assert not ping(pods[0], OUTSIDE)
    assert ping(pods[1], OUTSIDE)
    node.sandbox.batch("link add spacer type ifb")  # the NIC gets another index
    plug(node)
    assert table(node) != old
    eventually(lambda: not unreached(pods[0]), "the pod of the NIC that came back reaches everybody")
    eventually(
        lambda: not [each for each in ours(node) if f"lookup {old} " in each], "nothing of the old one"
    )
    assert node.sandbox.run("ip", "route", "show", "table", str(old), check=False).stdout == ""


@pytest.mark.with_agent("it is the agent's own work")
def test_a_nic_that_is_added_takes_nothing_of_what_pods_of_the_first_send(
    bare_node: BareNode, new_agent: NewAgent
) -> None:
    """It brings a route to its subnet along, which the node's own packets take."""
    node = bare_node()
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("c1")
    node.add(pod).done()
    plug(node)
    assert not ping(pod, NEIGHBOUR)
    list_second(node, 5)
    eventually(lambda: not unreached(pod), "the pod's packets to that subnet leave by the first NIC")


def test_on_a_node_with_one_nic_nothing_of_this_is_done(busy_node: Node) -> None:
    before = busy_node.sandbox.run("ip", "rule").stdout
    for number, conf in enumerate((busy_node.conf(), busy_node.conf(master="eth0"))):
        pod = busy_node.sandbox.pod(f"c{number}")
        busy_node.add(pod, conf=conf).done()
        busy_node.delete(pod, conf=conf).done()
    assert busy_node.sandbox.run("ip", "rule").stdout == before
    assert not list(busy_node.sandbox.path(RUN_DIR).glob("nics*"))


@pytest.mark.with_agent("it is the agent's own work")
def test_rules_follow_the_addresses_that_the_nic_has(bare_two_nics: Node, new_agent: NewAgent) -> None:
    node = bare_two_nics
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("c1")
    node.add(pod, conf=second(node)).done()
    list_second(node, *range(6, 12))
    wanted = [f"from {each} lookup" for each in ("10.20.0.5", "10.20.0.6/31", "10.20.0.8/30")]
    eventually(
        lambda: [each for each in wanted if not any(each in rule for rule in ours(node))] == [],
        "every address has a rule, the pod's too, which is not listed any more",
    )
    assert unreached(pod) == []


@pytest.mark.alone("the command is the same")
def test_uninstall_leaves_the_node_as_it_was(
    bare_two_nics: Node, executable: Executable, tmp_path: Path
) -> None:
    node = bare_two_nics
    node.sandbox.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    before = host_state(node)
    pod = node.sandbox.pod("c1")
    node.add(pod, conf=second(node)).done()
    places = [f"--{name}={tmp_path}/{name}" for name in ("prefix", "bin-dir", "conf-dir")]
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **executable.environ}
    argv = [
        "env",
        *(f"{name}={value}" for name, value in environ.items()),
        str(executable.program),
        "uninstall",
    ]

    def uninstall(*options: str) -> subprocess.CompletedProcess[str]:
        return node.sandbox.run(*argv, *places, *options)

    kept = f"routing table {table(node)} stays, since pods that are still attached"
    assert kept in uninstall("--force").stdout
    assert unreached(pod) == []
    pod.remove()  # its DEL never comes
    eventually(lambda: not node.veths(), "the kernel has taken the pair away")
    assert f"routing table {table(node)} was removed" in uninstall("--purge").stdout
    assert host_state(node) == before
