"""Where tokens come from: the managed identity endpoint of IMDS, and the login endpoint of Entra.

Sources: Azure, how-to-use-vm-token (parameters, errors, strings instead of numbers) and the OAuth 2.0
client credentials flow with a federated credential. Token texts never appear in errors or logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from integration.fabric.clouds import CLOUDS, cloud
from integration.fabric.imds import VERSIONS, check_headers
from integration.fabric.limits import ConcurrencyLimit, RateLimit
from integration.fabric.tokens import Token, TokenIssuer
from integration.fabric.web import Request, Response, json_response

if TYPE_CHECKING:
    from integration.fabric.model import Estate, Vm

_LOGIN_PATH = re.compile(r"/(?P<tenant>[^/]+)/oauth2/(?:v2\.0/)?token", re.IGNORECASE)
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity that a machine or a workload has."""

    client_id: str
    object_id: str
    resource_id: str = ""
    """ARM id of a user-assigned managed identity; empty for the system-assigned one."""


@dataclass(slots=True)
class Identity:
    """Both token endpoints, with the identities that exist."""

    issuer: TokenIssuer = field(default_factory=TokenIssuer)
    system_assigned: Principal | None = field(
        default_factory=lambda: Principal(
            "5e000000-0000-4000-8000-000000000001", "0b000000-0000-4000-8000-000000000001"
        )
    )
    """None: the machines have no identity of their own."""
    user_assigned: list[Principal] = field(default_factory=list)
    rate: RateLimit = field(default_factory=lambda: RateLimit(20))
    concurrency: ConcurrencyLimit = field(default_factory=lambda: ConcurrencyLimit(5))

    def managed(self, request: Request, estate: Estate, vm: Vm) -> Response:
        """``/metadata/identity/...`` of IMDS."""
        with self.concurrency.entered(vm.computer_name) as within:
            if not within or not self.rate.admits(vm.computer_name):
                return error(429, "too_many_requests", "Too many requests")
            return self._managed(request, estate)

    def login(self, request: Request, estate: Estate) -> Response:
        """The token endpoint of Entra: a workload identity gives its federated assertion."""
        match = _LOGIN_PATH.fullmatch(request.path)
        if match is None or request.method != "POST":
            return error(404, "invalid_request", "AADSTS90013: there is nothing here")
        if match["tenant"].casefold() != estate.tenant.casefold():
            return error(400, "invalid_request", f"AADSTS90002: Tenant '{match['tenant']}' not found.")
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        principal = next((p for p in self._principals() if p.client_id == form.get("client_id")), None)
        if principal is None:
            return error(
                400, "unauthorized_client", "AADSTS700016: Application was not found in the directory."
            )
        if form.get("client_assertion_type") != _ASSERTION or not form.get("client_assertion"):
            return error(401, "invalid_client", "AADSTS7000216: client_assertion is required.")
        audience = form.get("scope", "").removesuffix("/.default")
        if _is_elsewhere(audience, estate):
            return _unknown_resource(audience, estate)
        token = self._issue(audience, principal, estate)
        times = {"expires_in": self.issuer.lifetime, "ext_expires_in": self.issuer.lifetime}
        return json_response(200, {"token_type": "Bearer", **times, "access_token": token.text})

    def _managed(self, request: Request, estate: Estate) -> Response:
        refusal = check_headers(request)
        if refusal is not None:
            return error(refusal.status, "invalid_request", "Required metadata header not specified")
        if request.path.rstrip("/").casefold() != "/metadata/identity/oauth2/token":
            return error(404, "not_found", "There is no such endpoint")
        version = request.parameter("api-version") or ""
        if version not in VERSIONS or version < "2018-02-01":
            return error(400, "bad_request_102", "Required audience parameter or api-version not specified")
        resource = request.parameter("resource")
        if not resource:
            return error(400, "invalid_request", "Required query variable 'resource' is missing")
        principal = self._chosen(request)
        if principal is None:
            return error(400, "invalid_request", "Identity not found")
        if _is_elsewhere(resource, estate):
            return _unknown_resource(resource, estate)
        token = self._issue(resource, principal, estate)
        return json_response(
            200,
            {
                "access_token": token.text,
                "client_id": principal.client_id,
                "expires_in": str(self.issuer.lifetime),
                "expires_on": str(token.expires_on),
                "ext_expires_in": str(self.issuer.lifetime),
                "not_before": str(token.not_before),
                "refresh_token": "",
                "resource": resource,
                "token_type": "Bearer",
            },
        )

    def _principals(self) -> list[Principal]:
        return [*([self.system_assigned] if self.system_assigned else []), *self.user_assigned]

    def _chosen(self, request: Request) -> Principal | None:
        for parameter, attribute in (
            ("client_id", "client_id"),
            ("object_id", "object_id"),
            ("msi_res_id", "resource_id"),
            ("mi_res_id", "resource_id"),
        ):
            wanted = request.parameter(parameter)
            if wanted is not None:
                known = (
                    p for p in self._principals() if getattr(p, attribute).casefold() == wanted.casefold()
                )
                return next(known, None)
        if self.system_assigned is not None:
            return self.system_assigned
        # Without a system-assigned identity the only user-assigned one is meant.
        return self.user_assigned[0] if len(self.user_assigned) == 1 else None

    def _issue(self, audience: str, principal: Principal, estate: Estate) -> Token:
        return self.issuer.issue(
            audience, client_id=principal.client_id, object_id=principal.object_id, tenant=estate.tenant
        )


def _is_elsewhere(audience: str, estate: Estate) -> bool:
    """Whether a token would be for Resource Manager of another cloud, which no tenant of this one knows."""
    wanted, own = audience.rstrip("/"), cloud(estate.environment).audiences
    return wanted not in own and any(wanted in each.audiences for each in CLOUDS)


def _unknown_resource(audience: str, estate: Estate) -> Response:
    """As how-to-use-vm-token lists it."""
    text = f"AADSTS50001: The application named {audience} was not found in the tenant named {estate.tenant}."
    return error(400, "invalid_resource", text)


def error(status: int, code: str = "", description: str = "") -> Response:
    """The error document of both endpoints."""
    document = {"error": code or "server_error", "error_description": description or f"status {status}"}
    return json_response(status, document)
