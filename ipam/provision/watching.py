"""Following a kind of object of the cluster: listed once, then watched, and listed again where that ends.

The operator follows what concerns all nodes with it, an agent the pods of its own. It must not know what the
objects mean, nor how they are asked for.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ipam.provision import pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Json = dict[str, Any]

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds after an error, doubled with each in a row, and at most."""


class NotFollowed(Exception):
    """The API server can't be asked, or refuses; says why."""

    retry_after = 0.0
    """Seconds that it wants to be left alone; 0: it did not say."""


class TooOld(NotFollowed):
    """A watch can't begin there any more: everything has to be listed again."""


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
        """A page of the list. Raises NotFollowed."""

    def watch(self, version: str) -> Iterator[Json]:
        """Events since a version; one without an object says that the watch has begun.

        Raises NotFollowed; TooOld: see there.
        """


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
        self.trouble: NotFollowed | None = None
        """Why it can't be followed now; None: it is, as far as is known."""
        self.trouble_since = 0.0
        """When the first failure of these was, by ``time.monotonic``."""

    def run(self) -> None:
        """Follow until ``stop`` is set."""
        while not self._stop.is_set():
            was_listed = not self._version
            try:
                self._follow()
                self._went_well()
            except TooOld as error:
                self._version = ""
                if was_listed:  # a moment ago: it would be listed again and again
                    self._failed(error)
            except NotFollowed as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - a thread that ends would leave the cluster unseen
                self._version = ""
                self._failed(NotFollowed(f"internal error: {type(error).__name__}: {error}"))

    def _follow(self) -> None:
        if not self._version:
            self._list()
        for event in self._ask.watch(self._version):
            if self._stop.is_set():
                return
            self._went_well()
            if isinstance(told := event.get("object"), dict):
                self._take(str(event.get("type")), told)

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

    def _went_well(self) -> None:
        self._failures, self.trouble = 0, None

    def _failed(self, error: NotFollowed) -> None:
        if self.trouble is None:
            self.trouble_since = time.monotonic()
        self.trouble = error
        self._failures += 1
        if self._failures == 1:
            self._tell("warning", f"following {self._name}: {error}")
        pause = pace.pause(
            self._failures, error.retry_after, pace.chance(), first=FIRST_PAUSE, most=LONGEST_PAUSE
        )
        self._stop.wait(pause)
