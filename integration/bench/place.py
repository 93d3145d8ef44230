"""A node for one contender, made of namespaces: network, mounts, processes.

Owns what the kernel has to be asked for. It must not know which plugin is measured. It runs inside:
the process enters the namespaces before it starts anything, so no call pays for getting there. When
that process ends, for whatever reason, the kernel ends all the others and takes everything away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from integration.fabric import syscalls as sc

UPLINK_MAC = "00:0d:3a:6e:18:25"
HOST_ADDRESS = "10.240.0.4"
PODS = Path("/run/netns")
OVERLAID = ("/etc", "/var/lib")
"""Folders whose files are the machine's and where writing is for this place alone."""
EMPTY = ("/etc/cni", "/var/lib/cni", "/var/log")
"""Folders that are those of a new node."""

_UPLINK = f"""
link set lo up
link add eth0 address {UPLINK_MAC} type veth peer name fabric0
link set fabric0 up
link set eth0 up
address add {HOST_ADDRESS}/16 dev eth0
route add default via 10.240.0.1 dev eth0
"""


def enter() -> None:
    """Move this process into namespaces of its own, as their first process; returns in there only."""
    sc.die_with_parent(signal.SIGKILL)
    sc.unshare(sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWPID)
    pid = os.fork()
    if pid:
        _stand_by(pid)
    sc.die_with_parent(signal.SIGKILL)
    _mount()
    subprocess.run(["ip", "-batch", "-"], input=_UPLINK, text=True, check=True)


def _stand_by(pid: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the other one too, which ends
    os.close(0)
    os.close(1)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


def _mount() -> None:
    sc.mount("none", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    sc.mount("proc", "/proc", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    sc.mount("sysfs", "/sys", "sysfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    sc.mount("run", "/run", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755")
    for folder in OVERLAID:
        upper, work = (Path(f"/run/overlay{folder}/{part}") for part in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        sc.mount("overlay", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work}")
    for path in EMPTY:
        Path(path).mkdir(parents=True, exist_ok=True)
        sc.mount("tmpfs", path, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755")
    PODS.mkdir()


def make_pod(number: int) -> str:
    """A pod's network namespace, bound to a file as runtimes do; the path of the file."""
    path = PODS / f"pod{number}"
    path.touch()
    failures: list[BaseException] = []

    def make() -> None:
        try:
            sc.unshare(sc.CLONE_NEWNET)
            sc.mount("/proc/thread-self/ns/net", str(path), flags=sc.MS_BIND)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return str(path)


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process and the threads it ever had (proc_pid_stat(5), 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fine_cpu_seconds(pid: int) -> float:
    """The same to the nanosecond, of the threads that live now (Documentation/scheduler/sched-stats)."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def memory_bytes(pid: int) -> tuple[int, int]:
    """Resident memory of a process now, and at its highest (proc_pid_status(5))."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return tuple(int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
