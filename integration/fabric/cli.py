"""The command line of the fabric: ``python -m integration.fabric``.

It only asks: what happens is in `fabric`, and a test gets the same from there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.commands import declare, perform
from integration.fabric import control, records, standalone
from integration.fabric.armcontrol import SWITCHES
from integration.fabric.faults import Empty, Garbage
from integration.fabric.machine import search_path
from integration.fabric.model import Placement, State, Surface
from integration.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_NAME = "lab"
_HINTS = """
  Try, each after: python -m integration.fabric
    exec node1 -- ip netns add pod1
    exec node1 -- env CNI_PATH=/opt/cni/bin /opt/cni/bin/cnitool add azvnet /run/netns/pod1
    exec node1 -- ip netns exec pod1 ping -c1 10.10.0.21
    shell node1
    fault imds --hang            and: clear
    address add node1 4
    counters
    down
"""

_IN_FOLDER = 'cd "$0" 2>/dev/null; exec "$@"'


class UsageError(ValueError):
    """The command line is wrong; the message says what to use instead."""


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    if argv[:1] == ["be"]:
        return standalone.be(int(argv[1]), json.loads(argv[2]))
    errors = (control.ControlError, standalone.StartError, records.FabricExists, UsageError)
    return perform(_parser(), argv or ["up", "--plugin", "--hints"], errors, "fabric")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m integration.fabric",
        description="An emulated Azure network in namespaces: nodes, host network, wireserver, IMDS, ARM.",
        epilog="See docs/fabric.md. Everything needs root.",
    )
    parser.add_argument("--name", help=f"which fabric; default: the one that is up, or {DEFAULT_NAME}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_up(declare(commands, "up", _up, "bring a fabric up"))
    down = declare(commands, "down", _down, "take a fabric down, or clean up after a dead one")
    down.add_argument("--all", action="store_true", help="all that have a process of their own or are dead")
    declare(commands, "list", _list, "the fabrics of this machine")
    declare(commands, "status", _status, "machines, addresses, faults")
    declare(commands, "counters", _counters, "what was dropped, and why")
    execute = declare(
        commands, "exec", _exec, "run a program in a machine: exec node1 -- ip route", "machine"
    )
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- PROGRAM ...")
    declare(commands, "shell", _shell, "a shell in a machine", "machine")
    declare(commands, "reboot", lambda a: _ask(a, "reboot", machine=a.machine), "reboot a machine", "machine")
    _add_address(commands.add_parser("address", help="secondary addresses of a node's NIC"))
    _add_faults(commands)
    vf = declare(commands, "vf", _vf, "the VF of accelerated networking")
    vf.add_argument("action", choices=["add", "remove", "rename"])
    vf.add_argument("machine")
    vf.add_argument("link", nargs="?", default="enP1s1")
    vf.add_argument("--nic", type=int, default=0, help="which NIC of the machine; 0: the primary one")
    return parser


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nodes", type=int, default=2)
    up.add_argument("--addresses", type=int, default=16, help="secondary addresses of every node NIC")
    up.add_argument("--nics", type=int, default=1, help="NICs of every node")
    up.add_argument("--one-subnet", action="store_true", help="all NICs of a node are in one subnet")
    up.add_argument("--blocks", type=int, default=0, help="/28 blocks of every node")
    up.add_argument("--vnet-hosts", type=int, default=1, help="ordinary machines in the network")
    up.add_argument("--peered-hosts", type=int, default=0, help="machines in a peered network")
    up.add_argument("--stranger-hosts", type=int, default=0, help="machines in a network not peered")
    up.add_argument("--internet", action="store_true", help="a machine outside of Azure")
    up.add_argument(
        "--ipv6", type=int, default=0, help="secondary IPv6 addresses of every node NIC; 0: no IPv6"
    )
    up.add_argument("--placement", choices=[p.value for p in Placement], default="standalone")
    up.add_argument("--environment", default="AzurePublicCloud")
    up.add_argument("--mtu", type=int, default=1500)
    up.add_argument("--accelerated", action="store_true", help="NICs can have VFs; see the command vf")
    up.add_argument("--own-tmp", action="store_true", help="every machine has a /tmp of its own")
    up.add_argument("--shuffle-nics", action="store_true", help="IMDS lists NICs in random order")
    up.add_argument("--imds-limit", type=int, default=5, help="requests per second; 0: no limit")
    up.add_argument("--plugin", action="store_true", help="install the built plugin in the nodes")
    up.add_argument("--foreground", action="store_true", help="stay in the foreground until Ctrl-C")
    up.add_argument("--hints", action="store_true", help="print what to do next")


def _add_address(address: argparse.ArgumentParser) -> None:
    actions = address.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add", help="a number of them, or specific ones")
    remove = actions.add_parser("remove", help="the last N, or specific ones")
    state = actions.add_parser("state", help="set the provisioningState of specific ones")
    state.add_argument("--state", choices=[s.value for s in State], required=True)
    add.add_argument("--state", choices=[s.value for s in State], default=State.SUCCEEDED.value)
    for each, do in ((add, "address-add"), (remove, "address-remove"), (state, "address-state")):
        each.add_argument("machine")
        each.add_argument("addresses", nargs="+", metavar="N|ADDRESS")
        each.set_defaults(run=_address, do=do)
    remove.set_defaults(state=None)
    public = actions.add_parser("public", help="give specific ones a public IP of their own")
    public.add_argument("--basic", action="store_true", help="of the Basic SKU, which IMDS shows elsewhere")
    private = actions.add_parser("private", help="take it away from specific ones")
    for each, do in ((public, "address-public"), (private, "address-private")):
        each.add_argument("machine")
        each.add_argument("addresses", nargs="+", metavar="ADDRESS")
        each.set_defaults(run=_address, do=do, state=None)


def _add_faults(commands: Any) -> None:
    surfaces = [surface.value for surface in Surface]
    fault = declare(commands, "fault", _fault, "switch a fault on: fault imds --delay 2")
    fault.add_argument("surface", choices=surfaces)
    fault.add_argument("--node", help="only for this machine")
    fault.add_argument("--times", type=int, help="only for this many requests")
    fault.add_argument("--delay", type=float, help="seconds before the answer")
    fault.add_argument("--hang", action="store_true", help="never answer; fabric: cut the machine off")
    fault.add_argument("--refused", action="store_true", help="reset connections")
    fault.add_argument("--status", type=int, help="answer with this HTTP status")
    fault.add_argument("--retry-after", type=int, help="seconds, in a header")
    fault.add_argument("--garbage", choices=[kind.value for kind in Garbage])
    fault.add_argument("--empty", choices=[kind.value for kind in Empty])
    fault.add_argument("--partial", type=int, help="only this many configurations of every NIC")
    fault.add_argument("--stale", action="store_true", help="show no changes from now on")
    fault.add_argument("--trickle", type=float, help="seconds between two bytes")
    fault.add_argument("--loss", type=int, help="percent of packets; for the fabric only")
    clear = declare(commands, "clear", lambda a: _ask(a, "clear", surface=a.surface), "switch faults off")
    clear.add_argument("surface", choices=surfaces, nargs="?")
    arm = declare(commands, "arm", _arm, "writes through ARM: arm role writer, arm speed 1, arm fail 2")
    arm.add_argument("switch", choices=list(SWITCHES))
    arm.add_argument("words", nargs="*", metavar="WORD")
    lag = declare(commands, "lag", _lag, "delay the changes that a service shows")
    lag.add_argument("surface", choices=surfaces)
    lag.add_argument("seconds", type=float, help="inf: never")


def _name(arguments: argparse.Namespace) -> str:
    if arguments.name:
        return str(arguments.name)
    up = standalone.running()
    if len(up) > 1 and DEFAULT_NAME not in up:
        raise UsageError(f"there are several fabrics ({', '.join(up)}): choose one with --name")
    return up[0] if len(up) == 1 else DEFAULT_NAME


def _ask(arguments: argparse.Namespace, do: str, **what: Any) -> int:
    control.ask(_name(arguments), do, **what)
    return 0


def _vf(arguments: argparse.Namespace) -> int:
    what = {"machine": arguments.machine, "action": arguments.action, "link": arguments.link}
    what["nic"] = arguments.nic
    return _ask(arguments, "vf", **what)


def _lag(arguments: argparse.Namespace) -> int:
    return _ask(arguments, "lag", surface=arguments.surface, seconds=arguments.seconds)


def _arm(arguments: argparse.Namespace) -> int:
    told = control.ask(_name(arguments), "arm", switch=arguments.switch, words=arguments.words)
    if told:
        print(json.dumps(told, indent=2))
    return 0


def _up(arguments: argparse.Namespace) -> int:
    wanted = {k: v for k, v in vars(arguments).items() if k not in ("run", "foreground", "hints")}
    wanted["name"] = arguments.name or DEFAULT_NAME
    wanted["imds_limit"] = arguments.imds_limit or None
    if arguments.foreground:
        return standalone.in_foreground(wanted)
    standalone.start(wanted)
    _show_status(control.ask(wanted["name"], "status"))
    if arguments.hints:
        print(_HINTS)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    if not arguments.all:
        print(standalone.take_down(_name(arguments)))
        return 0
    for name in records.names():
        try:
            print(standalone.take_down(name))
        except control.ControlError as error:
            print(f"left alone: {error}")
    return 0


def _list(_: argparse.Namespace) -> int:
    up = standalone.running()
    for name in records.names():
        print(f"{name}  {'up' if name in up else 'dead; remove with: down --all'}")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise UsageError("say which program: exec node1 -- ip route")
    _enter(_name(arguments), arguments.machine, argv)
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    shell = shutil.which("bash") or "/bin/sh"
    prompt = f"PS1=[{arguments.machine} \\w]# "
    _enter(
        _name(arguments), arguments.machine, ["env", prompt, shell, *(["--norc"] if "bash" in shell else [])]
    )
    return 0


def _enter(name: str, machine: str, argv: Sequence[str]) -> None:
    """Become a program in a machine's namespaces, in the same folder if the machine has it."""
    found = control.ask(name, "machine", machine=machine)
    os.environ.update({"PATH": search_path(), **found["variables"]})
    target = ["nsenter", "-t", str(found["pid"]), "-m", "-n", "-u", "-p", "--"]
    os.execvp("nsenter", [*target, "/bin/sh", "-c", _IN_FOLDER, str(Path.cwd()), *argv])


def _address(arguments: argparse.Namespace) -> int:
    what = {"machine": arguments.machine, "addresses": arguments.addresses}
    if arguments.state is not None:
        what["state"] = arguments.state
    if "basic" in arguments:
        what["basic"] = arguments.basic
    for address in control.ask(_name(arguments), arguments.do, **what) or ():
        print(address)
    return 0


def _fault(arguments: argparse.Namespace) -> int:
    left_out = ("run", "name", "surface")
    what = {k: v for k, v in vars(arguments).items() if k not in left_out and v not in (None, False)}
    return _ask(arguments, "fault", surface=arguments.surface, what=what)


def _status(arguments: argparse.Namespace) -> int:
    _show_status(control.ask(_name(arguments), "status"))
    return 0


def _show_status(status: dict[str, Any]) -> None:
    screen = Screen()
    screen.heading(f"fabric {status['name']}")
    rows = [
        [
            machine["name"] if index == 0 else "",
            f"eth{index}",
            nic["primary"],
            nic["mac"],
            str(len(nic["secondaries"]))
            + (f" ({nic['unfinished']} unfinished)" if nic["unfinished"] else ""),
            f"{nic['secondaries'][0]} .. {nic['secondaries'][-1]}" if nic["secondaries"] else "",
            str(machine["spoofed"]) if index == 0 else "",
            str(machine["platform"]) if index == 0 else "",
            str(machine["pid"]) if index == 0 else "",
        ]
        for machine in status["machines"]
        for index, nic in enumerate(machine["nics"])
    ]
    headers = ["machine", "link", "primary", "MAC", "secondary", "", "spoofed", "platform", "pid"]
    screen.table(headers, rows, right=frozenset({6, 7, 8}))
    for surface, text in status["faults"]:
        screen.line(f"  fault {surface}: {text}")
    for surface, seconds in status["lags"].items():
        screen.line(f"  lag {surface}: {seconds} s")


def _counters(arguments: argparse.Namespace) -> int:
    from integration.fabric.ruleset import GENERAL_COUNTERS

    found = control.ask(_name(arguments), "counters")
    screen = Screen()
    screen.heading("dropped packets")
    rows = [[name, str(found["spoofed"][name]), str(found["platform"][name])] for name in found["spoofed"]]
    screen.table(["machine", "source not owned", "platform, wrong address"], rows, right=frozenset({1, 2}))
    general = [[n, str(c), GENERAL_COUNTERS.get(n, "")] for n, c in found["general"].items() if c]
    if general:
        screen.line()
        screen.table(["reason", "packets", ""], general, right=frozenset({1}))
    if found["spoofs"]:
        screen.line()
        spoofs = [[s["machine"], s["source"], s["destination"], str(s["packets"])] for s in found["spoofs"]]
        screen.table(["from", "source", "destination", "packets"], spoofs, right=frozenset({3}))
    return 0
