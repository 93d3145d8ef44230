"""What Azure Resource Manager keeps between two requests: limits, roles, operations, faults, its log.

Owns no path and no document: handlers are given it, and `arm` routes requests to them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from integration.fabric import armroles as roles
from integration.fabric.armfaults import WriteFaults
from integration.fabric.armlimits import Bucket, InstanceBuckets, Window
from integration.fabric.armlog import RequestLog
from integration.fabric.armoperations import Operations
from integration.fabric.web import Request, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.fabric.model import Estate
    from integration.fabric.tokens import TokenIssuer

Entry = TypeVar("Entry")


class ArmState:
    """Of one fabric; what a test may set or read is public."""

    def __init__(
        self,
        issuer: TokenIssuer,
        newest: Callable[[], Estate],
        change: Callable[[Callable[[Estate], Estate]], object],
    ) -> None:
        self.issuer = issuer
        self.newest = newest
        """The estate as it is, whatever lag and faults show."""
        self.change = change
        self.reads = Bucket()
        self.writes = Bucket(200, 10.0)
        self.network_reads = Window(10_000)
        self.network_writes = Window(1_000)
        self.instance_writes = InstanceBuckets()
        self.roles = roles.Roles()
        self.operations = Operations()
        self.faults = WriteFaults()
        self.log = RequestLog()
        self.writing = threading.RLock()
        """Held from the look at a resource to its change."""
        self.page_size: int | None = None
        """Entries in one page of a list; None: all in one."""

    def paged(self, request: Request, entries: Sequence[Entry], shown: Callable[[Entry], Any]) -> Response:
        """One page of a list, with the link to the next one; ``shown``: an entry's document."""
        size = self.page_size or max(len(entries), 1)
        start = int(request.parameter("$skiptoken") or 0)
        document: dict[str, Any] = {"value": [shown(entry) for entry in entries[start : start + size]]}
        if start + size < len(entries):
            query = [(k, v) for k, v in request.query if k != "$skiptoken"]
            query.append(("$skiptoken", str(start + size)))
            document["nextLink"] = f"https://{request.host}{request.path}?{urlencode(query)}"
        return json_response(200, document)

    def close(self) -> None:
        """Stop what runs by itself."""
        self.operations.close()
