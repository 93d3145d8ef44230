"""``azvnet verify``: whether the installation is intact, with one line for each fault."""

from __future__ import annotations

import argparse
import sys

from cni_plugin.cli.install import place_arguments, place_of, run_reporting
from cni_plugin.install.place import Refused


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where."""
    place_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Look, and show it."""
    from cni_plugin.cli.table import Paint, table
    from cni_plugin.install.checking import check_installation

    def work() -> None:
        findings = list(check_installation(place_of(options)))
        paint = Paint()
        rows = [(each.what, each.where, "wrong" if each.remedy else each.state) for each in findings]
        colours = {"wrong": "bad", "ok": "good"}
        sys.stdout.write(table(("WHAT", "WHERE", "STATE"), rows, paint, colours))
        wrong = [each for each in findings if each.remedy]
        for each in wrong:
            sys.stdout.write(paint(f"wrong: {each.where}: {each.state}. {each.remedy}", "bad") + "\n")
        if wrong:
            many = "1 check" if len(wrong) == 1 else f"{len(wrong)} checks"
            raise Refused(f"{many} failed", "The lines above say what to do.")

    return run_reporting("verify", work)
