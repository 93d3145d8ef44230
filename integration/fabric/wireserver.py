"""The wireserver of the host: the interface document and the little that clients ask besides. Pure.

Source: what the Azure CNI plugins and the Linux agent request; content types are our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.fabric.documents import wireserver_document
from integration.fabric.web import Request, Response

if TYPE_CHECKING:
    from integration.fabric.model import Vm

SERVER_HEADER = "Microsoft-IIS/10.0"
HOST_PLUGIN_PORT = 32526
"""HostGAPlugin: what it answers, the extensions' settings, is not emulated, only that it answers."""
_XML = "text/xml; charset=utf-8"

_VERSIONS = (
    b'<?xml version="1.0" encoding="utf-8"?><Versions><Preferred><Version>2015-04-05</Version></Preferred>'
    b"<Supported><Version>2015-04-05</Version><Version>2012-11-30</Version></Supported></Versions>"
)
_SUPPORTED = (
    b"<SupportedRequestTypes><type>GetSupportedApis</type><type>GetInterfaceInfoV1</type>"
    b"</SupportedRequestTypes>"
)


def error(status: int, message: str = "") -> Response:
    """The error document of the host agent."""
    body = (
        f"<Error><Code>{_code(status)}</Code><Message>{message or _code(status)}</Message><Details/></Error>"
    )
    return Response(status, body.encode(), _XML)


def answer(request: Request, vm: Vm, *, ipv6: bool = False) -> Response:
    """The response to a request of that machine, with the NICs as the wireserver sees them.

    ``ipv6``: their IPv6 addresses, too.
    """
    if request.method != "GET":
        return error(405)
    component = (request.parameter("comp") or "").casefold()
    if request.path in ("/", "") and component == "versions":
        return Response(200, _VERSIONS, _XML)
    if request.path.rstrip("/").casefold() != "/machine/plugins" or component != "nmagent":
        return error(404)
    kind = (request.parameter("type") or "").casefold()
    if kind == "getinterfaceinfov1":
        return Response(200, wireserver_document(vm, ipv6=ipv6), _XML)
    if kind == "getsupportedapis":
        return Response(200, _SUPPORTED, _XML)
    return error(400, f"type {request.parameter('type')} is not supported")


def _code(status: int) -> str:
    return {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 429: "TooManyRequests"}.get(
        status, "InternalError"
    )
