"""The source ``arm`` in emulated nodes: the real Azure SDK against ARM, the identity endpoint and IMDS."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from integration.fabric import Fabric
from integration.fabric.identity import Principal
from integration.fabric.machine import CA_FILE
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.fabric import Machine
    from integration.fabric.model import Estate, Vm

FIRST = Principal("c0000000-0000-4000-8000-000000000001", "0b000000-0000-4000-8000-000000000011")
SECOND = Principal("c0000000-0000-4000-8000-000000000002", "0b000000-0000-4000-8000-000000000012")
TOKEN_MARK = "eyJ"


class Reader:
    """The process in the node; its client and credential live as long as it does."""

    def __init__(self, node: Machine, **environment: str) -> None:
        self.process = node.popen(
            [sys.executable, "-m", "integration.tests.arm_reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**node.environment, **environment},
        )

    def read(self, deadline: float = 60.0, **config: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"deadline": deadline, **config}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        answer: dict[str, Any] = json.loads(line)
        assert TOKEN_MARK not in line, "a token in an answer"
        return answer

    def end(self) -> None:
        self.process.kill()
        said = self.process.communicate()[1]
        assert said == "", "the SDK writes to stderr"


@pytest.fixture(scope="module")
def shared() -> Iterator[Fabric]:
    with Fabric(nodes=2, addresses=4, vnet_hosts=0, imds_limit=None) as fabric:
        yield fabric


@pytest.fixture
def fabric(shared: Fabric) -> Iterator[Fabric]:
    yield shared
    shared.clear_faults()
    shared.identity.issuer.lifetime = 3599


@pytest.fixture
def start() -> Iterator[Callable[..., Reader]]:
    with ExitStack() as undo:

        def make(node: Machine, **environment: str) -> Reader:
            reader = Reader(node, **environment)
            undo.callback(reader.end)
            return reader

        yield make


@pytest.fixture
def make_fabric() -> Iterator[Callable[..., Fabric]]:
    with ExitStack() as undo:

        def make(**shape: Any) -> Fabric:
            return undo.enter_context(Fabric(**{"nodes": 1, "vnet_hosts": 0, "imds_limit": None, **shape}))

        yield make


def of_pods(node: Machine) -> list[str]:
    prefix = node.vm.primary_nic.subnet.prefix.prefixlen
    return [f"{address}/{prefix}" for address in node.pod_addresses]


def test_a_stand_alone_machine_reads_its_own_nic(fabric: Fabric, start: Callable[..., Reader]) -> None:
    for node in fabric.nodes.values():
        seen = start(node).read()
        assert (seen["source"], seen["macs"], seen["primary"]) == ("arm", [node.uplink_mac], [True])
        assert seen["own"] == [str(node.primary_ip)]
        assert seen["pods"] == of_pods(node)
        assert seen["gateways"] == [str(node.vm.primary_nic.subnet.gateway)]
        nic = node.vm.primary_nic
        assert seen["configurations"] == {str(each.address): each.name for each in nic.configurations}
        assert seen["warnings"] == []


@pytest.mark.parametrize("placement", ["uniform", "flexible"])
def test_an_instance_of_a_scale_set_reads_its_own_nics(
    make_fabric: Callable[..., Fabric], start: Callable[..., Reader], placement: str
) -> None:
    fabric = make_fabric(nodes=2, addresses=2, nics=2, placement=placement)
    for node in fabric.nodes.values():
        seen = start(node).read()
        assert seen["macs"] == [nic.mac for nic in node.nics]
        assert seen["own"] == [str(nic.primary_ip) for nic in node.nics]
        assert set(seen["pods"]) >= set(of_pods(node))


def test_lists_in_pages_are_read_to_the_end(
    make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
) -> None:
    fabric = make_fabric(addresses=1, nics=3, placement="uniform")
    fabric.arm.page_size = 1
    assert len(start(fabric.nodes["node1"]).read()["macs"]) == 3


def test_a_block_is_sixteen_addresses(
    make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
) -> None:
    fabric = make_fabric(addresses=1, blocks=2)
    node = fabric.nodes["node1"]
    seen = start(node).read()
    assert len(seen["pods"]) == 33
    assert sorted(seen["pods"]) == sorted(of_pods(node))


def test_imds_decides_about_configurations_that_did_not_succeed(
    make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
) -> None:
    fabric = make_fabric(addresses=4)
    node = fabric.nodes["node1"]
    reader = start(node)
    addresses = node.pod_addresses
    for number, state in enumerate(("Updating", "Failed", "Deleting")):
        fabric.set_state("node1", [addresses[number]], state)
    seen = reader.read()
    assert seen["pods"] == of_pods(node)[3:]
    for state in ("Updating", "Failed", "Deleting"):
        assert any(f"1 IP configurations in state '{state}': 0 are used" in line for line in seen["warnings"])
    fabric.set_state("node1", addresses[:3], "Succeeded")
    assert sorted(reader.read()["pods"]) == sorted(of_pods(node))
    fabric.fault("imds", stale=True)  # it goes on listing what it lists now
    for number, state in enumerate(("Updating", "Failed", "Deleting")):
        fabric.set_state("node1", [addresses[number]], state)
    assert sorted(reader.read()["pods"]) == sorted([*of_pods(node)[:2], *of_pods(node)[3:]])


def test_a_subnet_that_was_expanded_is_read_again(
    make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
) -> None:
    fabric = make_fabric(addresses=12)
    node = fabric.nodes["node1"]
    whole = node.vm.primary_nic.subnet.prefix
    reader = start(node)
    fabric.change(in_subnet(IPv4Network(f"{whole.network_address}/29")))
    assert len(reader.read()["pods"]) < 12
    fabric.change(in_subnet(whole))
    assert reader.read()["pods"] == of_pods(node)


def in_subnet(prefix: IPv4Network) -> Callable[[Estate], Estate]:
    def change(estate: Estate) -> Estate:
        def changed(vm: Vm) -> Vm:
            nics = tuple(replace(nic, subnet=replace(nic.subnet, prefix=prefix)) for nic in vm.nics)
            return replace(vm, nics=nics)

        return replace(estate, vms=tuple(changed(vm) for vm in estate.vms))

    return change


def test_an_address_that_is_added_or_removed_is_seen_with_the_next_read(
    make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
) -> None:
    fabric = make_fabric(addresses=2)
    node = fabric.nodes["node1"]
    reader = start(node)
    before = reader.read()
    fabric.add_addresses("node1", 2)
    more = reader.read()
    assert (len(before["pods"]), len(more["pods"])) == (2, 4)
    assert before["digest"] != more["digest"]
    assert reader.read()["digest"] == more["digest"]
    fabric.remove_addresses("node1", 3)
    assert reader.read()["pods"] == of_pods(node)


def connections(node: Machine) -> list[str]:
    """The connections to ARM from a node, by their own ports."""
    listed = node.run(["ss", "-Hntp", "state", "established", "dport", "=", ":443"]).stdout
    return [line.split()[2] for line in listed.splitlines()]


class TestCost:
    """How many requests a read is."""

    def test_after_the_first_read_each_costs_one_request(
        self, fabric: Fabric, start: Callable[..., Reader]
    ) -> None:
        reader = start(fabric.nodes["node1"])
        reader.read()
        fabric.arm.reads = type(fabric.arm.reads)(size=2, per_second=0)
        for surface in ("imds", "identity"):
            fabric.fault(surface, hang=True)
        assert len(reader.read(5)["pods"]) == 4
        assert len(reader.read(5)["pods"]) == 4
        assert "429" in reader.read(5)["error"]
        fabric.arm.reads = type(fabric.arm.reads)()

    def test_client_and_credential_are_made_once(self, fabric: Fabric, start: Callable[..., Reader]) -> None:
        node = fabric.nodes["node1"]
        reader = start(node)
        assert reader.read()["pods"]
        before = connections(node)
        assert reader.read()["pods"]
        assert connections(node) == before != [], "of the same client"


class TestCredential:
    """Who asks."""

    def test_a_user_assigned_identity_is_chosen_by_its_client_id(
        self, make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
    ) -> None:
        fabric = make_fabric()
        fabric.identity.system_assigned = None
        fabric.identity.user_assigned = [FIRST, SECOND]
        reader = start(fabric.nodes["node1"])
        several = reader.read()
        assert "no access token" in several["error"]
        assert "arm.client_id" in several["remedy"]
        assert reader.read(client_id=SECOND.client_id)["pods"]
        assert "no access token" in reader.read(client_id="c0000000-0000-4000-8000-00000000dead")["error"]

    def test_a_machine_without_identity_is_told_so(
        self, make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
    ) -> None:
        fabric = make_fabric()
        fabric.identity.system_assigned = None
        reader = start(fabric.nodes["node1"])
        refused = reader.read(credential="managed-identity")
        assert "no access token" in refused["error"]
        assert "Identity not found" in refused["error"]
        assert "az vm identity assign" in refused["remedy"]
        fabric.identity.user_assigned = [FIRST]
        assert reader.read(credential="managed-identity")["pods"], "it has one now"

    @pytest.mark.parametrize("credential", ["auto", "workload-identity"])
    def test_a_workload_identity_is_used_where_the_environment_has_one(
        self, make_fabric: Callable[..., Fabric], start: Callable[..., Reader], credential: str
    ) -> None:
        fabric = make_fabric()
        fabric.identity.system_assigned = None
        fabric.identity.user_assigned = [FIRST, SECOND]
        node = fabric.nodes["node1"]
        node.run(["sh", "-c", "echo federated > /run/token"])
        reader = start(
            node,
            AZURE_TENANT_ID=fabric.estate.tenant,
            AZURE_CLIENT_ID=FIRST.client_id,
            AZURE_FEDERATED_TOKEN_FILE="/run/token",
            AZURE_AUTHORITY_HOST="https://login.microsoftonline.com/",
        )
        assert reader.read(credential=credential)["pods"]
        chosen = reader.read(credential="managed-identity", client_id=SECOND.client_id)
        assert chosen["pods"], "an explicit choice does not look at the environment"
        fabric.fault("identity", refused=True)
        assert reader.read(5, credential="managed-identity", client_id=FIRST.client_id)["error"]

    def test_an_environment_of_another_product_redirects_nothing(
        self, make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
    ) -> None:
        """Azure Arc, App Service, Cloud Shell and pod identity set these."""
        fabric = make_fabric()
        elsewhere = "http://127.0.0.1:9/elsewhere"
        names = "IDENTITY_ENDPOINT IMDS_ENDPOINT MSI_ENDPOINT AZURE_POD_IDENTITY_AUTHORITY_HOST"
        reader = start(
            fabric.nodes["node1"],
            IDENTITY_HEADER="x",
            MSI_SECRET="x",
            **dict.fromkeys(names.split(), elsewhere),
        )
        assert reader.read()["pods"]
        fabric.identity.issuer.revoke_all()
        fabric.identity.system_assigned = None
        reader.read()
        refused = reader.read()
        assert "managed identity at http://169.254.169.254, since arm.credential is auto" in refused["error"]

    def test_a_workload_identity_that_is_not_there_is_told(
        self, fabric: Fabric, start: Callable[..., Reader]
    ) -> None:
        refused = start(fabric.nodes["node1"]).read(credential="workload-identity")
        assert "no access token" in refused["error"]
        assert "AZURE_FEDERATED_TOKEN_FILE" in refused["remedy"]

    def test_a_token_that_is_not_taken_any_more_is_replaced(
        self, fabric: Fabric, start: Callable[..., Reader]
    ) -> None:
        reader = start(fabric.nodes["node1"])
        assert reader.read()["pods"]
        fabric.identity.issuer.revoke_all()
        refused = reader.read()
        assert "401" in refused["error"]
        assert "InvalidAuthenticationToken" in refused["error"]
        assert reader.read()["pods"]


class TestRefusal:
    """ARM answers with an error."""

    @pytest.mark.parametrize(
        ("status", "word", "remedy"),
        [
            (401, "AuthenticationFailed", "new one is fetched"),
            (403, "AuthorizationFailed", "Microsoft.Network/networkInterfaces/read"),
            (404, "ResourceNotFound", "looked up again"),
            (409, "Conflict", "code in the message"),
            (500, "InternalServerError", "retried automatically"),
            (503, "ServiceUnavailable", "retried automatically"),
        ],
    )
    def test_each_status_says_what_to_do(
        self, fabric: Fabric, start: Callable[..., Reader], status: int, word: str, remedy: str
    ) -> None:
        reader = start(fabric.nodes["node1"])
        reader.read()
        fabric.fault("arm", status=status)
        refused = reader.read()
        assert f": {status}: " in refused["error"]
        assert word in refused["error"]
        assert "/networkInterfaces/node1-nic0" in refused["error"]
        assert remedy in refused["remedy"]
        fabric.clear_faults()
        assert len(reader.read()["pods"]) == 4

    def test_throttling_is_not_answered_by_more_requests(
        self, fabric: Fabric, start: Callable[..., Reader]
    ) -> None:
        reader = start(fabric.nodes["node1"])
        reader.read()
        fabric.fault("arm", status=429, retry_after=30, times=1)
        refused = reader.read()
        assert refused["retry_after"] == 30
        assert "Retry-After 30 s" in refused["error"]
        assert reader.read()["pods"], "one request was made, no more"

    def test_without_the_right_to_see_the_machine_its_nics_are_found_all_the_same(
        self, fabric: Fabric, start: Callable[..., Reader]
    ) -> None:
        node = fabric.nodes["node2"]
        fabric.fault("arm", status=403, times=1)
        assert start(node).read()["pods"] == of_pods(node)

    def test_a_machine_that_was_moved_is_found_again(
        self, make_fabric: Callable[..., Fabric], start: Callable[..., Reader]
    ) -> None:
        fabric = make_fabric()
        reader = start(fabric.nodes["node1"])
        assert reader.read()["pods"]
        fabric.change(in_group("rg-other"))
        assert "404" in reader.read()["error"]
        assert reader.read()["pods"]


def in_group(name: str) -> Callable[[Estate], Estate]:
    def change(estate: Estate) -> Estate:
        return replace(estate, resource_group=name)

    return change


class TestOutage:
    """ARM, tokens or IMDS do not answer, or not sense."""

    @pytest.mark.parametrize("fault", [{"hang": True}, {"trickle": 0.5}, {"delay": 3000.0}])
    def test_the_deadline_holds_whatever_arm_does(
        self, fabric: Fabric, start: Callable[..., Reader], fault: dict[str, Any]
    ) -> None:
        reader = start(fabric.nodes["node1"])
        reader.read()
        fabric.fault("arm", **fault)
        late = reader.read(1.5)
        assert "no answer in time" in late["error"]
        again = reader.read(0.5)
        assert "an earlier request has not ended yet" in again["error"]
        fabric.clear_faults()
        assert until_read(reader)["pods"]

    def test_nobody_answers(self, fabric: Fabric, start: Callable[..., Reader]) -> None:
        reader = start(fabric.nodes["node1"])
        reader.read()
        fabric.fault("arm", refused=True)
        out = reader.read()
        assert "https://management.azure.com can't be reached" in out["error"]
        assert "port 443" in out["remedy"]

    @pytest.mark.parametrize("garbage", ["html", "truncated", "cut", "binary"])
    def test_garbage_is_no_listing(self, fabric: Fabric, start: Callable[..., Reader], garbage: str) -> None:
        reader = start(fabric.nodes["node1"])
        reader.read()
        fabric.fault("arm", garbage=garbage)
        assert "source arm" in reader.read()["error"]
        fabric.clear_faults()
        assert reader.read()["pods"]

    def test_tokens_in_trouble(self, fabric: Fabric, start: Callable[..., Reader]) -> None:
        reader = start(fabric.nodes["node1"])
        for fault in ({"status": 500}, {"status": 429}, {"garbage": "html"}, {"refused": True}):
            fabric.fault("identity", **fault)
            assert "no access token" in reader.read()["error"], fault
        fabric.fault("identity", hang=True)
        assert reader.read(1.5)["error"]
        fabric.clear_faults()
        assert until_read(reader)["pods"]

    def test_imds_must_say_where_the_machine_is(self, fabric: Fabric, start: Callable[..., Reader]) -> None:
        reader = start(fabric.nodes["node1"])
        fabric.fault("imds", status=403)
        assert "source imds: GET http://169.254.169.254" in reader.read()["error"]


def until_read(reader: Reader) -> dict[str, Any]:
    """The first answer without an error; what was given up has to end first."""

    def read() -> dict[str, Any]:
        answer = reader.read(5)
        return {} if "error" in answer else answer

    return eventually(read, lambda: str(reader.read(5)), patience=40.0)


class TestClouds:
    """Which endpoint is asked, and whose certificate is taken."""

    @pytest.mark.parametrize("environment", ["AzureChinaCloud", "AzureUSGovernmentCloud"])
    def test_the_endpoint_of_the_machines_cloud_is_asked(
        self, make_fabric: Callable[..., Fabric], start: Callable[..., Reader], environment: str
    ) -> None:
        fabric = make_fabric(environment=environment)
        node = fabric.nodes["node1"]
        assert start(node).read()["pods"] == of_pods(node)

    def test_an_authority_of_its_own_has_to_be_named(
        self, fabric: Fabric, start: Callable[..., Reader]
    ) -> None:
        reader = start(fabric.nodes["node1"], REQUESTS_CA_BUNDLE="", CURL_CA_BUNDLE="")
        refused = reader.read()
        assert "can't be reached" in refused["error"]
        assert "certificate" in refused["error"].casefold()
        assert "arm.ca_file" in refused["remedy"]
        assert reader.read(ca_file=CA_FILE)["pods"]

    def test_another_endpoint_is_asked_only_if_it_is_configured(
        self, fabric: Fabric, start: Callable[..., Reader]
    ) -> None:
        reader = start(fabric.nodes["node1"])
        refused = reader.read(base_url="https://127.0.0.1:9")
        assert "https://127.0.0.1:9 can't be reached" in refused["error"]
        assert reader.read(base_url="https://management.azure.com")["pods"]
