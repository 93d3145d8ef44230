"""What is called a problem, of whom, and in which words."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_interface

import pytest

from cni_plugin import checks
from cni_plugin.checks import MOST_NAMED, STALE_SECONDS, Problem
from ipam.model import (
    AddressState,
    AddressStatus,
    Attachment,
    Holder,
    Owner,
    Reservation,
    SourceConfig,
    SourceState,
)
from ipam.value import replace

READ = SourceState("imds", success_age=5.0)
NEVER_READ = SourceState("file")


def ip_of(number: int) -> str:
    return f"10.1.0.{number}"


def held(number: int, pod: str = "web", holder: Holder = Holder.ENDPOINT) -> Reservation:
    owner = Owner("net", holder, pod_namespace="default", pod_name=pod)
    return Reservation(
        Attachment(f"container-of-{pod or 'nobody'}", "eth0"),
        owner,
        ip_interface(f"{ip_of(number)}/16"),
        ip_address(ip_of(1)),
        "imds",
        0.0,
        confirmed=True,
        generation="g",
    )


def address(
    number: int,
    state: AddressState = AddressState.FREE,
    who: Reservation | None = None,
    *,
    source: str = "imds",
    listed: bool = True,
) -> AddressStatus:
    return AddressStatus(
        ip_interface(f"{ip_of(number)}/16"), ip_address(ip_of(1)), "", source, state, listed, reservation=who
    )


def lost(number: int, who: Reservation | None = None, source: str = "imds") -> AddressStatus:
    return address(number, AddressState.ASSIGNED, who or held(number), source=source, listed=False)


@pytest.mark.parametrize(
    ("known", "expected", "by"), [(0, 3, None), (1, 3, 2), (2, 3, 1), (3, 3, None), (4, 3, None)]
)
def test_a_pool_is_too_small_only_if_it_has_some_and_not_enough(
    known: int, expected: int, by: int | None
) -> None:
    found = checks.small_pool({4: known}, expected)
    assert [each.text.rsplit(" ", 1)[-1] for each in found] == ([str(by)] if by else [])


def test_of_a_pool_of_two_families_the_one_that_is_too_small_is_named() -> None:
    """Before, both were counted together: 12 addresses of IPv4 hid that there were 2 of IPv6."""
    (one,) = checks.small_pool({4: 12, 6: 2}, 10)
    assert one.text.startswith("the pool has 2 IPv6 addresses for 10 pods")
    assert [each.text.split()[4] for each in checks.small_pool({4: 3, 6: 2}, 10)] == ["IPv4", "IPv6"]


def test_conflists_that_sort_before_ours_are_listed_and_the_first_is_used() -> None:
    assert checks.preferred_conflist("10-a", "/etc/cni", []) == []
    (one,) = checks.preferred_conflist("10-a", "/etc/cni", ["05-b"])
    assert one.text == "05-b sorts before 10-a in /etc/cni: the runtime uses 05-b"
    (two,) = checks.preferred_conflist("10-a", "/etc/cni", ["05-b", "07-c"])
    assert two.text == "05-b, 07-c sort before 10-a in /etc/cni: the runtime uses 05-b"
    assert one.key == two.key, "it is the same problem as long as the same file is used"


def test_an_address_is_lost_only_if_its_own_source_was_read_since() -> None:
    of_other = replace(lost(6, held(6, "other")), source="file")
    (found,) = checks.pool_addresses([lost(5), of_other], frozenset(), [READ, NEVER_READ])
    assert (found.kind, found.subject, found.level) == (checks.NOT_ON_NIC, ip_of(5), "error")
    assert found.text.startswith(f"{ip_of(5)} of default/web is no longer listed")
    assert "delete the pod" in found.remedy


def test_an_address_that_no_source_ever_listed_is_lost_once_all_were_read() -> None:
    adopted = lost(5, source="")
    assert checks.pool_addresses([adopted], frozenset(), [READ, NEVER_READ]) == []
    assert checks.pool_addresses([adopted], frozenset(), []) == []
    both = [READ, replace(NEVER_READ, success_age=0.0)]
    assert [each.subject for each in checks.pool_addresses([adopted], frozenset(), both)] == [ip_of(5)]


def test_an_adopted_address_of_another_plugins_pod_may_be_of_another_nic() -> None:
    delegated = held(5, holder=Holder.DELEGATED)
    assert checks.pool_addresses([lost(5, delegated, source="")], frozenset(), [READ]) == []
    given_by_us = checks.pool_addresses([lost(5, delegated)], frozenset(), [READ])
    assert [each.kind for each in given_by_us] == [checks.NOT_ON_NIC]


def test_a_listed_address_is_not_lost() -> None:
    assert checks.pool_addresses([address(5, AddressState.ASSIGNED, held(5))], frozenset(), [READ]) == []


def test_a_pods_address_on_a_link_of_the_host_is_an_error_with_its_remedy() -> None:
    on_host = frozenset({ip_address(ip_of(5))})
    pods = [address(n, AddressState.ASSIGNED, held(n)) for n in (5, 6)]
    (found,) = checks.pool_addresses(pods, on_host, [READ])
    assert (found.kind, found.subject, found.level) == (checks.HOST_HAS_POD_ADDRESS, ip_of(5), "error")
    assert found.text.startswith(f"the host itself carries {ip_of(5)} of default/web")
    assert found.remedy.startswith(f"Find what put {ip_of(5)} on a link")


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (AddressState.FREE, True),
        (AddressState.COOLING, True),
        (AddressState.QUARANTINED, False),
        (AddressState.ASSIGNED, False),
    ],
)
def test_the_host_takes_away_what_pods_could_have_had(state: AddressState, counts: bool) -> None:
    on_host = frozenset({ip_address(ip_of(5))})
    found = checks.pool_addresses([address(5, state), address(6)], on_host, [READ])
    assert [each.kind for each in found] == [checks.HOST_HAS_FREE_ADDRESS] * counts
    assert checks.pool_states([address(5, state)], on_host) == {checks.ON_HOST if counts else state.value: 1}
    assert checks.pool_states([address(5, state)], frozenset()) == {state.value: 1}
    if counts:
        assert found[0].remedy == "Remove them from the links of the host."


@pytest.mark.parametrize("more", [0, 1])
def test_of_free_addresses_on_the_host_the_first_are_named(more: int) -> None:
    some = [address(number) for number in range(10, 10 + MOST_NAMED + more)]
    (found,) = checks.pool_addresses(some, frozenset(each.address.ip for each in some), [READ])
    assert found.text.count("10.1.0.") == MOST_NAMED
    assert found.text.endswith(", ...") is bool(more)


@pytest.mark.parametrize("more", [0, 1, 3])
def test_of_lost_addresses_the_first_are_problems_of_their_own_and_the_others_one(more: int) -> None:
    some = [lost(number) for number in range(10, 10 + MOST_NAMED + more)]
    found = checks.pool_addresses(some, frozenset(), [READ])
    assert len(found) == MOST_NAMED + bool(more)
    if more:
        assert found[-1] == Problem(
            checks.NOT_ON_NIC,
            f"the same is true of {more} more addresses",
            "more",
            found[0].remedy,
            level="error",
        )


@pytest.mark.parametrize("more", [0, 2])
def test_pods_whose_addresses_vanished_are_one_error_with_the_first_by_name(more: int) -> None:
    assert checks.vanished([]) == []
    some = [held(number) for number in range(10 + MOST_NAMED + more - 1, 9, -1)]
    (found,) = checks.vanished(some)
    assert (found.kind, found.level) == (checks.VANISHED, "error")
    assert found.text.count("of default/web") == MOST_NAMED
    assert re.findall(r"and \d+ more", found.text) == [f"and {more} more"] * bool(more)
    assert found.key == checks.vanished(list(reversed(some)))[0].key, "the order is no difference"
    assert found.over


def test_a_holder_without_a_pod_is_named_by_its_container() -> None:
    assert checks.holder_name(held(5)) == "default/web"
    assert checks.holder_name(held(5, pod="")) == "container container-of"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("missing", "1 attachment lost its endpoint|2 attachments lost their endpoints"),
        ("down", "1 attachment has a host veth that is down|2 attachments have host veths that are down"),
        ("no-route", "1 attachment has no host route|2 attachments have no host routes"),
        ("unconfirmed", "1 attachment never finished its ADD|2 attachments never finished their ADD"),
    ],
)
def test_attachments_that_drifted_are_counted_by_kind(state: str, text: str) -> None:
    for number, words in enumerate(text.split("|"), start=1):
        late = number if state == "unconfirmed" else 0
        found = checks.attachment_problems({"ok": 5, state: number}, late)
        assert [(each.kind, each.text) for each in found] == [(state, words)]


@pytest.mark.parametrize(
    ("state", "unknown", "agent_runs", "text"),
    [
        ("unreadable", 0, False, "why"),
        ("unreadable", 2, True, "why"),
        ("ok", 0, True, ""),
        ("missing", 0, True, "why, though the agent runs"),
        ("missing", 0, False, ""),
        (
            "missing",
            1,
            True,
            "1 endpoint is alive, but why: the agent, or the next ADD, adopts what is alive",
        ),
        ("ok", 2, False, "2 endpoints are alive, but why: the agent, or the next ADD, adopts what is alive"),
    ],
)
def test_a_store_that_lacks_what_is_alive_or_cannot_be_read(
    state: str, unknown: int, agent_runs: bool, text: str
) -> None:
    found = checks.store_problems(state, "why", unknown, agent_runs=agent_runs)
    assert [(each.kind, each.text) for each in found] == ([(checks.STORE, text)] if text else [])


def test_endpoints_that_a_readable_store_lacks_are_said_to_be_unknown_to_it() -> None:
    (found,) = checks.store_problems("ok", "", 1, agent_runs=True)
    assert found.text.startswith("1 endpoint is alive, but they are not in the store")


@pytest.mark.parametrize(
    ("state", "ready", "text"),
    [
        ("hangs", False, "the agent hangs: why"),
        ("forbidden", False, "why"),
        ("running", False, "the agent is not ready: why"),
        ("running", True, ""),
        ("none", False, ""),
    ],
)
def test_an_agent_is_a_problem_if_there_is_one_that_does_not_serve(
    state: str, ready: bool, text: str
) -> None:
    found = checks.agent_problems(state, "why", ready=ready)
    assert [(each.kind, each.text) for each in found] == ([(checks.AGENT, text)] if text else [])


def test_a_source_that_fails_is_an_error_and_the_same_one_when_only_its_numbers_change() -> None:
    failing = replace(READ, failures=1, error="no answer within 2 s", remedy="Look.")
    (once,) = checks.source_problems([failing], agent_runs=False)
    again = replace(failing, failures=2, error="no answer within 3 s")
    (twice,) = checks.source_problems([again], agent_runs=False)
    assert (once.kind, once.level, once.remedy) == (checks.SOURCE, "error", "Look.")
    assert once.text == "no answer within 2 s (1 attempt)"
    assert twice.text == "no answer within 3 s (2 attempts)"
    assert once.key == twice.key
    assert once.over == "source imds is readable again"
    for other in ({"config": SourceConfig("wireserver")}, {"error": "refused"}):
        assert checks.source_problems([replace(failing, **other)], agent_runs=False)[0].key != once.key


@pytest.mark.parametrize(
    ("age", "agent_runs", "stale"),
    [
        (STALE_SECONDS, True, False),
        (STALE_SECONDS + 1, True, True),
        (STALE_SECONDS + 1, False, False),
        (None, True, False),
    ],
)
def test_a_running_agent_should_have_read_a_source_again(
    age: float | None, agent_runs: bool, stale: bool
) -> None:
    found = checks.source_problems([SourceState("", success_age=age), READ], agent_runs=agent_runs)
    assert [each.text for each in found] == ["the source was not read for 5m1s"] * stale


def test_a_healthy_source_does_not_hide_one_that_fails() -> None:
    failing = replace(READ, failures=1, error="broken")
    assert len(checks.source_problems([READ, failing, READ], agent_runs=True)) == 1


@pytest.mark.parametrize(
    ("free", "cooling", "assigned", "text"),
    [
        (0, 0, 0, ""),
        (1, 0, 2, ""),
        (0, 1, 2, ""),
        (1, 1, 2, ""),
        (0, 0, 2, "no address is free: 2 of 3 are assigned"),
    ],
)
def test_a_pool_is_exhausted_when_neither_free_nor_cooling_is_left(
    free: int, cooling: int, assigned: int, text: str
) -> None:
    counts = {"free": free, "cooling": cooling, "assigned": assigned, "quarantined": bool(assigned)}
    found = checks.exhausted_pool({4: counts})
    assert [(each.kind, each.text) for each in found] == ([(checks.EXHAUSTED, text)] if text else [])


def test_one_family_exhausted_is_named_though_the_other_has_addresses() -> None:
    full = {"free": 0, "cooling": 0, "assigned": 2, "quarantined": 0}
    (one,) = checks.exhausted_pool({4: {**full, "free": 5}, 6: full})
    assert one.text == "no IPv6 address is free: 2 of 2 are assigned"
