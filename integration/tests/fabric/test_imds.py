"""IMDS: the documents, the rules of a request, path filters, limits, and who may ask."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from integration.fabric.imds import VERSIONS
from integration.tests.fabric.asking import IMDS, NETWORK, ask, imds, listed_by_imds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.fabric import Fabric

COMPUTE = "/metadata/instance/compute?api-version=2021-02-01"


@pytest.fixture(scope="module", autouse=True)
def _no_limit(shared_fabric: Fabric) -> Iterator[None]:
    """These tests ask more than five times a second; the limit has a test of its own."""
    shared_fabric.imds.limit.allowed = None
    yield
    shared_fabric.imds.limit.allowed = 5


def test_network_document_has_exactly_the_documented_form(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    answer = imds(node)
    addresses = [node.primary_ip, *node.pod_addresses]
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.document == {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [{"privateIpAddress": str(a), "publicIpAddress": ""} for a in addresses],
                    "subnet": [{"address": "10.10.0.0", "prefix": "20"}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": node.uplink_mac.replace(":", "").upper(),
            }
        ]
    }


def test_every_machine_sees_itself(fabric: Fabric) -> None:
    for machine in fabric.machines.values():
        assert imds(machine, COMPUTE).document["osProfile"]["computerName"] == machine.name
        assert listed_by_imds(machine)[0] == str(machine.primary_ip)


def test_all_primitives_are_strings(fabric: Fabric) -> None:
    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, dict | list):
            for child in value.values() if isinstance(value, dict) else value:
                yield from leaves(child)
        else:
            yield value

    document = imds(fabric.nodes["node1"], "/metadata/instance?api-version=2021-02-01").document
    assert set(document) == {"compute", "network"}
    assert {type(leaf) for leaf in leaves(document)} == {str}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 400, id="no header"),
        pytest.param({"Metadata": "false"}, 400, id="wrong value"),
        pytest.param({"Metadata": "true", "X-Forwarded-For": "10.0.0.1"}, 400, id="through a proxy"),
        pytest.param({"Metadata": "True"}, 200, id="any case"),
    ],
)
def test_header_rules(fabric: Fabric, headers: dict[str, str], status: int) -> None:
    answer = ask(fabric.nodes["node1"], IMDS, NETWORK, headers=headers)
    assert answer.status == status
    assert ("error" in answer.document) == (status != 200)


@pytest.mark.parametrize("query", ["", "?api-version=", "?api-version=1999-01-01"])
def test_a_version_that_does_not_exist_is_refused_with_the_newest_ones(fabric: Fabric, query: str) -> None:
    answer = imds(fabric.nodes["node1"], f"/metadata/instance/network{query}")
    assert answer.status == 400
    assert answer.document == {
        "error": "Bad request. api-version is invalid or was not specified in the request. "
        "For more information refer to aka.ms/azureimds",
        "newest-versions": ["2025-04-07", "2024-07-17", "2024-03-15"],
    }


def test_versions_are_listed_without_a_version(fabric: Fabric) -> None:
    answer = imds(fabric.nodes["node1"], "/metadata/versions")
    assert answer.document == {"apiVersions": list(VERSIONS)}
    assert answer.document["apiVersions"][0] == "2017-03-01"


def test_fields_appear_with_the_version_that_brought_them(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    old = imds(node, "/metadata/instance/compute?api-version=2017-04-02").document
    new = imds(node, "/metadata/instance/compute?api-version=2025-04-07").document
    assert "vmId" in old
    assert not {"resourceId", "subscriptionId", "vmScaleSetName", "tagsList"} & set(old)
    assert {"resourceId", "subscriptionId", "vmScaleSetName", "tagsList"} <= set(new)


def test_a_parameter_given_twice_is_refused(fabric: Fabric) -> None:
    assert imds(fabric.nodes["node1"], NETWORK + "&api-version=2021-02-01").status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_get_is_allowed(fabric: Fabric, method: str) -> None:
    assert imds(fabric.nodes["node1"], method=method).status == 405


@pytest.mark.parametrize(
    ("path", "query", "status", "body"),
    [
        ("network/interface/0/ipv4/ipAddress/0/privateIpAddress", "&format=text", 200, "10.10.0.4"),
        ("network/interface/0/ipv4/ipAddress/0/privateIpAddress", "", 400, None),
        ("network/interface/0/ipv4/subnet", "", 200, '[{"address": "10.10.0.0", "prefix": "20"}]'),
        ("network/interface/0/ipv4/subnet", "&format=text", 200, "0/"),
        ("network/interface/0", "&format=text", 200, "ipv4/\nipv6/\nmacAddress"),
        ("network/interface/7", "", 404, None),
        ("network/nothing", "", 404, None),
        ("network", "&format=xml", 400, None),
    ],
)
def test_path_filters_and_formats(
    fabric: Fabric, path: str, query: str, status: int, body: str | None
) -> None:
    answer = imds(fabric.nodes["node1"], f"/metadata/instance/{path}?api-version=2021-02-01{query}")
    assert answer.status == status
    if body is not None:
        assert answer.body.decode() == body


def test_the_sixth_request_of_a_second_is_refused_per_machine(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=2)
    node = fabric.nodes["node1"]
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(lambda _: imds(node).status, range(8)))
    assert statuses == [200] * 5 + [429] * 3
    assert imds(fabric.nodes["node2"]).status == 200


def test_only_the_primary_address_of_the_primary_nic_gets_an_answer(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1, nics=2, addresses=1)
    node = fabric.nodes["node1"]
    node.run(["ip", "address", "add", f"{node.pod_addresses[0]}/32", "dev", "lo"])
    second = node.nics[1].primary_ip
    node.run(["ip", "route", "add", "169.254.169.254", "via", "10.10.16.1", "dev", "eth1", "metric", "1"])
    for source in (str(second), str(node.pod_addresses[0])):
        with pytest.raises(TimeoutError):
            ask(node, IMDS, NETWORK, headers={"Metadata": "true"}, source=source, timeout=0.3)
    # The pod's address leaves through eth1 here, where it is a stranger altogether.
    counters = fabric.drop_counters()
    assert counters.platform["node1"] >= 1
    assert counters.spoofed["node1"] >= 1


def test_a_secondary_address_gets_no_answer_and_is_counted(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    source = str(node.pod_addresses[2])
    node.run(["ip", "address", "add", f"{source}/32", "dev", "lo"])
    before = fabric.drop_counters().platform["node1"]
    with pytest.raises(TimeoutError):
        ask(node, IMDS, NETWORK, headers={"Metadata": "true"}, source=source, timeout=0.3)
    assert fabric.drop_counters().platform["node1"] > before
    node.run(["ip", "address", "del", f"{source}/32", "dev", "lo"])


def test_nics_come_in_any_order_where_that_is_switched_on(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, nics=2, addresses=1, shuffle_nics=True, imds_limit=None)
    node = fabric.nodes["node1"]
    first = {imds(node).document["interface"][0]["macAddress"] for _ in range(40)}
    assert len(first) == 2


def test_added_and_removed_addresses_show_after_the_lag(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=1, imds_limit=None)
    node = fabric.nodes["node1"]
    (at_once,) = fabric.add_addresses("node1", 1)
    assert str(at_once) in listed_by_imds(node)
    fabric.lag("imds", float("inf"))
    (late,) = fabric.add_addresses("node1", 1)
    assert str(late) not in listed_by_imds(node)
    fabric.lag("imds", 0)
    assert str(late) in listed_by_imds(node)
    fabric.remove_addresses("node1", [late])
    assert str(late) not in listed_by_imds(node)


def test_unfinished_configurations_and_blocks_are_not_listed(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=2, blocks=1)
    node = fabric.nodes["node1"]
    done, unfinished = node.pod_addresses[:2]
    fabric.set_state("node1", [unfinished], "Failed")
    assert listed_by_imds(node) == [str(node.primary_ip), str(done)]


@pytest.mark.parametrize(
    ("placement", "resource", "scale_set", "name"),
    [
        ("standalone", "/virtualMachines/node1", "", "node1"),
        ("flexible", "/virtualMachines/node1", "", "node1"),
        ("uniform", "/virtualMachineScaleSets/vmss-fabric/virtualMachines/0", "vmss-fabric", "vmss-fabric_0"),
    ],
)
def test_compute_document_tells_the_placement(
    make_fabric: Callable[..., Fabric], placement: str, resource: str, scale_set: str, name: str
) -> None:
    fabric = make_fabric(nodes=1, placement=placement)
    document = imds(fabric.nodes["node1"], "/metadata/instance/compute?api-version=2021-03-01").document
    assert document["resourceId"].endswith(f"/providers/Microsoft.Compute{resource}")
    assert (document["vmScaleSetName"], document["name"]) == (scale_set, name)
    assert bool(document["virtualMachineScaleSet"]["id"]) == (placement == "flexible")


def test_a_connection_serves_several_requests(fabric: Fabric) -> None:
    def twice() -> list[int]:
        connection = http.client.HTTPConnection(IMDS, 80, timeout=5)
        statuses = []
        for _ in range(2):
            connection.request("GET", NETWORK, headers={"Metadata": "true"})
            reply = connection.getresponse()
            json.loads(reply.read())
            statuses.append(reply.status)
        connection.close()
        return statuses

    assert fabric.nodes["node1"].in_network(twice) == [200, 200]
