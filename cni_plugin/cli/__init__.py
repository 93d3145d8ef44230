"""The command line: ``azvnet SUBCOMMAND``.

Owns the subcommands and their help. It must not write to the kernel: what it shows it reads.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from cni_plugin import __version__

SUBCOMMANDS = {
    "agent": "run the resident agent, which handles calls in milliseconds and keeps the pool fresh",
    "status": "show the pool, who holds which address, and where addresses come from",
    "show": "show one pod from end to end: interfaces, addresses, routes, IP configuration of the NIC",
    "explain": "show the path of a packet, hop by hop, which source the far end sees, and what drops it",
    "plan": "plan the addresses of a cluster: which subnet is large enough, and when it is full",
    "operator": "grow and shrink the NICs of all nodes of a cluster, within one budget of requests to Azure",
    "install": "copy the bundle to the node and switch to it; the previous version is kept for --rollback",
    "uninstall": "remove what install created",
    "verify": "check that the installation is intact",
    "schema": "print the JSON Schema of the network configuration",
}
"""Each is a module of this package with ``arguments(parser)`` and ``run(options) -> int``, imported only
when it is used."""


def run(argv: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="azvnet",
        description="CNI plugin that gives pods addresses of the Azure virtual network. "
        "A container runtime calls it with CNI_COMMAND in the environment; people use the commands below.",
    )
    parser.add_argument("--version", action="version", version=f"azvnet {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = argv[0] if argv and argv[0] in SUBCOMMANDS else None
    for name, text in SUBCOMMANDS.items():
        subparser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            _command(name).arguments(subparser)
    options = parser.parse_args(argv)
    command = _command(options.command)
    try:
        status: int = command.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `azvnet status | head`: the reader closed the pipe, which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return status


def _command(name: str) -> ModuleType:
    """The module of a subcommand. Raises SystemExit: the operator's bundle has only its own."""
    module = f"cni_plugin.cli.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        sys.stderr.write(f"azvnet {name}: not in the operator's image; use the image azvnet\n")
        sys.exit(2)
