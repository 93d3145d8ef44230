"""The command line of a cluster: ``python -m integration.cluster``, which ``make cluster`` calls.

It only asks: what happens is in `cluster`, and a test gets the same from there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.cluster import comparison, comparisonpage, standalone
from integration.cluster.cni import CHOICES
from integration.cluster.comparison import SELECTIONS
from integration.cluster.conformance import DOCUMENT
from integration.cluster.node import PROXY_MODES
from integration.cluster.program import ClusterError
from integration.commands import declare, perform
from integration.fabric import cli as fabric_cli
from integration.fabric import control, records
from integration.fabric.standalone import StartError, running, take_down
from integration.screen import Screen
from integration.tools import ToolsError, kubernetes, tools

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_NAME = "cluster"
_HINTS = """
  export KUBECONFIG={kubeconfig} PATH={tools}:$PATH
  kubectl get nodes,pods --all-namespaces --output=wide
  make cluster-shell NODE=node1        a shell on a node: ip, nft, criclient
  make cluster-conformance             Kubernetes' own specs about networking
  python -m integration.cluster load-image ARCHIVE | reboot node1 | proxy iptables
  python -m integration.fabric --name {name} fault imds --hang
  make cluster-down
  Logs: {logs}
"""
_ERRORS = (ClusterError, control.ControlError, StartError, records.FabricExists, ToolsError)


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    if argv[:1] == ["be"]:
        return standalone.be(int(argv[1]), json.loads(argv[2]))
    return perform(_parser(), argv or ["up"], _ERRORS, "cluster")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m integration.cluster",
        description="A real Kubernetes on an emulated Azure network, in namespaces of this machine.",
        epilog="See docs/cluster.md. Everything needs root.",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="which cluster (default: %(default)s)")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    up = declare(commands, "up", _up, "bring a cluster up")
    up.add_argument("--nodes", type=int, default=2)
    up.add_argument("--addresses", type=int, default=64, help="secondary addresses of every node NIC")
    up.add_argument("--dual-stack", action="store_true", help="IPv6 as well as IPv4: nodes, pods, services")
    up.add_argument("--proxy", choices=PROXY_MODES, default="nftables", help="mode of kube-proxy")
    up.add_argument(
        "--cni",
        choices=["none", *CHOICES],
        default="azvnet",
        help="azvnet: the built executables; ptp: the reference plugins; none: nodes stay NotReady",
    )
    up.add_argument("--max-pods", type=int, default=110, help="maxPods of every kubelet")
    up.add_argument("--api-port", type=int, default=0, help="on this machine's loopback; 0: any free one")
    declare(commands, "down", _down, "take it down, or clean up after a dead one")
    declare(commands, "status", _status, "machines and programs")
    kubectl = declare(commands, "kubectl", _kubectl, "kubectl as administrator: kubectl get pods")
    kubectl.add_argument("argv", nargs=argparse.REMAINDER, metavar="...")
    shell = declare(commands, "shell", _shell, "a shell on a machine; kubectl is the kubelet there")
    shell.add_argument("node", help="node1, or vm1 for the control plane")
    declare(commands, "reboot", _reboot, "power a node off hard and boot it", "node")
    proxy = declare(commands, "proxy", _proxy, "restart kube-proxy in another mode")
    proxy.add_argument("mode", choices=PROXY_MODES)
    load = declare(commands, "load-image", _load_image, "import a docker or OCI archive into every node")
    load.add_argument("archive", type=Path)
    conformance = declare(commands, "conformance", _conformance, "run Kubernetes' own e2e specs on it")
    conformance.add_argument("--focus", help="regular expression (default: all of [sig-network])")
    conformance.add_argument("--services", action="store_true", help="only the specs about services")
    conformance.add_argument("--processes", type=int, default=6, help="how many specs run at once")
    compare = declare(commands, "compare", _compare, "Kubernetes' own specs on azvnet and on ptp")
    compare.add_argument("--only", choices=SELECTIONS, help="one selection of specs (default: all)")
    compare.add_argument("--proxy", choices=PROXY_MODES, default="nftables", help="mode of kube-proxy")
    return parser


def _ask(arguments: argparse.Namespace, do: str, **what: Any) -> int:
    control.ask(arguments.name, do, patience=600, **what)
    return 0


def _reboot(arguments: argparse.Namespace) -> int:
    return _ask(arguments, "reboot", machine=arguments.node)


def _proxy(arguments: argparse.Namespace) -> int:
    return _ask(arguments, "proxy", mode=arguments.mode)


def _load_image(arguments: argparse.Namespace) -> int:
    return _ask(arguments, "load-image", archive=str(arguments.archive.resolve()))


def _up(arguments: argparse.Namespace) -> int:
    if arguments.name in running():
        raise control.ControlError(
            f"cluster {arguments.name} is up already; take it down first: make cluster-down"
        )
    kubernetes()  # builds with progress; the process of the cluster has no terminal
    tools()
    screen = Screen()
    screen.heading(f"cluster {arguments.name}")
    wanted = {k: v for k, v in vars(arguments).items() if k != "run"}
    wanted["cni"] = None if arguments.cni == "none" else arguments.cni
    started = time.monotonic()
    standalone.start(wanted, lambda text: screen.line(f"  {time.monotonic() - started:5.1f} s  {text}"))
    screen.line(f"  {time.monotonic() - started:5.1f} s  up")
    _show(arguments.name, screen)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    print(take_down(arguments.name))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    _show(arguments.name, Screen())
    return 0


def _show(name: str, screen: Screen) -> None:
    found = control.ask(name, "cluster")
    rows = [[*row[:2], str(row[2] or "ended")] for row in found["programs"]]
    screen.line()
    screen.table(["machine", "program", "pid"], rows, right=frozenset({2}))
    screen.line(
        _HINTS.format(kubeconfig=found["kubeconfig"], logs=found["logs"], tools=kubernetes(), name=name)
    )


def _conformance(arguments: argparse.Namespace) -> int:
    from integration.cluster import conformance, images

    found = control.ask(arguments.name, "cluster")
    screen = Screen()
    with screen.step("images of the specs"):
        control.ask(arguments.name, "load-image", patience=600, archive=str(images.e2e()))
    focus = arguments.focus or (conformance.SERVICES if arguments.services else conformance.CONFORMANCE)
    folder = Path(found["logs"]) / "conformance"
    screen.line(f"  running, output in {folder / 'output.log'}")
    specs = conformance.run(
        found["control_pid"],
        folder,
        nodes=len(found["proxy"]),
        focus=focus,
        processes=arguments.processes,
        progress=lambda ended: screen.line(f"  {ended} specs finished"),
    )
    (folder / "result.md").write_text(conformance.table(specs) + "\n", encoding="utf-8")
    for spec in specs:
        screen.verdict(f"{spec.name} {spec.message}", ok=spec.passed)
    passed = sum(spec.passed for spec in specs)
    screen.line(f"  {passed} of {len(specs)} passed; as a table: {folder / 'result.md'}")
    return 0 if specs and passed == len(specs) else 1


def _compare(arguments: argparse.Namespace) -> int:
    """On clusters of its own; writes the page of results. 1: something is wrong with azvnet."""
    screen = Screen()
    found: list[str] = []
    for selection in [SELECTIONS[arguments.only]] if arguments.only else SELECTIONS.values():
        runs = {}
        for contender in comparison.CONTENDERS:
            screen.heading(f"{selection.name} with {contender}")
            started = time.monotonic()
            runs[contender] = comparison.run(selection, contender, arguments.proxy, screen.line)
            count = comparison.passed(runs[contender].specs)
            total = len(runs[contender].specs)
            screen.line(f"  {count} of {total} passed after {time.monotonic() - started:.0f} s")
        page = DOCUMENT.read_text(encoding="utf-8")
        page = comparisonpage.with_table(page, selection, arguments.proxy, runs)
        DOCUMENT.write_text(page, encoding="utf-8")
        found += comparison.faults(runs)
    for fault in found:
        screen.verdict(fault, ok=False)
    screen.verdict(f"{DOCUMENT.name} has the results", ok=not found)
    return 1 if found else 0


def _kubectl(arguments: argparse.Namespace) -> int:
    found = control.ask(arguments.name, "cluster")
    program = str(kubernetes() / "kubectl")
    os.environ["KUBECACHEDIR"] = str(Path(found["kubeconfig"]).parent / "kubectl")
    os.execv(program, [program, f"--kubeconfig={found['kubeconfig']}", *arguments.argv])


def _shell(arguments: argparse.Namespace) -> int:
    if arguments.name not in running():
        raise control.ControlError(f"cluster {arguments.name} is not up; bring it up with: make cluster")
    os.environ["PATH"] = f"{tools()}:{kubernetes()}:{os.environ['PATH']}"
    is_node = arguments.node in control.ask(arguments.name, "cluster")["proxy"]
    os.environ["KUBECONFIG"] = f"/etc/kubernetes/{'kubelet' if is_node else 'admin'}.conf"
    os.environ["KUBECACHEDIR"] = "/run/kubectl"  # what kubectl remembers would go into the home
    return fabric_cli.main(["--name", arguments.name, "shell", arguments.node])
