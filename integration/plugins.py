"""Which CNI executables a node has: ours from the frozen bundle, and the reference plugins.

Owns the content of a node's /opt/cni/bin and /etc/cni/net.d. Must not know what the plugins do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.tools import REFERENCE_PLUGINS, tools

if TYPE_CHECKING:
    from integration.containerd.place import Place

BUNDLE = Path(__file__).parents[1] / "dist" / "azvnet"
BIN = "/opt/cni/bin"
CONF = "/etc/cni/net.d"
OURS = ("azvnet", "azvnet-ipam")


class BundleError(Exception):
    """The frozen bundle is not there; the message says how to make it."""


def bundle() -> Path:
    """The folder of the frozen executable. Raises BundleError."""
    if not (BUNDLE / "azvnet").exists():
        raise BundleError(f"{BUNDLE} does not hold the executable; run: make build")
    return BUNDLE


def install_ours(place: Place) -> None:
    """Link our two plugins into the node: one program that is told apart by its name."""
    folder = bundle()
    place.run(["mkdir", "-p", BIN])
    for name in OURS:
        program = folder / name if (folder / name).exists() else folder / "azvnet"
        place.run(["ln", "-sfn", str(program), f"{BIN}/{name}"])


def install_reference(place: Place) -> None:
    """Link the reference plugins into the node. Raises ToolsError."""
    folder = tools()
    place.run(["mkdir", "-p", BIN])
    place.run(["ln", "-sf", *(str(folder / name) for name in REFERENCE_PLUGINS), BIN])


def write_conflist(place: Place, conflist: dict[str, Any], *, name: str = "10-azvnet.conflist") -> None:
    """Put a network configuration list into the node, whole or not at all."""
    place.run(["mkdir", "-p", CONF])
    place.run(["tee", f"{CONF}/.{name}"], input=json.dumps(conflist, indent=2))
    place.run(["mv", f"{CONF}/.{name}", f"{CONF}/{name}"])


def remove_conflist(place: Place, *, name: str = "10-azvnet.conflist") -> None:
    """Take a network configuration list out of the node."""
    place.run(["rm", "-f", f"{CONF}/{name}"])
