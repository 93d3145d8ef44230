"""The NIC of this machine in the Azure it runs in: where it is according to IMDS, reached with the SDK.

Owns what has to be put together for that, and that nothing is written where the Node of Kubernetes names
another machine than IMDS does. It must not know why the NIC is changed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ipam.errors import SourceUnreadable
from ipam.nic_counts import NO_ANSWER, NO_TOKEN
from ipam.provision import pace, provider_id
from ipam.provision.conversation import Conversation
from ipam.provision.nic_writer import NicWriter
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.which_nic import find_nic
from ipam.quoting import quoted
from ipam.sources import AZURE
from ipam.sources.arm_answer import ArmAnswer, NotAnswered
from ipam.sources.bounded import OneAtATime, StillBusy
from ipam.sources.managed_identity import NoToken
from ipam.sources.placement import own_placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.provision.nic_document import Document
    from ipam.provision.tally import Tally
    from ipam.sources import ArmConfig
    from ipam.sources.arm_answer import Ask
    from ipam.sources.arm_client import Requests
    from ipam.sources.placement import Placement

IMDS_SECONDS = 10.0
OTHER = "other"
_RESOURCES = {
    "virtualmachines": "virtualMachines",
    "networkinterfaces": "networkInterfaces",
    "operations": "operations",
    "operationresults": "operations",
}
REQUEST_SECONDS = 45.0
"""For one request, that for a token included; the transport gives up earlier."""


class ThisMachine:
    """Not for several threads.

    Args:
        config: how ARM is reached.
        wait: waits for so many seconds; may raise to give up.
        clock: seconds of a clock that does not jump.
        tally: counts requests.
        named: the ``providerID`` of this Node; empty: it has none, or it is not known.
        count: is told each request: method, resource, and the status of its answer or why there is none.
    """

    def __init__(
        self,
        config: ArmConfig,
        wait: Callable[[float], None],
        clock: Callable[[], float],
        tally: Tally,
        named: Callable[[], str] = str,
        count: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._config = config
        self._wait = wait
        self._tally = tally
        self._named = named
        self._count = count
        self._reads = pace.Bucket(pace.READS, pace.SECONDS_PER_READ, clock)
        self._writes = pace.Bucket(pace.WRITES, pace.SECONDS_PER_WRITE, clock)

    def writer(self, mac: str, subnet: str) -> NicWriter:
        """What changes the NIC with this MAC address; see ``find_nic``.

        Raises:
            Refusal: IMDS or ARM can't be asked, there is no such NIC, or the Node names another machine.
        """
        from ipam.sources import arm_client

        try:
            otherwise = provider_id.resource_id_in(self._named())
            place = own_placement(AZURE.imds, time.monotonic() + IMDS_SECONDS, otherwise)
            access = arm_client.Access(self._config, place, AZURE.imds)
        except SourceUnreadable as error:
            raise Refusal(Kind.UNREACHABLE, str(error), error.retry_after) from error
        self._check(place)
        ask = counted(within_bounds(arm_client.Requests(access)), self._count)

        def checked(method: str, where: str, body: Document | None, etag: str) -> ArmAnswer:
            if method != "GET":
                self._check(place)
            return ask(method, where, body, etag)

        arm = Conversation(checked, self._wait, self._tally, self._reads, self._writes)
        return NicWriter(arm, find_nic(arm, place, mac, subnet))

    def _check(self, place: Placement) -> None:
        """Raises Refusal. What another provider calls the machine (``k3s://``) says nothing of Azure."""
        named = self._named()
        if provider_id.resource_id_in(named) and not provider_id.is_id_of(named, place.resource_id):
            here = quoted(place.resource_id)
            text = f"IMDS says that this machine is {here}, and its Node says {quoted(named)}"
            raise Refusal(Kind.OTHER_MACHINE, text)


def counted(ask: Ask, count: Callable[[str, str, str], None]) -> Ask:
    """As ``ask``, with each request counted."""

    def ask_and_count(method: str, where: str, body: Document | None, etag: str) -> ArmAnswer:
        code = NO_ANSWER
        try:
            answer = ask(method, where, body, etag)
            code = str(answer.status)
        except NoToken:
            code = NO_TOKEN
            raise
        finally:
            count(method, resource_of(where), code)
        return answer

    return ask_and_count


def resource_of(where: str) -> str:
    """The type of what a path or URL of ARM is about, as ARM spells it: ``virtualMachines``,
    ``networkInterfaces``, or ``operations`` where one is polled; ``other``: none that is asked for here.
    """
    after = where.partition("?")[0].rpartition("/providers/")[2].split("/")
    types = after[1::2]
    return _RESOURCES.get(types[-1].casefold(), OTHER) if types else OTHER


def within_bounds(
    requests: Requests,
) -> Callable[[str, str, Document | None, str], ArmAnswer]:
    """As ``requests.ask``, given up when it hangs."""
    work: OneAtATime[ArmAnswer] = OneAtATime()

    def ask(method: str, where: str, body: dict[str, Any] | None, etag: str) -> ArmAnswer:
        try:
            return work.run(
                lambda: requests.ask(method, where, body, etag), time.monotonic() + REQUEST_SECONDS
            )
        except (TimeoutError, StillBusy) as error:
            raise NotAnswered("Azure Resource Manager: no answer in time") from error

    return ask
