"""How Azure Resource Manager is reached: the cloud's endpoint and scopes, whose token, which transport.

For source ``arm``, which sends requests with the network SDK, and for what writes NICs, which uses the SDK's
pipeline alone: that takes far less memory, and a document goes back with every field that it came with,
whatever the SDK's models know. It must not know what is requested.
"""

from __future__ import annotations

import logging
import typing
from typing import TYPE_CHECKING, Any

from azure.core import AzureClouds
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline.policies import HeadersPolicy, RequestIdPolicy, UserAgentPolicy
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import AzureAuthorityHosts, WorkloadIdentityCredential
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from azure.mgmt.core.tools import get_arm_endpoints

from ipam.errors import SourceUnreadable
from ipam.quoting import quoted
from ipam.sources import arm_errors, arm_http
from ipam.sources.arm_answer import ArmAnswer, NotAnswered
from ipam.sources.managed_identity import ManagedIdentity, NoToken
from ipam.sources.shared_token import SharedToken

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from ipam.sources import ArmConfig
    from ipam.sources.placement import Placement

USER_AGENT = "azvnet"
ONCE: dict[str, Any] = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 15}
"""The SDK retries nothing: its caller knows better when to."""
_TOKEN: dict[str, Any] = {"retry_total": 1, "retry_status": 1, "connection_timeout": 2, "read_timeout": 10}
_CLOUDS = {
    "azurepubliccloud": (AzureClouds.AZURE_PUBLIC_CLOUD, AzureAuthorityHosts.AZURE_PUBLIC_CLOUD),
    "azurechinacloud": (AzureClouds.AZURE_CHINA_CLOUD, AzureAuthorityHosts.AZURE_CHINA),
    "azureusgovernmentcloud": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
    "azureusgovernment": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
}

# Failures are in our own errors, and so in our log; the SDK's log records would go to stderr.
for _library in ("azure", "msal"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False


class Access:
    """What it takes to reach ARM: endpoint, cloud, scopes, credential.

    Raises:
        SourceUnreadable: the cloud is not known, or there is no credential as configured.
    """

    def __init__(self, config: ArmConfig, place: Placement, imds_endpoint: str) -> None:
        self._config = config
        self.endpoint = endpoint(config, place)
        self.cloud: AzureClouds | None
        self.cloud, authority = _CLOUDS.get(place.environment.casefold(), (None, ""))
        self.scopes: list[str]
        """Scopes of the tokens that ARM accepts."""
        if self.cloud is not None:
            self.scopes = get_arm_endpoints(self.cloud)["credential_scopes"]
        elif config.base_url:
            self.scopes = [f"{self.endpoint}/.default"]
        else:
            raise SourceUnreadable(
                f"source arm: the endpoint of cloud {quoted(place.environment)} is unknown",
                "Set arm.base_url to it, or choose another `ipam.environment`.",
            )
        self.credential, self.identity = _credential(config, authority, imds_endpoint)
        """Whose token is used; the same in words."""

    def transport(self, connections: int = 10) -> RequestsTransport:
        """A transport that sends the token nowhere else."""
        return _transport(self._config, ONCE, self.endpoint, connections)


class Requests:
    """Single requests to ARM, by path; nothing is retried. Thread-safe."""

    def __init__(self, access: Access, connections: int = 10) -> None:
        self.identity = access.identity
        self._client: ARMPipelineClient[HttpRequest, HttpResponse] = ARMPipelineClient(
            access.endpoint,
            policies=[
                RequestIdPolicy(),
                HeadersPolicy(),
                UserAgentPolicy(USER_AGENT),
                ARMChallengeAuthenticationPolicy(SharedToken(access.credential), *access.scopes),
            ],
            transport=access.transport(connections),
        )
        self._endpoint = access.endpoint

    def ask(self, method: str, where: str, body: dict[str, Any] | None = None, etag: str = "") -> ArmAnswer:
        """One request. ``where``: a path with its query, or a URL of the same endpoint; ``etag``: If-Match.

        Raises:
            NotAnswered: see there.
            NoToken: there is none.
        """
        url = where if where.startswith("https://") else f"{self._endpoint}{where}"
        headers = {"Accept": "application/json", **({"If-Match": etag} if etag else {})}
        request = HttpRequest(method, url, headers=headers, json=body)
        try:
            response = self._client.send_request(request)
            text = response.text()
        except (NoToken, ClientAuthenticationError) as error:
            raise NoToken(arm_errors.words_of(str(error))) from error
        except AzureError as error:
            raise NotAnswered(f"{self._endpoint}: {arm_errors.words_of(str(error.message))}") from error
        except (arm_http.AnswerRefused, ValueError) as error:
            raise NotAnswered(f"{self._endpoint}: {arm_errors.words_of(str(error))}") from error
        except OSError as error:
            if error.filename is None:  # about `arm.ca_file`
                raise NotAnswered(f"{self._endpoint}: {arm_errors.words_of(str(error))}") from error
            # The SDK lets it pass: the file with a workload identity's token can't be read.
            raise NoToken(arm_errors.words_of(str(error))) from error
        lower = {name.lower(): str(value) for name, value in response.headers.items()}
        return ArmAnswer(int(response.status_code), arm_http.json_object(text), lower)


def endpoint(config: ArmConfig, place: Placement) -> str:
    """The URL of ARM; the name of the cloud if that is not known."""
    cloud = _CLOUDS.get(place.environment.casefold())
    known = get_arm_endpoints(cloud[0])["resource_manager"] if cloud else place.environment
    return str(config.base_url or known).rstrip("/")


def _transport(
    config: ArmConfig, timeouts: dict[str, Any], origin: str = "", connections: int = 10
) -> RequestsTransport:
    verify = {"connection_verify": config.ca_file} if config.ca_file else {}
    waits = {name: timeouts[name] for name in ("connection_timeout", "read_timeout")}
    return RequestsTransport(session=arm_http.session(origin, connections), **waits, **verify)


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
