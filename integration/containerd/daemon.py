"""A real containerd in a node: started, restarted, killed, and taken away without residue.

Owns the process, its folders, mounts, shims and cgroup. Must not know which CNI plugin is installed:
it reads the node's own /etc/cni/net.d and /opt/cni/bin.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

from integration.containerd import cgroups
from integration.containerd.cri import Condition, Cri, CriError, Executed, Pod
from integration.containerd.images import PAUSE_IMAGE, TRAFFIC_IMAGE, image_archive
from integration.fabric.machine import BOOT_ID_FILE
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from integration.fabric import Machine

STATE = "/run/containerd"
SOCKET = f"{STATE}/containerd.sock"
DEFAULT_ROOT = "/var/lib/containerd"
CONFIG = "/run/containerd.toml"
BASE_SPEC = "/run/containerd-base-spec.json"
SERVING_SECONDS = 15.0

_CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Where CAP_SYS_RESOURCE is missing runc can't lower a score and dies before it says why.
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    base_runtime_spec = "{base_spec}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


class ContainerdError(Exception):
    """containerd did not start or ended by itself; the message ends with the tail of its log."""


class Containerd:
    """containerd of one node, with the two test images imported.

    A context manager: leaving it ends every pod, shim and mount that it made, whatever happened.
    ``root`` is the folder for images and snapshots as seen in the node; the default is memory, and is
    still there after a reboot of the node. ``images`` are more archives to import, ``cgroup`` is the
    parent of its pods' cgroups when not one of its own, ``log`` a file that its output is added to.
    ``programs`` is a folder with another containerd than Debian's; set it and `restart` to change over.
    """

    def __init__(
        self,
        node: Machine,
        *,
        root: str = DEFAULT_ROOT,
        images: Sequence[Path] = (),
        cgroup: str = "",
        log: Path | None = None,
        programs: Path | None = None,
    ) -> None:
        self.node = node
        self.programs = programs
        self.cgroup = cgroup or f"/azvnet-{os.getpid()}-{secrets.token_hex(4)}"
        """Parent cgroup of its pods, in every hierarchy."""
        self._root = root
        self._archives = images
        self._process: subprocess.Popen[str] | None = None
        self._own_log: IO[str] | None = None
        if log is None:
            self._own_log = tempfile.NamedTemporaryFile("w+", prefix="containerd-", suffix=".log")  # noqa: SIM115
        self._log = log or Path(str(self._own_log.name if self._own_log else ""))
        self._mount_namespace = node.run(["readlink", "/proc/self/ns/mnt"]).stdout.strip()
        self.cri = Cri(node, SOCKET)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it, wait until it answers and knows the images. Raises ContainerdError."""
        try:
            self.node.run(["mkdir", "-p", STATE, self._root, "/etc/cni/net.d", "/opt/cni/bin"])
            self.node.run(["tee", CONFIG], input=self._configuration())
            self.node.run(["tee", BASE_SPEC], input=self._base_spec())
            self._launch()
            self._import_images()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Take everything away: pods, daemon, shims, mounts, cgroups. Repeatable."""
        with contextlib.ExitStack() as steps:  # the last pushed runs first, each runs whatever happens
            if self._own_log is not None:
                steps.callback(self._own_log.close)
            steps.callback(self._remove_folders)
            steps.callback(cgroups.remove, self.cgroup)
            steps.callback(self._end_shims)
            steps.callback(self._end_daemon, signal.SIGTERM)
            steps.callback(self._delete_pods)

    def restart(self, *, kill: bool = False) -> None:
        """End the daemon, with SIGKILL when ``kill``, and start it again; pods live on."""
        self._end_daemon(signal.SIGKILL if kill else signal.SIGTERM)
        self._launch()

    def end_daemon(self, *, kill: bool = False) -> None:
        """End the daemon alone; its pods live on. ``restart`` starts it again."""
        self._end_daemon(signal.SIGKILL if kill else signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The daemon's process id. Raises ContainerdError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ContainerdError(f"containerd of {self.node.name} does not run\n{self.log_tail()}")
        return self._process.pid

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def run_pod(
        self,
        name: str,
        *,
        namespace: str = "default",
        uid: str = "",
        host_ports: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        dns_servers: Sequence[str] = (),
    ) -> Pod:
        """Create and start a pod sandbox, as ``Cri.run_pod``. Raises CriError."""
        return self.cri.run_pod(
            name,
            namespace=namespace,
            uid=uid,
            host_ports=host_ports,
            annotations=annotations,
            dns_servers=dns_servers,
            cgroup_parent=self.cgroup,
        )

    def run_container(self, pod: Pod, command: Sequence[str], *, name: str = "main") -> str:
        """Start a busybox container in a pod; its id. Raises CriError."""
        return self.cri.run_container(pod, TRAFFIC_IMAGE, command, name=name)

    def serve(self, pod: Pod, text: str, *, port: int = 80) -> str:
        """Start a container whose web server answers ``text`` from now on; its id. Raises CriError."""
        script = f"mkdir -p /www; printf %s '{text}' >/www/index.html; exec httpd -f -p {port} -h /www"
        container = self.run_container(pod, ["sh", "-c", script], name=f"serve-{port}")
        # proc(5), net/tcp: the local port, the other end, and 0A for a socket that listens.
        listens = f"grep -q ':{port:04X} [0-9A-F:]* 0A' /proc/net/tcp /proc/net/tcp6"
        serves = found_within(
            SERVING_SECONDS, lambda: not self.exec(container, ["sh", "-c", listens]).exit_code, pause=0.1
        )
        if not serves:
            raise CriError("ExecSync", f"nothing listens on port {port} of {pod.name}", "too late")
        return container

    def exec(self, container: str, command: Sequence[str]) -> Executed:
        """Run a command in a container. Raises CriError."""
        return self.cri.exec(container, command)

    def delete_pod(self, pod: Pod) -> None:
        """Stop and remove a pod. Raises CriError."""
        self.cri.delete_pod(pod)

    def conditions(self) -> dict[str, Condition]:
        """RuntimeReady and NetworkReady. Raises CriError."""
        return self.cri.conditions()

    def _configuration(self) -> str:
        overlay = "overlay" in Path("/proc/filesystems").read_text().split()
        return _CONFIG.format(
            root=self._root,
            state=STATE,
            socket=SOCKET,
            pause=PAUSE_IMAGE,
            snapshotter="overlayfs" if overlay else "native",
            base_spec=BASE_SPEC,
        )

    def _environment(self) -> dict[str, str]:
        """The node's, with the chosen programs before others: containerd finds its shim by PATH."""
        own = self.node.environment
        return {**own, "PATH": f"{self.programs}:{own['PATH']}"} if self.programs else own

    def _base_spec(self) -> str:
        """What every container starts from: containerd's own, and the boot id of this node.

        A container has a /proc of its own, which shows the boot id of the real machine. runc takes no
        mounts in /proc; its hooks run in the container's mount namespace, in the container's root.
        """
        spec = json.loads(self.node.run(["ctr", "oci", "spec"], env=self._environment()).stdout)
        show = ["mount", "-o", "bind,ro", BOOT_ID_FILE, "proc/sys/kernel/random/boot_id"]
        spec["hooks"] = {"createContainer": [{"path": "/bin/mount", "args": show}]}
        return json.dumps(spec)

    def _launch(self) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            self._process = self.node.popen(
                ["containerd", "--config", CONFIG],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
            )
        self._wait("answers", self._answers)

    def _answers(self) -> bool:
        try:
            return self.conditions()["RuntimeReady"].status
        except CriError:
            return False

    def import_image(self, archive: Path) -> None:
        """Import a docker or OCI archive of this machine. Raises ProgramFailed."""
        self.node.run(
            ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "image", "import", str(archive)],
            env=self._environment(),
            timeout=300,
        )

    def _import_images(self) -> None:
        for archive in (image_archive(), *self._archives):
            self.import_image(archive)
        self._wait(
            "knows its images",
            lambda: self.cri.image_present(PAUSE_IMAGE) and self.cri.image_present(TRAFFIC_IMAGE),
        )

    def _wait(self, what: str, condition: Callable[[], bool], patience: float = 30.0) -> None:
        # Reading the pid raises when it has ended.
        if not found_within(patience, lambda: condition() or not self.pid):
            raise ContainerdError(
                f"containerd of {self.node.name}: not once within {patience:.0f} s true that it {what}\n"
                + self.log_tail()
            )

    def _delete_pods(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(CriError), ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(self._delete_quietly, pod) for pod in self.cri.pods()]:
                done.result()

    def _delete_quietly(self, pod: Pod) -> None:
        for command in ("stop-pod", "rm-pod"):
            with contextlib.suppress(CriError):
                self.cri.call(command, pod.id, deadline=15)

    def _end_daemon(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    def _end_shims(self) -> None:
        """End the shims of this node: they outlive the daemon by design."""

        def ended() -> bool:
            for pid in (shims := self.shims()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not shims

        if not found_within(10, ended):
            raise ContainerdError(f"shims {self.shims()} of {self.node.name} do not end")

    def shims(self) -> list[int]:
        """Process ids of the shims in this node's mount namespace."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it may end while it is looked at
                shim = (entry / "comm").read_text().startswith("containerd-shim")
                if shim and str((entry / "ns" / "mnt").readlink()) == self._mount_namespace:
                    found.append(int(entry.name))
        return found

    def _remove_folders(self) -> None:
        mounts = self.node.run(["cat", "/proc/self/mounts"], check=False).stdout
        points = [line.split()[1] for line in mounts.splitlines()]
        ours = [p for p in points if p.startswith((f"{STATE}/", f"{self._root}/", "/run/netns/cni-"))]
        for point in reversed(ours):
            self.node.run(["umount", "-l", point], check=False)
        self.node.run(["rm", "-rf", STATE, self._root, CONFIG, BASE_SPEC], check=False)
