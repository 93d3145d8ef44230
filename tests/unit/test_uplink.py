"""Which link is the node's NIC: the choice as a table (row 17)."""

from __future__ import annotations

import random

import pytest

from cni_plugin.addresses import uplink
from cni_plugin.cni.errors import UplinkUnclear
from cni_plugin.kernel.decode import Link

MAC, OTHER = "00:0d:3a:00:00:01", "00:0d:3a:00:00:02"
SLAVE = 0x800


def link(index: int, name: str, mac: str = MAC, **more: object) -> Link:
    return Link(index=index, name=name, mac=mac, mtu=1500, flags=int(more.pop("flags", 1)), **more)  # type: ignore[arg-type,call-overload]


LO = link(1, "lo", "00:00:00:00:00:00")
SYNTHETIC = link(2, "eth0")
SITUATIONS: dict[str, list[Link]] = {
    "a single NIC": [SYNTHETIC],
    "a VF enslaved by its master": [SYNTHETIC, link(3, "enP1s1", master=2)],
    "a VF with the slave flag alone": [SYNTHETIC, link(3, "enP1s1", flags=1 | SLAVE)],
    "a vlan on top": [SYNTHETIC, link(3, "eth0.5", kind="vlan", lower=2)],
    "a macvlan with its MAC on top": [SYNTHETIC, link(3, "macv0", kind="macvlan", lower=2)],
    "an ipvlan on top": [SYNTHETIC, link(3, "ipvl0", kind="ipvlan", lower=2)],
    "a bond over two": [
        link(2, "eth0", kind="bond"),
        link(3, "a0", master=2, flags=1 | SLAVE),
        link(4, "b0", master=2, flags=1 | SLAVE),
    ],
    "a pod that was given the NIC's MAC": [
        SYNTHETIC,
        link(3, "azv0", kind="veth", lower=2, alt_names=("azvnet-0",)),
    ],
    "a macvlan that alone has the MAC": [
        link(2, "eth0", kind="macvlan", lower=3),
        link(3, "phys0", OTHER),
    ],
    "other NICs": [SYNTHETIC, link(3, "eth1", OTHER), link(4, "docker0", "02:42:00:00:00:01", kind="bridge")],
    "a veth whose peer has its index elsewhere": [
        link(2, "eth0", kind="veth", lower=2, lower_elsewhere=True)
    ],
    "a nested node whose NIC is a macvlan of its host": [
        link(2, "eth0", kind="macvlan", lower=7, lower_elsewhere=True)
    ],
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_free_standing_link_with_the_mac_is_the_nic(situation: str) -> None:
    links = [LO, *SITUATIONS[situation]]
    for seed in range(10):
        random.Random(seed).shuffle(links)
        assert uplink.select(links, [MAC]).name == "eth0"


def test_the_synthetic_driver_decides_where_two_stand_free() -> None:
    """The moment between a VF's appearing and its being enslaved."""
    both = [SYNTHETIC, link(3, "enP1s1")]
    assert uplink.select(both, [MAC], drivers={"eth0": "hv_netvsc", "enP1s1": "mlx5_core"}) is SYNTHETIC
    with pytest.raises(UplinkUnclear) as caught:
        uplink.select(both, [OTHER, MAC], drivers={"eth0": "veth"})
    assert str(caught.value) == (f"2 links carry the NIC's MAC {MAC}, {OTHER}: eth0 ({MAC}), enP1s1 ({MAC})")
    assert "master" in caught.value.details


def test_master_decides_over_everything() -> None:
    links = [SYNTHETIC, link(3, "eth1", OTHER)]
    assert uplink.select(links, [MAC], master="eth1").name == "eth1"
    with pytest.raises(UplinkUnclear, match="eth9"):
        uplink.select(links, [MAC], master="eth9")


def test_where_no_link_has_the_mac_those_that_exist_are_listed() -> None:
    with pytest.raises(UplinkUnclear) as caught:
        uplink.select([LO, link(3, "eth1", OTHER), link(4, "wg0", "")], [MAC])
    assert str(caught.value) == f"no link of this node has the NIC's MAC {MAC}"
    assert caught.value.details.startswith(f"Links are eth1 ({OTHER}), wg0 (no MAC). ")


def test_where_there_is_no_link_and_no_mac_that_is_said() -> None:
    with pytest.raises(UplinkUnclear) as caught:
        uplink.select([LO], [])
    assert str(caught.value) == "no link of this node has the NIC's MAC (none is known)"
    assert caught.value.details.startswith("Links are none. ")


def test_the_loopback_is_never_the_nic() -> None:
    with pytest.raises(UplinkUnclear):
        uplink.select([LO], [LO.mac])


@pytest.mark.parametrize(
    ("candidate", "is_it"),
    [
        (SYNTHETIC, True),
        (None, False),
        (link(2, "eth0", OTHER), False),
        (link(2, "vf", master=3), False),
        (link(2, "vf", flags=1 | SLAVE), False),
        (link(2, "eth0.5", kind="vlan", lower=3), False),
        (link(2, "eth0", kind="veth", lower=9, lower_elsewhere=True), True),
    ],
)
def test_a_link_that_the_route_led_to_is_looked_at_before_it_is_believed(
    candidate: Link | None, is_it: bool
) -> None:
    assert uplink.is_uplink(candidate, MAC) is is_it


@pytest.mark.parametrize(
    ("candidate", "is_it"),
    [
        (SYNTHETIC, True),
        (None, False),
        (link(2, "eth0", OTHER), False),
        (link(2, "enP1s1", master=3), False),
        (link(2, "enP1s1", flags=1 | SLAVE), False),
        (link(2, "eth0.5", kind="vlan", lower=3), False),
        (link(2, "eth0", kind="macvlan", lower=3, lower_elsewhere=True), True),
        (link(2, "eth0", kind="veth", lower=3), True),
        (link(2, "eth0", kind="dummy", lower=2), True),
    ],
    ids=lambda value: str(value) if not isinstance(value, Link) else f"{value.kind or 'nic'} {value.name}",
)
def test_a_link_known_by_its_index_is_the_nic_only_beyond_doubt(candidate: Link | None, is_it: bool) -> None:
    assert uplink.is_uplink(candidate, MAC) is is_it
