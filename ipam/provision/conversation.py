"""Requests to Azure Resource Manager within a budget; refusals become ``Refusal`` with its kind.

It must not know what is requested, nor how a request is sent.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ipam import nic_counts as counts
from ipam.provision.refusals import Kind, Refusal, of_answer
from ipam.sources.arm_answer import NotAnswered
from ipam.sources.managed_identity import NoToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipam.provision.nic_document import Document
    from ipam.provision.pace import Allowance
    from ipam.provision.tally import Tally
    from ipam.sources.arm_answer import ArmAnswer, Ask


class Conversation:
    """Not for several threads.

    Args:
        ask: sends a request.
        wait: waits for so many seconds; may raise to give up.
        tally: counts requests.
        reads, writes: the budget.
    """

    def __init__(
        self, ask: Ask, wait: Callable[[float], None], tally: Tally, reads: Allowance, writes: Allowance
    ) -> None:
        self._ask = ask
        self.wait = wait
        self._reads, self._writes = reads, writes
        self._tally = tally

    def get(self, where: str, *good: int) -> ArmAnswer:
        """Read what is at a path or URL. Raises Refusal: the status is not 200, or another of ``good``."""
        self.wait(self._reads.take())
        self._tally.add({counts.READS: 1})
        answer = self._answer("GET", where, None, "")
        if answer.status not in (good or (200,)):
            raise self._refused(of_answer(_named("GET", where), answer))
        return answer

    @contextlib.contextmanager
    def one_write(self) -> Iterator[None]:
        """Around ``put`` and what follows until the outcome is known."""
        self.wait(self._writes.take())
        with self._tally.write():
            yield

    def put(self, where: str, body: Document, etag: str, *, blocks: bool = False) -> ArmAnswer:
        """Write a document, within ``one_write``. Raises Refusal: it was refused, or what became of it is not
        known.
        """
        answer = self._answer("PUT", where, body, etag)
        if answer.status not in {200, 201, 202}:
            raise self._refused(of_answer(_named("PUT", where), answer, blocks=blocks))
        return answer

    def _refused(self, refusal: Refusal) -> Refusal:
        self._tally.refused(refusal)
        return refusal

    def _answer(self, method: str, where: str, body: Document | None, etag: str) -> ArmAnswer:
        try:
            return self._ask(method, where, body, etag)
        except NotAnswered as error:
            raise Refusal(Kind.UNREACHABLE, str(error)) from error
        except NoToken as error:
            raise Refusal(Kind.NO_IDENTITY, f"no access token: {error}") from error


def _named(method: str, where: str) -> str:
    """A request by kind and name of what it is about: the ids of ARM are long."""
    return f"{method} {'/'.join(where.partition('?')[0].split('/')[-2:])}"
