"""The threat model claims nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
CLAIMS = TEXT[TEXT.index("## What holds") : TEXT.index("## What it depends on")]


def test_every_guarantee_names_tests_that_exist() -> None:
    defined = {
        name
        for folder in ("tests", "integration")
        for path in (ROOT / folder).rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    rows = [line for line in CLAIMS.splitlines() if line.startswith("|")]
    guarantees = [row for row in rows if not re.match(r"\|(---|\s*guarantee)", row)]
    assert len(guarantees) > 15
    for row in guarantees:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, f"no test: {row}"
        assert set(named) <= defined, f"{set(named) - defined} in: {row}"
