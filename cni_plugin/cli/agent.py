"""``azvnet agent``: start the resident agent in the foreground."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """All optional: calls are governed by their netconf, and everything else has a default."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the agent's settings (JSON); see docs/agent.md"
    )


def run(options: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    from cni_plugin.agent import service
    from cni_plugin.agent.settings import Settings
    from cni_plugin.cni.errors import CniError
    from ipam.settings_file import SettingsError

    try:
        return service.run(os.environ, Settings.read(options.config))
    except SettingsError as error:
        sys.stderr.write(f"azvnet agent: {error}\n")
        return 2
    except (CniError, OSError) as error:
        sys.stderr.write(f"azvnet agent: {error}\n")
        return 1
