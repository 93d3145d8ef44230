"""Which CNI executables a node has: ours from the frozen bundle, and the reference plugins.

Owns the content of a node's /opt/cni/bin and /etc/cni/net.d. Must not know what the plugins do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.tools import REFERENCE_PLUGINS, tools

if TYPE_CHECKING:
    from integration.fabric import Machine

BUNDLE = Path(__file__).parents[1] / "dist" / "azvnet"
OPERATOR = BUNDLE.with_name("azvnet-operator")
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


def operator_bundle() -> Path:
    """The folder of the frozen operator. Raises BundleError."""
    if not (OPERATOR / "azvnet").exists():
        raise BundleError(f"{OPERATOR} does not hold the executable; run: make operator")
    return OPERATOR


def install_ours(node: Machine) -> None:
    """Link our two plugins into the node: one program that is told apart by its name."""
    folder = bundle()
    node.run(["mkdir", "-p", BIN])
    for name in OURS:
        program = folder / name if (folder / name).exists() else folder / "azvnet"
        node.run(["ln", "-sfn", str(program), f"{BIN}/{name}"])


def install_reference(node: Machine) -> None:
    """Link the reference plugins into the node. Raises ToolsError."""
    folder = tools()
    node.run(["mkdir", "-p", BIN])
    node.run(["ln", "-sf", *(str(folder / name) for name in REFERENCE_PLUGINS), BIN])


def write_conflist(node: Machine, conflist: dict[str, Any], *, name: str = "10-azvnet.conflist") -> None:
    """Put a network configuration list into the node, whole or not at all."""
    node.run(["mkdir", "-p", CONF])
    node.run(["tee", f"{CONF}/.{name}"], input=json.dumps(conflist, indent=2))
    node.run(["mv", f"{CONF}/.{name}", f"{CONF}/{name}"])


def remove_conflist(node: Machine, *, name: str = "10-azvnet.conflist") -> None:
    """Take a network configuration list out of the node."""
    node.run(["rm", "-f", f"{CONF}/{name}"])
