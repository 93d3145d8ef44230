"""Two nodes for each contender, pods on them, and a host in the Internet: on one emulated network.

Owns setting them up alike. The emulated network only routes here: its filter and its address translation are
taken away, since they would take the same time of every contender and hide differences. It must not know what
is measured.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration import plugins
from integration.fabric import Fabric
from integration.fabric import namespaces as ns
from integration.tests.pods import Pod, use
from integration.traffic import proxy
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.fabric import Machine
    from integration.reach import Endpoint

AZVNET, PTP, BRIDGE = "azvnet", "ptp", "bridge"
CONTENDERS = (AZVNET, PTP, BRIDGE)
SAME, ACROSS, OUT = "pod to pod on a node", "pod to pod across nodes", "pod to Internet, masqueraded"
TALK_PORT = 5200
IPERF_PORT = 5201
CROWD, SERVICES = 100, 1000
PATIENCE = 60.0
IPERF_SECONDS, TRIES = 60.0, 3
TALK = Path(__file__).with_name("talk.c")
SYSCTLS = {f"net/ipv4/conf/{which}/rp_filter": 2 for which in ("all", "default")}
"""Of all nodes, as Ubuntu's images have them. With 0, links of others would not look at sources at all, which
those of azvnet always do."""
FIRST = ("nice", "-n", "-20")
"""Both ends run before whatever else the machine does, so that little of that is measured."""


class LaneError(Exception):
    """Something does not run that has to; the message says what."""


@dataclass
class Lane:
    """One contender: a pod that asks, and who answers, by path."""

    name: str
    node: Machine
    client: Pod
    ends: dict[str, Endpoint]
    crowd: list[Pod] = field(default_factory=list)

    def run(self, argv: Sequence[str], timeout: float = 600.0) -> str:
        """What a program in the asking pod prints. Raises LaneError, subprocess.TimeoutExpired."""
        inside = self.client.endpoint.inside([*FIRST, *argv])
        done = self.node.run(inside, check=False, timeout=timeout)
        if done.returncode:
            raise LaneError(f"{self.name}: {' '.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout


@dataclass
class Road:
    """All contenders."""

    lanes: list[Lane]
    nodes: list[Machine]
    talk: str
    """Path of the program for short conversations."""

    def add_services(self) -> None:
        """As many services as kube-proxy in mode iptables has rules for, on every node."""
        services = [
            proxy.Service(
                f"S{n}", f"10.96.{n // 250}.{n % 250 + 1}", 80, f"10.250.{n // 250}.{n % 250 + 1}", 80
            )
            for n in range(SERVICES)
        ]
        for node in self.nodes:
            node.run(["iptables-restore", "--noflush"], input=proxy.iptables(services), timeout=600)

    def add_pods(self, count: int) -> None:
        """More pods on the nodes of those that ask."""
        for lane in self.lanes:
            for number in range(count):
                lane.crowd.append(_pod(lane.node, f"crowd-{number}"))


@contextlib.contextmanager
def road(names: Sequence[str], say: Callable[[str], object]) -> Iterator[Road]:
    """All contenders, up inside the block.

    Raises:
        LaneError: a program that is needed is not there, or does not start.
    """
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="azvnet-bench-"))
        talk = f"{folder}/talk"
        if subprocess.run(["gcc", "-O2", "-Wall", "-o", talk, TALK], check=False).returncode:
            raise LaneError(f"{TALK} can't be compiled (apt-get install gcc libc6-dev)")
        say(f"two nodes each for {', '.join(names)}")
        fabric = undo.enter_context(
            Fabric(nodes=2 * len(names), addresses=CROWD + 5, internet=True, imds_limit=None, sysctls=SYSCTLS)
        )
        ns.nft(fabric.network.netns, "flush ruleset")
        nodes = list(fabric.nodes.values())
        lanes = []
        for number, name in enumerate(names):
            pair = nodes[2 * number : 2 * number + 2]
            for node in pair:
                plugins.install_ours(node)
                plugins.install_reference(node)
                undo.enter_context(_network(fabric, node, name))
            client, beside = _pod(pair[0], "client"), _pod(pair[0], "beside")
            far = _pod(pair[1], "far")
            internet = _end(fabric.vnet_hosts["internet"])
            ends = {SAME: beside.endpoint, ACROSS: far.endpoint, OUT: internet}
            lanes.append(Lane(name, pair[0], client, ends))
        served = {(end.machine.name, end.netns): end for lane in lanes for end in lane.ends.values()}
        for end in served.values():
            undo.enter_context(_serving(end, [talk, "serve", str(TALK_PORT)], "up"))
        yield Road(lanes, nodes, talk)


def _end(machine: Machine) -> Endpoint:
    from integration.tests.pods import machine as end_of

    return end_of(machine)


@contextlib.contextmanager
def _network(fabric: Fabric, node: Machine, name: str) -> Iterator[None]:
    """A contender's network on a node, and the way there."""
    if name == AZVNET:
        use(node, {"type": AZVNET, "ipam": {"type": "azvnet-ipam"}})
        with _agent(node):
            yield
        return
    port = fabric.network.ports[node.uplink_mac]
    subnet = f"10.244.{node.name.removeprefix('node')}.0/24"
    way = f"route add {subnet} via {port.next_hop} dev {port.name} onlink"
    ns.ip_batch(fabric.network.netns, [way])
    ipam: dict[str, Any] = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    ipam["routes"] = [{"dst": "0.0.0.0/0"}]
    own = {"isGateway": True} if name == BRIDGE else {}
    use(node, {"type": name, "ipMasq": True, "ipam": ipam, **own})
    yield


@contextlib.contextmanager
def _agent(node: Machine) -> Iterator[None]:
    agent = node.popen(["/opt/cni/bin/azvnet", "agent"], stderr=subprocess.DEVNULL)
    try:

        def ready() -> bool:
            return "no pod has" in node.run(["nft", "list", "ruleset"]).stdout

        if not found_within(PATIENCE, ready):
            raise LaneError("the agent did not write its rules")
        yield
    finally:
        agent.terminate()
        agent.wait()


def _pod(node: Machine, name: str) -> Pod:
    pod = Pod.make(node, name)
    pod.add()
    return pod


@contextlib.contextmanager
def _serving(end: Endpoint, argv: Sequence[str], word: str) -> Iterator[None]:
    """A server at an end, once it has printed that it listens."""
    process = end.machine.popen(end.inside([*FIRST, *argv]), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if word in line:
                break
        else:
            raise LaneError(f"{argv[0]} does not serve at {end.name}")
        yield
    finally:
        process.kill()
        process.communicate()


def masqueraded(lane: Lane) -> bool:
    """Whether the host in the Internet sees the node's address: otherwise something else is measured."""
    listen = "import socket; s = socket.create_server(('', 5199)); print('up', flush=True); "
    listen += "c, peer = s.accept(); c.sendall(peer[0].encode())"
    end = lane.ends[OUT]
    ask = "import socket, sys; print(socket.create_connection((sys.argv[1], 5199), 30).recv(99).decode())"
    with _serving(end, ["python3", "-c", listen], "up"):
        seen = lane.run(["python3", "-c", ask, str(end.address)])
    return seen.strip() == str(lane.node.primary_ip)


def iperf(lane: Lane, path: str, *options: str) -> dict[str, Any]:
    """What iperf3 reports after a second. Raises LaneError.

    It has a server of its own, and another try: now and then the two of them wait for each other.
    """
    end, port = lane.ends[path], str(IPERF_PORT)
    serve = ["iperf3", "--server", "--one-off", "--port", port, "--forceflush"]
    ask = ["iperf3", "--json", "--client", str(end.address), "--port", port, "--time", "1", *options]
    for _ in range(TRIES):
        with _serving(end, serve, "listening"), contextlib.suppress(subprocess.TimeoutExpired):
            report: dict[str, Any] = json.loads(lane.run(ask, IPERF_SECONDS))["end"]
            return report
    raise LaneError(f"{lane.name}: iperf3 did not end within {IPERF_SECONDS:.0f} s, {TRIES} times")
