"""The command line: ``python -m integration.kind``, which ``make kind`` and its companions call."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from integration.cluster import ClusterError
from integration.commands import declare, perform
from integration.containerd.images import ImageError
from integration.fabric import control, records
from integration.kind import hints, keeper, life
from integration.kind.cluster import SOURCES
from integration.kind.docker import CHOICES
from integration.kind.places import KindError
from integration.screen import Screen
from integration.tools import ToolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INTERRUPTED = 130
_ERRORS = (
    ClusterError,
    ImageError,
    KindError,
    ToolsError,
    control.ControlError,
    records.FabricExists,
    subprocess.CalledProcessError,
)


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    if argv[:1] == ["be"]:
        return keeper.be(int(argv[1]))
    # So that it cleans up, also where a shell has started it with `&` and so with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return perform(_parser(), argv or ["up"], _ERRORS, "kind")
    except KeyboardInterrupt:
        print("kind: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make kind",
        description="A real kind cluster with azvnet as its CNI plugin. It stays up until `make kind-down`.",
        epilog='As variables of make: NODES=3 DOCKER=own make kind ARGS="--source imds". See docs/kind.md.',
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    up = commands.add_parser("up", prog="make kind", description=parser.description, epilog=parser.epilog)
    up.add_argument(
        "--nodes", type=_nodes, default=2, help="the control plane and workers (default: 2; NODES=)"
    )
    up.add_argument(
        "--docker",
        choices=CHOICES,
        default="auto",
        help="own: a dockerd in namespaces, which needs neither Docker nor a registry but builds Kubernetes; "
        "system: this machine's, with kind's own node image from its registry; "
        "auto: system where it answers (DOCKER=)",
    )
    up.add_argument(
        "--source",
        choices=SOURCES,
        default="file",
        help="where azvnet reads the addresses: a file on each node, or an emulated IMDS (own Docker only)",
    )
    up.add_argument(
        "--image",
        default="",
        help="of the nodes, with this machine's Docker (default: that of kind's version)",
    )
    up.add_argument(
        "--conformance",
        action="store_true",
        help="then run Kubernetes' 45 conformance specs of [sig-network]",
    )
    up.set_defaults(run=_up)
    declare(commands, "prepare", _prepare, "make once what a cluster with our own Docker is made of")
    declare(commands, "down", _down, "delete it, or what a killed one left")
    declare(commands, "reload", _reload, "load the built image and roll it out")
    declare(commands, "status", _status, "what is up and how to use it")
    conformance = declare(commands, "conformance", _conformance, "run Kubernetes' own e2e specs on it")
    conformance.add_argument(
        "--focus", help="regular expression (default: the conformance specs of [sig-network])"
    )
    return parser


def _nodes(text: str) -> int:
    number = int(text)
    if not 1 <= number <= life.MOST_NODES:
        raise argparse.ArgumentTypeError(f"1 to {life.MOST_NODES} nodes")
    return number


def _progress(screen: Screen) -> Callable[[str], None]:
    started = time.monotonic()
    return lambda text: screen.line(f"  {time.monotonic() - started:5.1f} s  {text}")


def _up(arguments: argparse.Namespace) -> int:
    screen = Screen()
    docker = life.running()
    if docker is None:
        progress = _progress(screen)
        screen.heading(f"kind cluster, {arguments.nodes} node{'s' * (arguments.nodes > 1)}")
        docker = life.up(arguments.nodes, arguments.docker, arguments.source, arguments.image, progress)
        progress("up")
    else:
        screen.line("the cluster is up already; make kind-down deletes it")
    hints.show(screen, docker)
    return _run_specs(screen, "") if arguments.conformance else 0


def _prepare(_: argparse.Namespace) -> int:
    life.prepare(_progress(Screen()))
    return 0


def _down(_: argparse.Namespace) -> int:
    print(life.down())
    return 0


def _reload(_: argparse.Namespace) -> int:
    screen = Screen()
    progress = _progress(screen)
    life.cluster().change("A changed build", progress)
    progress("rolled out")
    return 0


def _status(_: argparse.Namespace) -> int:
    cluster = life.cluster()
    screen = Screen()
    screen.line(cluster.kubectl("get", "nodes,pods", "--all-namespaces", "--output=wide").stdout.rstrip())
    hints.show(screen, cluster.docker)
    return 0


def _conformance(arguments: argparse.Namespace) -> int:
    return _run_specs(Screen(), arguments.focus or "")


def _run_specs(screen: Screen, focus: str) -> int:
    found = life.conformance(focus, lambda ended: screen.line(f"  {ended} specs finished"))
    for spec in found:
        screen.verdict(f"{spec.name} {spec.message}", ok=spec.passed)
    passed = sum(spec.passed for spec in found)
    screen.line(f"  {passed} of {len(found)} passed")
    return 0 if found and passed == len(found) else 1
