"""Whether a pod could get an address from this node now, and if not, why, in words.

Owns that check. STATUS checks the pool in the same way (``allocate.require_available``); the agent adds
its own state. Whether the agent works is a separate check: a full node is not a failure of the agent, and
a rollout must not wait for pods to be deleted. It must not know who uses the result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cni_plugin.checks import EXHAUSTED, Problem, without_numbers
from cni_plugin.cni.errors import CniError
from cni_plugin.node import Node
from ipam.errors import IpamError, PoolExhausted
from ipam.model import AddressRequest

FRESH_SECONDS = 1.0
"""Seconds for which an answer is cached: probes must not cost more than calls."""
READY = "ready: pods get addresses"


class Work(Protocol):
    """What the pages and metrics need of ``maintenance.Maintenance``."""

    @property
    def repairs(self) -> Mapping[str, int]:
        """Repairs by kind."""

    @property
    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again."""

    def address_request(self) -> AddressRequest:
        """What the next pod will need."""

    @property
    def why_no_listing(self) -> str:
        """Why this process has not read the source successfully yet; empty when it has."""


class Readiness:
    """Checks readiness, and caches the answer briefly.

    ``why_no_conflist``: why the conflist is not where the runtime looks for it; empty when it is. Each of
    ``signs_of_life`` says why the agent should be killed; empty when it is well.
    """

    def __init__(
        self,
        node: Node,
        work: Work,
        why_no_conflist: Callable[[], str],
        signs_of_life: Sequence[Callable[[], str]],
    ) -> None:
        self._node = node
        self._work = work
        self._why_no_conflist = why_no_conflist
        self._signs_of_life = signs_of_life
        self._lock = threading.Lock()
        self._asked_at = -FRESH_SECONDS
        self._no_address: Problem | None = None
        self.families: Sequence[int] = (4,)
        """The IP versions that the next pod gets addresses of, as of the last answer."""
        self.stopping = False
        """The agent is draining: it finishes its calls and accepts no more."""
        self.last = "the agent is starting"
        """The last answer; empty: ready."""

    @property
    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again."""
        return self._work.cooldown

    def not_ready(self) -> Problem | None:
        """Why this node is not ready; None when it is."""
        found = self._find()
        self.last = found.text if found else ""
        if found is None:
            return None
        text = f"not ready: {found.text}"
        return Problem(found.kind, text, found.subject, level="error", over=READY)

    def why_not(self) -> str:
        """The same in words; empty when it is ready."""
        self.not_ready()
        return self.last

    def _find(self) -> Problem | None:
        if self.stopping:
            return Problem("stopping", "the agent is stopping")
        if stuck := self.why_not_alive():
            return Problem("stuck", f"{stuck}; systemd or the kubelet restarts the agent")
        if no_address := self.no_address():
            return no_address
        no_conflist = self._why_no_conflist()
        return Problem("no-conflist", no_conflist, without_numbers(no_conflist)) if no_conflist else None

    def why_not_alive(self) -> str:
        """What is stuck in the agent, so that only a restart helps; empty if nothing is."""
        return next((why for sign in self._signs_of_life if (why := sign())), "")

    def why_not_working(self) -> str:
        """Why the agent does not do its work; empty when it does, though no address may be free."""
        if self.stopping:
            return "the agent is stopping"
        no_address = self.no_address()
        if stuck := self.why_not_alive():
            return stuck
        if no_address is not None and no_address.kind != EXHAUSTED:
            return no_address.text
        return self._work.why_no_listing or self._why_no_conflist()

    def no_address(self, *, fresh: bool = False) -> Problem | None:
        """Why no address can be given; None when one can."""
        with self._lock:
            if fresh or time.monotonic() - self._asked_at >= FRESH_SECONDS:
                self._no_address = self._ask()
                self._asked_at = time.monotonic()
            return self._no_address

    def _ask(self) -> Problem | None:
        try:
            request = self._work.address_request()
            self.families = request.families
            self._node.ipam.require_available(request)
        except PoolExhausted as error:
            return Problem(EXHAUSTED, _in_full(error))  # the holders change with every pod
        except CniError as error:
            text = f"{error}. {error.details}" if error.details else str(error)
            return Problem("no-address", text, without_numbers(str(error)))
        except IpamError as error:
            return Problem("no-address", _in_full(error), without_numbers(str(error)))
        except OSError as error:
            return Problem("no-address", f"cannot read the node's own addresses: {error.strerror}", "host")
        finally:
            self._node.close()
        return None


def _in_full(error: IpamError) -> str:
    return f"{error}. {error.remedy}" if error.remedy else str(error)
