"""The AzvnetNode of this node: read, written and watched at the API server.

It must not know what it says, nor when it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.provision.api_client import ApiAccess, ApiClient, Document
from ipam.provision.exchange import GROUP, PLURAL, VERSION
from ipam.provision.progress import API_DENIED, API_REFUSED, NO_DEFINITION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COLLECTION = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
_ROLE = (
    "Give the agent's service account the ClusterRole of the chart. It may write the resource of its own "
    "node alone: provision.node_name has to be the name of the Kubernetes node."
)
_DEFINITION = (
    "Install the CustomResourceDefinition azvnetnodes.azvnet.io; the chart does with "
    "agent.provision.mode=operator."
)
_UPGRADE = "The CustomResourceDefinition in the cluster does not have the agent's version: upgrade the chart."
_REMEDIES = {
    403: (API_DENIED, _ROLE),
    404: (NO_DEFINITION, _DEFINITION),
    422: (API_REFUSED, _UPGRADE),
}


class ApiServer:
    """Not for several threads.

    Args:
        access: where it is.
        name: of the resource that is meant.
        count: as ``ApiClient`` tells it.
    """

    def __init__(
        self, access: ApiAccess, name: str, count: Callable[[str, str, str], None] = lambda *_: None
    ) -> None:
        self._client = ApiClient(access, _REMEDIES, count)
        self._name = name
        self._selected = {"fieldSelector": f"metadata.name={name}"}

    def read(self) -> tuple[Document | None, str]:
        """The newest state of the resource, None where there is none; and where to watch from.

        Raises Trouble.
        """
        found = self._client.ask("GET", PLURAL, COLLECTION, self._selected)
        items = found.get("items")
        first = items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else None
        return first, _version_of(found)

    def write(self, document: Document) -> Document:
        """Make the resource, or replace it where ``document`` has a version; as it is then.

        Raises:
            Outdated: it has another version by now, or it exists already, or it does not any more.
            Trouble: what became of it may not be known.
        """
        if document["metadata"].get("resourceVersion"):
            return self._client.ask("PUT", PLURAL, f"{COLLECTION}/{self._name}", {}, document)
        return self._client.ask("POST", PLURAL, COLLECTION, {}, document)

    def watch(self, version: str) -> Iterator[tuple[Document | None, str]]:
        """Every state since a version, each with its own; None: it was deleted. Ends after some minutes.

        Raises:
            Outdated: the server does not remember that version.
            Trouble: it broke off, or was refused.
        """
        for event in self._client.watch(PLURAL, COLLECTION, self._selected, version):
            kind, told = event.get("type"), event.get("object")
            if kind in {"ADDED", "MODIFIED"} and isinstance(told, dict):
                yield told, _version_of(told)
            elif kind == "DELETED" and isinstance(told, dict):
                yield None, _version_of(told)

    def close(self) -> None:
        """Drop its idle connections, as ``ApiClient.close``."""
        self._client.close()


def _version_of(document: Document) -> str:
    metadata = document.get("metadata")
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""
