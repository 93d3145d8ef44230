"""What a decision about pods' packets comes to: which rules, in which order, and what each of them names."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cni_plugin.host import packet_rules, traffic
from cni_plugin.host.packet_rules import chains_of
from cni_plugin.host.traffic import Traffic
from cni_plugin.kernel import nftables
from cni_plugin.kernel.nftables import Chain, Rule, Step
from ipam.model import IPNetwork
from ipam.value import replace

INSIDE = (ip_network("10.0.0.0/8"),)
PLAIN = Traffic(INSIDE)
WHOLE = Traffic(
    (*INSIDE, ip_network("fc00::/7")),
    public=(ip_address("10.1.0.5"), ip_address("fd00::5")),
    pool=(ip_network("10.1.0.4/30"), ip_network("fd00::/120")),
    uplinks=(2,),
)
TAG = re.compile(r" \[([0-9a-f]{8}) (\d+)/(\d+)\]$")


def names(chain: Chain) -> list[str]:
    return [TAG.sub("", each.comment) for each in chain.rules]


def rules(decided: Traffic, **how: Any) -> dict[str, list[str]]:
    return {chain.name: names(chain) for chain in chains_of(decided, **how)}


def among(network: IPNetwork) -> Step:
    return nftables.in_networks(traffic.by_family([network])[network.version == 6])


def the_rule(name: str, decided: Traffic, place: int = 0, **how: Any) -> Rule:
    every = [rule for chain in chains_of(decided, **how) for rule in chain.rules]
    return [each for each in every if TAG.sub("", each.comment) == name][place]


def test_without_a_pool_the_platform_is_closed_and_the_rest_masqueraded() -> None:
    assert rules(PLAIN) == {
        "forward": ["to a pod", "wireserver", "metadata service"],
        "postrouting": ["to a pod", "inside", "with the node's address"],
    }


def test_hooks_and_priorities_are_those_that_nft_has_names_for() -> None:
    assert [(each.name, each.kind, each.hook, each.priority) for each in chains_of(PLAIN, ipv6=True)] == [
        ("prerouting", "filter", nftables.PREROUTING, -300),
        ("forward", "filter", nftables.FORWARD, 0),
        ("postrouting", "nat", nftables.POSTROUTING, 100),
    ]


def test_everything_of_both_families_at_once() -> None:
    assert rules(WHOLE, ipv6=True, excepted=(9,)) == {
        "prerouting": ["not the pod's address"],
        "forward": ["to a pod", *["no pod has the address"] * 4, "wireserver", "metadata service"],
        "postrouting": [
            "to a pod",
            "ipMasq is false",
            *["has a public address", "inside", "with the node's address"] * 2,
        ],
    }


def test_without_ipv6_nothing_is_about_it() -> None:
    assert rules(WHOLE) == {
        "forward": ["to a pod", *["no pod has the address"] * 2, "wireserver", "metadata service"],
        "postrouting": ["to a pod", "has a public address", "inside", "with the node's address"],
    }
    assert all(nftables.IPV6_ONLY not in rule.steps for chain in chains_of(WHOLE) for rule in chain.rules)


def test_where_no_pod_is_masqueraded_there_is_no_chain_for_it() -> None:
    assert list(rules(WHOLE, masqueraded=False)) == ["forward"]


@pytest.mark.parametrize("lacks", [{"pool": ()}, {"uplinks": ()}])
def test_addresses_without_a_pod_are_refused_only_where_pool_and_uplinks_are_known(
    lacks: dict[str, Any],
) -> None:
    assert "no pod has the address" not in rules(replace(WHOLE, **lacks), ipv6=True)["forward"]


def test_a_pool_of_one_family_refuses_nothing_of_the_other() -> None:
    for pool in WHOLE.pool:
        found = rules(replace(WHOLE, pool=(pool,)), ipv6=True)["forward"]
        assert found.count("no pod has the address") == 2
        first = the_rule("no pod has the address", replace(WHOLE, pool=(pool,)), ipv6=True)
        assert (nftables.IPV4_ONLY in first.steps) is (pool.version == 4)
        assert among(pool) in first.steps


def test_tcp_to_an_address_without_a_pod_is_reset_and_the_rest_is_unreachable() -> None:
    for place, family in ((0, nftables.IPV4_ONLY), (2, nftables.IPV6_ONLY)):
        tcp, rest = (the_rule("no pod has the address", WHOLE, place + n, ipv6=True) for n in (0, 1))
        turned = (*nftables.from_links((2,)), *nftables.to_links((2,)), family)
        assert tcp.steps[: len(turned) + 1] == (*turned, nftables.TCP)
        assert rest.steps[: len(turned)] == turned
        assert (tcp.steps[-1], rest.steps[-1]) == (nftables.REFUSE_TCP, nftables.UNREACHABLE)
        assert tcp.steps[-3:-1] == rest.steps[-3:-1], "the same addresses"


@pytest.mark.parametrize(("opened", "name"), [("wireserver", "wireserver"), ("imds", "metadata service")])
def test_a_service_of_the_platform_that_is_opened_has_no_rule(opened: str, name: str) -> None:
    assert name in rules(PLAIN)["forward"]
    assert name not in rules(replace(PLAIN, **{opened: True}))["forward"]


def test_what_is_closed_is_tcp_from_pods_to_that_service() -> None:
    wireserver, imds = (the_rule(name, PLAIN) for name in ("wireserver", "metadata service"))
    for rule, service in ((wireserver, traffic.WIRESERVER), (imds, traffic.IMDS)):
        assert rule.steps[:3] == (packet_rules._FROM_PODS, nftables.IPV4_ONLY, nftables.TCP)
        assert rule.steps[3:5] == (nftables.DESTINATION, nftables.in_networks([service]))
        assert rule.steps[-1] == nftables.REFUSE_TCP
    ports = nftables.in_ports((80, 32526))
    assert wireserver.steps[5:7] == (nftables.DESTINATION_PORT, ports), "DNS stays open"
    assert len(imds.steps) == 6


def test_link_local_destinations_are_inside_only_where_they_are_not_masqueraded() -> None:
    for name, network, address, family in (
        ("link_local", traffic.LINK_LOCAL, nftables.DESTINATION, nftables.IPV4_ONLY),
        ("link_local_v6", traffic.LINK_LOCAL_V6, nftables.DESTINATION_V6, nftables.IPV6_ONLY),
    ):
        nowhere = Traffic((), link_local=True, link_local_v6=True)
        assert "inside" not in rules(nowhere, ipv6=True)["postrouting"]
        kept = the_rule("inside", replace(nowhere, **{name: False}), ipv6=True)
        assert kept.steps == (family, address, among(network), nftables.RETURN)


def test_a_pod_with_a_public_address_keeps_its_own_but_for_the_platform() -> None:
    of_4, of_6 = (the_rule("has a public address", WHOLE, place, ipv6=True) for place in (0, 1))
    platform = nftables.in_networks([traffic.WIRESERVER, traffic.LINK_LOCAL], inverted=True)
    own = among(ip_network("10.1.0.5/32"))
    assert of_4.steps == (
        nftables.IPV4_ONLY,
        nftables.SOURCE,
        own,
        nftables.DESTINATION,
        platform,
        nftables.RETURN,
    )
    own_6 = among(ip_network("fd00::5/128"))
    assert of_6.steps == (nftables.IPV6_ONLY, nftables.SOURCE_V6, own_6, nftables.RETURN)


@pytest.mark.parametrize("random_fully", [False, True])
def test_source_ports_are_random_only_where_that_was_decided(random_fully: bool) -> None:
    decided = replace(WHOLE, random_fully=random_fully)
    leave = nftables.masquerade(random_fully=random_fully)
    for place, family in ((0, nftables.IPV4_ONLY), (1, nftables.IPV6_ONLY)):
        rule = the_rule("with the node's address", decided, place, ipv6=True)
        assert rule.steps == (packet_rules._FROM_PODS, family, leave)


def test_pods_of_networks_that_are_excepted_are_told_by_their_links() -> None:
    assert the_rule("ipMasq is false", PLAIN, excepted=(7, 9)).steps == (
        *nftables.from_links((7, 9)),
        nftables.RETURN,
    )


def test_comments_number_the_rules_of_the_whole_table() -> None:
    found = [TAG.search(rule.comment) for chain in chains_of(WHOLE, ipv6=True) for rule in chain.rules]
    tags = [each.groups() for each in found if each is not None]
    assert len(tags) == len(found) > 10
    assert [(int(number), int(total)) for _, number, total in tags] == [
        (number, len(found)) for number in range(1, len(found) + 1)
    ]
    assert len({digest for digest, _, _ in tags}) == 1


def test_every_other_decision_has_another_digest() -> None:
    others: list[tuple[Traffic, dict[str, Any]]] = [
        (WHOLE, {}),
        (WHOLE, {"ipv6": True}),
        (WHOLE, {"masqueraded": False}),
        (WHOLE, {"excepted": (9,)}),
        (WHOLE, {"excepted": (10,)}),
        *((replace(WHOLE, **{name: True}), {}) for name in ("imds", "wireserver", "random_fully")),
        (replace(WHOLE, link_local=False), {}),
        (replace(WHOLE, public=()), {}),
        (replace(WHOLE, uplinks=(3,)), {}),
        (replace(WHOLE, pool=(ip_network("10.1.0.8/30"),)), {}),
        (replace(WHOLE, non_masquerade=INSIDE[:0]), {}),
    ]
    digests = {re.findall(r"\[(\w+) ", chains_of(each, **how)[0].rules[0].comment)[0] for each, how in others}
    assert len(digests) == len(others)
