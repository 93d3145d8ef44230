"""``uninstall --purge`` knows every file of the state directory by its name."""

from __future__ import annotations

import re
from pathlib import Path

from cni_plugin.install import removing

TEXT = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()


def test_every_documented_file_of_the_state_directory_is_removed_by_its_name() -> None:
    table = TEXT[TEXT.index("## State") :].split("\n\n")[1:3]
    rows = [line.split("|")[1] for line in "\n".join(table).splitlines() if line.startswith("| `")]
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
