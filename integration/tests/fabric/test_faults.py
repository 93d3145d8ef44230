"""Faults: each switch does what its name says, where it was asked for, until it is switched off."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from lxml import etree

from integration.fabric.faults import UnfitFault
from integration.tests.fabric.asking import imds, listed_by_imds, wireserver
from integration.tests.fabric.packets import pod, reaches
from tests.waiting import Syscall, eventually, waits_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.fabric import Fabric


@pytest.fixture(autouse=True)
def _no_limit(fabric: Fabric) -> Iterator[None]:
    fabric.imds.limit.allowed = None
    yield
    fabric.imds.limit.allowed = 5


def test_delay(fabric: Fabric) -> None:
    fabric.fault("imds", delay=0.4)
    started = time.monotonic()
    assert imds(fabric.nodes["node1"]).status == 200
    assert time.monotonic() - started >= 0.4


def test_a_hanging_service_takes_the_request_and_answers_nobody(fabric: Fabric) -> None:
    fabric.fault("wireserver", hang=True)
    with pytest.raises(TimeoutError):
        wireserver(fabric.nodes["node1"], timeout=0.3)


def hanging(surface: str) -> bool:
    """Whether a request waits there for the end of a fault: in select(2), not for what its client sends."""
    tasks = [thread.native_id for thread in threading.enumerate() if thread.name == surface]
    return any(waits_in(task, Syscall.SELECT, Syscall.PSELECT6) for task in tasks if task)


def test_lifting_a_hang_ends_it_for_those_who_wait(fabric: Fabric) -> None:
    fabric.fault("wireserver", hang=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wireserver, fabric.nodes["node1"], timeout=100)
        eventually(lambda: hanging("wireserver"), "the request waits", pause=0.001)
        fabric.clear_faults("wireserver")
        with pytest.raises(ConnectionError):  # and not TimeoutError, which the client would raise by itself
            waiting.result()
    assert wireserver(fabric.nodes["node1"]).status == 200


@pytest.mark.parametrize("surface", ["imds", "wireserver"])
def test_a_refused_connection(fabric: Fabric, surface: str) -> None:
    asking: Callable[..., Any] = {"imds": imds, "wireserver": wireserver}[surface]
    fabric.fault(surface, refused=True)
    with pytest.raises(ConnectionRefusedError):
        asking(fabric.nodes["node1"], timeout=2)
    fabric.clear_faults()
    assert asking(fabric.nodes["node1"]).status == 200


def test_refusing_one_machine_leaves_the_others_alone(fabric: Fabric) -> None:
    fabric.fault("imds", refused=True, node="node1")
    with pytest.raises(ConnectionRefusedError):
        imds(fabric.nodes["node1"], timeout=2)
    assert imds(fabric.nodes["node2"]).status == 200


@pytest.mark.parametrize("status", [404, 410, 429, 500, 503])
def test_error_statuses_carry_the_document_of_the_service(fabric: Fabric, status: int) -> None:
    fabric.fault("imds", status=status, retry_after=7)
    fabric.fault("wireserver", status=status)
    answer = imds(fabric.nodes["node1"])
    assert (answer.status, answer.headers["retry-after"]) == (status, "7")
    assert set(answer.document) == {"error"}
    page = wireserver(fabric.nodes["node1"])
    assert page.status == status
    assert etree.fromstring(page.body).tag == "Error"


def test_so_many_times(fabric: Fabric) -> None:
    fabric.fault("imds", status=410, times=2)
    assert [imds(fabric.nodes["node1"]).status for _ in range(4)] == [410, 410, 200, 200]


@pytest.mark.parametrize("kind", ["html", "binary", "truncated"])
def test_garbage_comes_with_status_200(fabric: Fabric, kind: str) -> None:
    fabric.fault("imds", garbage=kind)
    answer = imds(fabric.nodes["node1"])
    assert answer.status == 200
    with pytest.raises(ValueError, match=r"."):
        json.loads(answer.body)


def test_an_answer_cut_off_in_the_middle(fabric: Fabric) -> None:
    fabric.fault("wireserver", garbage="cut")
    with pytest.raises(http.client.IncompleteRead):
        wireserver(fabric.nodes["node1"])


def test_empty_documents(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    fabric.fault("imds", empty="interfaces")
    assert imds(node).document == {"interface": []}
    fabric.fault("imds", empty="addresses")
    assert imds(node).document["interface"][0]["ipv4"]["ipAddress"] == []
    fabric.fault("imds", empty="secondaries")
    assert listed_by_imds(node) == [str(node.primary_ip)]
    fabric.fault("wireserver", empty="interfaces")
    assert wireserver(node).body == b"<Interfaces></Interfaces>"


def test_partial_documents(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    fabric.fault("imds", partial=3)
    assert listed_by_imds(node) == [str(a) for a in (node.primary_ip, *node.pod_addresses[:2])]


def test_a_stale_document_stays_until_the_fault_is_lifted(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=1)
    node = fabric.nodes["node1"]
    fabric.fault("imds", stale=True)
    (new,) = fabric.add_addresses("node1", 1)
    assert str(new) not in listed_by_imds(node)
    assert str(new).encode() in wireserver(node).body
    fabric.clear_faults("imds")
    assert str(new) in listed_by_imds(node)


def test_a_trickling_answer_comes_byte_by_byte(fabric: Fabric) -> None:
    fabric.fault("wireserver", trickle=0.05)
    started = time.monotonic()
    answer = wireserver(fabric.nodes["node1"], "/?comp=nothing")
    assert etree.fromstring(answer.body).tag == "Error"
    assert time.monotonic() - started > 0.05 * len(answer.body) * 0.9


def test_a_client_that_leaves_a_hanging_service_leaves_no_thread_behind(fabric: Fabric) -> None:
    fabric.fault("imds", hang=True)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            imds(fabric.nodes["node1"], timeout=0.1)
    eventually(lambda: not any(thread.name == "imds" for thread in threading.enumerate()), "none is left")


def test_a_machine_that_is_cut_off(fabric: Fabric) -> None:
    one, two, host = fabric.nodes["node1"], fabric.nodes["node2"], fabric.vnet_hosts["vm1"]
    fabric.fault("fabric", hang=True, node="node1")
    assert not reaches(host, one.primary_ip, wait="0.3")
    assert not reaches(one, host.primary_ip, wait="0.3")
    assert reaches(host, two.primary_ip)
    fabric.clear_faults()
    assert reaches(host, one.primary_ip)


def test_loss_takes_some_packets_and_leaves_others(fabric: Fabric) -> None:
    fabric.fault("fabric", loss=20, node="node1")
    argv = ["ping", "-n", "-q", "-i0.002", "-c100", "-W0.2", str(fabric.nodes["node2"].primary_ip)]
    printed = fabric.nodes["node1"].run(argv, check=False).stdout
    received = int(printed.partition(" received")[0].split()[-1])
    assert 0 < received < 100


def test_a_filter_that_knows_only_some_addresses(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=3)
    node, host = fabric.nodes["node1"], fabric.vnet_hosts["vm1"]
    fabric.fault("fabric", partial=2)
    known, unknown = node.pod_addresses[0], node.pod_addresses[2]
    with pod(node, "known", known), pod(node, "unknown", unknown):
        assert reaches(host, known)
        assert not reaches(host, unknown, wait="0.3")
        fabric.clear_faults()
        assert reaches(host, unknown)


@pytest.mark.parametrize(
    ("surface", "what"),
    [
        ("fabric", {"status": 500}),
        ("fabric", {"delay": 1}),
        ("imds", {"loss": 10}),
        ("imds", {"stale": True, "node": "node1"}),
        ("imds", {"delay": -1}),
        ("imds", {"refused": True, "times": 1}),
        ("imds", {"status": 99}),
        ("dns", {"status": 500}),
        ("identity", {"stale": True}),
        ("imds", {"node": "nobody", "hang": True}),
        ("imds", {"garbage": "rubbish"}),
        ("imds", {"fire": True}),
    ],
)
def test_a_fault_that_would_do_nothing_is_refused(fabric: Fabric, surface: str, what: dict[str, Any]) -> None:
    with pytest.raises(UnfitFault):
        fabric.fault(surface, **what)
