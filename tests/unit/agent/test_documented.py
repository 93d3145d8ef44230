"""docs/agent.md says what the code does: its tables are held against models, registry and unit file."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_core import PydanticUndefined

from cni_plugin import checks
from cni_plugin.agent import metrics
from cni_plugin.agent.metrics import CallMetrics, Exposition, NodeCollector
from cni_plugin.agent.requests_made import RequestsMade
from cni_plugin.agent.service import STOP_SECONDS
from cni_plugin.agent.settings_models import (
    Conflist,
    KubernetesApi,
    Masquerade,
    NicProvision,
    Platform,
    Settings,
)
from cni_plugin.cli.status import COLOURS
from cni_plugin.cni.call import Reply
from cni_plugin.cni.errors import PoolError
from cni_plugin.node import LIB_DIR
from ipam.errors import PoolExhausted
from ipam.sources.arm_settings_models import Arm
from tests.unit.agent.work import Front, Place, Work, get, new_settings

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/agent.md").read_text()
NESTED: dict[str, type[BaseModel]] = {
    "conflist": Conflist,
    "arm": Arm,
    "masquerade": Masquerade,
    "platform": Platform,
    "provision": NicProvision,
    "provision.api": KubernetesApi,
}
UNIT = ROOT / "packaging/systemd/azvnet-agent.service"


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without their header."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Key to default, as the table writes it."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        default: Any = field.get_default(call_default_factory=True)
        nested = NESTED.get(prefix + name)
        if nested is not None:
            found |= fields(nested, f"{prefix}{name}.")
            continue
        if isinstance(default, bool):
            default = str(default).lower()
        if isinstance(default, float):
            default = int(default) if default == int(default) else default
        found[prefix + name] = "" if default in (None, PydanticUndefined, "") else f"`{default}`"
    return found


def test_every_setting_is_in_the_table_with_its_default() -> None:
    assert {words(row[0])[0]: row[1] for row in table("Settings")} == fields(Settings)


def test_every_value_that_a_setting_may_have_is_in_the_table() -> None:
    rows = {words(row[0])[0]: row[2] for row in table("Settings")}
    for key, model, name in (
        ("source", Settings, "source"),
        ("log_level", Settings, "log_level"),
        ("arm.credential", Arm, "credential"),
        ("provision.mode", NicProvision, "mode"),
    ):
        annotation: Any = model.model_fields[name].annotation
        assert set(words(rows[key])) >= set(annotation.__args__), key


def test_every_metric_is_in_the_table_with_its_type_and_labels(place: Place, work: Work) -> None:
    place.list_addresses(2)
    registry = metrics.new_registry()
    requests = RequestsMade()
    requests.api("LIST", "pods", "200")
    requests.arm("PUT", "networkInterfaces", "200")
    NodeCollector(registry, place.node, work, str, list, requests=requests.counted)
    CallMetrics(registry).observe("ADD", Reply(b"", 1, error=PoolError(PoolExhausted("full", family=4))), 0.1)
    text = Exposition(registry).encode("")[1].decode()
    told: dict[str, tuple[str, set[str]]] = {}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        samples = re.findall(rf"^{name}(?:_bucket|_sum|_count)?(?:{{(.*)}})? ", text, re.MULTILINE)
        labels = {label for sample in samples for label in re.findall(r'(\w+)="', sample)}
        told[name] = (kind, labels - {"le"})
    documented = {words(name)[0]: (kind, set(words(labels))) for name, kind, labels, _ in table("Metrics")}
    assert documented == told


def test_every_kind_of_repair_and_every_state_of_the_pool_is_named(place: Place, work: Work) -> None:
    from cni_plugin.agent.metrics import REPAIRS
    from ipam.model import AddressState

    meaning = {words(row[0])[0]: words(row[3]) for row in table("Metrics")}
    assert meaning["azvnet_repairs_total"] == list(REPAIRS)
    assert meaning["azvnet_pool_addresses"] == [*(state.value for state in AddressState), checks.ON_HOST]
    assert meaning["azvnet_problems"] == list(checks.KINDS)


def test_the_reconciler_counts_no_kind_that_is_not_told_from_the_start() -> None:
    from cni_plugin.agent.metrics import REPAIRS
    from cni_plugin.datapath.drift import PUT_BACK
    from cni_plugin.host import STATES

    sources = [(ROOT / "cni_plugin/agent" / name).read_text() for name in ("reconcile.py", "maintenance.py")]
    counted = {*PUT_BACK, *(state.KIND for state in STATES)}
    for text in sources:
        counted |= set(re.findall(r'_count\(\s*"(\w+)"', text))
        counted |= set(re.findall(r'repairs\["(\w+)"\]', text))
    assert counted == set(REPAIRS)


def test_every_page_is_in_the_table_and_answers(place: Place, work: Work, tmp_path: Path) -> None:
    place.list_addresses(2)
    front = Front(place, work, new_settings(log_file=tmp_path / "log"))
    front.start()
    try:
        pages = [words(row[0])[0] for row in table("Pages")]
        socket = place.run_dir / "http.sock"
        assert sorted(get(socket, "/").body.split()) == sorted(pages)
        assert [get(socket, page).status for page in pages] == [200] * len(pages)
    finally:
        front.stop()


def test_every_state_that_status_shows_is_explained() -> None:
    from cni_plugin.cli import looking

    explained = {word for row in table("`azvnet status`") for word in words(row[0])}
    states = {
        looking.OK,
        looking.MISSING,
        looking.UNCONFIRMED,
        looking.DOWN,
        looking.NO_ROUTE,
        looking.CHANGED,
        looking.UNKNOWN,
    }
    assert explained == states
    assert states <= COLOURS.keys()


class Unit:
    """The unit file."""

    def __init__(self) -> None:
        self.parsed = configparser.RawConfigParser(strict=False)
        self.parsed.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents it
        self.parsed.read_string(UNIT.read_text())

    def __getitem__(self, key: str) -> str:
        return self.parsed["Service"][key]


@pytest.fixture
def unit() -> Unit:
    return Unit()


def test_the_unit_starts_the_agent_and_speaks_its_protocol(unit: Unit) -> None:
    assert unit["ExecStart"].split()[1] == "agent"
    assert unit["Type"] == "notify"
    assert unit["Restart"] == "always"
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_unit_grants_the_time_that_stopping_takes(unit: Unit) -> None:
    assert int(unit["TimeoutStopSec"]) > STOP_SECONDS


def test_the_unit_may_write_what_the_defaults_write(unit: Unit) -> None:
    defaults = new_settings()
    conflist = new_settings(conflist={"source": "/any"}).conflist
    assert conflist is not None
    assert unit["ProtectSystem"] == "strict"
    assert defaults.log_file.parent == Path("/var/log") / unit["LogsDirectory"]
    assert f"-{conflist.destination.parent}" in unit["ReadWritePaths"].split()
    assert Path(LIB_DIR) == Path("/var/lib") / unit["StateDirectory"]
    assert unit["StateDirectoryMode"] == "0700"
    assert unit["RuntimeDirectory"] == "azvnet"
    assert unit["RuntimeDirectoryPreserve"] == "yes", "the store outlives the agent"
    assert unit["RuntimeDirectoryMode"] == "0700"


def test_the_unit_leaves_what_the_agent_cannot_do_without(unit: Unit) -> None:
    assert set(unit["CapabilityBoundingSet"].split()) == {"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}
    assert unit["RestrictNamespaces"] == "net"
    assert {"AF_NETLINK", "AF_UNIX", "AF_INET"} <= set(unit["RestrictAddressFamilies"].split())
    service = unit.parsed["Service"]
    assert "ProtectKernelTunables" not in service, "it sets ip_forward"
    assert "PrivateNetwork" not in service


def test_the_page_names_every_file_of_the_unit() -> None:
    files = sorted(path.name for path in (ROOT / "packaging/systemd").iterdir())
    assert files == sorted(set(re.findall(r"packaging/systemd/(\S+)", PAGE)))
