"""``azvnet operator``: grow and shrink the NICs of all nodes of a cluster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_PARTS = ("kubernetes", "ipam.operator", "cni_plugin.operator")
"""What only the operator's own bundle has."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """All optional: everything has a default."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the operator's settings (JSON); see docs/operator.md"
    )


def run(options: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    try:
        from cni_plugin.operator import service
    except ModuleNotFoundError as error:
        if not any(f"{error.name}.".startswith(f"{part}.") for part in _PARTS):
            raise
        sys.stderr.write("azvnet operator: not in this bundle; use the image azvnet-operator\n")
        return 2
    from ipam.operator.settings import Settings
    from ipam.settings_file import SettingsError

    try:
        return service.run(Settings.read(options.config), _write)
    except SettingsError as error:
        sys.stderr.write(f"azvnet operator: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"azvnet operator: {error}\n")
        return 1


def _write(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()
