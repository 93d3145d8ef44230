"""Azure for many machines in one process, on the loopback of this network namespace.

Resource Manager over HTTPS with the limits of a region, the endpoint that gives tokens, and the instance
metadata service, which tells machines apart by the address that a request comes from. There are no machines
behind it, nor a network between them. What Azure says and does is the fabric's.
"""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from integration.fabric import arm, armanswers, clouds, identity, imds, topology
from integration.fabric.armlimits import Bucket
from integration.fabric.certificates import authority
from integration.fabric.faults import Now
from integration.fabric.goalstate import GoalState
from integration.fabric.model import IMDS, Estate, Subnet, Surface, Vnet
from integration.fabric.services import listen
from integration.fabric.web import Request, Response, Server, Site

if TYPE_CHECKING:
    import ssl
    from ipaddress import IPv4Address
    from typing import Self

    from integration.bench.scale.scenario import Scenario

NETWORK = Vnet("vnet1", IPv4Network("10.0.0.0/15"), (Subnet("nodes", IPv4Network("10.0.0.0/16")),))
"""One subnet with room for a thousand nodes and 60,000 pods."""
PAGE = 50
"""NICs in one page of a list. How many Azure puts into one is not documented."""
_HOSTS = Path("/etc/hosts")
_NOTHING = Now()
"""What is wrong with the servers."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a client of Azure needs."""

    ca_file: Path
    tenant: str
    client_id: str
    token_file: Path
    """The token of a service account, which is exchanged for one of Azure's (workload identity)."""

    @property
    def variables(self) -> dict[str, str]:
        """As Azure's webhook sets them in a pod."""
        return {
            "AZURE_TENANT_ID": self.tenant,
            "AZURE_CLIENT_ID": self.client_id,
            "AZURE_FEDERATED_TOKEN_FILE": str(self.token_file),
            "AZURE_AUTHORITY_HOST": f"https://{clouds.CLOUDS[0].login_host}/",
            "SSL_CERT_FILE": str(self.ca_file),
        }


class Azure:
    """A subscription with the machines of a scenario; a context manager that serves inside the block.

    The network namespace has to be one of its own: addresses are added to its loopback. ``/etc/hosts`` and
    ``folder`` have to be writable.
    """

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.goal = GoalState(topology.many(scenario.nodes, scenario.start, NETWORK))
        self.goal.set_lag(Surface.IMDS, scenario.lag / scenario.speed)
        self.identity = identity.Identity()
        self.arm = arm.Arm(self.identity.issuer, lambda: self.goal.newest, self.goal.change)
        self.arm.roles.give("nic-writer")
        self.arm.operations.speed = scenario.speed
        self.arm.page_size = PAGE
        _limit(self.arm, scenario.part)
        self._metadata = imds.Imds(requests_per_second=5)
        principal = self.identity.system_assigned
        assert principal is not None
        self.access = Access(
            folder / "ca.pem", self.estate.tenant, principal.client_id, folder / "service-account-token"
        )
        self._undo = contextlib.ExitStack()

    @property
    def estate(self) -> Estate:
        """What exists now."""
        return self.goal.newest

    def __enter__(self) -> Self:
        self.access.ca_file.write_text(authority().ca_pem)
        self.access.token_file.write_text("a token of a service account")
        _prepare_network()
        with contextlib.ExitStack() as undo:
            undo.callback(self.arm.close)
            for site, address, port, tls in self._sites():
                server = Server(site, listen(address, port), tls)
                undo.callback(server.close)
                server.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _sites(self) -> list[tuple[Site, IPv4Address, int, ssl.SSLContext | None]]:
        tls = authority().server
        return [
            (
                Site(
                    "arm",
                    arm.SERVER_HEADER,
                    lambda _: _NOTHING,
                    lambda request, _: self.arm.answer(request, self.estate),
                    lambda _, status: armanswers.error(status),
                ),
                clouds.ARM_ADDRESS,
                443,
                tls,
            ),
            (
                Site(
                    "login",
                    arm.SERVER_HEADER,
                    lambda _: _NOTHING,
                    lambda request, _: self.identity.login(request, self.estate),
                    lambda _, status: identity.error(status),
                ),
                clouds.LOGIN_ADDRESS,
                443,
                tls,
            ),
            (
                Site(
                    "imds",
                    imds.SERVER_HEADER,
                    lambda _: _NOTHING,
                    lambda request, _: self._tell_machine(request),
                    lambda _, status: imds.error(status),
                ),
                IMDS,
                80,
                None,
            ),
        ]

    def _tell_machine(self, request: Request) -> Response:
        seen = self.goal.seen_by(Surface.IMDS)
        vm = seen.vm_at(request.client)
        return imds.error(404) if vm is None else self._metadata.answer(request, seen, vm)


def _limit(manager: arm.Arm, part: float) -> None:
    """Let so many machines have a part of the limits only: as many each as a thousand of them have."""
    for bucket in (manager.reads, manager.writes):
        _scale(bucket, part)
    for window in (manager.network_reads, manager.network_writes):
        if window.allowed is not None:
            window.allowed = max(1, round(window.allowed * part))


def _scale(bucket: Bucket, part: float) -> None:
    bucket.size = max(1, round(bucket.size * part))
    bucket.per_second *= part


def _prepare_network() -> None:
    """Have every address of Azure and of its machines on the loopback, and names for the endpoints."""
    own = [f"{address}/32" for address in (clouds.ARM_ADDRESS, clouds.LOGIN_ADDRESS, IMDS)]
    commands = [
        *(f"address replace {each} dev lo" for each in own),
        f"route replace local {NETWORK.prefix} dev lo",
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands) + "\n", text=True, check=True)
    names = "".join(f"{address} {name}\n" for name, address in clouds.endpoints("AzurePublicCloud").items())
    _HOSTS.write_text(f"127.0.0.1 localhost\n{names}")
