"""``uninstall --purge`` knows every file of the state directory by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cni_plugin.install import removing
from ipam.state_file import replace_document

TEXT = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()


def test_every_documented_file_of_the_state_directory_is_removed_by_its_name() -> None:
    section = TEXT[TEXT.index("## State") :]
    rows = [
        line.split("|")[1] for line in section[: section.index("\n## ", 1)].splitlines() if line[:3] == "| `"
    ]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) > 8
    for name in names:
        whole = (
            f"azvnet.db{name}"
            if name.startswith("-")
            else name.replace("<time>", "20261126T150000Z").replace("<id>", "0a1b2c3d")
        )
        assert removing._STATE.fullmatch(whole), f"uninstall --purge leaves {whole}"


def test_what_a_call_that_was_killed_left_of_a_small_file_is_removed_too() -> None:
    documents = re.findall(r"`([a-z0-9-]+\.json)`", TEXT[TEXT.index("## State") :])
    small = set(documents) - {"sysctls-before.json"}  # which is created whole, once
    assert len(small) > 3
    for name in small:
        assert removing._STATE.fullmatch(f".{name}.0a1b2c3d"), f"uninstall --purge leaves .{name}.0a1b2c3d"


def test_what_a_call_writes_before_the_rename_has_such_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    rename = Path.replace

    def noted(temporary: Path, target: Path) -> Path:
        written.append(temporary.name)
        return rename(temporary, target)

    monkeypatch.setattr(Path, "replace", noted)
    replace_document(tmp_path / "leaving.json", [1])
    assert len(written) == 1
    assert removing._STATE.fullmatch(written[0])
    assert [path.name for path in tmp_path.iterdir()] == ["leaving.json"]


def test_a_small_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    in_the_way = tmp_path / "leaving.json"
    in_the_way.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_document(in_the_way, [1])
    assert list(tmp_path.iterdir()) == [in_the_way]
