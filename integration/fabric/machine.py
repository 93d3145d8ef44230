"""A running machine of the fabric: its holder process, its namespaces, programs inside.

It must not know what is served at the platform addresses; the fabric tells it its NICs and links.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from integration.fabric import namespaces as ns
from integration.fabric.model import IMDS, WIRESERVER
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from ipaddress import IPv4Address

    from integration.fabric.model import Nic, Vm

ROOT = Path(__file__).parents[2]
BOOT_PATIENCE = 30.0
"""Seconds for a holder to have its namespaces ready; it takes a fraction of one."""

BOOT_ID_FILE = "/etc/azure-fabric/boot_id"
SYSTEM_TRUST = "/etc/ssl/certs/ca-certificates.crt"
"""What curl, Go and OpenSSL trust on Debian and Ubuntu."""
CA_FILE = "/etc/azure-fabric/ca.pem"

_START = "import sys; sys.path.insert(0, sys.argv[1]);from integration.fabric.holder import main; main()"


def search_path() -> str:
    """PATH for programs in a machine: that of here, and the plugins, as ``azvnet`` is a command on a node."""
    return f"{os.environ.get('PATH', os.defpath)}:/opt/cni/bin"


class MachineError(RuntimeError):
    """A machine could not be started; the message says what failed."""


class Machine:
    """One machine: started by `power_on`, then `boot`; `power_off` ends every process in it.

    Programs run in its network, mount, host name and process namespaces, so a pid that such a program
    prints is not the pid that it has on this machine.
    """

    def __init__(
        self,
        vm: Callable[[], Vm],
        name: str,
        folder: Path,
        *,
        own_tmp: bool = False,
        cgroup: str = "",
        reboot: Callable[[str], None],
    ) -> None:
        self.name = name
        self.cgroup = cgroup
        """Name of a cgroup that a container runtime in it may make in every hierarchy, unique on this
        machine; it is removed when the fabric goes down."""
        self.folder = folder
        self.boot_id = ""
        self.holder_pid = 0
        """Pid of the current boot's first process, for ``nsenter -t``."""
        self.environment: dict[str, str] = {}
        """Variables that every program started without an ``env`` of its own gets."""
        self._vm = vm
        self._reboot = reboot
        self._empty = ["/run", "/tmp"] if own_tmp else ["/run"]
        self._holder: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._namespaces: ns.Namespaces | None = None
        self._started: list[subprocess.Popen[str]] = []

    @property
    def own_variables(self) -> dict[str, str]:
        """Environment variables that programs inside need, beyond those of this machine."""
        return {
            "AZVNET_BOOT_ID_FILE": BOOT_ID_FILE,
            # Python's requests brings its own list of authorities and has to be told.
            "REQUESTS_CA_BUNDLE": CA_FILE,
        }

    @property
    def vm(self) -> Vm:
        """What the cloud knows of it."""
        return self._vm()

    @property
    def nics(self) -> tuple[Nic, ...]:
        """Its NICs as the cloud wants them now."""
        return self.vm.nics

    @property
    def primary_ip(self) -> IPv4Address:
        """The only address that eth0 carries."""
        return self.vm.primary_nic.primary_ip

    @property
    def pod_addresses(self) -> tuple[IPv4Address, ...]:
        """The secondary addresses of the primary NIC, blocks spelled out."""
        return tuple(address for entry in self.vm.primary_nic.secondaries for address in entry.block)

    @property
    def uplink_mac(self) -> str:
        """MAC of the primary NIC, lower case with colons."""
        return self.vm.primary_nic.mac

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The pids that keep it alive: the machine and its boot."""
        return tuple(pid for pid in (self._holder.pid if self._holder else 0, self.holder_pid) if pid)

    @property
    def namespaces(self) -> ns.Namespaces:
        """Descriptors of its namespaces. Raises MachineError when it is off."""
        if self._namespaces is None:
            raise MachineError(f"{self.name} is not running")
        return self._namespaces

    def power_on(self) -> None:
        """Start the holder; it has a disk then, but nothing runs yet. Does not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs:
            self._holder = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, str(ROOT), str(self.folder), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel = ours

    def ask_boot(self, files: Mapping[str, str], *, trust: str) -> None:
        """Ask for a boot with a new boot id; `await_boot` waits for it.

        Args:
            files: written in /etc before anything runs.
            trust: certificate of the authority that the machine trusts, PEM.
        """
        self.boot_id = str(uuid.uuid4())
        own = {
            "/etc/hostname": self.name + "\n",
            "/etc/resolv.conf": f"search fabric.internal.cloudapp.net\nnameserver {WIRESERVER}\n",
            BOOT_ID_FILE: self.boot_id + "\n",
            CA_FILE: trust,
        }
        request = {
            "do": "boot",
            "hostname": self.name,
            "boot_id": self.boot_id,
            "files": {**own, **files},
            "append": {SYSTEM_TRUST: trust},
            "empty": self._empty,
        }
        self._send(request)

    def await_boot(self) -> None:
        """Wait for the namespaces of the boot that was asked for. Raises MachineError."""
        self.holder_pid = self._receive()["pid"]
        self._namespaces = ns.Namespaces.of(self.holder_pid)
        self.environment = {**os.environ, "PATH": search_path(), **self.own_variables}

    def reboot(self) -> None:
        """Reboot: every process ends, /run and the network are new, so is the boot id; the disk stays."""
        self._reboot(self.name)

    def halt(self) -> None:
        """End every process of the current boot, as pulling the plug does; the disk stays."""
        self._leave()
        self._send({"do": "halt"})
        self._receive()

    def power_off(self) -> None:
        """End everything, the disk included. Does nothing when it is off."""
        self._leave()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if (holder := self._holder) is not None:

            def ended() -> bool:
                self._reap()
                return holder.poll() is not None

            if not found_within(BOOT_PATIENCE, ended, pause=0.001):
                holder.kill()
                holder.wait()
            self._holder = None

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run uses
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float | None = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, as ``subprocess.run`` does with text and captured output.

        Args:
            argv: program and arguments; a name without a slash is looked for in PATH, inside.
            input: what it reads from stdin; nothing when left out.
            env: its whole environment; the fabric's own and the machine's when left out.
            check: raise when its exit code is not 0.
            timeout: seconds until it is killed.

        Raises:
            subprocess.CalledProcessError: see ``check``; str() of it does not show stderr, its
                ``stderr`` attribute does, and so does the note that pytest prints.
            subprocess.TimeoutExpired: after it was killed.
        """
        process = self.popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        with process:
            try:
                out, err = process.communicate(input or "", timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, out, err)
        if check and done.returncode != 0:
            raise ProgramFailed(self.name, done)
        return done

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: IO[str] | int | None = subprocess.DEVNULL,
        stdout: IO[str] | int | None = None,
        stderr: IO[str] | int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program inside; ``pid`` is its own pid as this machine sees it."""
        environment = dict(self.environment if env is None else env)

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                list(argv), stdin=stdin, stdout=stdout, stderr=stderr, env=environment, text=True
            )

        process = ns.spawn(self.namespaces, start)
        self._started = [other for other in self._started if other.returncode is None]
        self._started.append(process)
        return process

    def in_network(self, function: Callable[[], ns.T]) -> ns.T:
        """Call a Python function in the machine's network namespace, in a thread: cheap, no process."""
        return ns.in_network(self.namespaces.net, function)

    def run_batch(self, lines: Sequence[str]) -> None:
        """Run ``ip -batch`` in the machine's network namespace. Raises ToolError."""
        ns.ip_batch(self.namespaces.net, lines)

    def configure_links(self, *, mtu: int, sysctls: Mapping[str, str | int], accelerated: bool) -> None:
        """Set the links up as Azure's DHCP answers do: primary addresses, default and platform routes. The
        default routes of IPv6 come by router advertisement, see `has_routers`.
        """
        ns.write_sysctls(self.namespaces.net, sysctls)
        batch = ["link set lo up"]
        for index, nic in enumerate(self.nics):
            batch += _bridge_lines(nic, mtu, index) if accelerated else []
            batch += _link_lines(nic, index)
            if nic.ipv6 and not accelerated:
                ns.write_sysctls(self.namespaces.net, _router_sysctls(index))
        self.run_batch(batch)
        bridges = range(len(self.nics)) if accelerated else range(0)
        for index in (each for each in bridges if self.nics[each].ipv6):
            ns.write_sysctls(self.namespaces.net, _router_sysctls(index))
        ns.await_links(self.namespaces.net, [f"eth{index}" for index in bridges])

    def has_routers(self) -> bool:
        """Whether it has learned a default route on every NIC with IPv6."""
        wanted = {f"eth{index}" for index, nic in enumerate(self.nics) if nic.ipv6}
        if not wanted:
            return True
        table = self.in_network(lambda: Path("/proc/thread-self/net/ipv6_route").read_text(encoding="ascii"))
        routes = (line.split() for line in table.splitlines())
        return wanted <= {route[-1] for route in routes if route[1] == "00" and int(route[4], 16)}

    def _reap(self) -> None:
        """Take note of programs that ended.

        The first process of a boot ends only when every other one was waited for, and those that we
        started are waited for by nobody else (pid_namespaces(7)).
        """
        for process in self._started:
            process.poll()

    def _leave(self) -> None:
        if self._namespaces is not None:
            self._namespaces.close()
            self._namespaces = None
        self.holder_pid = 0

    def _send(self, request: Mapping[str, Any]) -> None:
        if self._channel is None:
            raise MachineError(f"{self.name} is off")
        self._channel.sendall(json.dumps(request).encode() + b"\n")

    def _receive(self) -> dict[str, Any]:
        assert self._channel is not None
        raw = b""
        deadline = time.monotonic() + BOOT_PATIENCE
        while not raw.endswith(b"\n"):
            self._reap()
            if not select.select([self._channel], [], [], 0.005)[0]:
                if time.monotonic() > deadline:
                    raise MachineError(f"{self.name}: its holder does not answer")
                continue
            piece = self._channel.recv(65536)
            if not piece:
                raise MachineError(f"{self.name}: its holder ended (are we root?)")
            raw += piece
        answer: dict[str, Any] = json.loads(raw)
        if "error" in answer:
            raise MachineError(f"{self.name} could not boot: {answer['error']}")
        return answer


class ProgramFailed(subprocess.CalledProcessError):
    """A program in a machine ended with an exit code that was not expected; str() shows its output."""

    def __init__(self, machine: str, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(done.returncode, done.args, done.stdout, done.stderr)
        self.machine = machine

    def __str__(self) -> str:
        said = f"{self.stdout or ''}{self.stderr or ''}".strip()
        return f"in {self.machine}: {super().__str__()} {said}"


def _link_lines(nic: Nic, index: int) -> list[str]:
    gateway, primary, dev = nic.subnet.gateway, nic.primary_ip, f"eth{index}"
    metric = _metric(index)
    lines = [
        f"link set {dev} up",
        f"address add {primary}/{nic.subnet.prefix.prefixlen} broadcast + dev {dev}",
        f"route add default via {gateway} dev {dev} proto dhcp src {primary} metric {metric}",
    ]
    if nic.ipv6:
        lines.append(f"address add {nic.ipv6[0]}/128 dev {dev} nodad")
    return lines + [
        f"route add {address}/32 via {gateway} dev {dev} proto dhcp src {primary} metric {metric}"
        for address in (WIRESERVER, IMDS)
    ]


def _metric(index: int) -> int:
    """Of the default routes of a NIC, as cloud-init has it: the first NIC's come first."""
    return 100 * (index + 1)


def _router_sysctls(index: int) -> dict[str, int]:
    conf = f"net/ipv6/conf/eth{index}"
    return {f"{conf}/accept_ra": 1, f"{conf}/ra_defrtr_metric": _metric(index)}


def _bridge_lines(nic: Nic, mtu: int, index: int) -> list[str]:
    return [
        f"link add eth{index} address {nic.mac} mtu {mtu} type bridge stp_state 0 mcast_snooping 0",
        f"link set synth{index} master eth{index}",
        f"link set synth{index} up",
    ]
