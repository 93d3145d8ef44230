"""The pool of one NIC as the provisioner counts it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import Any

from ipam.model import AddressState, AddressStatus, Reservation
from ipam.provision.pool_view import PoolView
from tests.unit.ipam.node import GATEWAY, attachment, owner

MAC, OTHER = "00:0d:3a:00:00:01", "00:0d:3a:00:00:02"
FREE, ASSIGNED = AddressState.FREE, AddressState.ASSIGNED


def address(text: str, state: AddressState = FREE, mac: str = MAC, **more: Any) -> AddressStatus:
    ip = ip_interface(text)
    reservation = None
    if state is ASSIGNED:
        reservation = Reservation(
            attachment(f"c-{ip.ip}"),
            owner(pod="web"),
            ip,
            GATEWAY,
            "imds",
            0.0,
            confirmed=True,
            generation="g",
        )
    return AddressStatus(
        ip, GATEWAY, mac, "imds", state, **{"listed": True, "reservation": reservation, **more}
    )


POOL = (
    address("10.0.0.4/16", ASSIGNED),
    address("10.0.0.5/16", ASSIGNED, "", listed=False),
    address("10.0.0.6/16"),
    address("10.0.0.7/16"),
    address("10.0.0.8/16", AddressState.COOLING),
    address("10.0.0.9/16", AddressState.QUARANTINED, listed=False),
    address("10.0.0.10/16", FREE, OTHER),
    address("10.0.0.11/16", ASSIGNED, OTHER),
    address("fd00::4/64"),
    address("fd00::5/64", ASSIGNED),
)


def ips(*numbers: int) -> frozenset[Any]:
    return frozenset(ip_address(f"10.0.0.{number}") for number in numbers)


def test_addresses_of_the_nic_and_of_no_nic_yet_are_counted_by_state() -> None:
    view = PoolView(POOL, ips(7), "00-0D-3A-00-00-01")
    assert (view.held, view.free, view.cooling, view.unusable) == (2, [ip_address("10.0.0.6")], 1, 2)
    assert view.listed == ips(4, 6, 7, 8)
    assert view.known == ips(4, 5, 6, 7, 8, 9)
    assert view.of_nic == ips(4, 6, 7, 8, 9)
    assert [each.ip for each in view.reservations] == [ip_address("10.0.0.4"), ip_address("10.0.0.5")]
    assert view.holders == [attachment("c-10.0.0.4"), attachment("c-10.0.0.5")]
    assert view.pods == {"default/web"}


def test_without_a_nic_all_of_the_pool_is_counted_and_nothing_is_certainly_the_nics() -> None:
    view = PoolView(POOL, frozenset(), "")
    assert (view.held, len(view.free), view.cooling, view.unusable) == (3, 3, 1, 1)
    assert view.known == ips(*range(4, 12))
    assert view.of_nic == frozenset()
