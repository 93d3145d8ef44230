"""The emulated Azure Resource Manager on the loopback, over HTTPS with a local CA, with its tokens."""

from __future__ import annotations

import contextlib
import json
import ssl
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from integration.fabric import armanswers, identity, imds
from integration.fabric.arm import SERVER_HEADER, Arm
from integration.fabric.armdocuments import nic_document
from integration.fabric.faults import Now
from integration.fabric.goalstate import GoalState
from integration.fabric.model import Estate, Placement
from integration.fabric.services import listen
from integration.fabric.topology import Topology, build
from integration.fabric.web import Request, Response, Server, Site
from ipam.provision.nic_document import named_by_us
from tests.unit.operator.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

NOTHING = Now()
SPEED = 400.0
"""An operation of 71 s takes a sixth of a second."""


class AzureService:
    """A context manager. ``url`` and ``ca_file`` lead to Resource Manager and to the login endpoint, ``imds``
    to tokens of managed identities.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 3,
        placement: Placement = Placement.STANDALONE,
        environment: str = "AzurePublicCloud",
        speed: float = SPEED,
        tokens: identity.Identity | None = None,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        topology = Topology(
            nodes=nodes, addresses=2, vnet_hosts=0, placement=placement, environment=environment
        )
        self.goal = GoalState(replace(build(topology, "t"), **(place or {})))
        self.identity = tokens or identity.Identity()
        self.neighbours: list[AzureService] = []
        """Other subscriptions and regions behind the same endpoint."""
        self.witness = Witness(lambda: self.goal.newest, self.goal.change)
        self.arm = Arm(self.identity.issuer, lambda: self.goal.newest, self.witness.change)
        self.arm.roles.give("uniform-writer")
        self.arm.operations.speed = speed
        self.is_away = False
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        self._undo = contextlib.ExitStack()

    @property
    def estate(self) -> Estate:
        return self.goal.newest

    def __enter__(self) -> Self:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(self.ca_file))
        loopback = IPv4Address("127.0.0.1")
        sites: tuple[tuple[Site, ssl.SSLContext | None], ...] = (
            (
                Site("arm", SERVER_HEADER, self._fault, self._answer, lambda _, s: armanswers.error(s)),
                context,
            ),
            (
                Site("imds", imds.SERVER_HEADER, lambda _: NOTHING, self._tell, lambda _, s: imds.error(s)),
                None,
            ),
        )
        urls = []
        for site, tls in sites:
            listener = listen(loopback, 0)
            server = Server(site, listener, tls)
            self._undo.callback(server.close)
            server.start()
            urls.append(f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}")
        self.url, self.imds = urls
        self._undo.callback(self.arm.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def nic(self, node: str) -> dict[str, Any]:
        """A node's NIC as ARM shows it."""
        vm = self.estate.vm(node)
        document: dict[str, Any] = json.loads(json.dumps(nic_document(self.estate, vm, vm.nics[0])))
        return document

    def names(self, node: str) -> list[str]:
        """Of the IP configurations that were named by us."""
        entries = self.nic(node)["properties"]["ipConfigurations"]
        return [each["name"] for each in entries if named_by_us(each["name"])]

    def machine_id(self, node: str) -> str:
        from integration.fabric.documents import vm_id

        return vm_id(self.estate, self.estate.vm(node))

    def neighbour(self, **place: Any) -> AzureService:
        """Another subscription (``subscription``), or another region of this one (``location``)."""
        made = AzureService(self._folder, tokens=self.identity, place=place)
        self._undo.callback(made.arm.close)
        self.neighbours.append(made)
        return made

    def change_machine(self, node: str, **fields: Any) -> None:
        """Somebody else changes a machine, or what there is of it."""
        self.goal.change(lambda e: e.with_vm(replace(e.vm(node), **fields)))

    def forget_machine(self, node: str) -> None:
        """Delete a machine with its NIC."""
        self.goal.change(lambda e: replace(e, vms=tuple(vm for vm in e.vms if vm.computer_name != node)))

    def _fault(self, request: Request) -> Now:
        from integration.fabric.faults import Fault

        return Now(Fault(refused=True)) if self.is_away else NOTHING

    def _answer(self, request: Request, _: Now) -> Response:
        if request.path.casefold().endswith("/oauth2/v2.0/token"):
            return self.identity.login(request, self.estate)
        asked = next((each for each in self.neighbours if each._has(request.path)), self)
        return asked.arm.answer(request, asked.estate)

    def _has(self, path: str) -> bool:
        """Whether a path is in the subscription and the resource group or region of this service."""
        _, _, subscription, *rest = path.casefold().split("/")
        estate = self.estate
        return subscription == estate.subscription.casefold() and bool(
            {estate.resource_group.casefold(), estate.location.casefold()} & set(rest)
        )

    def _tell(self, request: Request, _: Now) -> Response:
        estate = self.estate
        return self.identity.managed(request, estate, estate.vms[0])
