"""``azvnet show``: its documentation is true, and targets are found as people write them."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.cli import run
from cni_plugin.cli.facts import ip_of
from cni_plugin.cli.show import attachment_document
from tests.unit.cli.test_drawing import EXPECTED, WEB

PAGE = (Path(__file__).parents[3] / "docs" / "show.md").read_text()


def keys(value: Any) -> set[str]:
    """Every key of a document, on every level, but those of ``unknown``."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if isinstance(value, dict):
        below = (keys(each) for name, each in value.items() if name != "unknown")
        return set(value).union(*below)
    return set()


def test_every_key_is_documented_and_no_other() -> None:
    table = PAGE[PAGE.index("## JSON") :]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    words = {word for row in rows if "`unknown`" not in row for word in re.findall(r"`(\w+)`", row)}
    assert keys(attachment_document(WEB)) - {"unknown"} == words - {"endpoint", "delegated"}


def test_every_reason_for_not_knowing_is_documented() -> None:
    source = (Path(__file__).parents[3] / "cni_plugin" / "cli" / "facts.py").read_text()
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `unknown`")]
    assert set(re.findall(r'unknown\["(\w+)"\]', source)) == set(re.findall(r"`(\w+)`", row)) - {"unknown"}


def test_the_picture_of_the_page_is_the_one_that_is_drawn() -> None:
    assert EXPECTED in PAGE


def test_a_document_is_json_and_stable() -> None:
    shown = json.loads(json.dumps(attachment_document(WEB)))
    assert shown["podEnd"]["routes"] == [
        {"destination": "0.0.0.0/0", "gateway": "169.254.1.1", "protocol": "azvnet", "scope": "global"}
    ]
    assert shown["hostEnd"]["routes"][0]["scope"] == "link"
    assert shown["addresses"][0]["nicLink"] == {"name": "eth0", "index": 2, "mtu": 1500}
    assert shown["addresses"][0]["ipConfiguration"] == "ipconfig-pod-7"


@pytest.mark.parametrize(
    ("target", "ip"),
    [
        ("10.10.0.5", "10.10.0.5"),
        ("10.10.0.5/16", "10.10.0.5"),
        ("fd00:0:0::5", "fd00::5"),
        ("web", None),
        ("10.10.0", None),
    ],
)
def test_an_address_is_known_however_it_is_written(target: str, ip: str | None) -> None:
    assert ip_of(target) == (None if ip is None else ip_address(ip))


def test_help_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["show", "--help"])
    printed = capsys.readouterr().out
    assert "POD|ADDRESS|INTERFACE|CONTAINER" in printed
    assert "--output {picture,ascii,json}" in printed
