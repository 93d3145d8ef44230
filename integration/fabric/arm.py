"""Azure Resource Manager: NICs and what leads to them, with tokens, roles, paging and throttling.

Owns what every request has to pass before its handler answers. Any api-version is taken. Sources: request
limits of Azure Resource Manager; recorded answers for headers.
"""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING

from integration.fabric import armroles as roles
from integration.fabric import armscalesets as scalesets
from integration.fabric import armwrites as writes
from integration.fabric import nicbody
from integration.fabric.armanswers import GATEWAY, error, with_headers
from integration.fabric.armlimits import compute_throttled, gateway_throttled, network_throttled
from integration.fabric.armlog import POLL
from integration.fabric.armroutes import ROUTES, Route
from integration.fabric.armstate import ArmState
from integration.fabric.changes import RefusedChange
from integration.fabric.clouds import cloud
from integration.fabric.tokens import TokenRefused
from integration.fabric.web import Request, Response

if TYPE_CHECKING:
    import re

    from integration.fabric.armfaults import Edit
    from integration.fabric.model import Estate

SERVER_HEADER = "Microsoft-HTTPAPI/2.0"


class Arm(ArmState):
    """ARM of one fabric."""

    def answer(self, request: Request, estate: Estate) -> Response:
        """The response to a request, with the estate as ARM shows it now."""
        try:
            caller = self._caller(request, estate)
        except TokenRefused as refused:
            caller = roles.Caller("", "")
            response = _challenge(refused, estate)
        else:
            response = self._versioned(request, estate, caller)
        source = str(request.client)
        self.log.record(caller.client_id, _kind(request), request.path, response.status, source)
        correlation = request.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4())
        return with_headers(
            response,
            ("Cache-Control", "no-cache"),
            ("x-ms-request-id", str(uuid.uuid4())),
            ("x-ms-correlation-request-id", correlation),
            ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
        )

    def edit_nic(self, name: str, edit: Edit) -> None:
        """Let somebody else change a NIC: ``edit`` changes its document in place.

        Raises:
            RefusedChange: Azure would refuse the edited document.
            KeyError: there is no NIC of that name.
        """
        writes.edit_nic(self, name, edit)

    def edit_instance(self, computer_name: str, edit: Edit) -> None:
        """The same for an instance of a Uniform scale set, by its machine's name."""
        scalesets.edit_instance(self, computer_name, edit)

    def reconcile(self) -> None:
        """Let Uniform scale sets apply their models again: what was added to single instances is gone."""
        scalesets.reconcile(self)

    def _caller(self, request: Request, estate: Estate) -> roles.Caller:
        audiences = cloud(estate.environment).audiences
        claims = self.issuer.check(request.headers.get("authorization"), audiences)
        return roles.Caller(claims["appid"], claims["oid"])

    def _versioned(self, request: Request, estate: Estate, caller: roles.Caller) -> Response:
        if not request.parameter("api-version"):
            message = "The api-version query parameter (?api-version=) is required for all requests."
            return error(400, message, "MissingApiVersionParameter")
        return self._counted(request, estate, caller)

    def _counted(self, request: Request, estate: Estate, caller: roles.Caller) -> Response:
        """Within the limits of ARM itself."""
        writing = request.method not in {"GET", "HEAD"}
        what, bucket = ("writes", self.writes) if writing else ("reads", self.reads)
        left = bucket.take(self.operations.speed)
        if left is None:
            return gateway_throttled(what, estate.subscription, caller.object_id, 1)
        response = self._routed(request, estate, caller)
        return with_headers(response, (f"x-ms-ratelimit-remaining-subscription-global-{what}", str(left)))

    def _routed(self, request: Request, estate: Estate, caller: roles.Caller) -> Response:
        path = request.path.rstrip("/")
        for route in ROUTES:
            match = route.pattern.fullmatch(path)
            if match is None:
                continue
            handler = route.methods.get(request.method)
            if handler is None:
                return error(405, f"The emulator has no {request.method} for {path}.")
            return (
                _scope_missing(estate, match)
                or self._forbidden(route, request, caller)
                or self._throttled(route, request, estate, caller)
                or handler(self, request, estate, match)
            )
        return error(404, f"The emulator has nothing at {path}.", "InvalidResourceType")

    def _forbidden(self, route: Route, request: Request, caller: roles.Caller) -> Response | None:
        if route.is_poll and not self.roles.polls_need_read:
            return None
        verb = "read" if request.method == "GET" else "write"
        action, scope = f"{route.resource_type}/{verb}", request.path.rstrip("/")
        refusal = self.roles.refusal(caller, action, scope)
        if refusal is not None or verb == "read" or route.references is None:
            return refusal
        try:
            found = list(route.references(nicbody.json_object(request.body)))
        except RefusedChange as refused:
            return writes.refused_answer(refused)
        return self.roles.linked_refusal(caller, action, scope, found)

    def _throttled(
        self, route: Route, request: Request, estate: Estate, caller: roles.Caller
    ) -> Response | None:
        """The switches of a test first, then the limits of Microsoft.Network."""
        switched = self.faults.throttled(_kind(request))
        if switched is not None and switched.by_gateway:
            what = "writes" if request.method == "PUT" else "reads"
            return gateway_throttled(what, estate.subscription, caller.object_id, switched.retry_after)
        if switched is not None:
            throttled = network_throttled if route.is_network else compute_throttled
            return throttled(switched.retry_after)
        if not route.is_network:
            writes_instance = route.resource_type == roles.INSTANCE and request.method == "PUT"
            full = writes_instance and self.instance_writes.take(request.path, self.operations.speed) is None
            return compute_throttled(self.operations.retry_after()) if full else None
        window = self.network_reads if request.method == "GET" else self.network_writes
        wait = window.wait(self.operations.speed)
        return network_throttled(math.ceil(wait)) if wait else None


def _kind(request: Request) -> str:
    is_poll = request.method == "GET" and "/operations/" in request.path
    return POLL if is_poll else request.method


def _challenge(refused: TokenRefused, estate: Estate) -> Response:
    challenge = (
        f'Bearer authorization_uri="https://{cloud(estate.environment).login_host}/{estate.tenant}", '
        f'error="invalid_token", error_description="{refused}"'
    )
    return error(401, str(refused), refused.code, ("WWW-Authenticate", challenge))


def _scope_missing(estate: Estate, match: re.Match[str]) -> Response | None:
    """The error for a subscription or resource group that does not exist; names ignore case."""
    named = match.groupdict()
    if named["subscription"].casefold() != estate.subscription.casefold():
        message = f"The subscription '{named['subscription']}' could not be found."
        return error(404, message, "SubscriptionNotFound", GATEWAY)
    group = named.get("group")
    if group is not None and group.casefold() != estate.resource_group.casefold():
        message = f"Resource group '{group}' could not be found."
        return error(404, message, "ResourceGroupNotFound", GATEWAY)
    return None
