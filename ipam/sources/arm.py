"""Source ``arm``: the NICs of this node read through Azure Resource Manager with the Azure SDK.

The only importer of ``azure.*``, which costs 0.6 s and 80 MiB: only the agent reads this source. Where the
node is in ARM comes from IMDS, and so do the prefixes of its subnets: all IP configurations of a NIC are
in one subnet, and asking IMDS needs no permission on the virtual network. After the first read each
one costs a single request to ARM. Nothing is retried here: the next read is the retry.

What is remembered, and what ends it: where the machine is, which NICs it has, and the address space of its
virtual network, for ``REMEMBERED`` seconds or until ARM answers 404 or refuses the token; the subnets, as
long, or until an address is in none of them.
"""

from __future__ import annotations

import logging
import time
import typing
from functools import cache
from typing import TYPE_CHECKING, Any

from azure.core import AzureClouds
from azure.core.exceptions import AzureError, ClientAuthenticationError, DecodeError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from azure.identity import AzureAuthorityHosts, CredentialUnavailableError, WorkloadIdentityCredential
from azure.mgmt.core.tools import get_arm_endpoints
from azure.mgmt.network import NetworkManagementClient

from ipam.errors import SourceUnreadable
from ipam.quoting import quoted
from ipam.sources import arm_errors, arm_http, imds
from ipam.sources.arm_nic import fits, nic_of, spaces_of, vnet_ids
from ipam.sources.bounded import OneAtATime, StillBusy
from ipam.sources.managed_identity import ManagedIdentity, NoToken
from ipam.sources.nic import builder, listing, not_a_document
from ipam.sources.placement import Placement, last_parts, placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azure.core.credentials import TokenCredential
    from azure.mgmt.network.models import NetworkInterface

    from ipam.model import IPNetwork, Listing, Nic
    from ipam.sources import ArmConfig

NETWORK_API = "2024-05-01"
COMPUTE_API = "2024-07-01"
"""Pinned: old enough for the sovereign clouds, which get versions later."""

_CLOUDS = {
    "azurepubliccloud": (AzureClouds.AZURE_PUBLIC_CLOUD, AzureAuthorityHosts.AZURE_PUBLIC_CLOUD),
    "azurechinacloud": (AzureClouds.AZURE_CHINA_CLOUD, AzureAuthorityHosts.AZURE_CHINA),
    "azureusgovernmentcloud": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
    "azureusgovernment": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
}
REMEMBERED = 300.0
"""Seconds for which what IMDS and ARM said about machine, NICs and subnets is cached."""
_ONCE: dict[str, Any] = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 15}
_TOKEN: dict[str, Any] = {"retry_total": 1, "retry_status": 1, "connection_timeout": 2, "read_timeout": 10}

# The SDK declares 2,800 functions for type checkers alone, and the interpreter keeps them all (typing,
# "get_overloads"). Nobody here asks for them; the memory serves what comes.
typing.clear_overloads()

# What fails is in the errors below, which our own log has; the SDK's records would go to stderr.
for _library in ("azure", "msal"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False


def read(config: ArmConfig, imds_endpoint: str, until: float) -> Listing:
    """The listing of the NICs of this node; ``until`` is ``time.monotonic`` when it has to be over.

    Raises:
        SourceUnreadable: no token, refused, throttled, not found, out of reach, too slow.
    """
    return _reader(config, imds_endpoint).read(until)


@cache
def _reader(config: ArmConfig, imds_endpoint: str) -> Reader:
    return Reader(config, imds_endpoint)


class Reader:
    """One client and one credential for the life of the process, made when first needed."""

    def __init__(self, config: ArmConfig, imds_endpoint: str) -> None:
        self._config = config
        self._imds = imds_endpoint
        self._work: OneAtATime[Listing] = OneAtATime()
        self._subscription = ""
        self._forget()

    def read(self, until: float) -> Listing:
        """See the module's ``read``."""
        endpoint = self._config.base_url or "Azure Resource Manager"
        try:
            return self._work.run(lambda: self._read(until), until)
        except TimeoutError as error:
            raise arm_errors.too_slow(endpoint) from error
        except StillBusy as error:
            raise arm_errors.too_slow(endpoint, still=True) from error

    def _forget(self) -> None:
        """Everything, the client and its token as well."""
        self._client: NetworkManagementClient | None = None
        self._identity = ""
        self._forget_machine()

    def _forget_machine(self) -> None:
        self._place: Placement | None = None
        self._nic_ids: tuple[str, ...] = ()
        self._imds_nics: dict[str, Nic] = {}
        self._inside: tuple[tuple[IPNetwork, ...], str] | None = None
        self._remembered_since = time.monotonic()

    def _read(self, until: float) -> Listing:
        if time.monotonic() - self._remembered_since > REMEMBERED:
            self._forget_machine()
        if self._place is None:
            place = placement(imds.document(self._imds, "compute", until))
            if place.subscription != self._subscription:
                self._client = None
            self._place, self._subscription = place, place.subscription
        place = self._place
        try:
            return self._listing(list(self._nics(place)), until)
        except (NoToken, CredentialUnavailableError) as error:
            identity = self._identity
            self._forget()
            raise arm_errors.no_token(str(error), identity) from error
        except HttpResponseError as error:
            refused = self._refused(error, place)
            if error.response is None or isinstance(error, ClientAuthenticationError):
                # A new credential next time: the SDK would go on with the token that was refused.
                self._forget()
            if error.status_code == 404:
                self._forget()
            raise refused from error
        except (DecodeError, arm_http.AnswerRefused) as error:
            raise not_a_document("arm", self._endpoint(place), str(error)) from error
        except AzureError as error:
            raise arm_errors.unreachable(self._endpoint(place), str(error.message)) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # The SDK's models take whatever comes; it breaks where it is looked at.
            raise not_a_document("arm", self._endpoint(place), arm_errors.words_of(repr(error))) from error

    def _refused(self, error: HttpResponseError, place: Placement) -> SourceUnreadable:
        if error.response is None or error.status_code is None:
            return arm_errors.no_token(str(error.message), self._identity)
        request = getattr(error.response, "request", None)
        what = f"{request.method} {request.url.partition('?')[0]}" if request is not None else "ARM"
        code = f"{error.error.code}: " if error.error is not None and error.error.code else ""
        message = error.error.message if error.error is not None else error.message
        headers = getattr(error.response, "headers", {})
        return arm_errors.refused(what, error.status_code, f"{code}{message}", headers, place)

    def _connected(self, place: Placement) -> NetworkManagementClient:
        if self._client is None:
            self._client, self._identity = _client(self._config, place, self._imds, self._endpoint(place))
        return self._client

    def _endpoint(self, place: Placement) -> str:
        cloud = _CLOUDS.get(place.environment.casefold())
        known = get_arm_endpoints(cloud[0])["resource_manager"] if cloud else place.environment
        return str(self._config.base_url or known).rstrip("/")

    def _nics(self, place: Placement) -> Iterator[NetworkInterface]:
        interfaces = self._connected(place).network_interfaces
        if place.scale_set:
            yield from interfaces.list_virtual_machine_scale_set_vm_network_interfaces(
                place.resource_group, place.scale_set, place.name
            )
            return
        if not self._nic_ids:
            self._nic_ids = tuple(self._ids_of_machine(place))
        for nic_id in self._nic_ids:
            group, name = last_parts(nic_id)
            yield interfaces.get(group, name, api_version=NETWORK_API)

    def _ids_of_machine(self, place: Placement) -> Iterator[str]:
        """The NICs that the machine names; without the right to look at it, those that name the machine."""
        client = self._connected(place)
        request = HttpRequest("GET", f"{place.resource_id}?api-version={COMPUTE_API}")
        response = client.send_request(request)
        if response.status_code == 403:
            for nic in client.network_interfaces.list(place.resource_group, api_version=NETWORK_API):
                machine = nic.virtual_machine.id if nic.virtual_machine else None
                if nic.id and machine and machine.casefold() == place.resource_id.casefold():
                    yield nic.id
            return
        response.raise_for_status()
        profile: dict[str, Any] = response.json()["properties"]["networkProfile"]
        for nic in profile["networkInterfaces"]:
            yield nic["id"]

    def _listing(self, found: list[NetworkInterface], until: float) -> Listing:
        warnings: list[str] = []
        begun = [(nic, builder(nic.mac_address or "", nic.primary, warnings)) for nic in found]
        known = [(nic, built) for nic, built in begun if built is not None]
        if not all(fits(nic, self._imds_nics.get(built.mac)) for nic, built in known):
            try:
                self._imds_nics = {nic.mac: nic for nic in imds.read(self._imds, until).nics}
            except SourceUnreadable as error:
                if not all(built.mac in self._imds_nics for _, built in known):
                    raise
                warnings.append(f"what IMDS said before is used: {error}")
        nics = tuple(nic_of(nic, built, self._imds_nics.get(built.mac)) for nic, built in known)
        if self._inside is None:
            self._inside = self._address_space(found)
        inside, why_not = self._inside
        warnings += [why_not] if why_not else []
        return listing("arm", nics, warnings, repr(nics).encode(), inside)

    def _address_space(self, found: list[NetworkInterface]) -> tuple[tuple[IPNetwork, ...], str]:
        """The address space of the NICs' virtual networks and of their peerings; why it is not known."""
        assert self._client is not None
        spaces: list[IPNetwork] = []
        for identifier in vnet_ids(found):
            try:
                group, name = last_parts(identifier)
                vnet = self._client.virtual_networks.get(group, name, api_version=NETWORK_API)
            except HttpResponseError as error:
                if error.status_code not in {403, 404}:
                    raise
                return (), f"the address space of {identifier} can't be read: {error.status_code}"
            spaces += spaces_of(vnet)
        return tuple(dict.fromkeys(spaces)), ""


def _client(
    config: ArmConfig, place: Placement, imds_endpoint: str, endpoint: str
) -> tuple[NetworkManagementClient, str]:
    """The client, and in words who asks with it."""
    cloud, authority = _CLOUDS.get(place.environment.casefold(), (None, ""))
    scopes: list[str]
    if cloud is not None:
        scopes = get_arm_endpoints(cloud)["credential_scopes"]
    elif config.base_url:
        scopes = [f"{config.base_url.rstrip('/')}/.default"]
    else:
        raise SourceUnreadable(
            f"source arm: the endpoint of cloud {quoted(place.environment)} is not known",
            "Set arm.base_url to it, or choose another `ipam.environment`.",
        )
    credential, identity = _credential(config, authority, imds_endpoint)
    client = NetworkManagementClient(
        credential,
        place.subscription,
        config.base_url or None,
        cloud_setting=cloud,
        credential_scopes=scopes,
        user_agent="azvnet",
        transport=_transport(config, _ONCE, endpoint),
        **_ONCE,
    )
    return client, identity


def _transport(config: ArmConfig, timeouts: dict[str, Any], origin: str = "") -> RequestsTransport:
    verify = {"connection_verify": config.ca_file} if config.ca_file else {}
    waits = {name: timeouts[name] for name in ("connection_timeout", "read_timeout")}
    return RequestsTransport(session=arm_http.session(origin), **waits, **verify)


def _credential(config: ArmConfig, authority: str, imds_endpoint: str) -> tuple[TokenCredential, str]:
    """The credential that is configured; ``auto`` takes a workload identity if the environment has one.

    Nothing else of the environment counts: it may be that of another product (Azure Arc, Cloud Shell).
    """
    why = f"arm.credential is {config.credential}"
    if config.credential in {"auto", "workload-identity"}:
        elsewhere = {"authority": authority} if authority else {}
        try:
            workload = WorkloadIdentityCredential(
                client_id=config.client_id or None,
                transport=_transport(config, _TOKEN),
                **elsewhere,
                **_TOKEN,
            )
        except ValueError as error:
            if config.credential != "auto":
                raise arm_errors.no_token(str(error), f"workload identity, since {why}") from error
            why += " and the environment has no workload identity"
        else:
            return workload, f"workload identity at {authority or 'AZURE_AUTHORITY_HOST'}, since {why}"
    managed = typing.cast("TokenCredential", ManagedIdentity(imds_endpoint, config.client_id))
    return managed, f"managed identity at {imds_endpoint}, since {why}"
