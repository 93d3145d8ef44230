"""How the agent reaches the API server of the cluster, and as which node: as settings and environment say.

It must not know what is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ipam.provision.api_client import ApiAccess

if TYPE_CHECKING:
    from cni_plugin.agent.settings import ProvisionSettings

LASTING_SECONDS = 60.0
"""An API server that does not answer for so long is a problem to be told."""


def access(environ: Mapping[str, str], wanted: ProvisionSettings) -> ApiAccess:
    """Where the API server is: as the settings say, or as Kubernetes tells every pod."""
    url = wanted.api.server
    if not url and (host := environ.get("KUBERNETES_SERVICE_HOST")):
        port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
        url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return ApiAccess(url.rstrip("/"), Path(wanted.api.token_file), wanted.api.ca_file)


def node_name(environ: Mapping[str, str], wanted: ProvisionSettings) -> str:
    """Of the Kubernetes node that this is."""
    return wanted.node_name or environ.get("NODE_NAME") or os.uname().nodename.lower()


def may_ask(environ: Mapping[str, str], wanted: ProvisionSettings) -> bool:
    """Whether the agent is meant to ask: the settings name the server, or its pod was given a token."""
    found = access(environ, wanted)
    return bool(found.url) and (bool(wanted.api.server) or found.token_file.exists())
