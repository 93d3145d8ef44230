"""What pods need of the host itself: desired state, one module for each kind.

A kind is made where it is missing (by every ADD, and by the agent at each look), looked at for what only the
operator can put right, and put back as it was by ``azvnet uninstall``. Owns the list of them. What belongs to
one pod is the datapath's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cni_plugin.host import forwarding

if TYPE_CHECKING:
    from cni_plugin.kernel.netlink import Netlink


class HostState(Protocol):
    """One kind of state of the host."""

    KIND: str
    """What the metric of repairs calls it."""

    def ensure(self, run_dir: Path) -> str:
        """Make what is missing; in words, empty when nothing was.

        Args:
            run_dir: where what was before is remembered.

        Raises:
            KernelRefused: it is missing and can't be made from here.
            OSError: whether it is there can't be told.
        """
        ...

    def check(self, host: Netlink) -> list[str]:
        """What is in the way of pods and not ours to change, in words.

        Raises:
            OSError: the kernel does not tell.
        """
        ...

    def recorded(self, run_dir: Path) -> dict[str, str]:
        """What was there before; empty: nothing was changed since the node was started."""
        ...

    def restore(self, values: dict[str, str], place: Path) -> str:
        """Put back what ``recorded`` says, below the /proc/sys/net at ``place``; in words, empty: it is so.

        Raises:
            OSError: it can't be put back.
        """
        ...


STATES: tuple[HostState, ...] = (forwarding,)


def ensure(run_dir: Path) -> None:
    """Make everything that is missing. Raises KernelRefused and OSError, as ``HostState.ensure``."""
    for state in STATES:
        state.ensure(run_dir)


def check(host: Netlink) -> list[str]:
    """What is in the way of pods and not ours to change, in words; what can't be told is said as well."""
    found: list[str] = []
    for state in STATES:
        try:
            found += state.check(host)
        except OSError as error:
            found.append(f"{state.KIND} can't be checked: {error.strerror}")
    return found
