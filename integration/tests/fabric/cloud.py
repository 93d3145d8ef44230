"""ARM over an estate, without network, machines or time: requests go straight to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from integration.fabric import topology
from integration.fabric.arm import Arm
from integration.fabric.goalstate import GoalState
from integration.fabric.model import Estate, Placement
from integration.fabric.tokens import TokenIssuer
from integration.fabric.web import Request

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    document: Any

    @property
    def code(self) -> str:
        """Of an error."""
        return str(self.document["error"]["code"])

    @property
    def message(self) -> str:
        """Of an error."""
        return str(self.document["error"]["message"])


class Cloud:
    """One subscription, and somebody who asks."""

    def __init__(self, role: str = "writer", *, placement: str = "standalone", **plan: Any) -> None:
        made = topology.Topology(placement=Placement(placement), **plan)
        self.goal = GoalState(topology.build(made, "cloud"))
        self.issuer = TokenIssuer()
        self.arm = Arm(self.issuer, lambda: self.goal.newest, self.goal.change)
        self.arm.roles.give(role)
        self.arm.operations.hold()

    @property
    def estate(self) -> Estate:
        return self.goal.newest

    def ask(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        version: str = "2025-05-01",
        raw: bytes | None = None,
        client: str = "client",
        **headers: str,
    ) -> Answer:
        """One request; header names with ``_`` for ``-``."""
        token = self.issuer.issue(
            "https://management.azure.com", client_id=client, object_id=f"{client}-object", tenant="t"
        )
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(
            method,
            path.partition("?")[0],
            (("api-version", version),),
            {"authorization": f"Bearer {token.text}", **sent},
            IPv4Address("10.10.0.4"),
            raw if raw is not None else json.dumps(body).encode() if body is not None else b"",
            "management.azure.com",
        )
        response = self.arm.answer(request, self.estate)
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.headers},
            json.loads(response.body or b"null"),
        )

    @property
    def group(self) -> str:
        return f"/subscriptions/{self.estate.subscription}/resourceGroups/{self.estate.resource_group}"

    def nic_path(self, name: str = "node1-nic0") -> str:
        return f"{self.group}/providers/Microsoft.Network/networkInterfaces/{name}"

    def subnet_id(self, name: str = "nodes") -> str:
        return f"{self.group}/providers/Microsoft.Network/virtualNetworks/vnet1/subnets/{name}"

    def nic(self, name: str = "node1-nic0") -> Document:
        """The NIC's document as ARM shows it."""
        answer = self.ask("GET", self.nic_path(name))
        assert answer.status == 200, answer
        return dict(answer.document)

    def put(self, document: Document, name: str = "node1-nic0", **more: Any) -> Answer:
        """Write a NIC."""
        return self.ask("PUT", self.nic_path(name), document, **more)

    def write(self, edit: Callable[[Document], object], name: str = "node1-nic0", **more: Any) -> Answer:
        """Read a NIC, edit the document, write it back."""
        document = self.nic(name)
        edit(document)
        return self.put(document, name, **more)

    def done(self, edit: Callable[[Document], object], name: str = "node1-nic0", **more: Any) -> Document:
        """The same, and the NIC after the operation, which has to succeed."""
        answer = self.write(edit, name, **more)
        assert answer.status == 200, answer
        self.arm.operations.finish()
        return self.nic(name)

    def configuration(self, name: str, **properties: Any) -> Document:
        """A new IP configuration in the subnet of the nodes."""
        return {"name": name, "properties": {"subnet": {"id": self.subnet_id()}, **properties}}

    def adds(self, *names: str, **properties: Any) -> Callable[[Document], object]:
        """The edit that adds configurations of those names."""
        return lambda document: document["properties"]["ipConfigurations"].extend(
            self.configuration(name, **properties) for name in names
        )


def addresses(document: Document) -> dict[str, str]:
    """The addresses of a NIC's document by the names of their configurations."""
    entries = document["properties"]["ipConfigurations"]
    return {entry["name"]: entry["properties"]["privateIPAddress"] for entry in entries}


@contextmanager
def cloud(role: str = "writer", **plan: Any) -> Iterator[Cloud]:
    """A cloud of the test's own; operations end when the test says so, see `Operations.finish`."""
    made = Cloud(role, **plan)
    try:
        yield made
    finally:
        made.arm.close()
