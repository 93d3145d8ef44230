"""The process that a node is: the machine outside, one boot of it inside.

Run as a program of its own. The outer process is the machine with its disk (a tmpfs in its private
mount namespace); it obeys requests on a socket and ends when the other side closes it. The inner
process is pid 1 of one boot: new network, mount, host name and process namespaces. When either ends,
for whatever reason, the kernel ends every process of the node, so nothing can be left behind.

Standard library only; it must not know Azure.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from integration.fabric import syscalls as sc

KEPT = (
    "/etc/cni/net.d",
    "/etc/kubernetes",
    "/opt/cni/bin",
    "/var/lib/azvnet",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/azvnet",
)
"""Folders of a node's own that are empty at first and survive a reboot."""

COPIED = ("/etc", "/opt", "/var/lib", "/var/log")
"""Folders where a node sees the machine's files, and writes only for itself."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"
CGROUPS = "/sys/fs/cgroup"


def main() -> NoReturn:
    """``holder DISK FD``: be a machine until the other side of the socket is closed."""
    disk, channel = sys.argv[-2], socket.socket(fileno=int(sys.argv[-1]))
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount("none", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    sc.mount("disk", disk, "tmpfs", sc.MS_NODEV, "mode=755")
    own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    boot = 0
    for line in channel.makefile("r", encoding="utf-8"):
        request = json.loads(line)
        boot = _end(boot)
        if request["do"] == "boot":
            boot, answer = _boot(disk, request, own_pid_namespace, channel)
        else:
            answer = {}
        channel.sendall(json.dumps(answer).encode() + b"\n")
    _end(boot)
    os._exit(0)


def _end(boot: int) -> int:
    """Pull the plug, and wait until every process of the boot is gone."""
    if boot:
        os.kill(boot, signal.SIGKILL)
        os.waitpid(boot, 0)
    return 0


def _boot(
    disk: str, request: dict[str, Any], own_pid_namespace: int, channel: socket.socket
) -> tuple[int, dict[str, Any]]:
    """Start the inner process and wait until its namespaces are ready."""
    ready, tell = os.pipe()
    sc.unshare(sc.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        channel.close()
        _inner(disk, request, tell)
    # A process can unshare its children's process namespace only while it is its own one.
    sc.setns(own_pid_namespace, sc.CLONE_NEWPID)
    os.close(tell)
    with os.fdopen(ready, "rb") as report:
        answer = json.loads(report.read() or b'{"error": "the holder died"}')
    if "error" in answer:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 0, answer
    return pid, {"pid": pid}


def _inner(disk: str, request: dict[str, Any], tell: int) -> NoReturn:
    try:
        sc.die_with_parent(signal.SIGKILL)
        sc.unshare(sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWUTS)
        sc.set_hostname(request["hostname"])
        _mount_all(disk, request)
        answer = {"pid": os.getpid()}
    except (OSError, KeyError) as error:
        answer = {"error": str(error)}  # type: ignore[dict-item]
    # Children of pid 1 that nobody waits for must not stay as zombies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(tell, json.dumps(answer).encode())
    os.close(tell)
    while True:
        signal.pause()


def _mount_all(disk: str, request: dict[str, Any]) -> None:
    sc.mount("none", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    for folder in COPIED:
        _mount_copy(disk, folder)
    for folder in KEPT:
        own = _folder(disk + "/kept" + folder)
        sc.mount(own, _folder(folder), flags=sc.MS_BIND)
    _write_files(request["files"])
    _append(request["append"])
    _mount_kernel_views(disk)
    _mount_boot_id(disk, request["boot_id"])
    for folder in request["empty"]:
        sticky = folder == "/tmp"
        sc.mount("tmpfs", folder, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=1777" if sticky else "mode=755")
    Path("/run/lock").mkdir(exist_ok=True)
    sc.mount("none", "/", flags=sc.MS_REC | sc.MS_SHARED)


def _mount_copy(disk: str, folder: str) -> None:
    upper, work = (_folder(f"{disk}/copied{folder}/{part}") for part in ("upper", "work"))
    sc.mount("overlay", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work}")


def _write_files(files: dict[str, str]) -> None:
    """Write files of /etc; a link in their place (resolv.conf often is one) is replaced."""
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content, encoding="utf-8")


def _append(texts: dict[str, str]) -> None:
    """Add to files that exist, once."""
    for name, text in texts.items():
        path = Path(name)
        if path.exists() and text not in (content := path.read_text(encoding="utf-8")):
            path.write_text(content + text, encoding="utf-8")


def _mount_kernel_views(disk: str) -> None:
    """Proc and sysfs show the namespaces of who mounts them; a new sysfs hides the cgroups."""
    sc.mount("proc", "/proc", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    aside = _folder(disk + "/cgroups") if Path(CGROUPS).is_dir() else ""
    if aside:
        sc.mount(CGROUPS, aside, flags=sc.MS_BIND | sc.MS_REC)
    sc.mount("sysfs", "/sys", "sysfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    if aside:
        sc.mount(aside, CGROUPS, flags=sc.MS_BIND | sc.MS_REC)
        sc.unmount(aside)


def _mount_boot_id(disk: str, boot_id: str) -> None:
    own = Path(disk) / "boot_id"
    own.write_text(boot_id + "\n", encoding="ascii")
    sc.mount(str(own), BOOT_ID, flags=sc.MS_BIND)
    sc.mount("none", BOOT_ID, flags=sc.MS_BIND | sc.MS_REMOUNT | sc.MS_RDONLY)


def _folder(path: str) -> str:
    Path(path).mkdir(parents=True, exist_ok=True)
    return path
