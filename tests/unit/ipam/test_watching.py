"""Following objects, one answer after the other: what is asked next, when, and what the sink is told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from ipam.provision.watching import FIRST_PAUSE, LONGEST_PAUSE, NotFollowed, TooOld, Watching
from tests.unit.ipam.node import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Json = dict[str, Any]


class Stop(threading.Event):
    """The end, and the pauses until then, which take no time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        self._clock.advance(timeout)
        return self.is_set()


class Followed:
    """An API server that answers as it was told, and a sink; all is over with the last answer to a watch.

    A watch is answered with events, an error, or what a function returns.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stop = Stop(clock)
        self.pages: list[Json] = []
        self.watches: list[Iterable[Json] | Exception | Callable[[], Iterator[Json]]] = []
        self.asked: list[str] = []
        self.seen: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.watching = Watching("pods", self, self, self.stop, lambda *said: self.told.append(said))

    def run(self) -> None:
        self.watching.run()

    # The server

    def page(self, after: str) -> Json:
        self.asked.append(f"list {after}".rstrip())
        return self.pages.pop(0) if self.pages else listed()

    def watch(self, version: str) -> Iterator[Json]:
        self.asked.append(f"watch {version}")
        if not self.watches:
            self.stop.set()
            return iter(())
        answer = self.watches.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else iter(answer)

    # The sink

    def brief(self, document: Json) -> str:
        return str(document["metadata"]["name"])

    def reset(self, objects: Iterable[str]) -> None:
        self.seen.append(f"= {' '.join(objects)}".rstrip())

    def changed(self, each: str) -> None:
        self.seen.append(f"+ {each}")

    def deleted(self, each: str) -> None:
        self.seen.append(f"- {each}")


def thing(name: str, version: str = "8") -> Json:
    return {"metadata": {"name": name, "resourceVersion": version}}


def listed(*names: str, version: str = "7", more: str | None = None) -> Json:
    items = [thing(name) for name in names] or None
    return {"metadata": {"resourceVersion": version, "continue": more}, "items": items}


def event(what: str, name: str, version: str = "8") -> Json:
    return {"type": what, "object": thing(name, version)}


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Followed:
    monkeypatch.setattr("ipam.provision.pace.chance", lambda: 0.0)
    clock = Clock()
    monkeypatch.setattr("ipam.provision.watching.time.monotonic", clock)
    return Followed(clock)


def test_all_pages_are_one_list_and_a_watch_begins_where_the_list_was_made(followed: Followed) -> None:
    followed.pages = [listed("a", "b", more="b"), listed("c", version="9")]
    assert not followed.watching.is_complete
    followed.run()
    assert followed.asked == ["list", "list b", "watch 9"]
    assert followed.seen == ["= a b c"]
    assert followed.watching.is_complete


def test_a_list_that_is_stopped_between_two_pages_is_not_taken_for_all(followed: Followed) -> None:
    class Last(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            followed.stop.set()
            return super().get(key, default)

    followed.pages = [Last(listed("a", more="a"))]
    followed.run()
    assert followed.asked[:1] == ["list"]
    assert "list a" not in followed.asked
    assert followed.seen == []
    assert not followed.watching.is_complete


def test_what_happens_is_told_and_the_next_watch_begins_after_it(followed: Followed) -> None:
    followed.watches = [
        [{"type": "", "object": None}, event("ADDED", "a", "8"), event("MODIFIED", "b", "9")],
        [event("DELETED", "a", "10"), event("BOOKMARK", "", "20")],
    ]
    followed.run()
    assert followed.asked == ["list", "watch 7", "watch 9", "watch 20"]
    assert followed.seen == ["=", "+ a", "+ b", "- a"]
    assert followed.stop.pauses == []


def test_what_comes_after_the_end_is_not_taken(followed: Followed) -> None:
    def last() -> Iterator[Json]:
        yield event("ADDED", "a")
        followed.stop.set()
        yield event("ADDED", "b")
        raise AssertionError("nothing more is read")

    followed.watches = [last]
    followed.run()
    assert followed.seen == ["=", "+ a"]
    assert followed.told == []


def test_pauses_are_doubled_up_to_half_a_minute_and_only_the_first_failure_is_logged(
    followed: Followed,
) -> None:
    followed.watches = [NotFollowed("away") for _ in range(9)]
    followed.run()
    assert followed.stop.pauses == [min(LONGEST_PAUSE, FIRST_PAUSE * 2**number) / 2 for number in range(9)]
    assert followed.told == [("warning", "following pods: away")]
    assert followed.asked == ["list", *["watch 7"] * 10], "what was listed is still true"


def test_a_pause_lasts_as_long_as_the_server_wants(followed: Followed) -> None:
    busy = NotFollowed("busy")
    busy.retry_after = 40.0
    followed.watches = [busy]
    followed.run()
    assert followed.stop.pauses == [40.0]


def test_the_trouble_is_the_last_one_since_the_first_until_something_is_heard(followed: Followed) -> None:
    began = followed.clock()
    away, still = NotFollowed("away"), NotFollowed("still away")
    troubles: list[tuple[NotFollowed | None, float]] = []

    def look() -> Iterator[Json]:
        troubles.append((followed.watching.trouble, followed.watching.trouble_since))
        yield {}
        troubles.append((followed.watching.trouble, 0.0))
        raise away

    followed.watches = [away, still, look]
    followed.run()
    assert troubles == [(still, began), (None, 0.0)]
    assert followed.told == [("warning", "following pods: away")] * 2
    first, second = FIRST_PAUSE / 2, FIRST_PAUSE
    assert followed.stop.pauses == [first, second, first], "the first failure again"
    assert followed.watching.trouble is None, "the last watch ended well"
    assert followed.watching.trouble_since == began + first + second


def test_a_watch_that_is_too_old_is_followed_by_a_list_at_once(followed: Followed) -> None:
    followed.watches = [[event("ADDED", "a")], TooOld("gone")]
    followed.run()
    assert followed.asked == ["list", "watch 7", "watch 8", "list", "watch 7"]
    assert (followed.stop.pauses, followed.told) == ([], [])


def test_a_list_that_is_too_old_for_a_watch_at_once_is_followed_by_a_pause(followed: Followed) -> None:
    followed.watches = [TooOld("gone"), TooOld("gone")]
    followed.run()
    assert followed.asked == ["list", "watch 7"] * 3
    assert followed.stop.pauses == [FIRST_PAUSE / 2, FIRST_PAUSE]


def test_after_a_defect_everything_is_listed_again(followed: Followed) -> None:
    followed.watches = [[{"type": "ADDED", "object": {}}]]
    followed.run()
    assert followed.asked == ["list", "watch 7", "list", "watch 7"]
    assert followed.told == [("warning", "following pods: internal error: KeyError: 'metadata'")]
    assert followed.stop.pauses == [FIRST_PAUSE / 2]
