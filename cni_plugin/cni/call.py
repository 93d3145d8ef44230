"""A call and its reply, raw and parsed.

Owns what is common to both ways in which a call arrives (environment and stdin of the executable, the agent's
socket), and the input of every verb. It must not know what a verb does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ipam.value import Value, field

if TYPE_CHECKING:
    from cni_plugin.cni.netconf import NetConf
    from cni_plugin.cni.params import Parameters
    from cni_plugin.datapath.names import Names


DELEGATED_BY = "AZVNET_DELEGATED_BY"
"""Environment variable that this plugin sets for the IPAM plugin it runs. A call that has it was caused by
this plugin: handling it would delegate again, in an endless loop."""
MOST_STDIN_BYTES = 256 * 1024
"""Ample for a network configuration with a prevResult, or with the two thousand attachments of a GC. A JSON
document may take thirty times its size in memory.
"""


def _always() -> bool:
    return True


class Call(Value):
    """A call as the runtime made it."""

    environ: Mapping[str, str]
    stdin: bytes
    netns_fd: int | None = None
    """CNI_NETNS, opened by the process that the runtime started; None if it is unset or can't be opened."""
    as_ipam: bool = False
    """Called by the name ``azvnet-ipam``."""
    call_id: str = ""
    """Correlation id, in logs and the ``details`` of errors. A call that is repeated because the agent died
    keeps its id."""
    caller_alive: Callable[[], bool] = _always
    """Whether the caller still waits for the reply; an abandoned ADD is rolled back."""


class VerbCall(Value):
    """A call, checked and parsed: what a verb works with."""

    call: Call
    parameters: Parameters
    netconf: NetConf
    names: Names
    """The attachment's names in the kernel."""
    warnings: list[str] = field(default_factory=list)
    """For the caller's stderr and the log."""


class Reply(Value):
    """The reply to a call, as the runtime gets it."""

    stdout: bytes = b""
    exit_code: int = 0
    warnings: tuple[str, ...] = ()
    """Lines for stderr."""
    error: BaseException | None = None
    """What went wrong, for the log."""
    log_level: str = ""
    """``logLevel`` of the netconf; empty where it was not read."""
    log_file: str = ""
    """``logFile`` of the netconf; empty for the default."""
