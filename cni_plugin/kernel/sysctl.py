"""Settings below /proc/sys/net of the calling thread's network namespace.

Owns reading and writing them, also from a container, and what is set on every host veth this way. It must not
know why a setting is needed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cni_plugin.cni.errors import TEMPORARY, KernelRefused
from cni_plugin.kernel.netlink import rtnl

PLACE = Path("/proc/sys/net")
PLACE_IN_POD = Path("/host/proc/sys/net")
"""A runtime mounts ``/proc/sys`` read-only in a container that is not privileged; the agent's manifest mounts
the host's once more. Both show the network namespace of whoever looks a file up (proc_sysctl.c)."""


def disable_ipv6(ifname: str) -> None:
    """Disable IPv6 on a link (ip-sysctl.rst, ``disable_ipv6``), before the other end goes up.

    Otherwise an IPv4-only pod can still speak IPv6 with its host: a host that does not forward IPv6 accepts
    the pod's router advertisements, and the pod can fill its neighbour table. Netlink has no message for it.
    A host without IPv6 has no such file.

    Raises:
        KernelRefused: it is not disabled and can't be. No pod is better than one that can redirect its host.
        OSError: it may be possible later.
    """
    name = f"ipv6/conf/{ifname}/disable_ipv6"
    try:
        with rtnl:
            write(name, "1")
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in TEMPORARY:
            raise
        if read(name) != "1":
            raise KernelRefused(
                f"net.ipv6.conf.{ifname}.disable_ipv6 can't be set: {error.strerror}",
                "In a container, mount the host's /proc/sys/net at /host/proc/sys/net, as the shipped "
                "manifest does; or set net.ipv6.conf.default.disable_ipv6=1.",
            ) from error


def read(name: str) -> str:
    """The value of a setting. Raises OSError. A file object would take three times as long."""
    fd = os.open(f"{PLACE}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)


def write(name: str, value: str) -> None:
    """Set one, at the first path that works. Raises OSError."""
    try:
        _write_to(f"{PLACE}/{name}", value)
    except OSError as error:
        if error.errno != errno.EROFS or not PLACE_IN_POD.is_dir():
            raise
        _write_to(f"{PLACE_IN_POD}/{name}", value)


def _write_to(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
