"""A real dockerd in namespaces of its own: its bridges, packet filters, mounts and processes stay in there.

Owns what of this machine it must not reach: folders it would write to, kernel modules, cgroups. Nothing
of it survives the process that started it, whatever ends that one. Must not know kind or Kubernetes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.containerd import cgroups
from integration.fabric import records
from integration.fabric.machine import Machine
from integration.fabric.model import IMDS
from integration.kind import programs
from integration.kind.places import CACHE, DAEMON, LOGS, KindError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

SOCKET = "/run/docker.sock"
DATA = CACHE / "docker"
"""Images and layers; they make the next start quick."""
_LOG = LOGS / "dockerd.log"
_READY_SECONDS = 60.0
_END_SECONDS = 30.0
_CAP_SYS_RESOURCE = 24

_RUNTIME = """\
#!/bin/sh
# dockerd asks for every capability that the kernel knows for a privileged container, and runc refuses to
# grant one that this machine lacks: CAP_SYS_RESOURCE. So it is taken out of what runc is asked for.
last=
for word; do
    case $last in
        --bundle) sed -i 's/"CAP_SYS_RESOURCE",//g; s/,"CAP_SYS_RESOURCE"//g' "$word/config.json" ;;
        --process) sed -i 's/"CAP_SYS_RESOURCE",//g; s/,"CAP_SYS_RESOURCE"//g' "$word" ;;
    esac
    last=$word
done
exec runc "$@"
"""


class Daemon:
    """dockerd and the machine that it believes to be on: `up`, and `down`, which leaves images only."""

    def __init__(self) -> None:
        self.name = DAEMON
        self.commands: dict[str, Callable[..., Any]] = {}
        """What its control socket answers."""
        self.machine = Machine(_no_vm, self.name, records.root() / DAEMON / "machine", reboot=_no_reboot)
        self.group = f"/{DAEMON}-nodes"
        """Parent of its containers' cgroups, in every hierarchy; `records.remove` knows such names."""
        self._dockerd: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def up(self) -> None:
        """Start it, without containers of an earlier run.

        Raises:
            KindError: it did not start; the message ends with its log.
            records.FabricExists: it runs already.
        """
        folder = programs.docker()
        records.claim(self.name)
        try:
            self._boot()
            self._keep_from_machine()
            self._start(folder)
            self._await_answer(folder)
            self._remove_containers(folder)  # of a run that was killed
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End everything; repeatable."""
        with contextlib.ExitStack() as steps:  # the last pushed runs first, each runs whatever happens
            steps.callback(records.remove, self.name)
            steps.callback(cgroups.remove, self.group)
            steps.callback(self.machine.power_off)
            if self._log is not None:
                steps.callback(self._log.close)
            steps.callback(self._end_dockerd)
            if self._dockerd is not None and self._dockerd.poll() is None:
                steps.callback(self._remove_containers, programs.docker())

    def _boot(self) -> None:
        machine = self.machine
        machine.power_on()
        # An empty resolv.conf would lead Docker's name server to one on the internet.
        machine.ask_boot({"/etc/resolv.conf": "nameserver 127.0.0.1\n"}, trust="")
        machine.await_boot()
        holders = tuple(records.Process.of(pid) for pid in machine.process_ids)
        records.write(records.Record(self.name, records.Process.of(os.getpid()), True, holders))
        machine.run_batch(["link set lo up", f"address add {IMDS}/32 dev lo"])

    def _keep_from_machine(self) -> None:
        """Hide /lib/modules, which kind mounts into its nodes: where it is missing, dockerd would make it."""
        if Path("/lib/modules").exists():
            return
        above = Path("/lib").resolve()
        self.machine.run(["mkdir", "-p", "/run/modules/upper/modules", "/run/modules/work"])
        layers = f"lowerdir={above},upperdir=/run/modules/upper,workdir=/run/modules/work"
        self.machine.run(["mount", "-t", "overlay", "-o", layers, "overlay", str(above)])

    def _start(self, folder: Path) -> None:
        for each in (DATA, LOGS):
            each.mkdir(parents=True, exist_ok=True)
        inside = f"{programs.search_path(folder)}:{os.environ['PATH']}:/usr/sbin:/sbin"
        command = ["dockerd", f"--data-root={DATA}", "--exec-root=/run/docker", "--pidfile=/run/docker.pid"]
        command += [f"--host=unix://{SOCKET}", f"--cgroup-parent={self.group}", "--oom-score-adjust=0"]
        command += ["--exec-opt=native.cgroupdriver=cgroupfs"]
        if not _may_raise_limits():
            runtime = "/run/runc-without-sys-resource"
            self.machine.run(["install", "-m", "755", "/dev/stdin", runtime], input=_RUNTIME)
            command += [f"--add-runtime=limited={runtime}", "--default-runtime=limited"]
        self._log = _LOG.open("w", encoding="utf-8")
        environment = {"PATH": inside, "LD_LIBRARY_PATH": programs.library_path(folder)}
        self._dockerd = self.machine.popen(
            ["env", *command], stdout=self._log, stderr=subprocess.STDOUT, env=environment
        )

    def _await_answer(self, folder: Path) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while self._docker(folder, "version").returncode:
            if self._dockerd is None or self._dockerd.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(_LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
                raise KindError(f"dockerd does not answer; its log: {_LOG}\n{tail}")
            time.sleep(0.1)

    def _remove_containers(self, folder: Path) -> None:
        """All of them, with their volumes: their data is large, and images are all that is used again."""
        if stale := self._docker(folder, "ps", "--all", "--quiet").stdout.split():
            self._docker(folder, "rm", "--force", "--volumes", *stale)
        self._docker(folder, "volume", "prune", "--force")

    def _docker(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "usr/bin/docker"), f"--host=unix://{SOCKET}", *arguments]
        return self.machine.run(command, check=False, timeout=120)

    def _end_dockerd(self) -> None:
        if self._dockerd is None or self._dockerd.poll() is not None:
            return
        self._dockerd.send_signal(signal.SIGTERM)  # it unmounts and stores what it knows
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._dockerd.wait(_END_SECONDS)


def host(pid: int) -> str:
    """``DOCKER_HOST`` for programs of this machine; ``pid`` is the first process of the daemon's machine."""
    return f"unix:///proc/{pid}/root{SOCKET}"


def _may_raise_limits() -> bool:
    bounding = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:")
    )
    return bool(int(bounding.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)


def _no_vm() -> Any:
    raise KindError("Docker's machine is none of the emulated cloud's")


def _no_reboot(_: str) -> None:
    raise KindError("Docker's machine does not reboot: make kind-down, make kind")
