"""``azvnet uninstall``: take away what ``azvnet install`` made."""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from pathlib import Path

from cni_plugin.cli.install import carry_out, place_arguments, place_of, say


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where, and how thoroughly."""
    place_arguments(parser)
    parser.add_argument("--force", action="store_true", help="although pods are attached, or the agent runs")
    parser.add_argument("--purge", action="store_true", help="the node's state (/run/azvnet), too")


def run(options: argparse.Namespace) -> int:
    """Uninstall."""
    from cni_plugin.install.removing import Removal, uninstall

    def work() -> None:
        place = place_of(options)
        given = os.environ.get("AZVNET_RUN_DIR")
        run_dir = Path(given) if given else place.real(Path("/run/azvnet"))
        removal = Removal(place, attachments(run_dir), options.force, run_dir if options.purge else None)
        uninstall(removal, say)

    return carry_out("uninstall", work)


def attachments(run_dir: Path) -> int:
    """How many pods have an endpoint here, or an address that may be one's."""
    from cni_plugin.cli.looking import MISSING, look
    from cni_plugin.node import Node

    with closing(Node({**os.environ, "AZVNET_RUN_DIR": str(run_dir)})) as node:
        picture = look(node)
    return sum(each.state != MISSING for each in picture.attachments)
