"""The emulator's IMDS for the nodes of a kind cluster: each is a VM with the addresses of its file source.

So a cluster can move from one source to the other and back, and every pod keeps its address. Owns the
translation. Must not know how the nodes were made.
"""

from __future__ import annotations

import threading
import uuid
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from integration.fabric import imds
from integration.fabric.faults import FaultBoard, Now
from integration.fabric.model import IMDS, Estate, IpConfiguration, Nic, Subnet, Surface, Vm, Vnet
from integration.fabric.services import listen
from integration.fabric.web import Request, Response, Server, Site

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.fabric.machine import Machine

_NETWORK = "kind"
_NAMESPACE = uuid.UUID("7f1b6c1e-4f0c-4a5e-9a43-2d8b0f4f6c11")


class Metadata:
    """IMDS at 169.254.169.254 in Docker's machine, from where the kind nodes reach it."""

    def __init__(self) -> None:
        self._estate = estate({})
        self._imds = imds.Imds()
        self._board = FaultBoard()
        self._lock = threading.Lock()
        self._server: Server | None = None

    def start(self, machine: Machine) -> None:
        """Begin to listen in the machine's network. Raises OSError."""
        site = Site(
            "imds", imds.SERVER_HEADER, self._fault, self._answer, lambda _, status: imds.error(status)
        )
        self._server = Server(site, machine.in_network(lambda: listen(IMDS, 80)))
        self._server.start()

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def serve(self, documents: Mapping[str, Any]) -> None:
        """Know these nodes from now on, and no others: name → document of the file source."""
        with self._lock:
            self._estate = estate(documents)

    def _vm(self, request: Request) -> Vm | None:
        with self._lock:
            return self._estate.vm_at(request.client)

    def _fault(self, request: Request) -> Now:
        vm = self._vm(request)
        return self._board.for_request(Surface.IMDS, vm.computer_name if vm else "")

    def _answer(self, request: Request, _: Now) -> Response:
        vm = self._vm(request)
        return self._imds.answer(request, self._estate, vm) if vm else imds.error(404)


def estate(documents: Mapping[str, Any]) -> Estate:
    """The cloud in which these nodes are VMs with one NIC each. Raises KeyError, ValueError."""
    vms = tuple(_vm(name, document) for name, document in documents.items())
    subnets = {vm.primary_nic.subnet for vm in vms}
    if len(subnets) > 1:
        raise ValueError(f"the nodes are in several networks: {', '.join(str(s.prefix) for s in subnets)}")
    vnets = tuple(Vnet(_NETWORK, subnet.prefix, (subnet,)) for subnet in subnets)
    subscription, tenant = (str(uuid.uuid5(_NAMESPACE, name)) for name in ("subscription", "tenant"))
    return Estate(subscription, "kind", "westeurope", "AzurePublicCloud", tenant, vnets, vms)


def _vm(name: str, document: Mapping[str, Any]) -> Vm:
    interface = document["Interfaces"][0]
    subnet = interface["IPSubnets"][0]
    configurations = tuple(
        IpConfiguration(f"ipconfig{number}", IPv4Network(entry["Address"]), primary=entry["IsPrimary"])
        for number, entry in enumerate(subnet["IPAddresses"], 1)
    )
    nodes = Subnet("nodes", IPv4Network(subnet["Prefix"]))
    nic = Nic(f"{name}-nic", interface["MacAddress"].lower(), _NETWORK, nodes, configurations)
    return Vm(name, name, str(uuid.uuid5(_NAMESPACE, name)), (nic,))
