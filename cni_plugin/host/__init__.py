"""What pods need of the host itself: desired state, one module for each kind.

Each kind is ensured (by every ADD, and by the agent at each look), checked for what only the operator can
fix, and restored by ``azvnet uninstall``. Owns the list of them. What belongs to one pod is the datapath's.
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
    """Its name in the metric of repairs."""

    def ensure(self, run_dir: Path) -> str:
        """Set what is missing; returns what was done in words, empty if nothing.

        Args:
            run_dir: where the previous values are recorded.

        Raises:
            KernelRefused: it is missing and can't be set from here.
            OSError: it can't be read.
        """
        ...

    def check(self, host: Netlink, *, in_use: bool) -> list[str]:
        """What blocks pods' traffic and is not ours to change, in words.

        Args:
            host: the socket of the host's namespace.
            in_use: pods are attached; before the first, what an ADD ensures may be missing.

        Raises:
            OSError: the kernel does not answer.
        """
        ...

    def recorded(self, run_dir: Path) -> dict[str, str]:
        """The previous values; empty: nothing was changed since boot."""
        ...

    def restore(self, values: dict[str, str], place: Path) -> str:
        """Put back what ``recorded`` says, in the /proc/sys/net at ``place``; in words, empty: nothing to do.

        Raises:
            OSError: it can't be put back.
        """
        ...


STATES: tuple[HostState, ...] = (forwarding,)


def ensure(run_dir: Path) -> None:
    """Set everything that is missing. Raises KernelRefused and OSError, as ``HostState.ensure``."""
    for state in STATES:
        state.ensure(run_dir)


def check(host: Netlink, *, in_use: bool = True) -> list[str]:
    """What blocks pods' traffic and is not ours to change, in words; also what can't be checked.

    Args: as ``HostState.check``.
    """
    found: list[str] = []
    for state in STATES:
        try:
            found += state.check(host, in_use=in_use)
        except OSError as error:
            found.append(f"{state.KIND} can't be checked: {error.strerror}")
    return found
