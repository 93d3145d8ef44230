"""What a machine is like, as comparable facts: what a kind cluster must not change.

Owns taking and comparing. Other people's processes and containers may come and go meanwhile, so of
processes only our own descendants count, and of cgroups those without any process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 20.0
_CHANGE_BY_THEMSELVES = re.compile(
    r"^kernel/(random/|ns_last_pid|pty/nr|tainted)|^fs/(dentry-state|inode-(nr|state)|file-nr|aio-nr|quota/)"
    r"|_count$|fastopen_key|^net/ipv[46]/(route/flush|conf/.*stable_secret)|^vm/stat_refresh|^debug/"
)
_OF_EMULATED_NODES = re.compile(r"/azvnet-\d+-[0-9a-f]+(/|$)")
_PLACES = (
    "/etc/cni",
    "/etc/docker",
    "/etc/kubernetes",
    "/lib/modules",
    "/opt/cni",
    "/opt/containerd",
    "/run/containerd",
    "/run/docker",
    "/run/docker.sock",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "~/.kube",
    "~/.docker",
    "~/.cache/helm",
    "~/.config/helm",
    "~/.local/share/helm",
)
"""Files and folders that Docker, containerd, the kubelet, kubectl and helm write where nobody stops them."""


def adopt_orphans() -> None:
    """Let every process that descends from this one stay a descendant of it (prctl(2)), and wait for it.

    Somebody has to wait for orphans: a process namespace ends only when all its processes were waited for.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    threading.Thread(target=_wait_for_orphans, name="orphans", daemon=True).start()


def _wait_for_orphans() -> None:
    while True:
        for pid, stat in _stats():
            is_ours = stat.parent == os.getpid() and stat.state == "Z"
            # What this process starts itself is in its session, or leads one; that is waited for elsewhere.
            if is_ours and stat.session not in (os.getsid(0), pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class _Stat:
    """What proc(5) says of a process in ``stat``."""

    state: str
    parent: int
    session: int


def _stats() -> Iterator[tuple[int, _Stat]]:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            yield int(entry.name), _Stat(fields[0], int(fields[1]), int(fields[3]))


def snapshot() -> frozenset[str]:
    """Facts, one line each: ``link …``, ``mount …``, ``process …``."""
    readers = (_processes, _mounts, _network, _sysctls, _cgroups, _files)
    return frozenset(fact for read in readers for fact in read())


def changes(before: frozenset[str]) -> list[str]:
    """What is not as it was, after some seconds for what is still ending: ``+`` came, ``-`` went."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        now = snapshot()
        # A cgroup of somebody else may go at any time.
        gone = {fact for fact in before - now if not fact.startswith("cgroup ")}
        found = sorted([f"+ {fact}" for fact in now - before] + [f"- {fact}" for fact in gone])
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _processes() -> Iterator[str]:
    """Our descendants that run."""
    parents: dict[int, list[int]] = {}
    for pid, stat in _stats():
        if stat.state != "Z":
            parents.setdefault(stat.parent, []).append(pid)
    waiting = list(parents.get(os.getpid(), ()))
    while waiting:
        pid = waiting.pop()
        waiting += parents.get(pid, ())
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            yield f"process {pid} {words.decode(errors='replace')[:120]}"


def _mounts() -> Iterator[str]:
    """Those outside of the folders in which other tests may work."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, _, at, options, *_ = before.split()
        if not at.startswith("/tmp/pytest-of-"):
            yield f"mount {at} {options} {after}"


def _network() -> Iterator[str]:
    for link in json.loads(_output("ip", "-json", "address")):
        if link:
            yield f"link {link['ifname']} mtu={link['mtu']} {sorted(f for f in link['flags'])}"
            for address in link.get("addr_info", ()):
                yield f"address {link['ifname']} {address['local']}/{address['prefixlen']}"
    for family in ("-4", "-6"):
        yield from (
            f"route {line}" for line in _output("ip", family, "route", "show", "table", "all").splitlines()
        )
        yield from (f"rule {family} {line}" for line in _output("ip", family, "rule").splitlines())
    yield from (
        f"nft {line.strip()}" for line in _output("nft", "--stateless", "list", "ruleset").splitlines()
    )
    for tool in ("iptables-legacy-save", "ip6tables-legacy-save"):
        lines = _output(tool).splitlines()
        yield from (f"{tool} {line}" for line in lines if line[:1] not in ("#", ":"))


def _sysctls() -> Iterator[str]:
    root = Path("/proc/sys")
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            key = str(path.relative_to(root))
            if not _CHANGE_BY_THEMSELVES.search(key):
                with contextlib.suppress(OSError):  # some can only be written
                    yield f"sysctl {key} = {path.read_text(errors='replace').strip()}"


def _cgroups() -> Iterator[str]:
    """Those in which no process is, nor below; those of emulated nodes belong to another test run."""
    for folder, below, _ in os.walk("/sys/fs/cgroup", topdown=False):
        path = Path(folder)
        procs = path / "cgroup.procs"
        with contextlib.suppress(OSError):
            is_empty = procs.exists() and not below and not procs.read_text().strip()
            if is_empty and not _OF_EMULATED_NODES.search(folder):
                yield f"cgroup {path}"


def _files() -> Iterator[str]:
    for place in _PLACES:
        path = Path(place).expanduser()
        if path.is_dir():
            yield f"file {place}/"
            yield from (f"file {place}/{found.relative_to(path)}" for found in path.rglob("*"))
        elif path.exists():
            yield f"file {place}"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
