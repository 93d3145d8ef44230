"""The NIC of this machine in the Azure it runs in: where it is according to IMDS, reached with the SDK.

Owns what has to be put together for that. It must not know why the NIC is changed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ipam.errors import SourceUnreadable
from ipam.provision import pace
from ipam.provision.conversation import Conversation
from ipam.provision.nic_writer import NicWriter
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.which_nic import find_nic
from ipam.sources import AZURE
from ipam.sources.arm_answer import ArmAnswer, NotAnswered
from ipam.sources.bounded import OneAtATime, StillBusy
from ipam.sources.placement import own_placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.provision.nic_document import Document
    from ipam.provision.tally import Tally
    from ipam.sources import ArmConfig
    from ipam.sources.arm_client import Requests

IMDS_SECONDS = 10.0
REQUEST_SECONDS = 45.0
"""For one request, that for a token included; the transport gives up earlier."""


class ThisMachine:
    """Not for several threads.

    Args:
        config: how ARM is reached.
        wait: waits for so many seconds; may raise to give up.
        clock: seconds of a clock that does not jump.
        tally: counts requests.
    """

    def __init__(
        self, config: ArmConfig, wait: Callable[[float], None], clock: Callable[[], float], tally: Tally
    ) -> None:
        self._config = config
        self._wait = wait
        self._tally = tally
        self._reads = pace.Bucket(pace.READS, pace.SECONDS_PER_READ, clock)
        self._writes = pace.Bucket(pace.WRITES, pace.SECONDS_PER_WRITE, clock)

    def writer(self, mac: str, subnet: str) -> NicWriter:
        """What changes the NIC with this MAC address; see ``find_nic``.

        Raises:
            Refusal: IMDS or ARM can't be asked, or there is no such NIC.
        """
        from ipam.sources import arm_client

        try:
            place = own_placement(AZURE.imds, time.monotonic() + IMDS_SECONDS)
            access = arm_client.Access(self._config, place, AZURE.imds)
        except SourceUnreadable as error:
            raise Refusal(Kind.UNREACHABLE, str(error), error.retry_after) from error
        ask = within_bounds(arm_client.Requests(access))
        arm = Conversation(ask, self._wait, self._tally, self._reads, self._writes)
        return NicWriter(arm, find_nic(arm, place, mac, subnet))


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
