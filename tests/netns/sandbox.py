"""One test's machine: namespaces of its own, the pods in them, and programs inside.

A holder process keeps a network and a mount namespace alive, with empty /run and /var/log and an /etc that
is written for this machine alone; the kernel takes everything away when the holder ends. It must not know
what a plugin is. Descriptors lead into the namespaces, so nothing of the real machine is ever named.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from integration.fabric import syscalls as sc

T = TypeVar("T")

SECONDS = 60
"""How long a program inside may take before the test is failed by its being killed."""

NETNS_DIR = "/run/netns"
CLONE_NEWTIME = 0x80
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


@dataclass(frozen=True, slots=True)
class Pod:
    """A network namespace with a container id."""

    container_id: str
    netns: str
    """Path of its namespace, as the machine sees it."""
    sandbox: Sandbox

    def ip(self, *arguments: str) -> list[dict[str, Any]]:
        """What ``ip -json`` prints in the pod."""
        return self.sandbox.ip("-n", Path(self.netns).name, *arguments)

    def change(self, *lines: str) -> None:
        """``ip -batch`` in the pod."""
        self.sandbox.batch(*lines, namespace=Path(self.netns).name)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A program in the pod's network, with the machine's files."""
        return self.sandbox.run("ip", "netns", "exec", Path(self.netns).name, *argv)

    def remove(self) -> None:
        """Take the namespace away, as a runtime does that stops a pod."""
        self.sandbox.do(lambda: sc.unmount(self.netns), Path(self.netns).unlink)


class Sandbox:
    """A machine. ``close`` ends every process in it."""

    def __init__(self) -> None:
        ready, tell = os.pipe()
        self.holder = os.fork()
        if self.holder == 0:
            os.close(ready)
            _hold(tell)
        os.close(tell)
        with os.fdopen(ready, "rb") as report:
            said = report.read().decode()
        self.clock_ahead = 0
        """Seconds by which the clocks of processes started from now on go ahead of the real ones."""
        self._running: list[Forked] = []
        self._fds: list[int] = []
        if said != "ready":
            self.close()
            raise RuntimeError(f"a sandbox can't be made here: {said}")
        for kind in ("net", "mnt"):
            self._fds.append(os.open(f"/proc/{self.holder}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """End the processes inside and let the namespaces go."""
        for each in self._running:
            each.kill()
        if self._fds:
            for pid in _processes_in(os.fstat(self._fds[1]).st_ino):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.holder, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.holder, 0)
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def enter(self) -> None:
        """Move the calling process in; for a child that has just been forked."""
        net, mnt = self._fds
        sc.setns(mnt, sc.CLONE_NEWNS)
        sc.setns(net, sc.CLONE_NEWNET)
        if self.clock_ahead:
            _advance_clocks(self.clock_ahead)

    def path(self, inside: str) -> Path:
        """A file of the machine, as this process can reach it."""
        return Path(f"/proc/{self.holder}/root{inside}")

    def write(self, inside: str, text: str) -> None:
        """Write a file of the machine."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    # Programs

    def popen(
        self,
        argv: Sequence[str],
        *,
        executable: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        before: Callable[[], object] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program inside, under another name where ``executable`` is given.

        ``before`` runs in the child just before the program.
        """

        def prepare() -> None:
            self.enter()
            if before is not None:
                before()

        return subprocess.Popen(
            argv,
            executable=executable,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=prepare,  # noqa: PLW1509 - the only other thread here waits for input
            cwd="/",
        )

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program inside."""
        process = self.popen(argv, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin.encode(), timeout=SECONDS)
        finally:
            process.kill()
        done = subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def ip(self, *arguments: str) -> list[dict[str, Any]]:
        """What ``ip -json`` prints; an empty list where it prints nothing."""
        printed = self.run("ip", "-json", *arguments).stdout.strip()
        return [each for each in json.loads(printed) if each] if printed else []

    def batch(self, *lines: str, namespace: str = "") -> None:
        """``ip -batch``, in a pod where ``namespace`` is given."""
        chosen = ("-n", namespace) if namespace else ()
        self.run("ip", *chosen, "-batch", "-", stdin="\n".join(lines) + "\n")

    # Functions

    def fork(
        self, work: Callable[[], object], *, stdin: int = -1, stdout: int = -1, stderr: int = -1
    ) -> Forked:
        """Run a function in a child that is inside; its exit code is what it returns, if that is a number."""
        pid = os.fork()
        if pid == 0:
            _become(self, work, (stdin, stdout, stderr))
        forked = Forked(pid)
        self._running.append(forked)
        return forked

    def ask(self, work: Callable[[], T]) -> T:
        """Run a function inside and return what it returns. Raises AssertionError when it raises."""
        answer, said = os.memfd_create("answer"), os.memfd_create("said")

        def work_and_answer() -> None:
            with os.fdopen(answer, "wb") as file:
                pickle.dump(work(), file)

        try:
            code = self.fork(work_and_answer, stderr=said).wait()
            if code:
                raise AssertionError(f"inside: exit {code}: {os.pread(said, 1 << 16, 0).decode()}")
            with os.fdopen(os.dup(answer), "rb") as file:
                file.seek(0)
                value: T = pickle.load(file)
                return value
        finally:
            os.close(answer)
            os.close(said)

    def do(self, *steps: Callable[[], object]) -> None:
        """Run functions inside, one after the other. Raises AssertionError when one raises."""

        def work() -> None:
            for step in steps:
                step()

        self.ask(work)

    # Pods

    def new_pods(self, names: Iterable[str]) -> None:
        """Network namespaces under /run/netns, with their loopback up."""
        wanted = tuple(names)

        def make() -> None:
            Path(NETNS_DIR).mkdir(parents=True, exist_ok=True)
            for name in wanted:
                sc.unshare(sc.CLONE_NEWNET)
                _up("lo")
                path = f"{NETNS_DIR}/{name}"
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
                sc.mount("/proc/thread-self/ns/net", path, flags=sc.MS_BIND)

        self.ask(make)

    def pod(self, container_id: str, *, namespace: str = "") -> Pod:
        """A new pod; its namespace is called like the container, as far as a file name goes."""
        name = namespace or container_id[:60]
        self.new_pods([name])
        return Pod(container_id, f"{NETNS_DIR}/{name}", self)

    def pods(self, *container_ids: str) -> list[Pod]:
        """Several new pods at once."""
        self.new_pods(container_ids)
        return [Pod(each, f"{NETNS_DIR}/{each}", self) for each in container_ids]


class Forked:
    """A child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal; with SIGKILL, also wait."""
        if self._code is None:
            os.kill(self.pid, number)
            if number == signal.SIGKILL:
                self.wait()


def _become(sandbox: Sandbox, work: Callable[[], object], stdio: tuple[int, int, int]) -> NoReturn:
    """The life of a forked child; it never returns into the test."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(stdio):
            if fd >= 0:
                os.dup2(fd, target)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sandbox.enter()
        os.chdir("/")
        done = work()
        code = done if isinstance(done, int) else 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is to hear of it
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _hold(tell: int) -> NoReturn:
    said = "ready"
    try:
        sc.die_with_parent(signal.SIGKILL)
        sc.unshare(sc.CLONE_NEWNET | sc.CLONE_NEWNS)
        sc.mount("none", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
        sc.mount("run", "/run", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755")
        sc.mount("log", "/var/log", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755")
        for folder in ("/run/.etc/upper", "/run/.etc/work", "/run/lock", NETNS_DIR):
            Path(folder).mkdir(parents=True)
        layers = "lowerdir=/etc,upperdir=/run/.etc/upper,workdir=/run/.etc/work"
        sc.mount("etc", "/etc", "overlay", 0, layers)
        sc.mount("sysfs", "/sys", "sysfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
        _up("lo")
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        said = str(error)
    os.write(tell, said.encode())
    os.close(tell)
    while True:
        signal.pause()


def _up(name: str) -> None:
    """Set a link up (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", name.encode(), 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags | IFF_UP))


def _advance_clocks(seconds: int) -> None:
    """Be in a time namespace of which the clocks that count from the boot are ahead (time_namespaces(7))."""
    sc.unshare(CLONE_NEWTIME)
    Path("/proc/self/timens_offsets").write_text(f"monotonic {seconds} 0\nboottime {seconds} 0\n")
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    sc.setns(fd, CLONE_NEWTIME)
    os.close(fd)


def _processes_in(mount_namespace: int) -> Iterable[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "ns/mnt").stat().st_ino == mount_namespace:
                    yield int(entry.name)
