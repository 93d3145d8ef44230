"""Answers that ARM gives to whatever was asked: documents, errors, and who of the two gave them.

A request passes the gateway (ARM itself: tokens, roles, its own limits, what does not exist) and then the
resource provider. Errors of Microsoft.Network have ``details``, those of the gateway a header that names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from integration.fabric.web import Response, json_response

if TYPE_CHECKING:
    from integration.fabric.model import Estate

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

GATEWAY = ("x-ms-failure-cause", "gateway")
SERVICE = ("x-ms-failure-cause", "service")


def error(status: int, message: str = "", code: str = "", *headers: tuple[str, str]) -> Response:
    """An error document of ARM."""
    code = code or _CODES.get(status, "InternalServerError")
    return json_response(status, {"error": {"code": code, "message": message or code}}, *headers)


def network_error(
    status: int, code: str, message: str, *headers: tuple[str, str], details: tuple[dict[str, str], ...] = ()
) -> Response:
    """An error document of Microsoft.Network."""
    document = {"error": {"code": code, "message": message, "details": list(details)}}
    return json_response(status, document, *headers)


def not_found(kind: str, name: str, estate: Estate) -> Response:
    """The gateway knows no such resource."""
    message = (
        f"The Resource '{kind}/{name}' under resource group '{estate.resource_group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return error(404, message, "ResourceNotFound", GATEWAY)


def found(document: dict[str, Any]) -> Response:
    """A resource, with its ETag if it has one."""
    headers = (("ETag", document["etag"]),) if "etag" in document else ()
    return json_response(200, document, *headers)


def with_headers(response: Response, *headers: tuple[str, str]) -> Response:
    """The same response with more headers."""
    return Response(response.status, response.body, response.content_type, (*response.headers, *headers))
