"""The agent's part in growing its NIC: settings, what a pod without an address is told, nothing when off."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugin.addresses import outlook
from cni_plugin.agent import provision_thread
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.provisioning import Provisioning
from ipam.errors import AddressUnavailable, PoolExhausted, SourceEmpty
from ipam.model import Attachment, Owner, Reservation
from ipam.provision.plan import Sizes
from ipam.provision.progress import Progress
from ipam.settings_file import SettingsError
from tests.unit.agent.work import Place, Work, new_settings
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
NOWHERE = "https://127.0.0.1:9"


def node_mode(**values: Any) -> dict[str, Any]:
    return {"source": "imds", "provision": {"mode": "node", **values}, "arm": {"base_url": NOWHERE}}


def test_off_is_the_default_and_loads_nothing() -> None:
    code = (
        "import sys; from cni_plugin.agent import service; from cni_plugin.agent.settings import Settings\n"
        "assert Settings.of({}).provision is None\n"
        "print([name for name in sys.modules if name.startswith(('ipam.provision', 'azure'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_sizes_are_those_of_the_file() -> None:
    wanted = new_settings(**node_mode(minimum=3, batch=2, low=1, high=9, maximum=30, prefixes=True)).provision
    assert wanted is not None
    assert wanted.sizes == Sizes(3, 2, 1, 9, 30, 600.0, prefixes=True)


@pytest.mark.parametrize(
    ("provision", "message"),
    [
        ({"mode": "cloud"}, "provision.mode: Input should be 'off', 'node' or 'operator'"),
        ({"mode": "node", "low": 20}, "provision.high 24 is less than low 20 plus batch 16"),
        ({"mode": "node", "minimum": 251}, "provision.minimum 251 is more than maximum 250"),
        ({"mode": "node", "batch": 0}, "provision.batch: "),
        ({"mode": "node", "shrink_after_seconds": 0}, "provision.shrink_after_seconds: "),
        ({"maximum": 5000}, "provision.maximum: "),
    ],
)
def test_settings_that_cannot_work_are_refused(provision: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        new_settings(source="imds", provision=provision)
    assert str(refused.value).startswith(message)


def test_a_file_cannot_follow_what_is_added_to_the_nic() -> None:
    with pytest.raises(SettingsError, match="source file"):
        new_settings(source="file", file="/x.json", provision={"mode": "node"})


@pytest.fixture
def agent(place: Place, work: Work) -> Iterator[Provisioning]:
    """Switched on, and out of reach of any Azure."""
    settings = new_settings(log_file=str(place.run_dir / "agent.log"), **node_mode())
    made = Provisioning({}, place.node, settings, work, lambda: None, lambda: False, Journal(settings))
    made.start()
    yield made
    made.stop()


def test_a_pod_without_an_address_is_told_what_is_done(place: Place, agent: Provisioning) -> None:
    for error in (PoolExhausted("none is free", "Wait.", family=4), SourceEmpty("none is listed", "Wait.")):
        with pytest.raises(type(error)) as told, outlook.told("default/web", place.node):
            raise error
        assert str(told.value) == f"{error}; addresses are on the way: more are being added to the NIC"
        assert told.value.remedy == "Wait."
    assert agent.waiting() == {"default/web"}


def test_an_address_that_another_has_is_not_a_matter_of_growth(place: Place, agent: Provisioning) -> None:
    with pytest.raises(AddressUnavailable, match=r"^taken$"), outlook.told("default/web", place.node):
        raise AddressUnavailable("taken")
    assert agent.waiting() == frozenset()


def test_switched_off_a_pod_is_told_nothing_of_growth(place: Place, agent: Provisioning) -> None:
    agent.use(new_settings(source="imds"))
    with pytest.raises(PoolExhausted, match=r"^none$"), outlook.told("default/web", place.node):
        raise PoolExhausted("none", family=4)
    assert (agent.progress, agent.problems()) == (None, [])


def test_a_dry_run_promises_nothing(place: Place, agent: Provisioning) -> None:
    log_file = str(place.run_dir / "agent.log")
    agent.use(new_settings(log_file=log_file, **node_mode(dry_run=True)))
    with pytest.raises(PoolExhausted, match=r"^none$"), outlook.told("default/web", place.node):
        raise PoolExhausted("none", family=4)
    assert agent.waiting() == {"default/web"}, "it is part of the plan that is told"


def test_switched_on_again_it_begins_anew(place: Place, agent: Provisioning) -> None:
    agent.use(new_settings(source="imds"))
    agent.use(new_settings(log_file=str(place.run_dir / "agent.log"), **node_mode()))
    assert agent.progress is not None
    assert agent.progress.phase == "starting"


def test_a_state_that_is_a_problem_says_what_to_do() -> None:
    assert provision_thread.problems_of(Progress("growing", "adding 16 addresses")) == []
    (problem,) = provision_thread.problems_of(Progress("forbidden", "PUT nic1: 403", "Give it the role."))
    assert (
        problem.text
        == "the NIC's addresses can't follow demand (forbidden): PUT nic1: 403. Give it the role."
    )
    assert (problem.kind, problem.subject) == ("provision", "forbidden")


def lost(number: int) -> Reservation:
    return Reservation(
        Attachment(f"container-{number}", "eth0"),
        Owner("azure", pod_namespace="default", pod_name=f"web-{number}"),
        ip_interface(f"10.0.0.{number}/16"),
        ip_address("10.0.0.1"),
        "imds",
        0.0,
        confirmed=True,
        generation="1",
    )


def test_pods_that_lost_their_address_are_an_alarm_of_their_own_that_says_what_to_do() -> None:
    (problem,) = provision_thread.problems_of(Progress("idle", vanished=(lost(5), lost(6))))
    assert (problem.kind, problem.level, problem.subject) == ("vanished", "error", "10.0.0.5 10.0.0.6")
    assert problem.text.startswith("the NIC has lost 10.0.0.5 of default/web-5, 10.0.0.6 of default/web-6: ")
    assert "Delete the pods" in problem.text
    kinds = [each.kind for each in provision_thread.problems_of(Progress("throttled", vanished=(lost(5),)))]
    assert kinds == ["vanished", "provision"], "whatever else is wrong"


def test_of_many_pods_that_lost_their_address_some_are_named_and_all_counted() -> None:
    (problem,) = provision_thread.problems_of(Progress("idle", vanished=tuple(map(lost, range(5, 30)))))
    assert "10.0.0.12 of default/web-12 and 17 more: " in problem.text


def test_a_node_that_is_not_in_azure_is_told_and_goes_on(place: Place, work: Work, monkeypatch: Any) -> None:
    from ipam import sources
    from ipam.provision import azure

    monkeypatch.setattr(azure, "AZURE", sources.Endpoints("http://127.0.0.1:9", "http://127.0.0.1:9"))
    settings = new_settings(log_file=str(place.run_dir / "agent.log"), **node_mode())
    made = Provisioning({}, place.node, settings, work, lambda: None, lambda: True, Journal(settings))
    made.start()
    try:
        eventually(made.problems, "the problem is told")
        assert made.progress is not None
        assert made.progress.phase == "unreachable"
        assert "no more addresses can be added now" in made.outlook("default/web")
    finally:
        made.stop()


def operator_mode(**values: Any) -> dict[str, Any]:
    return {"source": "imds", "provision": {"mode": "operator", **values}}


def test_following_the_operator_loads_nothing_of_azure() -> None:
    code = (
        "import sys; from cni_plugin.agent import operator_mode\n"
        "print([name for name in sys.modules if name.startswith(('azure', 'msal', 'kubernetes'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environ", "api", "url"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, "https://10.0.0.1:443"),
        (
            {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"},
            {},
            "https://[fd00::1]:6443",
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            {"server": "https://api.test:6443/"},
            "https://api.test:6443",
        ),
        ({}, {}, ""),
    ],
)
def test_the_api_server_is_where_kubernetes_or_the_settings_say(
    environ: dict[str, str], api: dict[str, str], url: str
) -> None:
    from cni_plugin.agent import cluster_access

    wanted = new_settings(**operator_mode(api={**api, "token_file": "/t", "ca_file": "/c"})).provision
    assert wanted is not None
    found = cluster_access.access(environ, wanted)
    assert (found.url, str(found.token_file), found.ca_file) == (url, "/t", "/c")


def test_the_newest_state_of_the_resource_wins_whoever_read_it() -> None:
    from cni_plugin.agent.operator_mode import Resource
    from ipam.provision.exchange import AzvnetNode

    resource = Resource()
    assert Resource().known is None
    assert resource.take(None), "that there is none is news"
    first, second = AzvnetNode("a", "u", "1", 1), AzvnetNode("a", "u", "2", 2)
    assert resource.take(second)
    assert not resource.take(first), "a watch may be late"
    assert not resource.take(second)
    assert resource.node == second
    assert resource.take(AzvnetNode("a", "v", "3", 1)), "it was deleted and made again"
    resource.replace(first)
    assert (resource.node, resource.known) == (first, True)


def test_pauses_after_failures_grow_to_a_minute_and_respect_what_the_server_asks_for() -> None:
    from cni_plugin.agent.operator_mode import LONGEST_PAUSE, Attempts
    from ipam.provision.api_client import Trouble

    attempts = Attempts()
    assert Attempts().is_due
    pauses = []
    for _ in range(12):
        attempts.failed(Trouble("no-api", "away", "Look."))
        pauses.append(attempts.pause)
    assert 2 <= pauses[0] <= 5
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE
    assert not attempts.is_due
    attempts.failed(Trouble("no-api", "later", "Look.", retry_after=100))
    assert attempts.pause >= 100
    attempts.succeeded()
    assert (attempts.trouble, attempts.is_due, attempts.lasts) == (None, True, False)


def test_a_node_that_can_reach_neither_imds_nor_the_api_server_goes_on(
    place: Place, work: Work, monkeypatch: Any
) -> None:
    from ipam import sources
    from ipam.provision import exchange, machine

    monkeypatch.setattr(machine, "AZURE", sources.Endpoints("http://127.0.0.1:9", "http://127.0.0.1:9"))
    api = {"server": "https://127.0.0.1:9", "token_file": str(place.run_dir / "token"), "ca_file": ""}
    settings = new_settings(log_file=str(place.run_dir / "agent.log"), **operator_mode(api=api))
    made = Provisioning({}, place.node, settings, work, lambda: None, lambda: True, Journal(settings))
    made.start()
    try:
        eventually(made.problems, "the problem is told")
        assert made.progress is not None
        assert made.progress.phase == "unreachable"
    finally:
        made.stop()
    monkeypatch.setattr(
        "cni_plugin.agent.operator_mode.this_machine", lambda mac: exchange.Machine("/vm", mac=mac)
    )
    made.start()
    try:
        eventually(made.problems, "the problem is told")
        assert made.progress is not None
        assert made.progress.phase == "api-denied", "there is no token"
        (place.run_dir / "token").write_text("t")
        eventually(lambda: "no-api" in made.outlook("default/web"), "a pod is told at once", patience=60)
    finally:
        made.stop()
