"""Source ``arm``: the NICs of this node read through Azure Resource Manager with the Azure SDK.

The only importer of ``azure.*``, which costs 0.6 s and 80 MiB: only the agent reads this source. Where the
node is in ARM comes from IMDS, and so do the prefixes of its subnets: all IP configurations of a NIC are
in one subnet, and asking IMDS needs no permission on the virtual network. After the first read each
one costs a single request to ARM. Nothing is retried here: the next read is the retry.
"""

from __future__ import annotations

import logging
import threading
import typing
from functools import cache
from typing import TYPE_CHECKING, Any

from azure.core import AzureClouds
from azure.core.exceptions import AzureError, ClientAuthenticationError, DecodeError, HttpResponseError
from azure.core.rest import HttpRequest
from azure.identity import (
    AzureAuthorityHosts,
    CredentialUnavailableError,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.mgmt.core.tools import get_arm_endpoints
from azure.mgmt.network import NetworkManagementClient

from ipam.errors import SourceUnreadable
from ipam.sources import arm_errors, imds
from ipam.sources.bounded import OneAtATime, StillBusy
from ipam.sources.nic import Entry, builder, host_subnet, listing, not_a_document
from ipam.sources.placement import Placement, last_parts, placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azure.mgmt.network.models import NetworkInterface, NetworkInterfaceIPConfiguration

    from ipam.model import IPNetwork, Listing, Nic
    from ipam.sources import ArmConfig
    from ipam.sources.nic import NicBuilder

NETWORK_API = "2024-05-01"
COMPUTE_API = "2024-07-01"
"""Pinned: old enough for the sovereign clouds, which get versions later."""

_CLOUDS = {
    "azurepubliccloud": (AzureClouds.AZURE_PUBLIC_CLOUD, ""),
    "azurechinacloud": (AzureClouds.AZURE_CHINA_CLOUD, AzureAuthorityHosts.AZURE_CHINA),
    "azureusgovernmentcloud": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
    "azureusgovernment": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
}
_ONCE: dict[str, Any] = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 15}
_TOKEN: dict[str, Any] = {"retry_total": 1, "retry_status": 1, "connection_timeout": 2, "read_timeout": 10}

# The SDK declares 2,800 functions for type checkers alone, and the interpreter keeps them all (typing,
# "get_overloads"). Nobody here asks for them; the memory serves what comes.
typing.clear_overloads()

# What fails is told by the errors below, in our own log; the SDK's records would go to stderr.
for _library in ("azure", "msal"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False


def read(config: ArmConfig, imds_endpoint: str, until: float) -> Listing:
    """The listing of the NICs of this node.

    Args:
        config: endpoint and credential.
        imds_endpoint: base URL of IMDS.
        until: ``time.monotonic`` when it has to be over.

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
        self._lock = threading.Lock()
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
        self._place: Placement | None = None
        self._client: NetworkManagementClient | None = None
        self._nic_ids: tuple[str, ...] = ()
        self._subnets: dict[str, tuple[IPNetwork, ...]] = {}

    def _read(self, until: float) -> Listing:
        if self._place is None:
            self._place = placement(imds.document(self._imds, "compute", until))
        place = self._place
        try:
            return self._listing(list(self._nics(place)), until)
        except CredentialUnavailableError as error:
            self._forget()
            raise arm_errors.no_token(str(error.message)) from error
        except HttpResponseError as error:
            if error.response is None or isinstance(error, ClientAuthenticationError):
                # A new credential next time: the SDK would go on with the token that was refused.
                self._forget()
            if error.status_code == 404:
                self._forget()
            raise self._refused(error, place) from error
        except DecodeError as error:
            raise not_a_document("arm", self._endpoint(place), str(error.message)) from error
        except AzureError as error:
            raise arm_errors.unreachable(self._endpoint(place), str(error.message)) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # The SDK's models take whatever comes; it breaks where it is looked at.
            raise not_a_document("arm", self._endpoint(place), arm_errors.words_of(repr(error))) from error

    def _refused(self, error: HttpResponseError, place: Placement) -> SourceUnreadable:
        if error.response is None or error.status_code is None:
            return arm_errors.no_token(str(error.message))
        request = getattr(error.response, "request", None)
        what = f"{request.method} {request.url.partition('?')[0]}" if request is not None else "ARM"
        code = f"{error.error.code}: " if error.error is not None and error.error.code else ""
        message = error.error.message if error.error is not None else error.message
        headers = getattr(error.response, "headers", {})
        return arm_errors.refused(what, error.status_code, f"{code}{message}", headers, place)

    def _connected(self, place: Placement) -> NetworkManagementClient:
        if self._client is None:
            self._client = _client(self._config, place)
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
        if not {built.mac for _, built in known} <= self._subnets.keys():
            seen = imds.read(self._imds, until)
            self._subnets = {nic.mac: nic.subnets for nic in seen.nics}
        nics = tuple(self._nic(nic, built) for nic, built in known)
        return listing("arm", nics, warnings, repr(nics).encode())

    def _nic(self, nic: NetworkInterface, built: NicBuilder) -> Nic:
        subnets = self._subnets.get(built.mac, ())
        built.subnets.extend(subnets)
        had_v6 = False
        for each in nic.ip_configurations or ():
            # Others are still on their way, or on their way out: a pod would have no network.
            if each.provisioning_state != "Succeeded" or not each.private_ip_address:
                continue
            text = _address(each)
            v6 = ":" in text
            # The one IPv6 address a NIC can have first is the host's, as in IMDS.
            own = bool(each.primary) or (v6 and not had_v6)
            had_v6 = had_v6 or v6
            built.add(Entry(text, own=own), [*subnets, *host_subnet(text)])
        return built.nic()


def _address(configuration: NetworkInterfaceIPConfiguration) -> str:
    """The address or block: the prefix length may be in the address or in a field of its own."""
    text = str(configuration.private_ip_address)
    length = configuration.private_ip_address_prefix_length
    return f"{text}/{length}" if length and "/" not in text else text


def _client(config: ArmConfig, place: Placement) -> NetworkManagementClient:
    cloud, authority = _CLOUDS.get(place.environment.casefold(), (None, ""))
    scopes: list[str]
    if cloud is not None:
        scopes = get_arm_endpoints(cloud)["credential_scopes"]
    elif config.base_url:
        scopes = [f"{config.base_url.rstrip('/')}/.default"]
    else:
        raise SourceUnreadable(
            f"source arm: the endpoint of cloud {place.environment!r} is not known",
            "Set arm.base_url to it, or choose another `ipam.environment`.",
        )
    verify = {"connection_verify": config.ca_file} if config.ca_file else {}
    return NetworkManagementClient(
        _credential(config, authority, verify),
        place.subscription,
        config.base_url or None,
        cloud_setting=cloud,
        credential_scopes=scopes,
        user_agent="azvnet",
        **_ONCE,
        **verify,
    )


def _credential(
    config: ArmConfig, authority: str, verify: dict[str, str]
) -> ManagedIdentityCredential | WorkloadIdentityCredential:
    """The credential that is configured; ``auto`` takes a workload identity if the environment has one."""
    if config.credential in {"auto", "workload-identity"}:
        elsewhere = {"authority": authority} if authority else {}
        try:
            return WorkloadIdentityCredential(
                client_id=config.client_id or None, **elsewhere, **_TOKEN, **verify
            )
        except ValueError as error:
            if config.credential != "auto":
                raise arm_errors.no_token(str(error)) from error
    return ManagedIdentityCredential(
        client_id=config.client_id or None,
        # IMDS is link-local: a proxy of the environment must not be asked for it.
        use_env_settings=False,
        # Chosen explicitly, so what the environment says of a workload does not count any more.
        _exclude_workload_identity_credential=True,
        **_TOKEN,
    )
