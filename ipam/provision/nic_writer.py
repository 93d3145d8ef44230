"""Changing the IP configurations of one NIC in Azure Resource Manager: read, change, wait, read again.

A write to an attached NIC is answered at once and takes about a minute. So: one at a time; ``If-Match`` with
the ETag of a read after everything before it has ended, since the tag changes when an operation begins and
again when it ends; the operation is polled at its Retry-After to its end, where it may still fail. When
something else changed the NIC in between (412), our own change is made again on what is there then. An
operation that nobody waits for any more is seen in the NIC's state, and waited for before anything else.

It must not know why a NIC is changed, nor how a request is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipam.provision import nic_document
from ipam.provision.refusals import Kind, Refusal, of_operation
from ipam.sources.arm_errors import retry_seconds
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ipam.provision.conversation import Conversation
    from ipam.provision.nic_document import Document
    from ipam.sources.arm_answer import ArmAnswer

NETWORK_API = "2025-05-01"
"""Recorded in the public and the Chinese cloud."""
INSTANCE_API = "2026-04-01"
"""The first that knows blocks on instances: with an older one a block that is there would be lost."""
INSTANCE_NICS_API = "2018-10-01"
"""The only one that this read has; it may leave out the length of a block."""
POLL_SECONDS = 10.0
"""Seconds between polls if an answer has no Retry-After."""
MOST_CHANGES = 6
"""Times that something else may change the NIC between our read and our write."""
MOST_FAILED_POLLS = 30
_RUNNING = {"Updating", "Creating", "Deleting"}


class NicTarget(Value):
    """The NIC that is changed."""

    nic: str
    """Its id in ARM."""
    name: str
    instance: str = ""
    """Id of the instance of a Uniform scale set: its NICs are written through it."""


class NicWriter:
    """One NIC. Not for several threads.

    Args:
        arm: how requests are sent to Azure.
        target: the NIC.
        first_poll: seconds after a write before which it is not asked whether the operation has ended, even
            where Retry-After is shorter: none has ever ended earlier, and many NICs share a budget of reads.
    """

    def __init__(self, arm: Conversation, target: NicTarget, first_poll: float = 0.0) -> None:
        self._arm = arm
        self._target = target
        self._first_poll = first_poll
        self._path = (
            f"{target.instance}?api-version={INSTANCE_API}"
            if target.instance
            else f"{target.nic}?api-version={NETWORK_API}"
        )

    def read(self) -> Document:
        """The NIC, when no operation on it is in progress any more. Raises Refusal, NotANic."""
        return self._nic_of(self._settled()[0])

    def add(self, names: Collection[str], *, blocks: bool) -> Document:
        """Add an IP configuration for each name; the NIC when the operation has ended.

        Raises:
            Refusal: it was refused, or failed later; or it is not known what became of it.
            NotANic: what ARM shows is not a NIC.
        """
        what, nic = nic_document, self._target.name

        def edit(document: Document) -> Document:
            if self._target.instance:
                return what.instance_with_new(document, nic, names, blocks=blocks)
            return what.with_new(document, names, blocks=blocks)

        return self._change(edit, blocks=blocks)

    def remove(self, names: Collection[str]) -> Document:
        """Remove these IP configurations, so far as we named them; the NIC when the operation has ended.

        Raises as ``add`` does.
        """
        what, nic = nic_document, self._target.name

        def edit(document: Document) -> Document:
            if self._target.instance:
                return what.instance_without(document, nic, names)
            return what.without(document, names)

        return self._change(edit)

    def rewrite(self) -> Document:
        """Write the NIC back as it is; the NIC when the operation has ended.

        Its ETag is another one afterwards, so that a write that somebody prepared before can't arrive any
        more; and IP configurations whose operation failed are set up again. Raises as ``add`` does.
        """
        sendable = nic_document.instance_without if self._target.instance else None
        for _ in range(MOST_CHANGES):
            document, etag = self._settled()
            body = document if sendable is None else sendable(document, self._target.name, ())
            try:
                self._put(body, etag, blocks=False)
                return self.read()
            except Refusal as refusal:
                if refusal.kind is not Kind.CHANGED:
                    raise
        raise Refusal(Kind.CHANGED, f"{self._target.name} was changed {MOST_CHANGES} times in the meantime")

    def _change(self, edit: Callable[[Document], Document], *, blocks: bool = False) -> Document:
        written = False
        for _ in range(MOST_CHANGES):
            document, etag = self._settled()
            changed = edit(document)
            if self._names(changed) == self._names(document):
                return self._nic_of(document)
            if written:
                raise Refusal(Kind.WIPED, f"{self._target.name}: the change was made, and was undone")
            try:
                self._put(changed, etag, blocks=blocks)
                written = True
            except Refusal as refusal:
                if refusal.kind is not Kind.CHANGED:
                    raise
        raise Refusal(Kind.CHANGED, f"{self._target.name} was changed {MOST_CHANGES} times in the meantime")

    def _settled(self) -> tuple[Document, str]:
        """What is written to, and its ETag, when no operation on it is in progress."""
        while True:
            answer = self._arm.get(self._path)
            if nic_document.provisioning_state(answer.document) not in _RUNNING:
                return answer.document, answer.headers.get("etag") or str(answer.document.get("etag", ""))
            self._arm.wait(_pause_of(answer))

    def _put(self, body: Document, etag: str, *, blocks: bool) -> None:
        with self._arm.one_write():
            answer = self._arm.put(self._path, body, etag, blocks=blocks)
            operation = answer.headers.get("azure-asyncoperation") or answer.headers.get("location")
            if operation:
                what = f"PUT of {self._target.name}"
                self._finish(what, operation, max(_pause_of(answer), self._first_poll), blocks=blocks)

    def _finish(self, what: str, operation: str, seconds: float, *, blocks: bool) -> None:
        """Wait for an operation to end. Where it can't be asked for any more, the NIC's state says so."""
        failed = 0
        while True:
            self._arm.wait(seconds)
            try:
                answer = self._arm.get(operation, 200, 202, 204)
            except Refusal as refusal:
                if refusal.kind is Kind.NOT_FOUND:
                    return
                failed += 1
                if failed > MOST_FAILED_POLLS or refusal.kind in {Kind.FORBIDDEN, Kind.NO_IDENTITY}:
                    raise
                seconds = max(refusal.retry_after, POLL_SECONDS)
                continue
            status = str(answer.document.get("status", "InProgress" if answer.status == 202 else "Succeeded"))
            if status == "Succeeded":
                return
            if status in {"Failed", "Canceled"}:
                raise of_operation(what, answer.document, blocks=blocks)
            seconds = _pause_of(answer)

    def _nic_of(self, document: Document) -> Document:
        """The NIC, of which ``document`` may be the instance that it belongs to."""
        if not self._target.instance:
            return document
        listed = self._arm.get(f"{self._target.instance}/networkInterfaces?api-version={INSTANCE_NICS_API}")
        for nic in _entries(listed.document):
            if str(nic.get("name", "")).casefold() == self._target.name.casefold():
                return nic_document.with_lengths(nic, document, self._target.name)
        raise Refusal(Kind.NOT_FOUND, f"{self._target.instance} has no NIC {self._target.name}")

    def _names(self, document: Document) -> frozenset[str]:
        if self._target.instance:
            return nic_document.names_of_instance(document, self._target.name)
        return frozenset(each.name for each in nic_document.configurations(document))


def _pause_of(answer: ArmAnswer) -> float:
    return retry_seconds(answer.headers.get("retry-after")) or POLL_SECONDS


def _entries(document: dict[str, Any]) -> list[Document]:
    found = document.get("value")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
