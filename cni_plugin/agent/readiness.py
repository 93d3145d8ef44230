"""Whether a pod could get an address from this node now, and if not, why, in words.

Owns the question. STATUS asks the pool the same one (``allocate.require_available``); the agent adds what
concerns itself. Another question is whether the agent does its own work: a full node is no fault of it, and
a rollout must not wait for pods to go. It must not know who wants to know.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from cni_plugin.cni.errors import CniError
from cni_plugin.node import Node
from ipam.errors import IpamError, PoolExhausted
from ipam.model import AddressRequest

FRESH_SECONDS = 1.0
"""How long an answer is good for those who ask in between: probes must not cost more than calls."""


class Work(Protocol):
    """What is asked of the background work."""

    def address_request(self) -> AddressRequest:
        """What the next pod will need."""

    @property
    def why_no_listing(self) -> str:
        """Why this process has not read the source with success yet; empty when it has."""

    def why_not_alive(self) -> str:
        """Why this process should be killed; empty when it goes on."""


class Readiness:
    """Asks, and remembers the answer for a moment."""

    def __init__(self, node: Node, background: Work) -> None:
        self._node = node
        self._background = background
        self._lock = threading.Lock()
        self._asked_at = -FRESH_SECONDS
        self._why_no_address = ""
        self._is_exhausted = False
        self.stopping = False
        """The agent finishes what it has and takes nothing more."""
        self.not_in_place = ""
        """Why the conflist is not where the runtime looks for it; empty: it is, or none is wanted."""
        self.last = "the agent is starting"
        """The answer when it was last asked for."""
        self.signs_of_life = [background.why_not_alive]
        """Each says why the agent should be killed; empty when it is well."""

    def why_not(self) -> str:
        """Why this node is not ready; empty when it is."""
        if self.stopping:
            self.last = "the agent is stopping"
        elif stuck := self.why_not_alive():
            self.last = f"{stuck}; systemd or the kubelet restarts the agent"
        else:
            self.last = self.why_no_address() or self.not_in_place
        return self.last

    def why_not_alive(self) -> str:
        """What of the agent is stuck, so that only a restart helps; empty when nothing is."""
        return next((why for sign in self.signs_of_life if (why := sign())), "")

    def why_not_working(self) -> str:
        """Why the agent does not do its work; empty when it does, though no address may be free."""
        if self.stopping:
            return "the agent is stopping"
        no_address = self.why_no_address()
        return (
            self.why_not_alive()
            or ("" if self._is_exhausted else no_address)
            or self._background.why_no_listing
            or self.not_in_place
        )

    def why_no_address(self, *, fresh: bool = False) -> str:
        """Why no address can be given; empty when one can."""
        with self._lock:
            if fresh or time.monotonic() - self._asked_at >= FRESH_SECONDS:
                self._why_no_address = self._ask()
                self._asked_at = time.monotonic()
            return self._why_no_address

    def _ask(self) -> str:
        self._is_exhausted = False
        try:
            self._node.ipam.require_available(self._background.address_request())
        except CniError as error:
            return f"{error}. {error.details}" if error.details else str(error)
        except IpamError as error:
            self._is_exhausted = isinstance(error, PoolExhausted)
            return f"{error}. {error.remedy}" if error.remedy else str(error)
        except OSError as error:
            return f"the node's own addresses can't be read: {error.strerror}"
        finally:
            self._node.close()
        return ""
