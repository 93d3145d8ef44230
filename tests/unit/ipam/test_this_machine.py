"""Which machine a node writes to: what IMDS says, and what its Node of Kubernetes does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ipam import sources
from ipam.provision import azure
from ipam.provision.azure import ThisMachine, counted, resource_of
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.tally import Tally
from ipam.sources import ArmConfig, arm_client
from ipam.sources.arm_answer import ArmAnswer, NotAnswered
from ipam.sources.managed_identity import NoToken
from tests.unit.ipam.arm_service import NIC, ArmService, refusal
from tests.unit.ipam.cloud import Cloud, ok, running
from tests.unit.ipam.machine import MAC

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"
NETWORK = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network"
HERE, ELSEWHERE = f"{GROUP}/virtualMachines/vm1", f"{GROUP}/virtualMachines/vm2"


class Place:
    """A machine: its IMDS, its Node and a small Resource Manager."""

    def __init__(self, imds: Cloud) -> None:
        self.imds = imds
        self.named = ""
        self.arm = ArmService()
        self.asked: list[tuple[str, str]] = []
        self.counted: list[tuple[str, str, str]] = []
        tally = Tally(lambda _: None, lambda: 0.0)
        config = ArmConfig("managed-identity", "", "https://arm.invalid", "")
        self.machine = ThisMachine(
            config,
            lambda _: None,
            lambda: 0.0,
            tally,
            lambda: self.named,
            lambda *each: self.counted.append(each),
        )

    def says(self, resource_id: str) -> None:
        document = {"azEnvironment": "AzurePublicCloud", "resourceId": resource_id}
        self.imds.answers = [ok(json.dumps(document).encode())]

    def ask(self, method: str, where: str, body: Any = None, etag: str = "") -> ArmAnswer:
        self.asked.append((method, where.partition("?")[0]))
        if "/virtualMachines/" in where:
            profile = {"networkInterfaces": [{"id": NIC["id"]}]}
            return ArmAnswer(200, {"properties": {"networkProfile": profile}})
        return self.arm.ask(method, where, body, etag)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with running() as imds:
        made = Place(imds)
        made.says(HERE)
        monkeypatch.setattr(azure, "AZURE", sources.Endpoints(imds.url, imds.url))
        monkeypatch.setattr(arm_client, "Requests", lambda access: made)
        yield made


@pytest.mark.parametrize("named", ["", f"azure://{HERE.upper()}", f"azure://{HERE}/", "k3s://node-1"])
def test_a_node_that_says_the_same_or_nothing_of_azure_is_written_to(place: Place, named: str) -> None:
    place.named = named
    place.machine.writer(MAC, "").add(["azvnet-0123456789abcdef"], blocks=False)
    assert place.asked[0] == ("GET", HERE)
    assert place.arm.puts == 1


@pytest.mark.parametrize(
    "named", [f"azure://{ELSEWHERE}", f"azure://{GROUP}/virtualMachineScaleSets/set/virtualMachines/0"]
)
def test_a_node_that_says_to_be_another_machine_is_not_asked_for_in_azure(place: Place, named: str) -> None:
    place.named = named
    with pytest.raises(Refusal, match="its Node says") as refused:
        place.machine.writer(MAC, "")
    assert refused.value.kind is Kind.OTHER_MACHINE
    assert HERE in str(refused.value)
    assert named in str(refused.value)
    assert "The NIC is not written" in refused.value.remedy
    assert place.asked == []


def test_a_contradiction_that_is_known_later_keeps_the_next_write_from_being_sent(place: Place) -> None:
    writer = place.machine.writer(MAC, "")
    place.named = f"azure://{ELSEWHERE}"
    with pytest.raises(Refusal) as refused:
        writer.add(["azvnet-0123456789abcdef"], blocks=False)
    assert refused.value.kind is Kind.OTHER_MACHINE
    assert place.arm.puts == 0


def test_where_imds_has_no_id_that_of_the_node_serves(place: Place) -> None:
    place.says("")
    with pytest.raises(Refusal) as refused:
        place.machine.writer(MAC, "")
    assert refused.value.kind is Kind.UNREACHABLE
    place.named = f"azure://{ELSEWHERE}"
    place.machine.writer(MAC, "")
    assert place.asked[0] == ("GET", ELSEWHERE)


def test_each_request_is_counted_by_what_it_is_about_and_how_it_was_answered(place: Place) -> None:
    place.arm.instead.append(("PUT", refusal(429, "TooManyRequests")))
    writer = place.machine.writer(MAC, "")
    with pytest.raises(Refusal):
        writer.add(["azvnet-0123456789abcdef"], blocks=False)
    writer.add(["azvnet-0123456789abcdef"], blocks=False)
    assert place.counted[:2] == [("GET", "virtualMachines", "200"), ("GET", "networkInterfaces", "200")]
    assert place.counted.count(("PUT", "networkInterfaces", "429")) == 1
    assert place.counted.count(("PUT", "networkInterfaces", "200")) == 1
    assert ("GET", "operations", "200") in place.counted
    assert len(place.counted) == len(place.asked)


@pytest.mark.parametrize(("error", "code"), [(NotAnswered("x"), "none"), (NoToken("x"), "no-token")])
def test_a_request_without_an_answer_is_counted_with_the_reason(error: Exception, code: str) -> None:
    told: list[tuple[str, str, str]] = []

    def fails(*_: Any) -> ArmAnswer:
        raise error

    with pytest.raises(type(error)):
        counted(fails, lambda *each: told.append(each))("PUT", NIC["id"], {}, "")
    assert told == [("PUT", "networkInterfaces", code)]


@pytest.mark.parametrize(
    ("where", "resource"),
    [
        (f"{HERE}?api-version=1", "virtualMachines"),
        (f"{GROUP}/virtualMachineScaleSets/set/virtualMachines/0?x", "virtualMachines"),
        (f"{GROUP}/virtualMachineScaleSets/set/virtualMachines/0/networkInterfaces", "networkInterfaces"),
        (f"{NETWORK}/networkInterfaces", "networkInterfaces"),
        (f"https://a{NETWORK}/locations/x/operations/1?y", "operations"),
        (f"https://a{NETWORK}/locations/x/OPERATIONRESULTS/1", "operations"),
        ("/subscriptions/s/providers/Microsoft.Odd/things/1", "other"),
        ("https://elsewhere", "other"),
        ("", "other"),
    ],
)
def test_what_links_name_makes_no_series_of_its_own(where: str, resource: str) -> None:
    assert resource_of(where) == resource
