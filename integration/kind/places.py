"""Where the kind cluster keeps its things, and what its error is. Must not know what is kept."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "kind"
"""Everything on disk; only this folder outlives a cluster."""
NAME = "azvnet"
"""Of the cluster, so that nobody's own ``kind`` cluster is touched."""
DAEMON = "kind"
"""Of our dockerd among the fabrics of this machine (`records`)."""
KUBECONFIG = CACHE / "kubeconfig"
ENVIRONMENT = CACHE / "env"
LOGS = CACHE / "logs"


class KindError(RuntimeError):
    """The cluster could not be made or changed; the message says what failed and where its log is."""
