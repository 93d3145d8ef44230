"""``azvnet operator`` at the command line: bad input is one line and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def azvnet(*arguments: str, before: str = "pass") -> subprocess.CompletedProcess[str]:
    code = f"import sys; {before}; from cni_plugin.cli import run; sys.exit(run(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )


def test_help_says_where_the_settings_are_documented() -> None:
    done = azvnet("operator", "--help")
    assert done.returncode == 0
    assert "docs/operator.md" in done.stdout


def test_a_bad_setting_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    path.write_text('{"workers": 0}')
    done = azvnet("operator", "--config", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"azvnet operator: {path}: workers")
    assert done.stderr.count("\n") == 1


def test_outside_of_a_cluster_it_says_what_is_missing() -> None:
    done = azvnet("operator")
    assert done.returncode == 2
    assert done.stderr.startswith("azvnet operator: no kubeconfig, and not in a pod")
    assert done.stderr.count("\n") == 1


def test_a_bundle_without_it_says_where_it_is() -> None:
    done = azvnet("operator", before="sys.modules['kubernetes'] = None")
    assert done.returncode == 2
    assert done.stderr == "azvnet operator: not in this bundle; use the image azvnet-operator\n"
