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


ADDRESSES_BY_HAND = "1"
"""IN6_ADDR_GEN_MODE_NONE: the link gets no address by itself."""
HOST_IPV6 = (
    ("addr_gen_mode", -1, ADDRESSES_BY_HAND),
    ("accept_ra", 3, "0"),
    ("accept_redirects", 4, "0"),
    ("force_forwarding", 59, "1"),
    ("disable_ipv6", 26, "0"),
)
"""IPv6 settings of the host veth of a pod that has IPv6 (ip-sysctl.rst): name, DEVCONF_*, value. From Linux
6.17 on ``force_forwarding`` has what comes in by a link forwarded; older kernels forward for all or none."""
POD_IPV6 = (("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0"))
"""The same for a pod's end: no router but the node, no waiting for its link-local address."""


def prepare_host_ipv6(ifname: str) -> None:
    """Set ``HOST_IPV6`` on a link, before the other end goes up.

    Raises:
        KernelRefused: the kernel has no IPv6, or one can't be set.
        OSError: it may be possible later.
    """
    for name, _, value in HOST_IPV6:
        _set_ipv6(ifname, name, value, optional=name == "force_forwarding")


def prepare_pod_ipv6(ifname: str) -> None:
    """Set ``POD_IPV6`` on a link of the calling thread's namespace, and let its ``lo`` deliver what the pod
    sends to itself. Raises as ``prepare_host_ipv6``.
    """
    for name, value in POD_IPV6:
        _set_ipv6(ifname, name, value)
    _set_ipv6("lo", "disable_ipv6", "0")


def _set_ipv6(ifname: str, name: str, value: str, *, optional: bool = False) -> None:
    path = f"ipv6/conf/{ifname}/{name}"
    try:
        if read(path) != value:
            with rtnl:
                write(path, value)
    except OSError as error:
        if error.errno in TEMPORARY:
            raise
        if isinstance(error, FileNotFoundError) and optional:
            return
        what = f"net.ipv6.conf.{ifname}.{name} can't be set: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            raise KernelRefused(
                f"{what} (does this kernel have IPv6?)",
                "Pods of this network get IPv6 addresses (`ipam.families`): do not boot with ipv6.disable=1.",
            ) from error
        raise KernelRefused(
            what,
            "In a container, mount the host's /proc/sys/net at /host/proc/sys/net, as the shipped manifest "
            "does.",
        ) from error


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
