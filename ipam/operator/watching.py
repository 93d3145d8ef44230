"""Following a kind of object of the cluster: listed once, then watched, and listed again where that ends.

It must not know what the objects mean, nor how they are asked for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ipam.operator.errors import ClusterError, Expired
from ipam.provision import pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Json = dict[str, Any]

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds after an error, doubled with each in a row, and at most."""


class Sink(Protocol[T]):
    """What wants to know the objects of a kind."""

    def brief(self, document: Json) -> T:
        """What matters of one: nothing else of it is kept."""

    def reset(self, objects: Iterable[T]) -> None:
        """These are all that there are."""

    def changed(self, each: T) -> None:
        """One is new or has changed."""

    def deleted(self, each: T) -> None:
        """One is gone."""


class Asking(Protocol):
    """The API server, for one kind."""

    def page(self, after: str) -> Json:
        """A page of the list. Raises ClusterError."""

    def watch(self, version: str) -> Iterator[Json]:
        """Events since a version. Raises ClusterError; Expired: it is too old."""


class Watching(Generic[T]):
    """One kind, in a thread of its own.

    Args:
        name: of the kind, in messages.
        ask: the API server.
        sink: what is told.
        stop: the end.
        tell: writes to the log.
    """

    def __init__(
        self,
        name: str,
        ask: Asking,
        sink: Sink[T],
        stop: threading.Event,
        tell: Callable[[str, str], None],
    ) -> None:
        self._name = name
        self._ask = ask
        self._sink = sink
        self._stop = stop
        self._tell = tell
        self._version = ""
        self._failures = 0
        self.is_complete = False
        """Whether everything was listed once."""

    def run(self) -> None:
        """Follow until ``stop`` is set."""
        while not self._stop.is_set():
            try:
                self._follow()
                self._failures = 0
            except Expired:
                self._version = ""
            except ClusterError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 - a thread that ends would leave the cluster unseen
                self._version = ""
                self._failed(f"internal error: {type(error).__name__}: {error}")

    def _follow(self) -> None:
        if not self._version:
            self._list()
        for event in self._ask.watch(self._version):
            if self._stop.is_set():
                return
            self._failures = 0
            self._take(str(event.get("type")), event["object"])

    def _list(self) -> None:
        found: list[T] = []
        after = ""
        while not self._stop.is_set():
            page = self._ask.page(after)
            found += [self._sink.brief(each) for each in page.get("items") or ()]
            after = str(page["metadata"].get("continue") or "")
            if not after:
                self._sink.reset(found)
                self._version = str(page["metadata"]["resourceVersion"])
                self.is_complete = True
                return

    def _take(self, what: str, document: Json) -> None:
        if what in {"ADDED", "MODIFIED"}:
            self._sink.changed(self._sink.brief(document))
        elif what == "DELETED":
            self._sink.deleted(self._sink.brief(document))
        self._version = str(document["metadata"]["resourceVersion"])

    def _failed(self, text: str) -> None:
        self._failures += 1
        if self._failures == 1:
            self._tell("warning", f"following {self._name}: {text}")
        self._stop.wait(pace.pause(self._failures, 0.0, pace.chance(), first=FIRST_PAUSE, most=LONGEST_PAUSE))
