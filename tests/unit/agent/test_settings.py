"""The operator's settings: what is wrong with them is said with the file and the key."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from cni_plugin.agent.settings import Settings, SettingsFile
from ipam.settings_file import SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.json"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("\udcff", "is not valid JSON"),
        ("[]", "is a JSON list, not an object"),
        ('{"refresh": 1}', "refresh: "),
        ('{"refresh_seconds": 0}', "refresh_seconds: "),
        ('{"refresh_seconds": "often"}', "refresh_seconds: "),
        ('{"refresh_seconds": Infinity}', "refresh_seconds: "),
        ('{"source": "cloud"}', "source: "),
        ('{"log_level": "loud"}', "log_level: "),
        ('{"conflist": {}}', "conflist.source: "),
        ('{"conflist": {"source": "/a", "target": "/b"}}', "conflist.target: "),
        ('{"file": 1}', "file: "),
        ('{"source": "file", "file": ""}', "file: source is file, and no file is set"),
        ('{"arm": {"credential": "password"}}', "arm.credential: "),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(file: Path, content: str, said: str) -> None:
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match=r"agent\.json") as caught:
        Settings.read(file)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_said(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*: No such file or directory"):
        Settings.read(file)


def test_no_file_is_the_defaults() -> None:
    settings = Settings.read(None)
    assert settings == Settings.of({})
    assert settings.path is None
    assert not SettingsFile(settings).changed()


def test_the_manifest_is_shipped_with_settings_that_the_agent_takes() -> None:
    manifest = (Path(__file__).parents[3] / "packaging" / "kubernetes" / "azvnet.yaml").read_text()
    block = re.search(r"  agent\.json: \|\n((?:    .*\n)+)", manifest)
    assert block is not None
    assert Settings.of(json.loads(block[1])).file == ""


def test_what_is_in_it_is_taken(file: Path) -> None:
    conflist = {"source": "/etc/azvnet/10.conflist"}
    file.write_text(json.dumps({"source": "arm", "conflist": conflist, "arm": {"client_id": "c"}}))
    settings = Settings.read(file)
    assert (settings.source, settings.arm.client_id, settings.arm.credential) == ("arm", "c", "auto")
    assert settings.conflist is not None
    assert settings.conflist.source == Path(conflist["source"])
    assert settings.conflist.destination == Path("/etc/cni/net.d/10-azvnet.conflist")


def test_a_file_that_is_written_or_replaced_has_changed_until_it_is_read(file: Path) -> None:
    """As a ConfigMap is replaced: a link to another directory."""
    versions = [file.with_name(f"version-{number}") for number in range(2)]
    for number, version in enumerate(versions):
        version.write_text(json.dumps({"refresh_seconds": 10 + number}))
    file.symlink_to(versions[0])
    settings = SettingsFile(Settings.read(file))
    assert not settings.changed()
    link = file.with_name("link")
    link.symlink_to(versions[1])
    link.replace(file)
    assert settings.changed()
    assert settings.read().refresh_seconds == 11
    assert not settings.changed()
    os.utime(versions[1], ns=(1, 1))
    assert settings.changed()
    with pytest.raises(SettingsError):
        _write_and_read(settings, versions[1], "{")
    assert not settings.changed(), "what is wrong with it is said once"
    versions[1].unlink()
    assert not settings.changed(), "its successor may be on its way"


def _write_and_read(settings: SettingsFile, path: Path, content: str) -> Settings:
    path.write_text(content)
    return settings.read()
