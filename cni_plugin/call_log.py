"""What is logged of a call, whether the agent or the executable handles it.

Owns the choice of fields. It must not write (``log`` does), and logs nothing of stdin: a configuration can
contain secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cni_plugin import log
from cni_plugin.cni.call import Call, Reply
from cni_plugin.cni.errors import CniError

DEFAULT_FILE = f"{log.DIRECTORY}/azvnet.log"


def default_file(environ: Mapping[str, str]) -> Path:
    """Where calls are logged when the netconf names no other file."""
    return _path(environ.get("AZVNET_LOG_FILE") or DEFAULT_FILE)


@lru_cache(maxsize=16)  # the same for nearly every call
def _path(name: str) -> Path:
    return Path(name)


def record(environ: Mapping[str, str], call: Call | None, reply: Reply, seconds: float, *, by: str) -> None:
    """Log one call: attachment, verb, duration, outcome."""
    failed = reply.error
    fields: dict[str, Any] = {
        "call": call.call_id if call else "",
        "verb": environ.get("CNI_COMMAND", ""),
        "plugin": "azvnet-ipam" if call and call.as_ipam else "azvnet",
        "container": environ.get("CNI_CONTAINERID", ""),
        "ifname": environ.get("CNI_IFNAME", ""),
        "netns": environ.get("CNI_NETNS", ""),
        "by": by,
        "ms": round(seconds * 1000, 1),
        "exit": reply.exit_code,
    }
    if failed is not None:
        fields["error"] = str(failed)
        if not isinstance(failed, CniError):
            fields["traceback"] = log.traceback_of(failed)
    if reply.warnings:
        fields["warnings"] = list(reply.warnings)
    level = "error" if failed is not None else "warning" if reply.warnings else "info"
    path = _path(reply.log_file) if log.is_allowed(reply.log_file) else default_file(environ)
    log.write_record(path, level, reply.log_level or "info", **fields)
