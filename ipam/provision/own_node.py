"""What the API server says of this node: the pods that are bound to it, and which machine its Node is.

It must not know what follows from either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.provision import provider_id
from ipam.provision.api_client import ApiAccess, ApiClient, Document, Outdated, Trouble
from ipam.provision.bound_pods import NOT_ENDED, cut_down
from ipam.provision.progress import API_DENIED, API_REFUSED
from ipam.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PODS, NODES = "/api/v1/pods", "/api/v1/nodes"
_FROM_CACHE = {"resourceVersion": "0"}
"""As kubelets list: the API server has an index of pods by node in memory. Anything newer could make it read
every pod of the cluster from etcd, for each node; the watch that follows catches up."""
_ROLE = (
    "Give the agent's service account the ClusterRole of the chart: list and watch pods, get nodes. Pods get "
    "addresses meanwhile; more are added when a pod asks, and not before."
)


class OwnNode:
    """``watching.Asking`` for the pods of one node. Not for several threads.

    Args:
        access: where the API server is.
        name: of the Node.
        count: as ``ApiClient`` tells it.
    """

    def __init__(self, access: ApiAccess, name: str, count: Callable[[str, str, str], None]) -> None:
        self._client = ApiClient(access, {403: (API_DENIED, _ROLE)}, count)
        self._name = name
        self._selected = {"fieldSelector": f"spec.nodeName={name},{NOT_ENDED}"}
        self.provider_id = ""
        """Of the Node, when it was read last; empty: it has none, or was not read. For any thread."""
        self._is_fresh = False
        """It was read since the last watch began; one ends after some minutes."""

    def page(self, after: str) -> Document:
        """All of them at once, of each the part that is counted by. Raises Trouble, Outdated."""
        del after  # a list from the cache has one page, whatever is asked for
        self._read_node()
        kept: list[Document] = []
        listed = self._client.each_of(
            "pods", PODS, self._selected | _FROM_CACHE, lambda pod: kept.append(cut_down(pod))
        )
        return {**listed, "items": kept}

    def watch(self, version: str) -> Iterator[Document]:
        """See ``watching.Asking``."""
        # A cloud provider sets it some time after the kubelet has made the Node, which may be made again.
        if not self._is_fresh:
            self._read_node()
        self._is_fresh = False
        return self._client.watch("pods", PODS, self._selected, version)

    def close(self) -> None:
        """Drop its idle connections, as ``ApiClient.close``."""
        self._client.close()

    def _read_node(self) -> None:
        """Raises Trouble: it can't be read; without a Node of that name no pod would ever be seen either."""
        try:
            node = self._client.ask("GET", "nodes", f"{NODES}/{self._name}", _FROM_CACHE)
        except Outdated as error:
            raise Trouble(
                API_REFUSED,
                f"there is no Node {quoted(self._name)}",
                "provision.node_name has to be the name of the Kubernetes node.",
            ) from error
        self.provider_id = provider_id.of_node(node)
        self._is_fresh = True
