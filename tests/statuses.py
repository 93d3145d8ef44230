"""What an operator writes of a node's AzvnetNode when it replaces the whole of its half.

The product's own operator changes single fields; a test that plays the operator says everything at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipam.provision import exchange

if TYPE_CHECKING:
    from ipam.provision.exchange import NodeStatus


def with_status(name: str, status: NodeStatus, resource_version: str) -> dict[str, Any]:
    """The document for ``/status`` of the resource at that version."""
    return {
        "apiVersion": exchange.API_VERSION,
        "kind": exchange.KIND,
        "metadata": {"name": name, "resourceVersion": resource_version},
        "status": exchange.STATUS.write(status),
    }
