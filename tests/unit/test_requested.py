"""Which address a call asks for, where it may say so, and which requests can't be meant."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cni_plugin.addresses.requested import requested_addresses, requested_subnet
from cni_plugin.cni.errors import InvalidNetconf
from cni_plugin.cni.netconf import NetConf, parse_netconf
from cni_plugin.cni.params import Parameters, parse_environment
from ipam.errors import AddressUnavailable

BOTH = ["IPv4", "IPv6"]


def netconf(*, ipam: dict[str, Any] | None = None, **keys: Any) -> NetConf:
    return parse_netconf(
        {
            "cniVersion": "1.1.0",
            "name": "azure",
            "type": "azvnet",
            "ipam": {"type": "azvnet-ipam", **(ipam or {})},
            **keys,
        }
    )


def call(cni_args: str = "") -> Parameters:
    return parse_environment(
        {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": "/run/netns/c1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": cni_args,
        }
    )


def asked(cni_args: str = "", **keys: Any) -> list[str]:
    return sorted(map(str, requested_addresses(call(cni_args), netconf(**keys))))


def test_a_call_that_asks_for_none_gets_any() -> None:
    assert asked() == []
    assert asked("IP=", runtimeConfig={"ips": []}, args={"cni": {"ips": []}}, ipam={"ipAddress": ""}) == []


def test_of_several_places_the_first_counts() -> None:
    places: dict[str, Any] = {
        "runtimeConfig": {"ips": ["10.1.0.2/16"]},
        "args": {"cni": {"ips": ["10.1.0.3"]}},
        "ipam": {"ipAddress": "10.1.0.4"},
    }
    assert asked("IP=10.1.0.1", **places) == ["10.1.0.1"]
    for expected in ("10.1.0.2", "10.1.0.3", "10.1.0.4"):
        assert asked(**places) == [expected]
        del places[next(iter(places))]


def test_arguments_of_other_shapes_ask_for_nothing() -> None:
    assert asked(args={"cni": "10.1.0.3"}) == []


def test_one_address_of_each_family_may_be_asked_for_in_a_list_or_with_commas() -> None:
    wanted = ["10.1.0.7", "fd00::7"]
    assert asked(f"IP={','.join(wanted)}", ipam={"families": BOTH}) == wanted
    assert asked(runtimeConfig={"ips": wanted}, ipam={"families": BOTH}) == wanted


def test_the_same_address_twice_is_one() -> None:
    assert asked("IP=10.1.0.7/16,10.1.0.7") == ["10.1.0.7"]


@pytest.mark.parametrize(
    ("families", "remedy"),
    [(["IPv4"], "An interface gets one. "), (BOTH, "An interface gets one of each family. ")],
)
def test_more_addresses_of_a_family_than_one_are_refused(families: list[str], remedy: str) -> None:
    with pytest.raises(InvalidNetconf) as caught:
        asked("IP=10.1.0.8,10.1.0.7,10.1.0.9,10.1.0.5,10.1.0.6", ipam={"families": families})
    assert str(caught.value) == (
        "5 addresses are requested: 10.1.0.5, 10.1.0.6, 10.1.0.7, 10.1.0.8, 10.1.0.9"
    )
    assert caught.value.details.startswith(remedy)


def test_three_addresses_of_two_families_are_refused() -> None:
    with pytest.raises(InvalidNetconf, match=r"^3 addresses are requested"):
        asked("IP=10.1.0.8,10.1.0.7,fd00::7", ipam={"families": BOTH})


@pytest.mark.parametrize(
    ("families", "wanted", "given"),
    [
        (["IPv4"], "fd00::7", "IPv4"),
        (["IPv6"], "10.1.0.7", "IPv6"),
        (["IPv4"], "10.1.0.7,fd00::7", "IPv4"),
    ],
)
def test_a_family_that_pods_do_not_get_is_refused_by_name(
    families: list[str], wanted: str, given: str
) -> None:
    with pytest.raises(AddressUnavailable) as caught:
        asked(f"IP={wanted}", ipam={"families": families})
    refused = wanted.rsplit(",", maxsplit=1)[-1]
    assert str(caught.value) == f"address {refused} can't be given out: pods get {given} addresses"
    assert caught.value.remedy.startswith(f"Request an {given} address, or none")


def test_what_is_not_an_address_is_quoted() -> None:
    with pytest.raises(InvalidNetconf, match=r"the requested address '10\.1\.0\.300' is not an IP address"):
        asked("IP=10.1.0.300")


def test_a_subnet_may_be_named_by_any_of_its_addresses() -> None:
    assert requested_subnet(netconf(ipam={"subnet": "10.20.0.7/16"})) == ip_network("10.20.0.0/16")
    with pytest.raises(InvalidNetconf, match=r"ipam\.subnet '10\.20\.0\.0/40' is not a network"):
        requested_subnet(netconf(ipam={"subnet": "10.20.0.0/40"}))


def test_the_addresses_are_bare() -> None:
    assert requested_addresses(call("IP=10.1.0.7/16"), netconf()) == (ip_address("10.1.0.7"),)
