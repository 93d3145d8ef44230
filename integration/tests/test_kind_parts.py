"""What `make kind` is made of, as far as no cluster is needed for it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

import pytest
import yaml

from integration.fabric import imds as emulated
from integration.fabric.web import Request
from integration.kind import imds, recipe
from integration.kind.cli import main
from integration.kind.cluster import adapted
from integration.kind.places import KindError

PAGE = """\
# Page
```sh
echo outside of every section
```

## One
Text.

### First
```sh
echo 1
```
Between.
```sh
echo 2
```

### Nothing to run
```
$ not a command
```

### Last
```sh
echo 3
```

## Other
```sh
echo other
```
"""


def node(number: int) -> dict[str, Any]:
    addresses = [{"Address": f"172.18.0.{number}", "IsPrimary": True}]
    addresses += [{"Address": f"172.18.{100 + number}.{last}", "IsPrimary": False} for last in (10, 11)]
    subnet = {"Prefix": "172.18.0.0/16", "IPAddresses": addresses}
    mac = f"02:42:AC:12:00:0{number}"
    return {"Interfaces": [{"MacAddress": mac, "IsPrimary": True, "IPSubnets": [subnet]}]}


def test_recipe_is_every_command_of_a_section_under_its_heading() -> None:
    assert recipe.steps("One", PAGE) == [
        recipe.Step("First", "echo 1\necho 2\n"),
        recipe.Step("Last", "echo 3\n"),
    ]
    assert recipe.steps("Other", PAGE) == [recipe.Step("Other", "echo other\n")]


def test_recipe_without_section_or_commands_is_refused() -> None:
    with pytest.raises(KindError, match="no section 'Third'"):
        recipe.steps("Third", PAGE)
    with pytest.raises(KindError, match="no commands"):
        recipe.steps("Only", "## Only\nText.\n")


@pytest.mark.parametrize(
    "section", ["The recipe", "From IMDS", "Ready", "A changed build", "cnitool on a node", "Uninstall"]
)
def test_page_has_what_the_command_runs(section: str) -> None:
    assert recipe.steps(section)


def test_step_stops_at_its_first_failure_and_the_error_shows_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "LOG", tmp_path / "recipe.log")
    lines: list[str] = []
    step = recipe.Step("Broken", "echo before; echo no such word >&2; false; echo behind")
    with pytest.raises(KindError, match=r"'Broken'(.*\n)*no such word"):
        recipe.run(step, {"PATH": "/usr/bin:/bin"}, lines.append)
    assert lines == ["before", "no such word"]
    assert "behind" not in (tmp_path / "recipe.log").read_text()


def test_configuration_of_the_recipe_gets_nodes_image_and_port() -> None:
    configure = recipe.steps("The recipe")[0].script
    text = configure.split("EOF'\n")[1].removesuffix("EOF\n")
    made = yaml.safe_load(adapted(text, 3, "image:1", 6443))
    assert made["nodes"] == [
        {"role": "control-plane", "image": "image:1"},
        {"role": "worker", "image": "image:1"},
        {"role": "worker", "image": "image:1"},
    ]
    assert made["networking"] == {
        "disableDefaultCNI": True,
        "apiServerAddress": "127.0.0.1",
        "apiServerPort": 6443,
    }
    (patch,) = made["kubeadmConfigPatches"]
    assert yaml.safe_load(patch)["detectLocal"] == {"interfaceNamePrefix": "azv"}
    alone = yaml.safe_load(adapted(text, 1, "", 0))
    assert alone["nodes"] == [{"role": "control-plane"}]
    assert "apiServerPort" not in alone["networking"]


def test_imds_shows_a_node_the_addresses_of_its_file() -> None:
    estate = imds.estate({"kind-worker": node(2), "kind-worker2": node(3)})
    client = IPv4Address("172.18.0.3")
    vm = estate.vm_at(client)
    assert vm is not None
    query = (("api-version", emulated.VERSIONS[-1]),)
    request = Request("GET", "/metadata/instance/network", query, {"metadata": "true"}, client)
    (interface,) = json.loads(emulated.Imds().answer(request, estate, vm).body)["interface"]
    assert interface["macAddress"] == "0242AC120003"
    shown = [each["privateIpAddress"] for each in interface["ipv4"]["ipAddress"]]
    assert shown == ["172.18.0.3", "172.18.103.10", "172.18.103.11"]


def test_nodes_of_several_networks_are_refused() -> None:
    other = json.loads(json.dumps(node(3)).replace("172.18.", "172.19."))
    with pytest.raises(ValueError, match="several networks"):
        imds.estate({"kind-worker": node(2), "kind-worker2": other})


def test_imds_of_a_machines_own_docker_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--docker=system", "--source=imds"]) == 1
    assert "DOCKER=own" in capsys.readouterr().err
