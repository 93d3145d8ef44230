"""The plugin in the nodes of a fabric, ready to be tried from a shell.

The fabric itself knows no plugin; this is what the command line adds for people.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.fabric.fabric import Fabric

CONFLIST = Path(__file__).parents[2] / "conf" / "10-azvnet.conflist"


def install(fabric: Fabric) -> None:
    """Put the built plugin, and cnitool and the reference plugins where they are built, into all nodes.

    Raises:
        plugins.BundleError: the plugin is not built; says how to.
    """
    from integration import plugins
    from integration.tools import ToolsError, tools

    conflist = json.loads(CONFLIST.read_text(encoding="utf-8"))
    try:
        cnitool = tools() / "cnitool"
    except ToolsError:
        cnitool = None
        conflist["plugins"] = conflist["plugins"][:1]
    for node in fabric.nodes.values():
        plugins.install_ours(node)
        plugins.write_conflist(node, conflist)
        if cnitool is not None:
            plugins.install_reference(node)
            node.run(["ln", "-sf", str(cnitool), "/opt/cni/bin/cnitool"])
