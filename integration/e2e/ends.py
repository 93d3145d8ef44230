"""Ends of a conversation on a cluster: pods, nodes, hosts of the virtual network. Each asks and answers.

Owns how a question gets out of an end and what the answer says. A machine asks with sockets in its own
network, a pod by its own container: agnhost's ``netexec`` there dials whom it is told, and says what came.
Must not know who ought to reach whom.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

HTTP = 8080
UDP = 8081
_PATIENCE = 5.0
"""Seconds for an answer; what agnhost waits as well."""


class Unanswered(Exception):
    """A question got no answer, or an end could not ask; the message says who asked whom, and why."""


@dataclass(frozen=True)
class End(ABC):
    """Somebody with an address, whose server says its name and who asked it."""

    name: str
    """Its host name, which its server answers."""
    address: str
    http_port: int = HTTP
    udp_port: int = UDP

    @abstractmethod
    def http(self, host: str, port: int, path: str = "hostname", *, tries: int = 1) -> list[str]:
        """What so many requests to a server were answered, one after the other. Raises Unanswered."""

    @abstractmethod
    def udp(self, host: str, port: int, request: str = "hostname", *, tries: int = 1) -> list[str]:
        """What so many datagrams, each from a port of its own, were answered. Raises Unanswered."""

    def answered(self, host: str, port: int) -> list[str]:
        """Who answers an HTTP request there; nobody where none does."""
        try:
            return self.http(host, port)
        except Unanswered:
            return []

    @abstractmethod
    def sh(self, command: str, *, patience: float = 60.0) -> str:
        """What a command line prints when it runs here. Raises Unanswered when it fails."""


@dataclass(frozen=True)
class Host(End):
    """A machine of the fabric itself: a node, or a host that is none."""

    machine: Machine = field(kw_only=True, repr=False)

    @classmethod
    def of(cls, machine: Machine) -> Host:
        """A machine under its primary address."""
        return cls(machine.name, str(machine.primary_ip), machine=machine)

    def http(self, host: str, port: int, path: str = "hostname", *, tries: int = 1) -> list[str]:
        return [self.get(host, port, path) for _ in range(tries)]

    def udp(self, host: str, port: int, request: str = "hostname", *, tries: int = 1) -> list[str]:
        return [self._ask(host, port, request) for _ in range(tries)]

    def sh(self, command: str, *, patience: float = 60.0) -> str:
        done = self.machine.run(["sh", "-c", command], check=False, timeout=patience)
        if done.returncode:
            raise Unanswered(f"{self.name}: {command}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def get(self, host: str, port: int, path: str, *, patience: float = _PATIENCE) -> str:
        """What one HTTP request from here was answered. Raises Unanswered."""

        def ask() -> str:
            connection = http.client.HTTPConnection(host, port, timeout=patience)
            with contextlib.closing(connection):
                connection.request("GET", f"/{path}")
                reply = connection.getresponse()
                text = reply.read().decode("utf-8", "replace")
            if reply.status >= 300:
                raise OSError(f"status {reply.status} {text}")
            return text

        try:
            return self.machine.in_network(ask)
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(f"{self.name} -> http://{host}:{port}/{path[:80]}: {error!r}") from error

    def _ask(self, host: str, port: int, request: str) -> str:
        try:
            with self.socket() as asking:
                asking.connect((host, port))
                asking.send(request.encode())
                return asking.recv(2048).decode()
        except OSError as error:
            raise Unanswered(f"{self.name} -> udp://{host}:{port} {request}: {error!r}") from error

    def socket(self) -> socket.socket:
        """A UDP socket in the machine's network, for who needs one port all the time."""
        made = self.machine.in_network(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.settimeout(_PATIENCE)
        return made

    @contextlib.contextmanager
    def serving(self, program: str) -> Iterator[Host]:
        """Let agnhost answer here, as in a pod, while the block runs."""
        server = self.machine.popen(
            [program, "netexec", f"--http-port={self.http_port}", f"--udp-port={self.udp_port}"]
        )
        try:
            if not found_within(10, self._is_served):
                raise Unanswered(f"{self.name}: its server does not start")
            yield self
        finally:
            server.kill()
            server.wait()

    def _is_served(self) -> bool:
        with contextlib.suppress(Unanswered):
            self.get("127.0.0.1", self.http_port, "healthz")
            return True
        return False


@dataclass(frozen=True)
class Pod(End):
    """A pod with agnhost's ``netexec``; asked from a machine to ask somebody else."""

    asker: Host = field(kw_only=True, repr=False)
    node: str = field(kw_only=True)
    namespace: str = field(kw_only=True)

    def http(self, host: str, port: int, path: str = "hostname", *, tries: int = 1) -> list[str]:
        return self._dial("http", host, port, path, tries)

    def udp(self, host: str, port: int, request: str = "hostname", *, tries: int = 1) -> list[str]:
        return self._dial("udp", host, port, request, tries)

    def sh(self, command: str, *, patience: float = 60.0) -> str:
        path = "shell?" + urlencode({"shellCommand": command})
        said = json.loads(self.asker.get(self.address, self.http_port, path, patience=patience))
        if "error" in said:
            raise Unanswered(f"{self.name}: {command}: {said['error']}: {said.get('output', '')}")
        return str(said.get("output", ""))

    def _dial(self, protocol: str, host: str, port: int, request: str, tries: int) -> list[str]:
        asked = {"protocol": protocol, "host": host, "port": port, "request": request, "tries": tries}
        path = "dial?" + urlencode(asked)
        patience = _PATIENCE * (tries + 1)
        said = json.loads(self.asker.get(self.address, self.http_port, path, patience=patience))
        if errors := said.get("errors"):
            raise Unanswered(f"{self.name} -> {protocol}://{host}:{port}/{request}: {errors[0]}")
        return list(said["responses"])


def address_of(client: str) -> str:
    """The address of ``address:port``, as a server names who asked."""
    return client.rpartition(":")[0]
