"""Asking the platform from inside a machine: plain HTTP without any client library in between."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from integration.fabric import Machine

IMDS = "169.254.169.254"
WIRESERVER = "168.63.129.16"
INTERFACES = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1"
NETWORK = "/metadata/instance/network?api-version=2021-02-01"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def ask(
    machine: Machine,
    host: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    method: str = "GET",
    source: str = "",
    timeout: float = 5.0,
) -> Answer:
    """One request from the machine's network namespace. Raises OSError as http.client does."""

    def body() -> Answer:
        connection = http.client.HTTPConnection(
            host, 80, timeout=timeout, source_address=(source, 0) if source else None
        )
        try:
            connection.request(method, path, headers=headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()})
        finally:
            connection.close()

    return machine.in_network(body)


def imds(machine: Machine, path: str = NETWORK, **arguments: Any) -> Answer:
    """One request to IMDS with the header that it wants."""
    return ask(machine, IMDS, path, headers={"Metadata": "true"}, **arguments)


def listed_by_imds(machine: Machine) -> list[str]:
    """The addresses of the first NIC in IMDS."""
    interface = imds(machine).document["interface"][0]
    return [entry["privateIpAddress"] for entry in interface["ipv4"]["ipAddress"]]


def wireserver(machine: Machine, path: str = INTERFACES, **arguments: Any) -> Answer:
    """One request to the wireserver."""
    return ask(machine, WIRESERVER, path, **arguments)
