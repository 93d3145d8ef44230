"""The Instance Metadata Service: documents, rules of the request, path filters. Pure but for its limit.

Source: Azure, instance-metadata-service (versions, headers, errors, route parameters, 5 requests/s).
The wording of errors that the documentation does not quote is ours.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from integration.fabric.documents import compute_document, load_balancer_document, network_document
from integration.fabric.limits import RateLimit
from integration.fabric.publicips import translated
from integration.fabric.web import Request, Response, json_response

if TYPE_CHECKING:
    from integration.fabric.model import Estate, Vm

VERSIONS = (
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-08-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
    "2024-03-15",
    "2024-07-17",
    "2025-04-07",
)
"""The versions that the documentation lists, oldest first."""

LOAD_BALANCER_SINCE = "2020-10-01"
NOT_BALANCED = "No load balancer metadata is found. Is this virtual machine behind one that is not Basic?"

SERVER_HEADER = "IMDS/150.870.65.1854"

_REASONS = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    410: "Gone. Retry after some time, for at most 70 seconds",
    429: "Too many requests",
    500: "Service error. Retry after some time",
}


def error(status: int, reason: str = "") -> Response:
    """The error document of IMDS."""
    return json_response(status, {"error": reason or _REASONS.get(status, "Service error")})


def check_headers(request: Request) -> Response | None:
    """The rules that every request must follow; the refusal, or None when it follows them."""
    if request.headers.get("metadata", "").casefold() != "true":
        return error(400, "Bad request. Required metadata header not specified")
    if "x-forwarded-for" in request.headers:
        return error(400, "Bad request. The X-Forwarded-For header is not allowed")
    if request.method != "GET":
        return error(405)
    names = [name.casefold() for name, _ in request.query]
    if len(names) != len(set(names)):
        return error(400, "Bad request. A query parameter is given twice")
    return None


class Imds:
    """IMDS without its identity part."""

    def __init__(self, *, requests_per_second: int | None = 5, shuffle: bool = False) -> None:
        self.limit = RateLimit(requests_per_second)
        self.shuffle = shuffle
        """Whether the NICs come in another order every time, as the documentation allows."""

    def answer(self, request: Request, estate: Estate, vm: Vm) -> Response:
        """The response to a request of that machine, with the estate as IMDS sees it."""
        if not self.limit.admits(vm.computer_name):
            return error(429)
        refusal = check_headers(request)
        if refusal is not None:
            return refusal
        parts = [part for part in request.path.split("/") if part]
        if parts == ["metadata", "versions"]:
            return json_response(200, {"apiVersions": VERSIONS})
        version = request.parameter("api-version")
        if version not in VERSIONS:
            return _bad_version()
        public = translated(estate, [vm])
        if parts == ["metadata", "loadbalancer"]:
            if version < LOAD_BALANCER_SINCE:
                return _bad_version()
            found = load_balancer_document(vm, public)
            return error(404, NOT_BALANCED) if found is None else json_response(200, found)
        if parts[:2] != ["metadata", "instance"]:
            return error(404)
        document = {
            "compute": compute_document(estate, vm, version),
            "network": network_document(self._ordered(vm), public),
        }
        return _filtered(document, parts[2:], request.parameter("format"))

    def _ordered(self, vm: Vm) -> Vm:
        from dataclasses import replace

        nics = random.sample(vm.nics, len(vm.nics)) if self.shuffle else vm.nics
        return replace(vm, nics=tuple(nics))


def _bad_version() -> Response:
    reason = (
        "Bad request. api-version is invalid or was not specified in the request. "
        "For more information refer to aka.ms/azureimds"
    )
    return json_response(400, {"error": reason, "newest-versions": list(reversed(VERSIONS))[:3]})


def _filtered(document: Any, parts: list[str], form: str | None) -> Response:
    """Walk down the document by keys and indexes, and show what is there as JSON or text."""
    if form not in (None, "json", "text"):
        return error(400, "Bad request. format is json or text")
    for part in parts:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list) and part.isdecimal() and int(part) < len(document):
            document = document[int(part)]
        else:
            return error(404)
    if form == "text":
        return Response(200, _as_text(document).encode(), "text/plain; charset=utf-8")
    if not isinstance(document, dict | list):
        return error(400, "Bad request. A single value has no json format; ask with format=text")
    return Response(200, json.dumps(document).encode())


def _as_text(document: Any) -> str:
    """A value as it is; of a container the names of what is in it, those with content ending in /."""
    if isinstance(document, dict):
        return "\n".join(f"{k}/" if isinstance(v, dict | list) else k for k, v in document.items())
    if isinstance(document, list):
        return "\n".join(f"{n}/" if isinstance(v, dict | list) else str(n) for n, v in enumerate(document))
    return str(document)
