"""What containerd and the tests need of a node: to run programs in its namespaces."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence


class Place(Protocol):
    """A network namespace with a private mount namespace in which programs are started."""

    @property
    def name(self) -> str:
        """Unique among the nodes of one fabric."""

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. Raises CalledProcessError when ``check``."""

    def popen(
        self, argv: Sequence[str], *, stdout: IO[str] | int | None = None, stderr: IO[str] | int | None = None
    ) -> subprocess.Popen[str]:
        """Start a program; the process id is the program's own."""
