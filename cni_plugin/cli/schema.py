"""``azvnet schema``: the JSON Schema of the network configuration, generated from the models."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    """This command has none."""


def json_schema() -> dict[str, Any]:
    """The schema of one plugin's configuration, ``ipam`` included."""
    from cni_plugin.cni.netconf import IPAM_NO_EFFECT, NO_EFFECT
    from cni_plugin.cni.netconf.netconf_models import IpamConf, NetConf

    schema = NetConf.model_json_schema(by_alias=True)
    ipam = IpamConf.model_json_schema(by_alias=True)
    ipam["required"] = ["type"]
    schema["$defs"] |= ipam.pop("$defs") | {"Ipam": ipam}
    other = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"not": {"const": "azvnet-ipam"}}},
    }
    schema["properties"]["ipam"] = {
        "description": "Which IPAM plugin, with its configuration.",
        "anyOf": [{"$ref": "#/$defs/Ipam"}, other],
    }
    for properties, reasons in ((schema["properties"], NO_EFFECT), (ipam["properties"], IPAM_NO_EFFECT)):
        for key, reason in reasons.items():
            said = {"description": f"Accepted without effect: {reason}.", "deprecated": True}
            properties[key] = properties.get(key, {}) | said
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "azvnet network configuration",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def run(_: argparse.Namespace) -> int:
    """Print it."""
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0
