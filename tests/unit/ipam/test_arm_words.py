"""The source ``arm`` without Azure: where a machine is, what errors say, and work that hangs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ipam.errors import SourceUnreadable
from ipam.sources import arm_errors, imds
from ipam.sources.arm_nic import fits, nic_of, spaces_of, vnet_ids
from ipam.sources.bounded import OneAtATime, StillBusy
from ipam.sources.nic import builder
from ipam.sources.placement import Placement, last_parts, placement
from tests.unit.ipam.cloud import imds_network

if TYPE_CHECKING:
    from ipam.model import Nic

MAC = "00:0d:3a:e5:1c:c0"

GROUP = "/subscriptions/s-1/resourceGroups/MC_rg/providers/Microsoft.Compute"
PLACE = Placement("AzurePublicCloud", f"{GROUP}/virtualMachines/vm1", "s-1", "MC_rg", "vm1", "")


def compute(resource_id: str, environment: str = "AzurePublicCloud") -> bytes:
    return json.dumps({"azEnvironment": environment, "resourceId": resource_id, "name": "x"}).encode()


class TestPlacement:
    def test_a_stand_alone_machine_or_flexible_instance(self) -> None:
        assert placement(compute(f"{GROUP}/virtualMachines/vm1")) == PLACE

    def test_an_instance_of_a_uniform_scale_set(self) -> None:
        found = placement(compute(f"{GROUP}/virtualMachineScaleSets/aks-np1/virtualMachines/12"))
        assert (found.scale_set, found.name, found.resource_group) == ("aks-np1", "12", "MC_rg")

    def test_upper_and_lower_case_do_not_matter(self) -> None:
        found = placement(compute(f"{GROUP}/virtualMachines/vm1".upper(), "AZUREPUBLICCLOUD"))
        assert (found.name, found.subscription) == ("VM1", "S-1")

    @pytest.mark.parametrize("text", ["", "/subscriptions/s", f"{GROUP}/disks/d"])
    def test_a_machine_that_arm_does_not_know(self, text: str) -> None:
        with pytest.raises(SourceUnreadable, match="resource id") as error:
            placement(compute(text))
        assert error.value.remedy

    def test_group_and_name_of_a_nic(self) -> None:
        nic = "/subscriptions/s-1/resourceGroups/other/providers/Microsoft.Network/networkInterfaces/nic1"
        assert last_parts(nic) == ("other", "nic1")
        assert last_parts(nic.replace("resourceGroups", "RESOURCEGROUPS") + "/") == ("other", "nic1")
        for wrong in (nic + "/ipConfigurations/x", nic.replace("resourceGroups", "groups")):
            with pytest.raises(ValueError, match="not the id"):
                last_parts(wrong)


class TestWords:
    @pytest.mark.parametrize(
        "secret",
        [
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwcyJ9.c2lnbmF0dXJl",
            "Authorization: Bearer c2VjcmV0LXRva2Vu",
            "https://x/?sig=c2VjcmV0LXRva2Vu&y=1",
        ],
    )
    def test_no_token_is_ever_in_a_message(self, secret: str) -> None:
        for error in (
            arm_errors.no_token(f"failed: {secret}"),
            arm_errors.refused("GET x", 401, secret, {}, PLACE),
            arm_errors.unreachable("https://x", secret),
        ):
            assert "c2VjcmV0" not in str(error)
            assert "c2lnbmF0dXJl" not in str(error)
            assert "***" in str(error)

    def test_a_long_message_is_cut_to_one_line(self) -> None:
        words = arm_errors.words_of("a\n" * 1000)
        assert len(words) < 310
        assert "\n" not in words

    @pytest.mark.parametrize(
        ("text", "seconds"), [("30", 30), (None, 0), ("", 0), ("soon", 0), ("-1", 0), ("1e9", 3600)]
    )
    def test_retry_after(self, text: str | None, seconds: float) -> None:
        assert arm_errors.retry_seconds(text) == seconds

    def test_a_missing_permission_names_role_group_and_actions(self) -> None:
        error = arm_errors.refused("GET x", 403, "AuthorizationFailed", {}, PLACE)
        for words in ("Reader", "MC_rg", *arm_errors.READS):
            assert words in error.remedy


def configuration(address: str | None, state: str = "Succeeded", **more: Any) -> SimpleNamespace:
    given = {"private_ip_address_prefix_length": None, "primary": False, **more}
    return SimpleNamespace(
        name="ipconfig",
        private_ip_address=address,
        provisioning_state=state,
        public_ip_address=None,
        **given,
    )


def nic_with(*configurations: SimpleNamespace) -> SimpleNamespace:
    own = configuration("10.10.0.4", primary=True)
    return SimpleNamespace(mac_address=MAC, primary=True, ip_configurations=[own, *configurations])


def in_imds(*secondaries: str, prefix: str = "10.10.0.0/16") -> Nic:
    document = imds_network(*secondaries, mac=MAC)
    address, _, length = prefix.partition("/")
    document["interface"][0]["ipv4"]["subnet"] = [{"address": address, "prefix": length}] if prefix else []
    return imds.parse(json.dumps(document).encode(), "imds").nics[0]


def built(nic: SimpleNamespace, seen: Nic) -> tuple[list[str], list[str]]:
    warnings: list[str] = []
    begun = builder(MAC, True, warnings)
    assert begun is not None
    return [str(each.ip) for each in nic_of(nic, begun, seen).addresses], warnings


class TestStates:
    """IP configurations that ARM does not call Succeeded."""

    @pytest.mark.parametrize("state", ["Failed", "Updating", "Canceled", "New"])
    def test_imds_decides_about_what_may_work(self, state: str) -> None:
        nic = nic_with(configuration("10.10.0.5", state), configuration("10.10.0.6", state))
        addresses, (warning,) = built(nic, in_imds("10.10.0.5"))
        assert addresses == ["10.10.0.5"]
        assert f"2 IP configurations in state '{state}': 1 are used, since IMDS lists them, 1 are" in warning
        assert not fits(nic, in_imds("10.10.0.5")), "IMDS has to be asked"

    def test_what_is_being_deleted_is_never_used(self) -> None:
        nic = nic_with(configuration("10.10.0.5", "Deleting"))
        addresses, (warning,) = built(nic, in_imds("10.10.0.5"))
        assert addresses == []
        assert "1 IP configurations in state 'Deleting': 0 are used" in warning

    def test_one_without_an_address_yet_is_named(self) -> None:
        nic = nic_with(configuration(None, "Updating"), configuration(None), configuration("10.10.0.5"))
        addresses, warnings = built(nic, in_imds())
        assert addresses == ["10.10.0.5"]
        assert [each.partition(": ")[2] for each in warnings] == [
            f"1 IP configurations in state '{state}': 0 are used, since IMDS lists them, 1 are skipped"
            for state in ("Succeeded", "Updating")
        ]

    def test_the_hosts_own_address_is_its_own_whatever_its_state(self) -> None:
        nic = nic_with()
        nic.ip_configurations[0].provisioning_state = "Failed"
        begun = builder(MAC, True, [])
        assert begun is not None
        assert [str(ip) for ip in nic_of(nic, begun, in_imds()).own_addresses] == ["10.10.0.4"]

    def test_each_state_is_counted_by_itself_in_alphabetical_order(self) -> None:
        nic = nic_with(
            configuration("10.10.0.7", "Updating"),
            configuration("10.10.0.5", "Failed"),
            configuration("10.10.0.6", "Failed"),
            configuration("10.10.0.8"),
        )
        addresses, warnings = built(nic, in_imds("10.10.0.6", "10.10.0.7"))
        assert addresses == ["10.10.0.7", "10.10.0.6", "10.10.0.8"]
        assert [each.partition(": ")[2] for each in warnings] == [
            "2 IP configurations in state 'Failed': 1 are used, since IMDS lists them, 1 are skipped",
            "1 IP configurations in state 'Updating': 1 are used, since IMDS lists them, 0 are skipped",
        ]

    def test_the_first_ipv6_address_is_the_hosts_and_the_others_are_for_pods(self) -> None:
        nic = nic_with(configuration("fd00::4", "Failed"), configuration("fd00::5"), configuration("fd00::6"))
        begun = builder(MAC, True, [])
        assert begun is not None
        read = nic_of(nic, begun, in_imds())
        assert [str(ip) for ip in read.own_addresses] == ["10.10.0.4", "fd00::4"]
        assert [str(each.ip) for each in read.addresses] == ["fd00::5", "fd00::6"]

    def test_a_nic_that_imds_has_not_listed_has_what_arm_is_certain_of(self) -> None:
        begun = builder(MAC, True, [])
        assert begun is not None
        nic = nic_with(configuration("10.10.0.5"), configuration("10.10.0.6", "Failed"))
        assert begun.subnets == []
        read = nic_of(nic, begun, None)
        assert "10.10.0.6" not in [str(each.ip) for each in read.addresses]

    def test_the_length_of_a_block_may_be_in_its_address_in_a_field_or_in_both(self) -> None:
        for block in (
            configuration("10.10.0.16/28"),
            configuration("10.10.0.16", private_ip_address_prefix_length=28),
            configuration("10.10.0.16/28", private_ip_address_prefix_length=28),
        ):
            addresses, warnings = built(nic_with(block), in_imds())
            assert addresses == [f"10.10.0.{number}" for number in range(16, 32)]
            assert warnings == []

    def test_a_block_is_decided_as_a_whole(self) -> None:
        nic = nic_with(configuration("10.10.0.16/28", "Failed"))
        assert len(built(nic, in_imds("10.10.0.16/28"))[0]) == 16
        assert built(nic, in_imds())[0] == []


class TestWhatIsRemembered:
    """What IMDS said before is used only as long as it fits."""

    def test_it_fits(self) -> None:
        assert fits(nic_with(configuration("10.10.0.5"), configuration("10.10.0.16/28")), in_imds())

    def test_a_nic_that_imds_did_not_list(self) -> None:
        assert not fits(nic_with(), None)

    @pytest.mark.parametrize("prefix", ["", "10.10.0.0/29", "10.11.0.0/16"])
    def test_an_address_in_none_of_the_subnets(self, prefix: str) -> None:
        """The NIC was incomplete when IMDS was asked, or the subnet was expanded since."""
        assert not fits(nic_with(configuration("10.10.0.9")), in_imds(prefix=prefix))

    def test_the_first_address_of_a_block_decides_for_all_of_it(self) -> None:
        block = configuration("10.10.0.16", private_ip_address_prefix_length=28)
        assert fits(nic_with(block), in_imds(prefix="10.10.0.0/27"))
        assert not fits(nic_with(block), in_imds(prefix="10.10.0.0/28"))

    def test_what_can_not_be_read_or_has_no_address_yet_needs_no_subnet(self) -> None:
        assert fits(nic_with(configuration("nonsense"), configuration(None)), in_imds())

    def test_what_is_being_deleted_and_the_primary_one_need_no_decision(self) -> None:
        nic = nic_with(configuration("10.10.0.5", "Deleting"))
        nic.ip_configurations[0].provisioning_state = "Failed"
        assert fits(nic, in_imds())
        nic.ip_configurations[1].primary = None
        nic.ip_configurations[1].provisioning_state = SimpleNamespace(value="Updating")
        assert not fits(nic, in_imds("10.10.0.5"))

    def test_a_nic_without_configurations_fits_and_has_no_addresses(self) -> None:
        nic = SimpleNamespace(ip_configurations=None)
        assert fits(nic, in_imds())
        assert built(nic, in_imds()) == ([], [])

    def test_an_ipv6_address_needs_no_subnet(self) -> None:
        assert fits(nic_with(configuration("fd00::5")), in_imds())


def subnet_of(*ids: str | None) -> SimpleNamespace:
    made = [SimpleNamespace(subnet=SimpleNamespace(id=each)) for each in ids]
    return SimpleNamespace(ip_configurations=[*made, SimpleNamespace(subnet=None)])


def test_the_networks_of_nics_are_named_once_each() -> None:
    one, two = "/subscriptions/s/virtualNetworks/a", "/subscriptions/s/virtualNetworks/b"
    nics = [subnet_of(f"{one}/subnets/x", f"{two}/subnets/x"), subnet_of(f"{one}/subnets/y", None)]
    assert vnet_ids([*nics, SimpleNamespace(ip_configurations=None)]) == [one, two]


def test_the_space_of_a_network_is_its_own_and_that_of_connected_peerings() -> None:
    def space(*prefixes: str) -> SimpleNamespace:
        return SimpleNamespace(address_prefixes=list(prefixes))

    def peering(state: object, remote: object, whole: object) -> SimpleNamespace:
        return SimpleNamespace(
            peering_state=state, remote_address_space=remote, remote_virtual_network_address_space=whole
        )

    peerings = [
        peering("Connected", space("10.2.0.0/16"), space("10.2.0.0/15")),
        peering(SimpleNamespace(value="Connected"), None, space("10.4.0.1/16")),
        peering("Disconnected", space("10.5.0.0/16"), None),
    ]
    network = SimpleNamespace(address_space=space("10.1.0.0/16"), virtual_network_peerings=peerings)
    assert [str(each) for each in spaces_of(network)] == [
        "10.1.0.0/16",
        "10.2.0.0/16",
        "10.2.0.0/15",
        "10.4.0.0/16",
    ]
    alone = SimpleNamespace(
        address_space=SimpleNamespace(address_prefixes=None), virtual_network_peerings=None
    )
    assert spaces_of(alone) == []


class TestOneAtATime:
    def test_the_outcome_and_the_error_come_through(self) -> None:
        work: OneAtATime[int] = OneAtATime()
        assert work.run(lambda: 5, time.monotonic() + 5) == 5
        with pytest.raises(ZeroDivisionError):
            work.run(lambda: 1 // 0, time.monotonic() + 5)

    def test_what_hangs_is_left_behind_and_never_joined_by_another(self) -> None:
        work: OneAtATime[bool] = OneAtATime()
        leave = threading.Event()
        threads = threading.active_count()
        with pytest.raises(TimeoutError):
            work.run(lambda: leave.wait(20), time.monotonic() + 0.05)
        for _ in range(3):
            with pytest.raises(StillBusy):
                work.run(lambda: leave.wait(20), time.monotonic() + 0.05)
        assert threading.active_count() == threads + 1
        leave.set()
        assert work.run(lambda: True, time.monotonic() + 5)


@pytest.mark.parametrize("module", ["ipam.ipam", "ipam.sources", "ipam.sources.imds"])
def test_the_sdk_is_not_loaded_by_anybody_else(module: str) -> None:
    program = f"import sys, {module}; sys.exit(any(m.startswith(('azure', 'msal')) for m in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "See the code"),
        (401, "The token was not accepted"),
        (403, "role Reader on resource group MC_rg"),
        (404, "is not where IMDS says"),
        (405, "See the code"),
        (428, "See the code"),
        (429, "requests are throttled"),
        (430, "See the code"),
        (499, "See the code"),
        (500, "an internal error"),
        (503, "an internal error"),
    ],
)
def test_each_status_has_its_remedy(status: int, words: str) -> None:
    assert words in arm_errors.refused("GET x", status, "Why", {}, PLACE).remedy


@pytest.mark.parametrize("header", ["Retry-After", "retry-after"])
def test_how_long_arm_wants_to_be_left_alone_is_said_and_kept(header: str) -> None:
    error = arm_errors.refused("GET x", 429, "Why", {header: "17"}, PLACE)
    assert (str(error), error.retry_after) == ("source arm: GET x: 429: Why (Retry-After 17 s)", 17)
    plain = arm_errors.refused("GET x", 429, "Why", {}, PLACE)
    assert (str(plain), plain.retry_after) == ("source arm: GET x: 429: Why", 0)


def test_whose_token_it_was_is_said_where_that_is_known() -> None:
    assert str(arm_errors.no_token("none")) == "source arm: no access token: none"
    assert (
        str(arm_errors.no_token("none", "client id c")) == "source arm: no access token (client id c): none"
    )


def test_an_endpoint_that_is_too_slow_is_named() -> None:
    assert str(arm_errors.too_slow("https://x")) == "source arm: https://x: no answer in time"
    still = arm_errors.too_slow("https://x", still=True)
    assert str(still) == "source arm: https://x: an earlier request has not ended yet"
    assert "retried" in still.remedy
