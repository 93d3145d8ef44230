"""Source ``arm``: the NICs of this node read through Azure Resource Manager with the Azure SDK.

Importing the SDK costs 0.6 s and 80 MiB: only the agent reads this source. IMDS says where the node is in
ARM, and which prefixes its subnets have: all IP configurations of a NIC are in one subnet, and asking IMDS
needs no permission on the virtual network. After the first read each one costs a single request to ARM.
Nothing is retried here: the next read is the retry.

What is cached, and for how long: where the machine is, which NICs it has, and the address space of its
virtual network, for ``REMEMBERED`` seconds or until ARM answers 404 or refuses the token; the subnets for
the same time, or until an address is in none of them. It must not know the store.
"""

from __future__ import annotations

import time
import typing
from functools import cache
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, DecodeError, HttpResponseError
from azure.core.rest import HttpRequest
from azure.identity import CredentialUnavailableError
from azure.mgmt.network import NetworkManagementClient

from ipam.errors import SourceUnreadable
from ipam.sources import arm_client, arm_errors, arm_http, imds
from ipam.sources.arm_nic import fits, nic_of, spaces_of, vnet_ids
from ipam.sources.bounded import OneAtATime, StillBusy
from ipam.sources.managed_identity import NoToken
from ipam.sources.nic import builder, listing, not_a_document
from ipam.sources.placement import Placement, last_parts, own_placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azure.mgmt.network.models import NetworkInterface

    from ipam.model import IPNetwork, Listing, Nic
    from ipam.sources import ArmConfig
    from ipam.sources.nic import NicBuilder

NETWORK_API = "2024-05-01"
COMPUTE_API = "2024-07-01"
"""Pinned: old enough for the sovereign clouds, which get versions later."""

REMEMBERED = 300.0
"""Seconds for which what IMDS and ARM said about machine, NICs and subnets is cached."""

# The SDK declares 2,800 functions for type checkers alone, and the interpreter keeps them all (typing,
# "get_overloads"). Nothing here uses them, so their memory is freed.
typing.clear_overloads()


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
        """Forget everything, including the client and its token."""
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
            place = own_placement(self._imds, until)
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
            # The SDK's models accept anything; an unexpected value fails only where it is used.
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
            access = arm_client.Access(self._config, place, self._imds)
            self._identity = access.identity
            self._client = NetworkManagementClient(
                access.credential,
                place.subscription,
                self._config.base_url or None,
                cloud_setting=access.cloud,
                credential_scopes=access.scopes,
                user_agent=arm_client.USER_AGENT,
                transport=access.transport(),
                **arm_client.ONCE,
            )
        return self._client

    def _endpoint(self, place: Placement) -> str:
        return arm_client.endpoint(self._config, place)

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
        """The NICs that the machine names; without permission to read it, those that name the machine."""
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
        begun = [(nic, _begun(nic, warnings)) for nic in found]
        known = [(nic, built) for nic, built in begun if built is not None]
        if not all(fits(nic, self._imds_nics.get(built.mac)) for nic, built in known):
            try:
                self._imds_nics = {nic.mac: nic for nic in imds.read(self._imds, until).nics}
            except SourceUnreadable as error:
                if not all(built.mac in self._imds_nics for _, built in known):
                    raise
                warnings.append(f"IMDS can't be read, so what it returned before is used: {error}")
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


def _begun(nic: NetworkInterface, warnings: list[str]) -> NicBuilder | None:
    return builder(nic.mac_address or "", nic.primary, warnings, says_public=True)
