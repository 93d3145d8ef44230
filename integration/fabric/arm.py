"""Azure Resource Manager: what may be asked about NICs, with tokens, ETags, paging and throttling.

Resources are found by path in one table, so that a writing operation is one more row. Any api-version
is taken. Sources: REST references of Microsoft.Network and Microsoft.Compute, request limits of
Azure Resource Manager; recorded answers for headers.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from integration.fabric import armdocuments as documents
from integration.fabric.clouds import cloud
from integration.fabric.hostnetwork import INTERNET
from integration.fabric.model import Placement
from integration.fabric.tokens import TokenIssuer, TokenRefused
from integration.fabric.web import Request, Response, json_response

if TYPE_CHECKING:
    from integration.fabric.model import Estate, Nic, Vm

SERVER_HEADER = "Microsoft-HTTPAPI/2.0"

_CODES = {
    400: "BadRequest",
    401: "AuthenticationFailed",
    403: "AuthorizationFailed",
    404: "ResourceNotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalServerError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}

Handler = Callable[["Arm", Request, "Estate", "re.Match[str]"], Response]


def error(status: int, message: str = "", code: str = "", *headers: tuple[str, str]) -> Response:
    """An error document of ARM."""
    code = code or _CODES.get(status, "InternalServerError")
    return json_response(status, {"error": {"code": code, "message": message or code}}, *headers)


class Bucket:
    """A token bucket: so many requests at once, so many more every second (ARM's request limits)."""

    def __init__(self, size: int = 250, per_second: float = 25.0) -> None:
        self.size = size
        self.per_second = per_second
        self._left = float(size)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """Take one; how many are left then, or None if there was none."""
        with self._lock:
            now = time.monotonic()
            self._left = min(float(self.size), self._left + (now - self._at) * self.per_second)
            self._at = now
            if self._left < 1:
                return None
            self._left -= 1
            return int(self._left)


class Arm:
    """The reading part of ARM that leads to NICs and their IP configurations."""

    def __init__(self, issuer: TokenIssuer) -> None:
        self.issuer = issuer
        self.reads = Bucket()
        self.page_size: int | None = None
        """Entries in one page of a list; None: all in one."""

    def answer(self, request: Request, estate: Estate) -> Response:
        """The response to a request, with the estate as ARM shows it now."""
        response = self._refusal(request, estate) or self._routed(request, estate)
        correlation = request.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4())
        common = (
            ("Cache-Control", "no-cache"),
            ("x-ms-request-id", str(uuid.uuid4())),
            ("x-ms-correlation-request-id", correlation),
            ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
        )
        return Response(response.status, response.body, response.content_type, (*response.headers, *common))

    def _refusal(self, request: Request, estate: Estate) -> Response | None:
        own = cloud(estate.environment)
        try:
            self.issuer.check(request.headers.get("authorization"), own.audiences)
        except TokenRefused as refused:
            challenge = (
                f'Bearer authorization_uri="https://{own.login_host}/{estate.tenant}", '
                f'error="invalid_token", error_description="{refused}"'
            )
            return error(401, str(refused), refused.code, ("WWW-Authenticate", challenge))
        if not request.parameter("api-version"):
            message = "The api-version query parameter (?api-version=) is required for all requests."
            return error(400, message, "MissingApiVersionParameter")
        return None

    def _routed(self, request: Request, estate: Estate) -> Response:
        left = self.reads.take()
        if left is None:
            return error(429, "The request was throttled.", "", ("Retry-After", "1"))
        path = request.path.rstrip("/")
        for pattern, methods in ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            handler = methods.get(request.method)
            if handler is None:
                return error(405, f"The emulator has no {request.method} for {path}.")
            response = _scope_missing(estate, match) or handler(self, request, estate, match)
            remaining = ("x-ms-ratelimit-remaining-subscription-global-reads", str(left))
            return Response(
                response.status, response.body, response.content_type, (*response.headers, remaining)
            )
        return error(404, f"The emulator has nothing at {path}.", "InvalidResourceType")

    def paged(self, request: Request, entries: list[dict[str, Any]]) -> Response:
        """One page of a list, with the link to the next one."""
        size = self.page_size or max(len(entries), 1)
        start = int(request.parameter("$skiptoken") or 0)
        document: dict[str, Any] = {"value": entries[start : start + size]}
        if start + size < len(entries):
            query = [(k, v) for k, v in request.query if k != "$skiptoken"]
            query.append(("$skiptoken", str(start + size)))
            document["nextLink"] = f"https://{request.host}{request.path}?{urlencode(query)}"
        return json_response(200, document)


def _scope_missing(estate: Estate, match: re.Match[str]) -> Response | None:
    """The error for a subscription or resource group that does not exist; names ignore case."""
    named = match.groupdict()
    if named["subscription"].casefold() != estate.subscription.casefold():
        message = f"The subscription '{named['subscription']}' could not be found."
        return error(404, message, "SubscriptionNotFound", ("x-ms-failure-cause", "gateway"))
    group = named.get("group")
    if group is not None and group.casefold() != estate.resource_group.casefold():
        message = f"Resource group '{group}' could not be found."
        return error(404, message, "ResourceGroupNotFound", ("x-ms-failure-cause", "gateway"))
    return None


def _not_found(kind: str, name: str, estate: Estate) -> Response:
    message = (
        f"The Resource '{kind}/{name}' under resource group '{estate.resource_group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return error(404, message, "ResourceNotFound", ("x-ms-failure-cause", "gateway"))


def _found(document: dict[str, Any]) -> Response:
    headers = (("ETag", document["etag"]),) if "etag" in document else ()
    return json_response(200, document, *headers)


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _nics(estate: Estate, *, uniform: bool) -> list[tuple[Vm, Nic]]:
    return [
        (vm, nic)
        for vm in estate.vms
        if vm.computer_name != INTERNET and (vm.placement is Placement.UNIFORM) == uniform
        for nic in vm.nics
    ]


def _nic(_: Arm, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    expand = "subnet" in (request.parameter("$expand") or "").casefold()
    for vm, nic in _nics(estate, uniform=False):
        if _same(nic.name, match["nic"]):
            return _found(documents.nic_document(estate, vm, nic, expand_subnet=expand))
    return _not_found("Microsoft.Network/networkInterfaces", match["nic"], estate)


def _nic_list(arm: Arm, request: Request, estate: Estate, _: re.Match[str]) -> Response:
    entries = [documents.nic_document(estate, vm, nic) for vm, nic in _nics(estate, uniform=False)]
    return arm.paged(request, entries)


def _scale_set_nics(estate: Estate, match: re.Match[str]) -> list[tuple[Vm, Nic]]:
    instance = match.groupdict().get("instance")
    return [
        (vm, nic)
        for vm, nic in _nics(estate, uniform=True)
        if _same(vm.scale_set, match["vmss"]) and instance in (None, vm.instance)
    ]


def _scale_set_nic_list(arm: Arm, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    found = _scale_set_nics(estate, match)
    if not found:
        return _not_found("Microsoft.Compute/virtualMachineScaleSets", match["vmss"], estate)
    return arm.paged(request, [documents.nic_document(estate, vm, nic) for vm, nic in found])


def _scale_set_nic(_: Arm, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    expand = "subnet" in (request.parameter("$expand") or "").casefold()
    for vm, nic in _scale_set_nics(estate, match):
        if _same(nic.name, match["nic"]):
            return _found(documents.nic_document(estate, vm, nic, expand_subnet=expand))
    name = f"{match['vmss']}/virtualMachines/{match['instance']}/networkInterfaces/{match['nic']}"
    return _not_found("Microsoft.Compute/virtualMachineScaleSets", name, estate)


def _scale_set_configurations(arm: Arm, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vm, nic in _scale_set_nics(estate, match):
        if _same(nic.name, match["nic"]):
            entries = [documents.configuration_document(estate, vm, nic, e) for e in nic.configurations]
            return arm.paged(request, entries)
    return _not_found("Microsoft.Compute/virtualMachineScaleSets", match["vmss"], estate)


def _scale_set_vm(_: Arm, __: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vm in estate.vms:
        if _same(vm.scale_set, match["vmss"]) and vm.instance == match["instance"]:
            return _found(documents.vm_document(estate, vm))
    name = f"{match['vmss']}/virtualMachines/{match['instance']}"
    return _not_found("Microsoft.Compute/virtualMachineScaleSets", name, estate)


def _vm(_: Arm, __: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vm in estate.vms:
        if _same(vm.name, match["vm"]) and vm.placement is not Placement.UNIFORM:
            return _found(documents.vm_document(estate, vm))
    return _not_found("Microsoft.Compute/virtualMachines", match["vm"], estate)


_ELSEWHERE = {INTERNET, "onpremises"}
"""Networks that are not in Azure."""


def _vnet(_: Arm, __: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vnet in estate.vnets:
        if _same(vnet.name, match["vnet"]) and vnet.name not in _ELSEWHERE:
            return _found(documents.vnet_document(estate, vnet))
    return _not_found("Microsoft.Network/virtualNetworks", match["vnet"], estate)


def _subnet(_: Arm, __: Request, estate: Estate, match: re.Match[str]) -> Response:
    for vnet in estate.vnets:
        for subnet in vnet.subnets:
            if _same(vnet.name, match["vnet"]) and _same(subnet.name, match["subnet"]):
                return _found(documents.subnet_document(estate, vnet, subnet))
    name = f"{match['vnet']}/subnets/{match['subnet']}"
    return _not_found("Microsoft.Network/virtualNetworks", name, estate)


def _route(path: str, **methods: Handler) -> tuple[re.Pattern[str], dict[str, Handler]]:
    pattern = re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", path.replace(".", r"\."))
    return re.compile(pattern, re.IGNORECASE), methods


_SUBSCRIPTION = "/subscriptions/<subscription>"
_GROUP = f"{_SUBSCRIPTION}/resourceGroups/<group>"
_NETWORK = "/providers/Microsoft.Network"
_SCALE_SET = f"{_GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/<vmss>"
_INSTANCE = f"{_SCALE_SET}/virtualMachines/<instance>"

ROUTES = (
    _route(f"{_GROUP}{_NETWORK}/networkInterfaces/<nic>", GET=_nic),
    _route(f"{_GROUP}{_NETWORK}/networkInterfaces", GET=_nic_list),
    _route(f"{_SUBSCRIPTION}{_NETWORK}/networkInterfaces", GET=_nic_list),
    _route(f"{_GROUP}{_NETWORK}/virtualNetworks/<vnet>", GET=_vnet),
    _route(f"{_GROUP}{_NETWORK}/virtualNetworks/<vnet>/subnets/<subnet>", GET=_subnet),
    _route(f"{_GROUP}/providers/Microsoft.Compute/virtualMachines/<vm>", GET=_vm),
    _route(f"{_SCALE_SET}/networkInterfaces", GET=_scale_set_nic_list),
    _route(_INSTANCE, GET=_scale_set_vm),
    _route(f"{_INSTANCE}/networkInterfaces", GET=_scale_set_nic_list),
    _route(f"{_INSTANCE}/networkInterfaces/<nic>", GET=_scale_set_nic),
    _route(f"{_INSTANCE}/networkInterfaces/<nic>/ipConfigurations", GET=_scale_set_configurations),
)
"""What there is: a path with its names in angle brackets, and what each method does."""
