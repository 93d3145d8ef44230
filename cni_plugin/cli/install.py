"""``azvnet install``: put the bundle on the node and switch to it in one step."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.install.place import BIN_DIR, COMMAND_DIR, CONF_DIR, CONFLIST, PREFIX, Place, Refused

if TYPE_CHECKING:
    from collections.abc import Callable


def arguments(parser: argparse.ArgumentParser) -> None:
    """Paths, the bundle, and what to leave out."""
    from cni_plugin.install.installing import KEEP

    place_arguments(parser)
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="what to install (default: the directory of this executable)",
    )
    parser.add_argument(
        "--conflist",
        type=Path,
        metavar="FILE",
        help=f"install it as {CONFLIST} (default: keep the existing one, or else a plain one)",
    )
    parser.add_argument(
        "--no-conflist",
        action="store_true",
        help="do not install a conflist (for example because the agent manages it)",
    )
    parser.add_argument(
        "--keep", type=_positive, default=KEEP, metavar="N", help=f"versions to keep (default {KEEP})"
    )
    parser.add_argument(
        "--rollback", action="store_true", help="switch back to the previous version; copy nothing"
    )


def place_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``install``, ``uninstall`` and ``verify`` have in common."""
    for option, default, what in (
        ("--prefix", PREFIX, "where the versions are"),
        ("--bin-dir", BIN_DIR, "where the runtime looks for plugins"),
        ("--conf-dir", CONF_DIR, "where the runtime looks for networks"),
        ("--command-dir", COMMAND_DIR, "where a shell looks for azvnet"),
        ("--root", Path("/"), "where the node's root is mounted; the other paths are the node's own"),
    ):
        help_text = f"{what} (default {default})"
        parser.add_argument(option, type=Path, default=default, metavar="DIR", help=help_text)


def place_of(options: argparse.Namespace) -> Place:
    """The place that ``place_arguments`` describe."""
    return Place(options.root, options.prefix, options.bin_dir, options.conf_dir, options.command_dir)


def run(options: argparse.Namespace) -> int:
    """Install, or roll back."""
    from cni_plugin.install import installing

    order = installing.Order(place_of(options), options.keep, not options.no_conflist, options.conflist)

    def work() -> None:
        if options.conflist is not None and options.no_conflist:
            raise Refused("--conflist and --no-conflist contradict each other", "Give one of them.")
        if options.rollback:
            installing.roll_back(order, say)
        else:
            installing.install(order, options.bundle or own_bundle(), say)

    return run_reporting("install", work)


def run_reporting(command: str, work: Callable[[], None]) -> int:
    """Run ``work``; a refusal is exit code 1 and one line."""
    os.umask(0o022)
    try:
        work()
    except Refused as error:
        sys.stderr.write(f"azvnet {command}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"azvnet {command}: interrupted; run it again to finish it\n")
        return 130
    return 0


def say(line: str) -> None:
    """One line of what was done."""
    sys.stdout.write(f"{line}\n")


def own_bundle() -> Path:
    """The bundle that this process was started from. Raises Refused: it runs from its sources."""
    if not getattr(sys, "frozen", False):
        raise Refused("this is not the frozen executable", "Name the bundle with --bundle.")
    return Path("/proc/self/exe").readlink().parent


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1, the current version")
    return number
