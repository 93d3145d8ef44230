"""The node on which calls are handled: its state directory, its pool, its netlink socket.

Owns what outlives a verb. The executable creates one for one call, the agent one for all. It must not know
verbs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.kernel import locks, rules
from cni_plugin.kernel.family import IPV4, Family
from cni_plugin.kernel.netlink import Deleter, Netlink
from ipam.ipam import BOOT_ID_FILE, Ipam

RUN_DIR = "/run/azvnet"
LIB_DIR = "/var/lib/azvnet"


if TYPE_CHECKING:
    from cni_plugin.kernel.host_cache import KnownHost
    from cni_plugin.kernel.rules import RoutingRule
    from ipam.model import Listing, SourceConfig

    Reader = Callable[[SourceConfig, float, str], Listing]


class Node:
    """Where calls find the pool, the host's netlink socket and the state directory.

    Any number of threads may use one: each has a netlink socket of its own.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        reader: Reader | None = None,
        background_reads: bool = False,
        deleter: Deleter | None = None,
        known_host: KnownHost | None = None,
    ) -> None:
        given = environ.get("AZVNET_RUN_DIR")
        self.run_dir = Path(given or RUN_DIR)
        lasting = Path(environ.get("AZVNET_LIB_DIR") or given or LIB_DIR)
        boot_id_file = Path(environ.get("AZVNET_BOOT_ID_FILE") or BOOT_ID_FILE)
        self.ipam = Ipam(self.run_dir, boot_id_file=boot_id_file, reader=reader)
        self.ipam.lasting = lasting
        self.view = Ipam(self.run_dir, boot_id_file=boot_id_file, read_only=True)
        """The same pool, read-only: nothing is created or repaired, and no call is waited for."""
        self.background_reads = background_reads
        """Whether the agent keeps the pool fresh, so that no call has to."""
        self.deleter = deleter
        """Deletes links without waiting for the kernel's last step; None: the caller does."""
        self.known_host = known_host
        """Cached state of the host; None: each call reads everything."""
        self.outlook: Callable[[str], str] | None = None
        """Called for each pod (``namespace/name``) that found no address; returns, in words, what is done
        about it. None: nothing is."""
        self._rules: dict[int, list[RoutingRule]] = {}
        self._local = threading.local()

    @property
    def host(self) -> Netlink:
        """The calling thread's netlink socket in the host's namespace."""
        existing: Netlink | None = getattr(self._local, "netlink", None)
        if existing is None:
            existing = self._local.netlink = Netlink(deleter=self.deleter)
        return existing

    def routing_rules(self, family: Family = IPV4, *, again: bool = False) -> list[RoutingRule]:
        """The host's routing rules of a family. The executable reads them once; ``again``: they may have
        changed. Raises OSError: they can't be read.
        """
        if self.known_host is not None:
            return self.known_host.rules(self.host, family)
        if again or not self._rules.get(family.number) or self.background_reads:
            self._rules[family.number] = rules.dumped(self.host, family)
        return self._rules[family.number]

    def ensure_run_dir(self) -> None:
        """As ``locks.ensure_directory``, for what needs it without having an attachment's lock."""
        if not self.run_dir.is_dir():
            locks.ensure_directory(self.run_dir)

    def close(self) -> None:
        """Close what is open in this thread."""
        existing: Netlink | None = getattr(self._local, "netlink", None)
        if existing is not None:
            existing.close()
            del self._local.netlink
