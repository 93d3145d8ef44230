"""What ``azvnet status`` calls wrong, and what it does not."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from cni_plugin.cli.asking import HANGS, NONE, RUNNING, AgentSeen
from cni_plugin.cli.looking import Picture, Seen, compare
from cni_plugin.cli.status import find_problems, status_document, text
from cni_plugin.cli.table import Paint
from cni_plugin.datapath.names import HOST_MAC, alias, names_of
from cni_plugin.kernel.decode import KernelRoute, Link
from ipam.model import (
    AddressState,
    AddressStatus,
    Attachment,
    Holder,
    Overview,
    Owner,
    PoolCounts,
    Reservation,
    SourceState,
)
from ipam.value import replace

NOW = 1_800_000_000.0
AGENT = AgentSeen(RUNNING, "/run/azvnet/agent.sock", 7, "1.0", 1, NOW - 90, ready=True)
NO_AGENT = AgentSeen(NONE, "/run/azvnet/agent.sock")
SOURCE = SourceState("imds", NOW - 5, NOW - 5, 5.0, 5.0, listed=2)
ATTACHMENT = Attachment("c1", "eth0")
NAMES = names_of(ATTACHMENT, "default", "web")


def status_of(ip: str, state: AddressState, reservation: Reservation | None = None) -> AddressStatus:
    return AddressStatus(
        ip_interface(f"{ip}/16"),
        ip_address("10.1.0.1"),
        "",
        "imds",
        state,
        listed=True,
        reservation=reservation,
    )


def reservation(ip: str = "10.1.0.5", *, confirmed: bool = True, created_at: float = NOW - 10) -> Reservation:
    owner = Owner("net", pod_namespace="default", pod_name="web")
    return Reservation(
        ATTACHMENT,
        owner,
        ip_interface(f"{ip}/16"),
        ip_address("10.1.0.1"),
        "imds",
        created_at,
        confirmed,
        "g",
    )


def link(*, up: bool = True, attachment: Attachment = ATTACHMENT) -> Link:
    return Link(
        index=104,
        name=NAMES.host_ifname,
        mac=HOST_MAC,
        mtu=1500,
        flags=int(up),
        alias=alias(attachment, "net"),
        lower=105,
        alt_names=(names_of(attachment).mark,),
        ipv4_settings=(1, 0, 1, 0, 1, 1, 1, 1),
        group=155,
    )


def route(ip: str = "10.1.0.5", index: int = 104) -> KernelRoute:
    return KernelRoute(ip_interface(ip).network, None, index, 155, 253, 1)


def picture(*, agent: AgentSeen = NO_AGENT, source: SourceState = SOURCE, free: bool = True) -> Picture:
    """A node where all is well, unless told otherwise."""
    held = reservation()
    addresses = [status_of("10.1.0.5", AddressState.ASSIGNED, held)]
    if free:
        addresses.append(status_of("10.1.0.6", AddressState.FREE))
    overview = Overview(PoolCounts(1, 1, 0, 0), 2, {}, (source,), adopted=True, same_boot=True)
    seen = tuple(compare([held], [link()], [route()]))
    return Picture(NOW, "/run/azvnet", agent, "ok", "", overview, tuple(addresses), seen)


@pytest.mark.parametrize("agent", [NO_AGENT, AGENT])
def test_nothing_is_wrong_with_a_node_where_all_is_well(agent: AgentSeen) -> None:
    assert find_problems(picture(agent=agent)) == []


def test_indexes_of_both_ends_and_the_pod_are_shown() -> None:
    (seen,) = picture().attachments
    assert (seen.host_veth, seen.host_index, seen.pod_index) == (NAMES.host_ifname, 104, 105)
    assert (seen.owner.pod, seen.state, seen.address) == ("default/web", "ok", "10.1.0.5")


@pytest.mark.parametrize(
    ("links", "routes", "state"),
    [
        ([], [], "missing"),
        ([link(up=False)], [route()], "down"),
        ([link()], [], "no-route"),
        ([link()], [route(index=99)], "no-route"),
        ([link()], [route()], "ok"),
    ],
)
def test_the_state_of_an_attachment(links: list[Link], routes: list[KernelRoute], state: str) -> None:
    assert [each.state for each in compare([reservation()], links, routes)] == [state]


def test_an_endpoint_that_the_store_does_not_know_is_shown_with_its_address() -> None:
    (seen,) = compare([], [link()], [route()])
    assert (seen.attachment, seen.address, seen.state) == (ATTACHMENT, "10.1.0.5", "unknown")


def test_links_of_others_are_not_shown() -> None:
    other = replace(link(), name="eth0", alias="")
    assert compare([], [other], [route()]) == []


def test_a_delegated_address_has_no_veth_and_lives_as_its_namespace(tmp_path: object) -> None:
    owner = Owner("net", Holder.DELEGATED, netns=f"{tmp_path}/gone", netns_id="4:99")
    (seen,) = compare([replace(reservation(), owner=owner)], [], [])
    assert (seen.state, seen.host_veth) == ("missing", "")
    owner = Owner("net", Holder.DELEGATED)
    (seen,) = compare([replace(reservation(), owner=owner)], [], [])
    assert seen.state == "ok"


@pytest.mark.parametrize(("age", "wrong"), [(5.0, False), (59.0, False), (61.0, True), (-3600.0, True)])
def test_an_add_under_way_is_nothing_wrong_until_it_is_too_old(age: float, wrong: bool) -> None:
    seen = tuple(compare([reservation(confirmed=False, created_at=NOW - age)], [], []))
    assert [each.state for each in seen] == ["unconfirmed"]
    assert bool(find_problems(replace(picture(), attachments=seen))) is wrong


def test_one_and_many_are_told_in_their_own_words() -> None:
    gone = Seen(ATTACHMENT, "10.1.0.5", Owner("net"), "missing")
    assert find_problems(replace(picture(), attachments=(gone,))) == ["1 attachment lost its endpoint"]
    assert find_problems(replace(picture(), attachments=(gone, gone))) == [
        "2 attachments lost their endpoints"
    ]


def test_a_source_that_fails_is_wrong_though_the_pool_is_full() -> None:
    failing = replace(SOURCE, failures=3, error="source imds: GET http://imds/x: no answer in time")
    (problem,) = find_problems(picture(source=failing))
    assert problem == "source imds: GET http://imds/x: no answer in time (3 attempts)"


def test_every_source_that_fails_is_told() -> None:
    failing = [
        replace(SOURCE, source=name, failures=1, error=f"source {name}: broken") for name in ("imds", "file")
    ]
    overview = picture().overview
    assert overview is not None
    seen = replace(picture(), overview=replace(overview, sources=(SOURCE, *failing)))
    assert find_problems(seen) == ["source imds: broken (1 attempt)", "source file: broken (1 attempt)"]


@pytest.mark.parametrize(("agent", "wrong"), [(AGENT, True), (NO_AGENT, False)])
def test_an_old_listing_is_wrong_only_where_somebody_should_have_read(agent: AgentSeen, wrong: bool) -> None:
    assert bool(find_problems(picture(agent=agent, source=replace(SOURCE, success_age=900.0)))) is wrong


def test_no_free_address_is_wrong_and_told_once() -> None:
    assert find_problems(picture(free=False)) == ["no address is free: 1 of 1 are assigned"]
    exhausted = replace(AGENT, ready=False, reason="no free IPv4 address")
    assert find_problems(picture(agent=exhausted, free=False)) == [
        "the agent is not ready: no free IPv4 address"
    ]


def test_what_is_wrong_with_the_agent() -> None:
    hangs = AgentSeen(HANGS, "", reason="it does not answer within 2 s")
    assert find_problems(picture(agent=hangs)) == ["the agent hangs: it does not answer within 2 s"]
    warned = replace(AGENT, warnings=("05-other.conflist sorts before 10-azvnet.conflist",))
    assert find_problems(picture(agent=warned)) == list(warned.warnings)


def test_the_last_line_says_what_is_wrong() -> None:
    bad = picture(free=False)
    shown = text(bad, find_problems(bad), Paint(wanted=False), with_addresses=False)
    assert shown.splitlines()[-1] == "wrong: no address is free: 1 of 1 are assigned"
    good = text(picture(), [], Paint(wanted=False), with_addresses=True)
    assert "wrong" not in good


def test_json_and_table_tell_the_same_pool() -> None:
    shown = status_document(picture(), [], with_addresses=True)
    counted = {"free": 1, "assigned": 1, "cooling": 0, "quarantined": 0, "onHost": 0, "total": 2}
    assert shown["pool"] == {**counted, "families": {"ipv4": counted}}
    assert len(shown["addresses"]) == 2
    lines = text(picture(), [], Paint(wanted=False), with_addresses=False).splitlines()
    assert "pool    2 addresses: 1 free, 1 assigned, 0 cooling, 0 quarantined" in lines
    assert "addresses" not in status_document(picture(), [], with_addresses=False)


def test_a_family_that_is_exhausted_is_not_hidden_by_the_other() -> None:
    six = status_of("fd00:10::5", AddressState.ASSIGNED, reservation())
    seen = replace(picture(), addresses=(*picture().addresses, six))
    assert "no IPv6 address is free: 1 of 1 are assigned" in find_problems(seen)
    families = status_document(seen, [], with_addresses=False)["pool"]["families"]
    assert {name: each["free"] for name, each in families.items()} == {"ipv4": 1, "ipv6": 0}
    lines = text(seen, [], Paint(wanted=False), with_addresses=False).splitlines()
    assert "pool    2 IPv4 addresses: 1 free, 1 assigned, 0 cooling, 0 quarantined" in lines
    assert "pool    1 IPv6 addresses: 0 free, 1 assigned, 0 cooling, 0 quarantined" in lines


def test_a_store_that_cannot_be_read_is_said_and_the_rest_is_shown() -> None:
    broken = replace(
        picture(), store="unreadable", store_error="the store is damaged", overview=None, addresses=()
    )
    assert find_problems(broken) == ["the store is damaged"]
    shown = text(broken, [], Paint(wanted=False), with_addresses=True)
    assert "store   the store is damaged" in shown
    assert "default/web" in shown
    assert status_document(broken, [], with_addresses=True)["pool"] is None


def test_an_address_that_the_nic_lost_is_wrong_once_the_source_was_read() -> None:
    held = reservation()
    lost = replace(status_of("10.1.0.5", AddressState.ASSIGNED, held), listed=False)
    seen = replace(picture(), addresses=(lost, status_of("10.1.0.6", AddressState.FREE)))
    (wrong,) = find_problems(seen)
    assert wrong.startswith("10.1.0.5 of default/web is no longer listed by the source")
    assert seen.overview is not None
    never_read = replace(seen.overview, sources=(replace(SOURCE, success_age=None),))
    assert find_problems(replace(seen, overview=never_read)) == []


def test_what_the_host_carries_is_wrong_and_is_not_free() -> None:
    seen = replace(picture(), on_host=frozenset({ip_address("10.1.0.5"), ip_address("10.1.0.6")}))
    doubled, not_free, none_left = find_problems(seen)
    assert doubled.startswith("the host itself carries 10.1.0.5 of default/web")
    assert not_free == "the host itself carries 1 of 1 addresses that pods could have: 10.1.0.6"
    assert none_left == "no address is free: 1 of 2 are assigned"
    assert status_document(seen, [], with_addresses=False)["pool"]["onHost"] == 1
    assert "0 free, 1 assigned, 0 cooling, 0 quarantined, 1 carried by the host itself" in text(
        seen, [], Paint(wanted=False), with_addresses=False
    )


def test_what_the_agent_has_found_too_is_said_once() -> None:
    on_host = frozenset({ip_address("10.1.0.5")})
    (found,) = find_problems(replace(picture(), on_host=on_host))
    agent = replace(AGENT, warnings=(found, "another"))
    assert find_problems(replace(picture(agent=agent), on_host=on_host)) == [found, "another"]


def test_of_many_the_first_are_named() -> None:
    held = tuple(
        status_of(f"10.1.0.{number}", AddressState.ASSIGNED, reservation()) for number in range(5, 55)
    )
    seen = replace(picture(), addresses=held, on_host=frozenset(each.address.ip for each in held))
    found = find_problems(seen)
    assert len(found) < 15
    assert any("42 more" in each for each in found)


def test_names_of_pods_move_no_cursor() -> None:
    evil = replace(reservation(), owner=Owner("net", pod_namespace="default", pod_name="a\x1b[2Jb"))
    seen = replace(picture(), attachments=tuple(compare([evil], [link()], [route()])))
    shown = text(seen, ["bad\x1b[2J"], Paint(wanted=False), with_addresses=False)
    assert "\x1b" not in shown
    assert "a\\x1b[2Jb" in shown
