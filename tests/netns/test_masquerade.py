"""Under which address a pod's packets leave the node, and what of the platform is closed to pods.

The far end answers with the address that it saw, over TCP and UDP.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from cni_plugin.cli.looking import look
from cni_plugin.cni import contract
from cni_plugin.cni.call import Call
from cni_plugin.host import packets, traffic
from cni_plugin.node import Node as Engine
from integration import witness
from integration.fabric import syscalls as sc
from tests.netns.calls import Executable
from tests.netns.conftest import NewAgent, NewNode
from tests.netns.node import ADDRESS, FABRIC, GATEWAY, OUTSIDE, RUN_DIR, Node
from tests.netns.sandbox import NETNS_DIR, Pod, Sandbox
from tests.waiting import eventually

PORT = 5300
IMDS, WIRESERVER = "169.254.169.254", "168.63.129.16"
ON_PREMISES, DNS_OF_NODE = "192.168.7.7", "169.254.20.10"
PORTS = {IMDS: (80,), WIRESERVER: (53, 80, 32526)}
SAW, REFUSED, NOTHING = "saw", "refused", "no answer"
SECONDS = 10


@contextmanager
def servers(sandbox: Sandbox, namespace: str, places: list[str]) -> Iterator[None]:
    """Servers that say who asks, until the end of the block."""
    ready = f"/run/ready-{namespace or 'node'}"
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    argv = [*inside, "python3", "-c", witness.SERVER, ready, *places]
    process = sandbox.popen(argv, stdout=None, stderr=None)
    try:
        eventually(sandbox.path(ready).exists, "the servers listen")
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def world(busy_node: Node) -> Iterator[Node]:
    """A node whose network has an Internet, on-premises machines and the platform's services behind it."""
    sandbox = busy_node.sandbox
    services = [f"{address}:{port}" for address, ports in PORTS.items() for port in ports]
    hosts = [f"{address}:{PORT}" for address in (OUTSIDE, ON_PREMISES, GATEWAY)]
    sandbox.batch(
        *(f"address add {each}/32 dev lo" for each in (IMDS, WIRESERVER, ON_PREMISES)), namespace=FABRIC
    )
    sandbox.batch(f"address add {DNS_OF_NODE}/32 dev lo")
    with servers(sandbox, FABRIC, [*services, *hosts]):
        yield busy_node


def asked(pod: Pod, address: str, port: int = PORT, kind: int = socket.SOCK_STREAM) -> str:
    """Who the far end saw; or that it was refused, or that nothing came back."""

    def work() -> str:
        fd = os.open(pod.netns, os.O_RDONLY)
        sc.setns(fd, sc.CLONE_NEWNET)
        with socket.socket(socket.AF_INET, kind) as asking:
            asking.settimeout(SECONDS)
            try:
                asking.connect((address, port))
                if kind == socket.SOCK_DGRAM:
                    asking.send(b"?")
                return asking.recv(100).decode()
            except TimeoutError:
                return NOTHING
            except OSError:
                return REFUSED

    return pod.sandbox.ask(work)


def attach(node: Node, container: str = "c1", **conf: object) -> tuple[Pod, str]:
    pod = node.sandbox.pod(container)
    return pod, node.add(pod, conf=node.conf(**conf)).address


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_a_pod_is_seen_under_its_own_address_inside_and_under_the_nodes_outside(
    world: Node, kind: int
) -> None:
    pod, address = attach(world)
    seen = {each: asked(pod, each, kind=kind) for each in (GATEWAY, ON_PREMISES, OUTSIDE)}
    assert seen == {GATEWAY: address, ON_PREMISES: address, OUTSIDE: ADDRESS}


def test_what_stays_on_the_node_is_never_masqueraded(world: Node) -> None:
    """NodeLocal DNS, for example, has a link-local address on the node."""
    pod, address = attach(world)
    other, _ = attach(world, "c2")
    with servers(world.sandbox, "", [f"{DNS_OF_NODE}:53", f"{ADDRESS}:{PORT}"]):
        assert asked(pod, DNS_OF_NODE, 53, socket.SOCK_DGRAM) == address
        assert asked(pod, ADDRESS) == address
    own = json.loads(world.sandbox.run("ip", "-n", Path(other.netns).name, "-j", "-4", "address").stdout)
    there = own[1]["addr_info"][0]["local"]
    with servers(world.sandbox, Path(other.netns).name, [f"{there}:{PORT}"]):
        assert asked(pod, there) == address


def test_pods_outside_every_known_network_see_each_other_as_they_are(world: Node) -> None:
    pod, address = attach(world)
    other, there = attach(world, "c2")
    world.sandbox.write(f"{RUN_DIR}/traffic.json", "{}")  # what a person may do to it
    decided = traffic.Traffic(non_masquerade=())
    world.sandbox.do(
        lambda: traffic.write_decision(decided, Path(RUN_DIR)), lambda: packets.ensure(Engine({}))
    )
    with servers(world.sandbox, Path(other.netns).name, [f"{there}:{PORT}"]):
        assert asked(pod, there) == address
    assert asked(pod, GATEWAY) == ADDRESS


def test_the_nodes_own_packets_and_other_plugins_are_left_alone(world: Node) -> None:
    attach(world)
    world.sandbox.new_pods(["other"])
    world.sandbox.batch(
        "link add azvother type veth peer name eth0 netns other",
        "link set azvother up",
        "route add 10.10.0.9 dev azvother",
    )
    world.sandbox.batch(
        "address add 10.10.0.9/32 dev eth0",
        "link set eth0 up",
        "route add default dev eth0",
        namespace="other",
    )
    world.sandbox.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/azvother/proxy_arp")
    other = Pod("other", "/run/netns/other", world.sandbox)
    assert asked(other, OUTSIDE) == "10.10.0.9"
    assert asked(other, WIRESERVER, 80) == "10.10.0.9"
    node_itself = world.sandbox.run(
        "python3",
        "-c",
        f"import socket; print(socket.create_connection(('{WIRESERVER}', 80), 2).recv(99).decode())",
    )
    assert node_itself.stdout.strip() == ADDRESS


@pytest.mark.parametrize(
    ("source", "target"), [("127.0.0.1", "127.0.0.1"), (ADDRESS, "127.0.0.1"), ("10.99.0.9", GATEWAY)]
)
def test_the_node_is_seen_as_it_wants_to_be(world: Node, source: str, target: str) -> None:
    """The kubelet talks to the runtime by the loopback address, and a node may have several addresses."""
    attach(world)
    world.sandbox.batch("address add 10.99.0.9/32 dev lo")
    world.sandbox.batch("route add 10.99.0.9 via 10.10.0.4", namespace=FABRIC)
    decided = traffic.Traffic(non_masquerade=())
    world.sandbox.do(
        lambda: traffic.write_decision(decided, Path(RUN_DIR)), lambda: packets.ensure(Engine({}))
    )
    asking = f"socket.create_connection(('{target}', {PORT}), 2, source_address=('{source}', 0))"
    with servers(world.sandbox, "", [f"127.0.0.1:{PORT}"]):
        seen = world.sandbox.run("python3", "-c", f"import socket; print({asking}.recv(99).decode())")
    assert seen.stdout.strip() == source


def test_secrets_of_the_wireserver_and_the_metadata_service_are_closed_and_dns_is_open(world: Node) -> None:
    pod, _ = attach(world)
    closed = {(address, port): asked(pod, address, port) for address in PORTS for port in PORTS[address]}
    assert closed == {
        (WIRESERVER, 53): ADDRESS,
        (WIRESERVER, 80): REFUSED,
        (WIRESERVER, 32526): REFUSED,
        (IMDS, 80): REFUSED,
    }
    assert asked(pod, WIRESERVER, 53, socket.SOCK_DGRAM) == ADDRESS


def test_a_probe_of_the_load_balancer_reaches_the_pod_and_its_answer_comes_back(world: Node) -> None:
    pod, address = attach(world)
    with servers(world.sandbox, Path(pod.netns).name, [f"{address}:{PORT}"]):
        line = f"socket.create_connection(('{address}', {PORT}), 2, ('{WIRESERVER}', 0)).recv(99).decode()"
        inside = ("ip", "netns", "exec", FABRIC, "python3", "-c", f"import socket; print({line})")
        assert world.sandbox.run(*inside).stdout.strip() == WIRESERVER


def test_a_network_with_ip_masq_false_is_left_to_others(world: Node) -> None:
    pod, address = attach(world, ipMasq=False)
    assert asked(pod, OUTSIDE) == address
    assert asked(pod, WIRESERVER, 80) == REFUSED, "that is closed all the same"
    assert "masquerade" not in world.sandbox.run("nft", "list", "table", "inet", "azvnet").stdout


def test_of_two_networks_on_a_node_only_the_one_that_says_so_is_left_alone(world: Node) -> None:
    with_it, _ = attach(world, "with", name="with")
    without, address = attach(world, "without", name="without", ipMasq=False)
    later, _ = attach(world, "later", name="with")
    assert asked(without, OUTSIDE) == address
    assert asked(with_it, OUTSIDE) == asked(later, OUTSIDE) == ADDRESS


FOREIGN: Mapping[str, str] = {
    "kube-proxy in nftables mode": """
        table ip kube-proxy {
          chain masquerading {
            mark and 0x4000 == 0 return; mark set mark xor 0x4000; masquerade fully-random;
          }
          chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
          chain filter-forward { type filter hook forward priority -110; ct state new counter; }
          chain nat-prerouting {
            type nat hook prerouting priority dstnat; ip daddr 172.30.0.1 dnat to 192.0.2.7;
          }
        }""",
    "a firewall that drops what is not pods'": """
        table inet firewalld {
          chain forward { type filter hook forward priority filter + 10; policy drop;
            ct state established,related accept; ip saddr 10.10.0.0/16 accept; }
          chain post { type nat hook postrouting priority srcnat + 10; oifname "docker0" masquerade; }
        }""",
    "Docker": """
        table ip nat {
          chain POSTROUTING { type nat hook postrouting priority srcnat;
            ip saddr 172.17.0.0/16 oifname != "docker0" masquerade; }
        }
        table ip filter {
          chain FORWARD { type filter hook forward priority filter; policy accept; }
        }""",
    "ten thousand rules": "table ip many { chain post { type nat hook postrouting priority srcnat - 5;\n"
    + "".join(f"ip daddr 10.{n >> 8}.{n & 255}.1 tcp dport 1 masquerade\n" for n in range(10000))
    + "}\n}\n",
}


def foreign(node: Node) -> list[str]:
    """Every table but ours, without counters."""
    tables = node.sandbox.run("nft", "list", "tables").stdout.splitlines()
    others = [each.split() for each in tables if each != "table inet azvnet"]
    return [node.sandbox.run("nft", "-s", "list", *each).stdout for each in others]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("whose", FOREIGN)
def test_beside_rules_of_others_every_packet_is_right_and_theirs_stay(world: Node, whose: str) -> None:
    world.sandbox.run("nft", "-f", "-", stdin=FOREIGN[whose])
    before = foreign(world)
    pod, address = attach(world)
    assert asked(pod, GATEWAY) == address
    assert asked(pod, OUTSIDE) == asked(pod, WIRESERVER, 53) == ADDRESS
    assert asked(pod, WIRESERVER, 80) == REFUSED
    assert foreign(world) == before


def test_a_service_in_front_of_the_outside_leaves_with_the_nodes_address(world: Node) -> None:
    world.sandbox.run("nft", "-f", "-", stdin=FOREIGN["kube-proxy in nftables mode"])
    pod, _ = attach(world)
    assert asked(pod, "172.30.0.1") == ADDRESS


@pytest.mark.alone(reason="the agent keeps the table")
def test_alone_the_next_add_writes_a_flushed_table_again(busy_node: Node) -> None:
    attach(busy_node)
    busy_node.sandbox.run("nft", "flush", "ruleset")
    attach(busy_node, "c2")
    assert busy_node.sandbox.ask(lambda: packets.check(Engine({}), in_use=True)) == []


DAMAGE = {
    "everything is flushed": "nft flush ruleset",
    "the rules are flushed": "nft flush table inet azvnet",
    "one rule is deleted": "nft delete rule inet azvnet postrouting handle $(nft -a list table inet azvnet"
    " | sed -n 's/.*inside.*handle //p')",
    "a rule is added": "nft insert rule inet azvnet postrouting accept",
}


@pytest.mark.with_agent(reason="the agent keeps the table")
@pytest.mark.parametrize("damage", DAMAGE)
def test_the_agent_writes_a_damaged_table_again_counts_it_and_says_so(
    bare_node: NewNode, new_agent: NewAgent, damage: str
) -> None:
    node = bare_node()
    agent = new_agent(node, reconcile_seconds=0.2)
    attach(node)
    whole = node.sandbox.run("nft", "list", "ruleset").stdout
    assert "masquerade" in whole
    node.sandbox.run("sh", "-ec", DAMAGE[damage])
    eventually(lambda: node.sandbox.run("nft", "list", "ruleset").stdout == whole, "the table is as it was")
    eventually(lambda: "nf_tables table inet azvnet was" in agent.said(), "it is said")


@pytest.mark.with_agent(reason="the agent keeps the table")
def test_connections_go_on_after_everybodys_rules_were_flushed(
    bare_node: NewNode, new_agent: NewAgent
) -> None:
    node = bare_node()
    new_agent(node, reconcile_seconds=0.2)
    pod, _ = attach(node)
    with listener(node.sandbox, FABRIC, OUTSIDE) as listening, connected(pod, OUTSIDE) as client:
        server, seen = listening.accept()
        with server:
            assert seen[0] == ADDRESS
            node.sandbox.run("nft", "flush", "ruleset")
            eventually(lambda: "masquerade" in node.sandbox.run("nft", "list", "ruleset").stdout, "rules")
            client.sendall(b"still here")
            assert server.recv(100) == b"still here"
            with connected(pod, OUTSIDE):
                again, seen = listening.accept()
                again.close()
                assert seen[0] == ADDRESS


@contextmanager
def listener(sandbox: Sandbox, namespace: str, address: str) -> Iterator[socket.socket]:
    """A TCP server of this process within a namespace of the sandbox."""
    with open_in(sandbox.path(f"{NETNS_DIR}/{namespace}")) as opened:
        opened.bind((address, PORT))
        opened.listen()
        yield opened


@contextmanager
def connected(pod: Pod, address: str) -> Iterator[socket.socket]:
    """A TCP connection of this process from within a pod."""
    with open_in(pod.sandbox.path(pod.netns)) as opened:
        opened.connect((address, PORT))
        yield opened


def open_in(netns: Path) -> socket.socket:
    """A socket of a network namespace; only the thread that makes it is in there, and ends."""
    made: list[socket.socket] = []

    def make() -> None:
        with netns.open() as opened:
            sc.setns(opened.fileno(), sc.CLONE_NEWNET)
        made.append(socket.socket())
        made[0].settimeout(SECONDS)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def test_what_is_printed_of_the_table_can_be_loaded_again(busy_node: Node) -> None:
    """As a distribution does that saves and restores everything."""
    attach(busy_node)
    saved = busy_node.sandbox.run("nft", "list", "ruleset").stdout
    busy_node.sandbox.run("nft", "-f", "-", stdin=f"flush ruleset\n{saved}")
    assert busy_node.sandbox.ask(lambda: packets.check(Engine({}), in_use=True)) == []


def test_status_names_a_table_that_is_missing_or_not_as_it_was(node: Node) -> None:
    attach(node)

    def named() -> list[str]:
        return node.sandbox.ask(lambda: list(look(Engine({})).in_the_way))

    assert named() == []
    node.sandbox.run("sh", "-ec", DAMAGE["one rule is deleted"])
    assert named() == ["nf_tables table inet azvnet was changed by something else"]
    node.sandbox.run("nft", "flush", "ruleset")
    assert named() == [
        "nf_tables table inet azvnet is missing: pods reach nothing outside the virtual network"
    ]


@pytest.mark.parametrize(
    ("release", "named"), [("5.4.0-1123-azure", 1), ("5.7.0", 0), ("6.8.0-49-generic", 0)]
)
def test_a_kernel_that_is_too_old_to_masquerade_is_named(
    node: Node, monkeypatch: pytest.MonkeyPatch, release: str, named: int
) -> None:
    attach(node)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", release, "v", "x86_64")))
    found = node.sandbox.ask(lambda: packets.check(Engine({}), in_use=True))
    assert [release in each for each in found] == [True] * named


def test_status_says_where_ip_masq_agent_masquerades_as_well(node: Node) -> None:
    attach(node)

    def named() -> list[str]:
        return node.sandbox.ask(lambda: list(look(Engine({})).in_the_way))

    node.sandbox.run("nft", "add table ip nat; add chain ip nat IP-MASQ-AGENT-OLD")
    assert named() == []
    node.sandbox.run("nft", "add chain ip nat IP-MASQ-AGENT")
    assert [each.partition(",")[0] for each in named()] == [
        "ip-masq-agent masquerades pods' packets as well (chain IP-MASQ-AGENT)"
    ]
    attach(node, "c2", ipMasq=False)
    assert named() == []


@pytest.mark.with_agent(reason="the agent reads the files")
def test_files_of_ip_masq_agent_are_followed_without_a_restart_and_a_wrong_one_is_named(
    bare_node: NewNode, new_agent: NewAgent
) -> None:
    node = bare_node()
    place = "/etc/config/ip-masq-agent"
    node.sandbox.write(place, "nonMasqueradeCIDRs:\n  - 192.0.2.0/24\n")
    agent = new_agent(node, reconcile_seconds=0.2)
    node.sandbox.batch(f"address add {ON_PREMISES}/32 dev lo", namespace=FABRIC)
    with servers(node.sandbox, FABRIC, [f"{each}:{PORT}" for each in (OUTSIDE, ON_PREMISES)]):
        pod, address = attach(node)
        eventually(lambda: asked(pod, OUTSIDE) == address, "the file is followed")
        assert asked(pod, ON_PREMISES) == ADDRESS, "the file replaces the guess of what is inside"
        node.sandbox.write(place, "nonMasqueradeCIDRs: [192.168.7.1/16]\n")
        eventually(lambda: f"{place} is not valid" in agent.said(), "it is named")
        assert (asked(pod, OUTSIDE), asked(pod, ON_PREMISES)) == (address, ADDRESS)
        node.sandbox.write(place, "nonMasqueradeCIDRs: [192.168.0.0/16]\n")
        eventually(lambda: asked(pod, OUTSIDE) == ADDRESS, "the corrected file is followed")
        assert asked(pod, ON_PREMISES) == address


@pytest.mark.with_agent(reason="they are its settings")
def test_the_metadata_service_is_open_where_the_settings_say_so(
    bare_node: NewNode, new_agent: NewAgent
) -> None:
    node = bare_node()
    new_agent(node, reconcile_seconds=0.2, platform={"imds": "open"})
    node.sandbox.batch(*(f"address add {each}/32 dev lo" for each in (IMDS, WIRESERVER)), namespace=FABRIC)
    with servers(node.sandbox, FABRIC, [f"{IMDS}:80", f"{WIRESERVER}:80"]):
        pod, _ = attach(node)
        eventually(lambda: asked(pod, IMDS, 80) == ADDRESS, "pods reach it with the node's address")
        assert asked(pod, WIRESERVER, 80) == REFUSED


@pytest.mark.with_agent(reason="the agent's decision")
def test_without_its_agent_a_node_goes_on_with_what_that_decided(
    bare_node: NewNode, new_agent: NewAgent
) -> None:
    node = bare_node()
    agent = new_agent(node, reconcile_seconds=0.2, masquerade={"non_masquerade_cidrs": ["192.0.2.0/24"]})
    eventually(lambda: "192.0.2.0/24" in node.sandbox.run("nft", "list", "ruleset").stdout, "it is written")
    agent.kill()
    node.sandbox.run("nft", "flush", "ruleset")
    with servers(node.sandbox, FABRIC, [f"{OUTSIDE}:{PORT}"]):
        pod, address = attach(node)
        assert asked(pod, OUTSIDE) == address


def test_a_pod_whose_address_has_a_public_one_leaves_with_it_but_not_to_the_platform(world: Node) -> None:
    pod, address = attach(world)
    decided = traffic.Traffic(traffic.RFC_1918, public=(ip_address(address),), imds=True)
    place = Path(RUN_DIR)
    world.sandbox.do(lambda: traffic.write_decision(decided, place), lambda: packets.ensure(Engine({})))
    assert asked(pod, OUTSIDE) == address
    assert asked(pod, IMDS, 80) == asked(pod, WIRESERVER, 53) == ADDRESS


@pytest.mark.with_agent(reason="the agent knows the pool")
def test_what_is_sent_to_an_address_that_no_pod_has_is_answered_at_once(
    bare_node: NewNode, new_agent: NewAgent
) -> None:
    """Azure delivers it to the node, whose route for it leads back to Azure: so until its TTL ends."""
    node = bare_node()
    node.sandbox.run("ip", "netns", "exec", FABRIC, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    node.sandbox.batch(f"route replace 10.10.0.0/16 via {GATEWAY} dev eth0 onlink")
    pod, address = attach(node)
    fabric = Pod(FABRIC, f"/run/netns/{FABRIC}", node.sandbox)

    def pinged(who: Pod, free: str) -> str:
        inside = ("ip", "netns", "exec", Path(who.netns).name)
        return node.sandbox.run(*inside, "ping", "-n", "-c1", "-W2", free, check=False).stdout

    assert "Time to live exceeded" in pinged(pod, "10.10.0.7"), "the loop is there to be found"
    new_agent(node, reconcile_seconds=0.2, refresh_seconds=1)
    unreachable = f"From {ADDRESS} icmp_seq=1 Destination Host Unreachable"
    eventually(lambda: unreachable in pinged(fabric, "10.10.0.7"), "the node answers")
    assert unreachable in pinged(pod, "10.10.0.8")
    assert " 0% packet loss" in pinged(fabric, address)
    later, its_address = attach(node, "c2")
    assert " 0% packet loss" in pinged(fabric, its_address)
    assert asked(pod, "10.10.0.8") == REFUSED
    node.delete(later).done()
    assert unreachable in pinged(fabric, its_address)


def without_netfilter() -> None:
    """From now on this process finds a kernel that has no nfnetlink: socket(2) answers EPROTONOSUPPORT."""
    number, argument, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    netlink, netfilter, refused, allowed = 16, 12, 0x00050000 | errno.EPROTONOSUPPORT, 0x7FFF0000
    steps = [
        (number, 0, 0, 0),  # seccomp_data.nr
        (argument, 0, 5, 41),  # socket(2) of x86_64
        (number, 0, 0, 16),
        (argument, 0, 3, netlink),
        (number, 0, 0, 32),
        (argument, 0, 1, netfilter),
        (answer, 0, 0, refused),
        (answer, 0, 0, allowed),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in steps))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, header, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP, filter


def test_an_add_fails_on_a_kernel_without_nf_tables_and_leaves_nothing(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    call = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": pod.netns, "CNI_IFNAME": "eth0"}

    def add() -> tuple[str, list[str]]:
        without_netfilter()
        made = contract.handle(Call(call, json.dumps(busy_node.netconf).encode()), Engine({}))
        return made.stdout.decode(), list(look(Engine({})).in_the_way)

    said, named = busy_node.sandbox.ask(add)
    refused = json.loads(said)
    assert (refused["code"], "nf_tables" in refused["msg"], "wireserver" in refused["details"]) == (
        106,
        True,
        True,
    )
    assert "this kernel has no nf_tables: pods reach nothing outside the virtual network" in named
    assert busy_node.residue() == []


@pytest.mark.alone(reason="uninstall is refused while an agent listens")
def test_uninstall_removes_the_table_and_leaves_the_others(
    node: Node, executable: Executable, tmp_path: Path
) -> None:
    node.sandbox.run("nft", "-f", "-", stdin=FOREIGN["Docker"])
    before = node.sandbox.run("nft", "list", "ruleset").stdout
    pod, _ = attach(node)

    def uninstall(*options: str) -> str:
        places = [f"--{name}={tmp_path}/{name}" for name in ("prefix", "bin-dir", "conf-dir")]
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **executable.environ}
        argv = ["env", *(f"{name}={value}" for name, value in environ.items())]
        return node.sandbox.run(*argv, str(executable.program), "uninstall", *places, *options).stdout

    assert "nf_tables table inet azvnet stays, since pods that are still attached" in uninstall("--force")
    assert "inet azvnet" in node.sandbox.run("nft", "list", "tables").stdout
    node.delete(pod).done()
    assert "nf_tables table inet azvnet was removed" in uninstall()
    assert node.sandbox.run("nft", "list", "ruleset").stdout == before


def test_a_transaction_that_is_killed_at_any_moment_leaves_the_old_table_or_the_new_one(
    busy_node: Node,
) -> None:
    """Also whatever it had written to the state directory by then."""
    attach(busy_node)
    decisions = [traffic.Traffic(traffic.RFC_1918, random_fully=each) for each in (False, True)]

    def replace_for_ever() -> None:
        while True:
            for each in decisions:
                traffic.write_decision(each, Path(RUN_DIR))
                packets.ensure(Engine({}))

    def look() -> list[str]:
        return packets.check(Engine({}), in_use=True)

    for number in range(40):
        working = busy_node.sandbox.fork(replace_for_ever)
        time.sleep(0.002 * (number % 10))
        working.kill()
        working.wait()
        assert busy_node.sandbox.ask(look) == []
    attach(busy_node, "c2")
    assert busy_node.sandbox.ask(look) == []
