"""ARM and the token endpoints, asked by the SDK as it is, from inside a node."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from integration.fabric.armoperations import Outcome
from integration.fabric.certificates import authority
from integration.fabric.clouds import ARM_ADDRESS
from integration.fabric.identity import Principal
from integration.fabric.model import State
from integration.tests.fabric.asking import imds, listed_by_imds

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.fabric import Fabric, Machine

WORKLOAD = Principal("c0000000-0000-4000-8000-000000000002", "0b000000-0000-4000-8000-000000000002")

TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/"

_PROLOGUE = """
import json, sys, time
from azure.core.exceptions import *
from azure.identity import *
from azure.mgmt.network import NetworkManagementClient
subscription, group, tenant, workload = sys.argv[1:]
credential = ManagedIdentityCredential()
def client(credential=credential, **more):
    return NetworkManagementClient(credential, subscription, **more)
def show(**what):
    print(json.dumps(what))
"""


def with_sdk(fabric: Fabric, script: str, *, node: str = "node1", timeout: float = 60) -> dict[str, Any]:
    """Run a script that has a client and prints one JSON document with ``show``."""
    estate = fabric.estate
    arguments = [estate.subscription, estate.resource_group, estate.tenant, WORKLOAD.client_id]
    done = fabric.nodes[node].run([sys.executable, "-c", _PROLOGUE + script, *arguments], timeout=timeout)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def asked(
    machine: Machine, url: str, authorization: str = "", *, method: str = "GET", body: str | None = None
) -> tuple[int, dict[str, str], Any]:
    """One request over HTTPS from inside: status, headers, document. Raises OSError."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    trust = ssl.create_default_context(cadata=authority().ca_pem)
    headers = {"Host": parts.hostname, **({"Authorization": authorization} if authorization else {})}

    def exchange() -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPSConnection(str(ARM_ADDRESS), timeout=5, context=trust)
        plain = socket.create_connection((str(ARM_ADDRESS), 443), timeout=5)
        connection.sock = trust.wrap_socket(plain, server_hostname=parts.hostname)
        try:
            connection.request(method, f"{parts.path}?{parts.query}", body, headers)
            reply = connection.getresponse()
            document = json.loads(reply.read() or b"null")
            return reply.status, {k.lower(): v for k, v in reply.getheaders()}, document
        finally:
            connection.close()

    return machine.in_network(exchange)


def token(machine: Machine) -> str:
    return str(imds(machine, TOKEN).document["access_token"])


def bearer(machine: Machine) -> str:
    return f"Bearer {token(machine)}"


def nic_url(fabric: Fabric, name: str = "node1-nic0") -> str:
    estate = fabric.estate
    return (
        f"https://management.azure.com/subscriptions/{estate.subscription}/resourceGroups/"
        f"{estate.resource_group}/providers/Microsoft.Network/networkInterfaces/{name}?api-version=2024-05-01"
    )


def test_the_sdk_reads_a_nic_with_the_identity_of_the_machine(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    seen = with_sdk(
        fabric,
        """
nic = client().network_interfaces.get(group, "node1-nic0")
subnet = client().subnets.get(group, "vnet1", "nodes")
show(
    mac=nic.mac_address, primary=nic.primary, state=nic.provisioning_state, etag=nic.etag,
    machine=nic.virtual_machine.id, prefix=subnet.address_prefix,
    addresses=[c.private_ip_address for c in nic.ip_configurations],
    primaries=[c.private_ip_address for c in nic.ip_configurations if c.primary],
    states=sorted({c.provisioning_state for c in nic.ip_configurations}),
    subnets=sorted({c.subnet.id for c in nic.ip_configurations}),
)
""",
    )
    group = f"/subscriptions/{fabric.estate.subscription}/resourceGroups/rg-fabric"
    assert seen.pop("etag").startswith('W/"')
    assert seen == {
        "mac": node.uplink_mac.replace(":", "-").upper(),
        "primary": True,
        "state": "Succeeded",
        "machine": f"{group}/providers/Microsoft.Compute/virtualMachines/node1",
        "prefix": "10.10.0.0/20",
        "addresses": [str(a) for a in (node.primary_ip, *node.pod_addresses)],
        "primaries": [str(node.primary_ip)],
        "states": ["Succeeded"],
        "subnets": [f"{group}/providers/Microsoft.Network/virtualNetworks/vnet1/subnets/nodes"],
    }


def test_the_sdk_reads_the_nics_of_a_uniform_scale_set(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=2, addresses=2, placement="uniform")
    seen = with_sdk(
        fabric,
        """
nics = client().network_interfaces
def addresses(listed):
    return [c.private_ip_address for nic in listed for c in nic.ip_configurations]
one = nics.get_virtual_machine_scale_set_network_interface(group, "vmss-fabric", "1", "nic0")
try:
    nics.get(group, "nic0")
    direct = "found"
except ResourceNotFoundError as error:
    direct = error.error.code
show(
    instance=addresses(nics.list_virtual_machine_scale_set_vm_network_interfaces(group, "vmss-fabric", "1")),
    all=addresses(nics.list_virtual_machine_scale_set_network_interfaces(group, "VMSS-Fabric")),
    configurations=[c.private_ip_address for c in nics.list_virtual_machine_scale_set_ip_configurations(
        group, "vmss-fabric", "1", "nic0")],
    id=one.id, machine=one.virtual_machine.id, direct=direct,
)
""",
    )
    own = {name: [str(a) for a in (m.primary_ip, *m.pod_addresses)] for name, m in fabric.nodes.items()}
    assert seen["instance"] == seen["configurations"] == own["node2"]
    assert seen["all"] == own["node1"] + own["node2"]
    assert seen["machine"].endswith("/virtualMachineScaleSets/vmss-fabric/virtualMachines/1")
    assert seen["id"] == seen["machine"] + "/networkInterfaces/nic0"
    assert seen["direct"] == "ResourceNotFound"


def test_lists_come_in_pages_that_the_sdk_follows(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=2, addresses=1, vnet_hosts=3, placement="flexible")
    fabric.arm.page_size = 2
    seen = with_sdk(
        fabric,
        """
nics = client().network_interfaces
show(names=[nic.name for nic in nics.list(group)], all=[nic.name for nic in nics.list_all()])
""",
    )
    assert seen["names"] == seen["all"] == ["node1-nic0", "node2-nic0", "vm1-nic0", "vm2-nic0", "vm3-nic0"]
    node = fabric.nodes["node1"]
    status, _, page = asked(node, nic_url(fabric, "").replace("/?", "?"), bearer(node))
    assert status == 200
    assert len(page["value"]) == 2
    assert page["nextLink"].startswith("https://management.azure.com/")


def test_unfinished_configurations_and_blocks_show_as_such(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=3, blocks=1)
    _, updating, failed = fabric.nodes["node1"].pod_addresses[:3]
    fabric.set_state("node1", [updating], "Updating")
    fabric.set_state("node1", [failed], "Failed")
    seen = with_sdk(
        fabric,
        """
nic = client().network_interfaces.get(group, "node1-nic0", expand="ipConfigurations/subnet")
show(nic=nic.provisioning_state,
     states={c.private_ip_address: c.provisioning_state for c in nic.ip_configurations},
     lengths=[c.private_ip_address_prefix_length for c in nic.ip_configurations],
     prefixes=sorted({c.subnet.address_prefix for c in nic.ip_configurations}))
""",
    )
    assert seen["nic"] == "Failed"
    assert seen["states"][str(updating)] == "Updating"
    assert seen["states"][str(failed)] == "Failed"
    assert seen["states"]["10.10.0.16/28"] == "Succeeded"
    assert seen["lengths"] == [None, None, None, None, 28]
    assert seen["prefixes"] == ["10.10.0.0/20"]


def test_what_the_sdk_makes_of_refusals(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    fabric.fault("arm", status=429, retry_after=1, times=2)
    seen = with_sdk(
        fabric,
        """
nics = client().network_interfaces
started = time.monotonic()
nics.get(group, "node1-nic0")
waited = time.monotonic() - started
codes = {}
for what, asking in {
    "nic": lambda: nics.get(group, "nothing"),
    "group": lambda: nics.get("nothing", "node1-nic0"),
    "subscription": lambda: NetworkManagementClient(credential, "5").network_interfaces.get(group, "nic0"),
    "audience": lambda: client(credential_scopes=["https://vault.azure.net/.default"]).network_interfaces.get(
        group, "node1-nic0"),
}.items():
    try:
        asking()
        codes[what] = "nothing"
    except HttpResponseError as error:
        codes[what] = [type(error).__name__, error.status_code, error.error.code]
show(waited=waited, codes=codes)
""",
    )
    assert seen["waited"] >= 2
    assert seen["codes"] == {
        "nic": ["ResourceNotFoundError", 404, "ResourceNotFound"],
        "group": ["ResourceNotFoundError", 404, "ResourceGroupNotFound"],
        "subscription": ["ResourceNotFoundError", 404, "SubscriptionNotFound"],
        "audience": ["ClientAuthenticationError", 401, "InvalidAuthenticationTokenAudience"],
    }


def test_a_workload_identity_gets_a_token_from_the_login_endpoint(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    fabric.identity.user_assigned.append(WORKLOAD)
    fabric.nodes["node1"].run(["tee", "/run/assertion"], input="signed by the cluster")
    seen = with_sdk(
        fabric,
        """
def tries(tenant, client_id):
    own = WorkloadIdentityCredential(tenant_id=tenant, client_id=client_id, token_file_path="/run/assertion")
    try:
        return client(own).network_interfaces.get(group, "node1-nic0").name
    except ClientAuthenticationError as error:
        return str(error).partition("AADSTS")[2][:6]
show(right=tries(tenant, workload), wrong=tries(tenant, "c0000000-0000-4000-8000-00000000dead"))
""",
    )
    assert seen == {"right": "node1-nic0", "wrong": "700016"}


def test_a_machine_without_identity_gets_an_error_that_says_so(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    fabric.identity.system_assigned = None
    seen = with_sdk(
        fabric,
        """
try:
    client().network_interfaces.get(group, "node1-nic0")
except ClientAuthenticationError as error:
    show(error=type(error).__name__)
""",
    )
    assert seen == {"error": "CredentialUnavailableError"}


def test_an_identity_endpoint_that_is_briefly_gone_is_asked_again(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    fabric.fault("identity", status=429, times=2)
    seen = with_sdk(fabric, 'show(name=client().network_interfaces.get(group, "node1-nic0").name)')
    assert seen == {"name": "node1-nic0"}


def test_requests_without_a_good_token_get_a_challenge(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    good = token(node)
    for sent, code in (
        ("", "AuthenticationFailed"),
        ("Bearer rubbish", "InvalidAuthenticationToken"),
        (f"Bearer {good}x", "InvalidAuthenticationToken"),
    ):
        status, headers, document = asked(node, nic_url(fabric), sent)
        assert (status, document["error"]["code"]) == (401, code)
        assert headers["www-authenticate"].startswith("Bearer authorization_uri=")
        assert good not in json.dumps(document)


def test_tokens_expire_and_can_be_revoked(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    node = fabric.nodes["node1"]
    old = token(node)
    fabric.identity.issuer.revoke_all()
    fabric.identity.issuer.lifetime = -1
    for text, code in ((old, "InvalidAuthenticationToken"), (token(node), "ExpiredAuthenticationToken")):
        status, _, document = asked(node, nic_url(fabric), f"Bearer {text}")
        assert (status, document["error"]["code"]) == (401, code)


def test_headers_of_an_answer(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    authorization = bearer(node)
    status, headers, document = asked(node, nic_url(fabric), authorization)
    assert status == 200
    assert headers["etag"] == document["etag"]
    assert int(headers["x-ms-ratelimit-remaining-subscription-global-reads"]) < 250
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["x-ms-request-id"]
    status, _, document = asked(node, nic_url(fabric).partition("?")[0], authorization)
    assert (status, document["error"]["code"]) == (400, "MissingApiVersionParameter")
    status, _, document = asked(node, nic_url(fabric), authorization, method="DELETE")
    assert (status, document["error"]["code"]) == (405, "MethodNotAllowed")


def test_the_etag_changes_with_the_nic(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    node = fabric.nodes["node1"]
    authorization = bearer(node)
    before = asked(node, nic_url(fabric), authorization)[1]["etag"]
    assert asked(node, nic_url(fabric), authorization)[1]["etag"] == before
    fabric.add_addresses("node1", 1)
    assert asked(node, nic_url(fabric), authorization)[1]["etag"] != before


def test_reads_are_throttled_by_a_bucket_that_refills(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    node = fabric.nodes["node1"]
    authorization = bearer(node)
    fabric.arm.reads = type(fabric.arm.reads)(size=2, per_second=0)
    statuses = [asked(node, nic_url(fabric), authorization)[0] for _ in range(3)]
    assert statuses == [200, 200, 429]
    fabric.arm.reads.per_second = 1000
    assert asked(node, nic_url(fabric), authorization)[0] == 200


def test_token_requests_have_their_own_limits(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    node = fabric.nodes["node1"]
    statuses = [imds(node, TOKEN).status for _ in range(22)]
    assert statuses[:20] == [200] * 20
    assert 429 in statuses[20:]
    assert imds(node).status == 200
    fabric.identity.rate.allowed = None
    fabric.identity.concurrency.allowed = 0
    assert imds(node, TOKEN).status == 429


def test_the_identity_endpoint_alone_can_be_gone(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    node = fabric.nodes["node1"]
    fabric.fault("identity", refused=True, times=1)
    with pytest.raises(ConnectionError):
        imds(node, TOKEN)
    assert imds(node, TOKEN).status == 200
    fabric.fault("identity", hang=True)
    with pytest.raises(TimeoutError):
        imds(node, TOKEN, timeout=0.2)
    assert imds(node).status == 200


def test_arm_can_show_nics_without_addresses_and_no_nics_at_all(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    node = fabric.nodes["node1"]
    authorization = bearer(node)
    fabric.fault("arm", empty="secondaries")
    assert len(asked(node, nic_url(fabric), authorization)[2]["properties"]["ipConfigurations"]) == 1
    fabric.fault("arm", empty="interfaces")
    assert asked(node, nic_url(fabric), authorization)[0] == 404
    assert asked(node, nic_url(fabric, "").replace("/?", "?"), authorization)[2] == {"value": []}


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("api-version=2018-02-01&resource=https://management.azure.com/", 200, None),
        ("api-version=2018-02-01", 400, "resource"),
        ("resource=https://management.azure.com/", 400, "api-version"),
        ("api-version=2018-02-01&resource=r&client_id=nobody", 400, "Identity not found"),
        ("api-version=2018-02-01&resource=r&msi_res_id=nobody", 400, "Identity not found"),
    ],
)
def test_token_requests(fabric: Fabric, query: str, status: int, word: str | None) -> None:
    answer = imds(fabric.nodes["node2"], f"/metadata/identity/oauth2/token?{query}")
    assert answer.status == status
    if word is None:
        assert {type(value) for value in answer.document.values()} == {str}
        assert answer.document["token_type"] == "Bearer"
        assert int(answer.document["expires_on"]) - int(answer.document["not_before"]) == 3599
    else:
        assert word in answer.document["error_description"]


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ("AzureChinaCloud", "management.chinacloudapi.cn"),
        ("AzureUSGovernmentCloud", "management.usgovcloudapi.net"),
    ],
)
def test_other_clouds_have_their_own_endpoints(
    make_fabric: Callable[..., Fabric], environment: str, host: str
) -> None:
    fabric = make_fabric(nodes=1, environment=environment)
    node = fabric.nodes["node1"]
    url = nic_url(fabric).replace("management.azure.com", host)
    path = f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://{host}/"
    text = imds(node, path).document["access_token"]
    assert asked(node, url, f"Bearer {text}")[0] == 200
    compute = imds(node, "/metadata/instance/compute?api-version=2021-02-01").document
    assert compute["azEnvironment"] == environment


def test_arm_learns_of_a_change_in_its_own_time_and_can_be_refused(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1, addresses=1)
    node = fabric.nodes["node1"]
    authorization = bearer(node)
    fabric.lag("arm", float("inf"))
    (new,) = fabric.add_addresses("node1", 1)
    assert str(new) not in json.dumps(asked(node, nic_url(fabric), authorization)[2])
    fabric.lag("arm", 0)
    assert str(new) in json.dumps(asked(node, nic_url(fabric), authorization)[2])
    fabric.fault("arm", refused=True)
    with pytest.raises(ConnectionRefusedError):
        asked(node, nic_url(fabric), authorization)


def test_the_sdk_writes_a_nic_and_waits_for_the_operation(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=1)
    fabric.arm.roles.give("writer")
    seen = with_sdk(
        fabric,
        """
nics = client().network_interfaces
nic = nics.get(group, "node1-nic0")
old = nic.etag
subnet = {"id": nic.ip_configurations[0].subnet.id}
nic.ip_configurations.append({"name": "pods", "properties": {"subnet": subnet}})
poller = nics.begin_create_or_update(group, "node1-nic0", nic, headers={"If-Match": nic.etag})
after = poller.result()
try:
    nics.begin_create_or_update(group, "node1-nic0", after, headers={"If-Match": old})
    stale = "taken"
except HttpResponseError as error:
    stale = [error.status_code, error.error.code]
show(after=after.provisioning_state, stale=stale,
     addresses={c.name: c.private_ip_address for c in after.ip_configurations})
""",
    )
    node = fabric.nodes["node1"]
    assert seen == {
        "after": "Succeeded",
        "stale": [412, "PreconditionFailed"],
        "addresses": {
            "ipconfig1": str(node.primary_ip),
            "ipconfig2": str(node.pod_addresses[0]),
            "pods": str(node.pod_addresses[1]),
        },
    }
    assert fabric.arm.log.count("PUT", 200) == 1
    assert fabric.arm.log.count("poll") >= 1


def test_a_new_address_carries_traffic_when_the_operation_is_over(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=0)
    fabric.arm.operations.hold()
    node = fabric.nodes["node1"]
    fabric.arm.roles.give("writer")
    url, authorization = nic_url(fabric), bearer(node)
    document = asked(node, url, authorization)[2]
    subnet = document["properties"]["ipConfigurations"][0]["properties"]["subnet"]
    document["properties"]["ipConfigurations"].append({"name": "pods", "properties": {"subnet": subnet}})
    status, _, document = asked(node, url, authorization, method="PUT", body=json.dumps(document))
    assert status == 200
    new = document["properties"]["ipConfigurations"][1]["properties"]["privateIPAddress"]
    node.run(["ip", "address", "add", f"{new}/32", "dev", "lo"])
    ping = ["ping", "-c1", "-W1", new]
    assert fabric.vnet_hosts["vm1"].run(ping, check=False).returncode != 0
    assert new not in listed_by_imds(node)
    fabric.arm.operations.finish()
    assert fabric.vnet_hosts["vm1"].run(ping, check=False).returncode == 0
    assert new in listed_by_imds(node)


def test_an_instance_of_a_scale_set_is_written_and_each_surface_follows_in_its_own_time(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1, addresses=0, placement="uniform")
    fabric.arm.operations.hold()
    fabric.arm.roles.give("uniform-writer")
    node = fabric.nodes["node1"]
    authorization = bearer(node)
    group = nic_url(fabric).partition("/providers/")[0]
    path = f"{group}/providers/Microsoft.Compute/virtualMachineScaleSets/vmss-fabric/virtualMachines/0"
    url = f"{path}?api-version=2026-04-01"
    document = asked(node, url, authorization)[2]
    del document["properties"]["storageProfile"]["imageReference"]
    profile = document["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"][0]
    entries = profile["properties"]["ipConfigurations"]
    entries.append({"name": "pods", "properties": {"subnet": entries[0]["properties"]["subnet"]}})
    fabric.lag("imds", float("inf"))
    status, headers, _ = asked(node, url, authorization, method="PUT", body=json.dumps(document))
    assert status == 200
    poll = headers["azure-asyncoperation"]
    assert asked(node, poll, authorization)[2]["status"] == "InProgress"
    fabric.arm.operations.finish()
    assert asked(node, poll, authorization)[2]["status"] == "Succeeded"
    (new,) = node.pod_addresses
    listed = asked(node, f"{path}/networkInterfaces?api-version=2018-10-01", authorization)[2]
    assert str(new) in json.dumps(listed)
    node.run(["ip", "address", "add", f"{new}/32", "dev", "lo"])
    assert fabric.vnet_hosts["vm1"].run(["ping", "-c1", "-W5", str(new)], check=False).returncode == 0
    assert str(new) not in listed_by_imds(node)
    fabric.lag("imds", 0)
    assert str(new) in listed_by_imds(node)


WRITE = """
nics = client(retry_total=0).network_interfaces
nic = nics.get(group, "node1-nic0")
subnet = {"id": nic.ip_configurations[0].subnet.id}
nic.ip_configurations.append({"name": "more", "properties": {"subnet": subnet}})
try:
    nics.begin_create_or_update(group, "node1-nic0", nic).result()
    show(seen=None)
except HttpResponseError as error:
    after = error.response.headers.get("Retry-After")
    show(seen=[type(error).__name__, error.status_code, error.error.code, after])
"""


def test_what_the_sdk_makes_of_refused_and_failed_writes(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=0)
    arm = fabric.arm

    def seen() -> list[Any]:
        return list(with_sdk(fabric, WRITE)["seen"])

    assert seen() == ["HttpResponseError", 403, "AuthorizationFailed", None]
    arm.roles.give("writer")
    arm.faults.full_subnets.add("nodes")
    assert seen() == ["HttpResponseError", 400, "SubnetIsFull", None]
    arm.faults.clear()
    arm.faults.throttle(1, 7, ("PUT",))
    assert seen() == ["HttpResponseError", 429, "TooManyRequests", "7"]
    arm.operations.outcomes.append(Outcome(State.FAILED, "InternalServerError", "An error occurred."))
    assert seen() == ["HttpResponseError", 200, "InternalServerError", None]
    arm.operations.hold()
    arm.edit_nic("node1-nic0", lambda document: document["properties"]["ipConfigurations"].pop())
    node, url = fabric.nodes["node1"], nic_url(fabric)
    document = json.dumps(asked(node, url, bearer(node))[2])
    assert asked(node, url, bearer(node), method="PUT", body=document)[0] == 200
    assert seen() == ["HttpResponseError", 429, "RetryableError", "1"]
    arm.faults.busy_conflict = True
    assert seen() == ["ResourceExistsError", 409, "AnotherOperationInProgress", None]
