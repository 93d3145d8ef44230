"""A call and its reply, raw and parsed.

Owns what both ways a call can come (the executable's own environment and stdin, the agent's socket) have in
common, and what every verb is given. It must not know what a verb does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ipam.value import Value, field

if TYPE_CHECKING:
    from cni_plugin.cni.netconf import NetConf
    from cni_plugin.cni.params import Parameters
    from cni_plugin.datapath import Datapath
    from cni_plugin.datapath.names import Names


DELEGATED_BY = "AZVNET_DELEGATED_BY"
"""Environment variable that this plugin sets for the IPAM plugin it runs. A call that has it comes from this
plugin, in whatever way: if it were handled, it would delegate again, without end."""
MOST_STDIN_BYTES = 256 * 1024
"""What a network configuration can reasonably be, with the result of the plugin before, or the attachments of
a GC, of which there is room for two thousand. A JSON document may take thirty times its size in memory.
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
    """Whether anybody still waits for the reply; an ADD that nobody waits for is rolled back."""


class VerbCall(Value):
    """A call, checked and parsed: what a verb works with."""

    call: Call
    parameters: Parameters
    netconf: NetConf
    names: Names
    """What the attachment is called in the kernel."""
    warnings: list[str] = field(default_factory=list)
    """For the caller's stderr and the log."""

    @property
    def datapath(self) -> Datapath:
        """How this network connects its pods."""
        from cni_plugin.datapath import for_mode

        return for_mode(self.netconf.mode)


class Reply(Value):
    """The answer to a call, as the runtime gets it."""

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
