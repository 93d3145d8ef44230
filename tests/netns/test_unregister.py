"""A link is deleted: the caller goes on when it is gone, and not when the kernel has finished with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cni_plugin.kernel import deferred_delete, encode
from cni_plugin.kernel.deferred_delete import Unregistering
from cni_plugin.kernel.netlink import Netlink, NoSuchDevice
from tests.netns.sandbox import Sandbox
from tests.waiting import eventually

pytestmark = pytest.mark.alone("about a part of the agent, without one")

LINKS = 24


def make(sandbox: Sandbox, number: int) -> None:
    sandbox.batch(
        *(f"link add v{each} type veth peer name p{each}" for each in range(number)),
        *(f"link set v{each} up" for each in range(number)),
        *(f"route add 10.9.0.{each}/32 dev v{each}" for each in range(number)),
    )


def names(host: Netlink) -> set[str]:
    return {link.name for link in host.links(encode.dump_links())} - {"lo"}


def routes(host: Netlink) -> int:
    found = host.routes(encode.dump_routes(encode.AF_INET))
    return sum(route.dst.prefixlen == 32 for route in found)


def all_at_once(work: Callable[[int], None], number: int) -> None:
    threads = [threading.Thread(target=work, args=(each,)) for each in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_when_it_returns_the_pair_and_its_routes_are_gone(sandbox: Sandbox) -> None:
    def work() -> list[str]:
        host, deleter = Netlink(), Unregistering()
        make(sandbox, LINKS)
        left = []
        for each in range(LINKS):
            deleter.delete(encode.delete_link(f"v{each}"), host)
            if names(host) & {f"v{each}", f"p{each}"} or routes(host) != LINKS - each - 1:
                left.append(f"{each}: {names(host)}, {routes(host)} routes")
        return left

    assert sandbox.ask(work) == []


def test_it_returns_long_before_the_kernel_has_finished(sandbox: Sandbox) -> None:
    def work() -> tuple[float, float]:
        host, deleter = Netlink(), Unregistering()
        make(sandbox, LINKS)
        begun = time.monotonic()
        for each in range(LINKS // 2):
            host.change([encode.delete_link(f"v{each}")])
        half = time.monotonic()
        for each in range(LINKS // 2, LINKS):
            deleter.delete(encode.delete_link(f"v{each}"), host)
        return half - begun, time.monotonic() - half

    waiting, going_on = sandbox.ask(work)
    assert going_on < waiting / 2  # it is a tenth and less


def test_the_same_name_and_index_can_be_used_at_once(sandbox: Sandbox) -> None:
    def work() -> int:
        host, deleter = Netlink(), Unregistering()
        for each in range(LINKS):
            sandbox.batch(f"link add v0 index {1000 + each % 2} type veth peer name p0")
            deleter.delete(encode.delete_link("v0"), host)
        return len(names(host))

    assert sandbox.ask(work) == 0


def test_a_link_that_does_not_exist_is_said_to_whom_it_was_asked_by(sandbox: Sandbox) -> None:
    def work() -> list[str]:
        host, deleter = Netlink(), Unregistering()
        make(sandbox, LINKS // 2)
        said = [""] * LINKS

        def delete(each: int) -> None:
            try:
                deleter.delete(encode.delete_link(f"v{each}"), host)
            except NoSuchDevice as error:
                said[each] = str(error)

        all_at_once(delete, LINKS)
        return said

    said = sandbox.ask(work)
    assert said[: LINKS // 2] == [""] * (LINKS // 2)
    for each in range(LINKS // 2, LINKS):
        assert f"delete link v{each}: No such device" in said[each]


@pytest.mark.parametrize(("setting", "value"), [("MOST", 2), ("MOST", 0), ("NLM_F_ECHO", 0)])
def test_with_no_thread_to_be_had_or_an_older_kernel_it_waits(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, setting: str, value: int
) -> None:
    monkeypatch.setattr(deferred_delete, setting, value)

    def work() -> set[str]:
        deleter = Unregistering()
        make(sandbox, LINKS)

        def delete(each: int) -> None:
            with Netlink() as own:
                deleter.delete(encode.delete_link(f"v{each}"), own)

        all_at_once(delete, LINKS)
        return names(Netlink())

    assert sandbox.ask(work) == set()


def test_threads_end_when_they_have_nothing_to_do(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred_delete, "IDLE_SECONDS", 0.05)

    def work() -> tuple[int, set[str]]:
        host, deleter = Netlink(), Unregistering()
        make(sandbox, LINKS)
        all_at_once(lambda each: deleter.delete(encode.delete_link(f"v{each}"), host), LINKS // 2)
        eventually(lambda: threading.active_count() == 1, "no thread but this one")
        left = deleter.number
        all_at_once(lambda each: deleter.delete(encode.delete_link(f"v{each + 12}"), host), LINKS // 2)
        return left, names(host)

    assert sandbox.ask(work) == (0, set())


def test_a_request_that_can_not_be_sent_is_an_error_and_hangs_nobody(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Netlink, _batch: bytearray) -> None:
        raise OSError(105, "No buffer space available")

    def work() -> str:
        deleter = Unregistering()
        with monkeypatch.context() as patch:
            patch.setattr(Netlink, "send", refuse)
            try:
                deleter.delete(encode.delete_link("v0"), Netlink())
            except OSError as error:
                return str(error.strerror)
        return "it went well"

    assert sandbox.ask(work) == "No buffer space available"
