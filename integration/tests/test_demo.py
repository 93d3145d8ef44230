"""``make demo`` tells the truth by its exit code, and plain text where nobody sees colours."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

from integration import demo, plugins
from integration.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BROKEN = """#!/bin/sh
echo '{"cniVersion": "1.0.0", "code": 100, "msg": "out of order"}'
exit 1
"""


def test_demo_holds_all_its_checks_and_prints_no_escape_codes_into_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "integration.demo", "--pods", "1"],
        capture_output=True,
        text=True,
        cwd=demo.CONFLIST.parents[1],
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 of 10 checks held" in done.stdout
    assert "\x1b" not in done.stdout
    assert "node2/pod-1" in done.stdout
    assert "azvnet show demo/pod-1" in done.stdout
    assert "IP config" in done.stdout


def test_demo_fails_with_the_plugins_words_when_a_pod_gets_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "azvnet"
    broken.write_text(BROKEN)
    broken.chmod(0o755)
    monkeypatch.setattr(plugins, "BUNDLE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo", "--pods", "1"])

    assert demo.main() == 1
    assert "out of order" in capsys.readouterr().out


def test_demo_says_how_to_build_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugins, "BUNDLE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo"])

    assert demo.main() == 1
    assert "make build" in capsys.readouterr().out


def test_one_failed_check_is_counted_and_shown() -> None:
    stream = io.StringIO()
    shown = demo.Demo(Screen(stream), 1)
    shown.check("this holds", ok=True, detail="never shown")
    shown.check("this does not", ok=False, detail="because")

    assert (shown.checks, shown.failures) == (2, 1)
    assert "never shown" not in stream.getvalue()
    assert "this does not: because" in stream.getvalue()


def test_table_is_aligned_also_with_colours_in_it() -> None:
    stream = io.StringIO()
    Screen(stream).table(["a", "bb"], [["\x1b[32mlong\x1b[0m", "1"], ["x", "22"]], right=frozenset({1}))

    lines = stream.getvalue().replace("\x1b[32m", "").replace("\x1b[0m", "").splitlines()
    assert lines == ["  a     bb", "  ----  --", "  long   1", "  x     22"]
