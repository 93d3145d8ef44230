"""``make demo``: two emulated Azure nodes, pods attached by the real executable, who reaches whom.

A tour of the product, and a check: every statement on the screen was measured, and
the exit code says whether all of them held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration import calls, plugins, reach, residue
from integration.fabric import Fabric
from integration.screen import Screen

if TYPE_CHECKING:
    from integration.fabric import DropCounters, Machine

CONFLIST = Path(__file__).parents[1] / "conf" / "10-azvnet.conflist"
LOOKED_AT = "links, addresses, routes, rules, neighbours, nftables of others, reservations"


@dataclass(frozen=True, slots=True)
class Pod:
    """One attached pod, as the result says and the kernel confirms."""

    name: str
    node: Machine
    container_id: str
    netns: str
    result: dict[str, Any]
    seconds: float
    """Wall time of the whole ADD."""
    host_index: int = 0
    pod_index: int = 0
    indexes_match: bool = False
    """Whether each end of the veth pair names the other as its peer."""

    @property
    def endpoint(self) -> reach.Endpoint:
        """Where traffic is sent from and to."""
        address = ip_interface(self.result["ips"][0]["address"]).ip
        return reach.Endpoint(f"{self.node.name}/{self.name}", self.node, address, self.netns)

    @property
    def host_veth(self) -> str:
        """Name of the node's end."""
        return next(str(i["name"]) for i in self.result["interfaces"] if not i.get("sandbox"))


class Demo:
    """One run: what it shows and how many of its checks failed."""

    def __init__(self, screen: Screen, pods_per_node: int) -> None:
        self.screen = screen
        self.pods_per_node = pods_per_node
        self.failures = 0
        self.checks = 0
        conflist = json.loads(CONFLIST.read_text())
        # What libcni adds to the first plugin of a list (CNI spec, section 3).
        self.netconf = {
            "cniVersion": conflist["cniVersion"],
            "name": conflist["name"],
            **conflist["plugins"][0],
        }

    def check(self, text: str, *, ok: bool, detail: str = "") -> None:
        """Say whether something holds, and remember it."""
        self.checks += 1
        self.failures += not ok
        self.screen.verdict(f"{text}{': ' + detail if detail and not ok else ''}", ok=ok)

    def run(self, *, keep: bool) -> None:
        """The whole walk. Raises BundleError or CallError when it can't go on."""
        plugins.bundle()
        with contextlib.ExitStack() as stack:
            with self.screen.step(
                "Azure fabric: 2 nodes with 16 addresses each, 1 VNet host, IMDS, wireserver"
            ):
                fabric = stack.enter_context(Fabric(nodes=2, addresses=16))
            nodes = list(fabric.nodes.values())
            for node in nodes:
                plugins.install_ours(node)
            self._ask_status(nodes)
            before = {node.name: residue.snapshot(node) for node in nodes}
            pods = self._attach_all(nodes)
            self._show_pods(pods)
            self._show_reach(pods, fabric)
            self._check_all(pods)
            self._show_drops(fabric.drop_counters())
            self._show_one(pods[0])
            if keep:
                self._wait_for_person(nodes, pods)
            self._detach_all(pods)
            for node in nodes:
                left = residue.snapshot(node)
                changed = left.added_to(before[node.name]) + left.missing_from(before[node.name])
                self.check(
                    f"{node.name} is as before: {LOOKED_AT}", ok=not changed, detail="; ".join(changed)
                )
            with self.screen.step("fabric down"):
                stack.close()

    def _ask_status(self, nodes: list[Machine]) -> None:
        for node in nodes:
            with self.screen.step(f"{node.name}: STATUS, which reads the platform's list of addresses"):
                calls.call(node, "STATUS", {**self.netconf, "cniVersion": "1.1.0"}, container_id="").done()

    def _attach_all(self, nodes: list[Machine]) -> list[Pod]:
        pods = []
        for node in nodes:
            with self.screen.step(f"{node.name}: ADD, pod by pod"):
                pods += [self._attach(node, f"pod-{number}") for number in range(1, self.pods_per_node + 1)]
        return pods

    def _attach(self, node: Machine, name: str) -> Pod:
        node.run(["ip", "netns", "add", name])
        node.run(["ip", "-netns", name, "link", "set", "lo", "up"])
        container_id, netns = f"{node.name}-{name}", f"/run/netns/{name}"
        outcome = calls.call(
            node,
            "ADD",
            self.netconf,
            container_id=container_id,
            netns=netns,
            args=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME={name}",
        )
        return _with_indexes(Pod(name, node, container_id, netns, outcome.result, outcome.seconds))

    def _show_pods(self, pods: list[Pod]) -> None:
        self.screen.heading("Pods")
        rows = [
            (
                pod.name,
                pod.node.name,
                self.screen.style(str(pod.endpoint.address), "cyan"),
                pod.host_veth,
                f"{pod.host_index} {self.screen.pair} {pod.pod_index}",
                f"{pod.seconds * 1000:.0f} ms",
            )
            for pod in pods
        ]
        headers = ("pod", "node", "address", "host veth", "ifindex", "ADD")
        self.screen.table(headers, rows, right=frozenset({4, 5}))
        self.screen.line()
        addresses = {pod.endpoint.address for pod in pods}
        self.check("every pod has an address of its own", ok=len(addresses) == len(pods))
        owned = all(pod.endpoint.address in pod.node.pod_addresses for pod in pods)
        self.check("every address is one that Azure gave to the NIC of the pod's node", ok=owned)
        wrong = [pod.name for pod in pods if not pod.indexes_match]
        self.check("both ends of every veth pair name each other", ok=not wrong, detail=", ".join(wrong))

    def _show_reach(self, pods: list[Pod], fabric: Fabric) -> None:
        nodes, hosts = list(fabric.nodes.values()), list(fabric.vnet_hosts.values())
        outside = [reach.Endpoint(host.name, host, host.primary_ip) for host in hosts]
        targets = [pod.endpoint for pod in pods] + outside
        sources = targets + [reach.Endpoint(node.name, node, node.primary_ip) for node in nodes]
        self.screen.heading("Who reaches whom (ping in ms, and an HTTP answer with the right name)")
        with (
            self.screen.step(f"{len(sources)} x {len(targets)} pings and connections"),
            reach.serving(targets),
        ):
            probes = reach.matrix(sources, targets)
        short = [target.name.replace("node", "n").replace("pod-", "p") for target in targets]
        rows = [
            (source.name, *(self._cell(probe) for probe in row))
            for source, row in zip(sources, probes, strict=True)
        ]
        self.screen.table(["from \\ to", *short], rows, right=frozenset(range(1, len(targets) + 1)))
        self.screen.line()
        failed = [f"{p.source} -> {p.target}" for row in probes for p in row if not p.ok]
        text = "pods of one node, across nodes, VNet host and nodes: all reach all"
        self.check(text, ok=not failed, detail=", ".join(failed))

    def _cell(self, probe: reach.Probe) -> str:
        if probe.ok:
            return self.screen.style(f"{probe.ping_ms:.2f}", "green")
        missing = "ping" if probe.ping_ms is None else "http"
        return self.screen.style(f"{missing} {self.screen.bad}", "red", "bold")

    def _check_all(self, pods: list[Pod]) -> None:
        refused = []
        for pod in pods:
            netconf = {**self.netconf, "prevResult": pod.result}
            outcome = calls.call(pod.node, "CHECK", netconf, container_id=pod.container_id, netns=pod.netns)
            refused += [] if outcome.ok else [f"{pod.container_id}: {outcome.stdout.strip()}"]
        text = "CHECK: kernel, store and result agree for every pod"
        self.check(text, ok=not refused, detail="; ".join(refused))

    def _show_drops(self, drops: DropCounters) -> None:
        spoofs = ", ".join(f"{s.packets} from {s.source} at {s.machine}" for s in drops.spoofs)
        total = drops.spoofed_total + drops.platform_total
        text = f"the fabric dropped {total} packets for a source address that the NIC does not own"
        self.check(text, ok=total == 0, detail=spoofs)
        others = {reason: packets for reason, packets in drops.general.items() if packets}
        self.check(f"and {sum(others.values())} for any other reason", ok=not others, detail=str(others))

    def _show_one(self, pod: Pod) -> None:
        self.screen.heading(f"One pod from end to end, on {pod.node.name}: azvnet show demo/{pod.name}")
        looks = "picture" if self.screen.unicode else "ascii"
        show = [f"{plugins.BIN}/azvnet", "show", f"demo/{pod.name}", "--output"]
        for line in pod.node.run([*show, looks], check=False).stdout.splitlines():
            self.screen.line(f"  {line}")
        self.screen.line()
        found = json.loads(pod.node.run([*show, "json"], check=False).stdout or "{}").get("attachments", [])
        indexes = [(each["hostEnd"]["index"], each["podEnd"]["index"]) for each in found if each["paired"]]
        text = "azvnet show finds that veth pair by the pod's name"
        self.check(text, ok=indexes == [(pod.host_index, pod.pod_index)], detail=str(indexes))

    def _detach_all(self, pods: list[Pod]) -> None:
        self.screen.heading("Clean-up")
        with self.screen.step("DEL, pod by pod"):
            for pod in pods:
                calls.call(
                    pod.node, "DEL", self.netconf, container_id=pod.container_id, netns=pod.netns
                ).done()
                pod.node.run(["ip", "netns", "delete", pod.name])

    def _wait_for_person(self, nodes: list[Machine], pods: list[Pod]) -> None:
        self.screen.heading("Everything stays up until Ctrl-C. From another terminal, as root:")
        for node in nodes:
            enter = f"nsenter -t {node.holder_pid} -n -m -u -p"
            pod = next(pod for pod in pods if pod.node is node)
            self.screen.line(f"  {node.name}          {enter} bash")
            self.screen.line(f"  {node.name}/{pod.name}    {enter} ip netns exec {pod.name} bash")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _with_indexes(pod: Pod) -> Pod:
    """Look both ends of the pair up in the kernel."""
    show = ["ip", "-json", "link", "show", "dev"]
    host = json.loads(pod.node.run([*show, pod.host_veth]).stdout)[0]
    inside = json.loads(pod.endpoint.run([*show, "eth0"]).stdout)[0]
    match = (host["link_index"], inside["link_index"]) == (inside["ifindex"], host["ifindex"])
    return replace(pod, host_index=host["ifindex"], pod_index=inside["ifindex"], indexes_match=match)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--keep", action="store_true", help="leave everything up until Ctrl-C")
    parser.add_argument("--pods", type=int, default=4, choices=range(1, 9), help="pods per node (default 4)")
    return parser.parse_args()


def main() -> int:
    """Run the demo; 0 when every check held."""
    arguments = _arguments()
    screen = Screen()
    if os.geteuid() != 0:
        screen.verdict("the demo creates network namespaces: run it as root (sudo make demo)", ok=False)
        return 2
    started = time.monotonic()
    demo = Demo(screen, arguments.pods)
    screen.line(screen.style("azvnet: pods with addresses of the Azure virtual network", "bold"))
    try:
        demo.run(keep=arguments.keep)
    except (calls.CallError, plugins.BundleError) as error:
        screen.verdict(str(error), ok=False)
        return 1
    except KeyboardInterrupt:
        screen.verdict("interrupted; everything has been removed", ok=False)
        return 130
    screen.line()
    held = demo.checks - demo.failures
    screen.verdict(
        f"{held} of {demo.checks} checks held, {time.monotonic() - started:.0f} s", ok=not demo.failures
    )
    return 1 if demo.failures else 0


if __name__ == "__main__":
    # So that it cleans up, also where a shell has started it with `&` and so with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
