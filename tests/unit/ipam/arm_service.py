"""A small Azure Resource Manager with one NIC, whose answers have the shape of recorded ones."""

from __future__ import annotations

import copy
from collections import deque
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from ipam.provision.nic_document import Document
from ipam.sources.arm_answer import ArmAnswer
from tests.unit.ipam.recordings import recorded

HOST = "https://management.azure.com"
NIC: Document = recorded("attached-nic")["document"]
INSTANCE: Document = recorded("scale-set-instance")["document"]
OPERATION = f"{HOST}/subscriptions/s/providers/Microsoft.Network/locations/westus/operations/"
RETRY_AFTER = 10


def refusal(status: int, code: str, message: str = "", **headers: str) -> ArmAnswer:
    body = {"error": {"code": code, "message": message or code, "details": []}}
    return ArmAnswer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class ArmService:
    """One NIC; with ``uniform`` that of an instance of a scale set, which is written through it."""

    def __init__(self, *, uniform: bool = False, subnet: str = "10.0.0.0/24") -> None:
        self.uniform = uniform
        self.nic = copy.deepcopy(NIC)
        self.vm = copy.deepcopy(INSTANCE)
        if uniform:
            self.nic["name"] = "vmss1"
        self.revision = 1
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and If-Match of each."""
        self.instead: deque[tuple[str, ArmAnswer | Exception]] = deque()
        """What the next request of a method is answered with, without being carried out."""
        self.before_put: list[Any] = []
        """What happens just before the next PUT arrives: something else changes the NIC."""
        self.outcome: Document = {"status": "Succeeded"}
        """How the next operation ends."""
        self.polls = 2
        """Times that an operation is in progress yet."""
        self.room: int | None = None
        """IP configurations for which there are addresses in the subnet; None: for all."""
        self.ignores_lengths = False
        self._left = 0
        self._then: Document | None = None
        self._free = [ip for ip in IPv4Network(subnet).hosts() if int(ip) % 256 > 4]

    @property
    def target(self) -> Document:
        return self.vm if self.uniform else self.nic

    @property
    def puts(self) -> int:
        return sum(method == "PUT" for method, _, _ in self.requests)

    @property
    def names(self) -> list[str]:
        return [each["name"] for each in self.nic["properties"]["ipConfigurations"]]

    @property
    def etag(self) -> str:
        return f'W/"{self.revision}"'

    def add_foreign(self, name: str) -> None:
        """Something else gives the NIC an IP configuration."""
        entry = {
            "name": name,
            "properties": {
                "primary": False,
                "privateIPAddress": "10.0.0.200",
                "provisioningState": "Succeeded",
            },
        }
        self.nic["properties"]["ipConfigurations"].append(entry)
        self.revision += 1

    def ask(self, method: str, where: str, body: Document | None, etag: str) -> ArmAnswer:
        """As ``arm_client.Requests.ask``."""
        path = where.removeprefix(HOST).partition("?")[0]
        self.requests.append((method, path, etag))
        if self.instead and self.instead[0][0] in {method, path}:
            answer = self.instead.popleft()[1]
            if isinstance(answer, Exception):
                raise answer
            return answer
        if "/operations/" in path:
            return self._poll()
        if method == "PUT":
            assert body is not None
            return self._put(body, etag)
        if path.endswith("/networkInterfaces"):
            return ArmAnswer(200, {"value": [copy.deepcopy(self.nic)]})
        if self.target["properties"]["provisioningState"] == "Updating":
            self._advance()
        return ArmAnswer(200, copy.deepcopy({**self.target, "etag": self.etag}), {"etag": self.etag})

    def _put(self, body: Document, etag: str) -> ArmAnswer:
        if self.before_put:
            self.before_put.pop(0)()
        if etag != self.etag:
            return refusal(412, "PreconditionFailed", "Precondition failed.")
        if self.room is not None and len(body["properties"]["ipConfigurations"]) > self.room:
            return refusal(400, "SubnetIsFull", "The subnet does not have enough capacity.")
        before = copy.deepcopy(self.target)
        after = copy.deepcopy(body)
        self._left = self.polls
        self._then = after if self.outcome["status"] == "Succeeded" else before
        self.revision += 1
        self.target.clear()
        self.target.update(copy.deepcopy(after))
        self.target["properties"]["provisioningState"] = "Updating"
        where = f"{OPERATION}{self.revision}?api-version=2025-05-01"
        headers = {"azure-asyncoperation": where, "retry-after": str(RETRY_AFTER)}
        return ArmAnswer(200, copy.deepcopy(self.target), headers)

    def _poll(self) -> ArmAnswer:
        if self._then is not None:
            self._advance()
        if self._then is not None:
            return ArmAnswer(200, {"status": "InProgress"}, {"retry-after": str(RETRY_AFTER)})
        return ArmAnswer(200, self.outcome)

    def _advance(self) -> None:
        self._left -= 1
        if self._left >= 0 or self._then is None:
            return
        self.target.clear()
        self.target.update(self._then)
        self._then = None
        self.target["properties"]["provisioningState"] = "Succeeded"
        self.revision += 1
        if self.uniform:
            profile = self.vm["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"][
                0
            ]
            had = {each["name"]: each for each in self.nic["properties"]["ipConfigurations"]}
            wanted = profile["properties"]["ipConfigurations"]
            first = self.nic["properties"]["ipConfigurations"][0]
            for each in wanted[1:] if self.ignores_lengths else ():
                each["properties"].pop("privateIPAddressPrefixLength", None)
            new = [had.get(each["name"]) or copy.deepcopy(each) for each in wanted[1:]]
            self.nic["properties"]["ipConfigurations"] = [first, *new]
        for each in self.nic["properties"]["ipConfigurations"]:
            self._give_address(each["properties"])

    def _give_address(self, properties: Document) -> None:
        properties["provisioningState"] = "Succeeded"
        if properties.get("privateIPAddress"):
            return
        if properties.get("privateIPAddressPrefixLength") and not self.ignores_lengths:
            first = next(ip for ip in self._free if int(ip) % 16 == 0)
            block = IPv4Network(f"{first}/28")
            self._free = [ip for ip in self._free if ip not in block]
            properties["privateIPAddress"] = str(block)
        else:
            properties.pop("privateIPAddressPrefixLength", None)
            properties["privateIPAddress"] = str(self._free.pop(0))

    def taken(self) -> list[IPv4Address]:
        """The addresses of the NIC that are not its primary one."""
        entries = self.nic["properties"]["ipConfigurations"][1:]
        return [IPv4Address(each["properties"]["privateIPAddress"]) for each in entries]
