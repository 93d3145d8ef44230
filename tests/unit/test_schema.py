"""conf/: the JSON Schema is that of the models, and the conflists that are shipped keep to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cni_plugin.cli import schema

CONF = Path(__file__).parents[2] / "conf"
SCHEMA: dict[str, Any] = json.loads((CONF / "azvnet.schema.json").read_text())
CONFLISTS = sorted(CONF.glob("*.conflist"))
MINIMAL = {"cniVersion": "1.1.0", "name": "azvnet", "type": "azvnet"}


def test_the_shipped_schema_is_that_of_the_models() -> None:
    assert schema.json_schema() == SCHEMA, "write what `azvnet schema` prints to conf/azvnet.schema.json"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("conflist", CONFLISTS, ids=lambda path: path.name)
def test_every_shipped_conflist_keeps_to_it(conflist: Path) -> None:
    document = json.loads(conflist.read_text())
    ours = [plugin for plugin in document["plugins"] if plugin["type"] == "azvnet"]
    for plugin in ours:
        jsonschema.validate(
            {**plugin, "name": document["name"], "cniVersion": document["cniVersion"]}, SCHEMA
        )
    assert ours or document["plugins"][0]["ipam"]["type"] == "azvnet-ipam"


@pytest.mark.parametrize(
    "wrong",
    [
        {"mtu": -1},
        {"mtu": "huge"},
        {"ipam": {"type": "azvnet-ipam", "environment": "aws"}},
        {"ipam": {"type": "azvnet-ipam", "cooldown": -1}},
        {"ipam": {}},
        {"dns": {"nameservers": "168.63.129.16"}},
        {"logLevel": "loud"},
        {"name": None},
    ],
    ids=json.dumps,
)
def test_what_a_call_refuses_is_refused_by_it(wrong: dict[str, Any]) -> None:
    jsonschema.validate(MINIMAL, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, **wrong}, SCHEMA)
