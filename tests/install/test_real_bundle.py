"""The bundle as it is shipped, installed by itself."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.install.conftest import Nursery
from tests.install.forge import MANIFEST, ROOT, Forge, number_of
from tests.install.node import CALL, Node, run, tree

BUNDLE = ROOT / "dist" / "azvnet"


@pytest.fixture(scope="session")
def bundle() -> Path:
    if not (BUNDLE / MANIFEST).exists():
        pytest.fail("there is no dist/azvnet: run make build")
    return BUNDLE


def carry_out(node: Node, program: Path, command: Sequence[str]) -> str:
    """A command line of the frozen program; what it said."""
    done = run([str(program), *command], node.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def versions_answered(node: Node) -> list[str]:
    """What the installed program answers to VERSION."""
    program = node.bin_dir / "azvnet"
    done = subprocess.run([program], env=CALL, input=b"", capture_output=True, timeout=60, check=True)
    answered: list[str] = json.loads(done.stdout)["supportedVersions"]
    return answered


def test_it_installs_verifies_and_uninstalls_itself(bundle: Path, node: Node) -> None:
    before = tree(node.root)

    assert "is current" in carry_out(node, bundle / "azvnet", node.argv("install"))
    assert "1.1.0" in versions_answered(node)
    installed = node.bin_dir / "azvnet"
    assert "nothing to do" in carry_out(node, installed, node.argv("install"))
    shown = carry_out(node, installed, node.argv("verify"))
    assert "wrong" not in shown
    carry_out(node, installed, node.argv("uninstall"))

    assert tree(node.root) == before


def test_killed_at_any_time_the_old_version_works_and_the_next_run_finishes(
    bundle: Path, forge: Forge, node: Node, nursery: Nursery
) -> None:
    old = forge.bundle()
    node.install(old)
    process = subprocess.Popen([bundle / "azvnet", *node.argv("install")], stdout=subprocess.PIPE)
    time.sleep(random.uniform(0.1, 1))
    process.send_signal(signal.SIGKILL)
    process.communicate()

    if (node.prefix / "current" / "azvnet-lib" / "answer").exists():
        assert node.number() == number_of(old)
    else:
        assert "1.1.0" in versions_answered(node)

    carry_out(node, bundle / "azvnet", node.argv("install"))
    assert "1.1.0" in versions_answered(node)
    assert not node.left_overs()
    carry_out(node, node.bin_dir / "azvnet", node.argv("verify"))
    assert nursery.run(node.argv("install", "--rollback"))["code"] == 0
    assert node.number() == number_of(old)
