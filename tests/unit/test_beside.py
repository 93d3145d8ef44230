"""What is built in the background of the tests: it ends with their run, and its failure is one of the run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import beside
import pytest
import run_tests
from beside import Beside

from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
NEVER_RUN = run_tests.Layer(
    "needy", "tests/that-are-not-there", 0, "needs programs", needs=run_tests.PROGRAMS
)
TREE = 'sleep 1000 & echo "$$ $!" >"$0"; wait'
"""A build with a compiler below it: it leaves the numbers of both in a file."""
RUNNER = """
import pathlib, signal, sys
sys.path.insert(0, "packaging")
import run_tests
from beside import Beside
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, run_tests.terminated)
with Beside("programs", ["sh", "-c", sys.argv[1], sys.argv[2]], pathlib.Path(sys.argv[3])) as programs:
    programs.wait()
"""


def shell(script: str, log: Path, *arguments: str) -> Beside:
    return Beside("programs", ["sh", "-c", script, *arguments], log)


def pids_in(path: Path) -> list[int]:
    """Those that the tree has written, as soon as it has."""

    def written() -> list[int]:
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    return eventually(written, "it has begun")


def alive(pids: list[int]) -> list[int]:
    """Those that run; who has ended and was not waited for yet does not."""
    states = {}
    for pid in pids:
        try:
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid, state in states.items() if state != "Z"]


def test_a_layer_waits_for_what_it_needs_and_all_of_its_output_is_kept(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    log = tmp_path / "reports" / "programs.log"
    with shell('echo before; read line <"$0"; echo after >&2', log, str(go)) as programs:
        eventually(lambda: log.read_text() == "before\n", "it has begun")
        assert programs.stands() == "programs: before"
        descriptor = os.open(go, os.O_RDWR)
        os.write(descriptor, b"go\n")
        assert programs.wait()
        os.close(descriptor)
        assert programs.stands() == "programs: done"
    assert log.read_text() == "before\nafter\n"


def test_while_a_layer_waits_what_is_built_is_shown(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    # What it waits for comes when it has begun to wait.
    clock = SimpleNamespace(sleep=lambda _: go.touch(), monotonic=time.monotonic)
    monkeypatch.setattr(beside, "time", clock)
    with shell('echo early; until [ -e "$0" ]; do sleep 0.01; done; echo late', log, str(go)) as programs:
        eventually(lambda: log.read_text() == "early\n", "it has begun")
        assert not go.exists()
        assert programs.wait()
    printed = capfdbinary.readouterr().out
    assert b"late\n" in printed
    assert b"early\n" not in printed, "that was seen as the last line before"


def test_a_failed_build_fails_the_layers_that_need_it_with_its_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with shell("echo undefined: yes >&2; exit 3", tmp_path / "log") as programs:
        outcome = run_tests.outcome(NEVER_RUN, [], {run_tests.PROGRAMS: programs})
    assert (outcome.passed, outcome.failed) == (0, 1)
    said = capfd.readouterr()
    assert "undefined: yes" in said.err
    assert "FAILED with code 3" in said.out
    assert run_tests.report([outcome]) == 1


def test_an_error_in_the_run_ends_the_build_and_all_its_processes(tmp_path: Path) -> None:
    pids: list[int] = []

    def broken_run() -> None:
        with shell(TREE, tmp_path / "log", str(tmp_path / "pids")):
            pids.extend(pids_in(tmp_path / "pids"))
            assert alive(pids) == pids
            raise RuntimeError("of the run")

    with pytest.raises(RuntimeError, match="of the run"):
        broken_run()
    eventually(lambda: not alive(pids), "both have ended")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_ends_the_run_ends_the_build(tmp_path: Path, number: signal.Signals) -> None:
    files = [str(tmp_path / name) for name in ("pids", "log")]
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, TREE, *files],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as runner:
        pids = pids_in(tmp_path / "pids")
        runner.send_signal(number)
        assert runner.wait(60) != 0
    eventually(lambda: not alive(pids), "both have ended")


def test_what_is_built_leaves_the_processors_to_the_tests(tmp_path: Path) -> None:
    with shell(TREE, tmp_path / "log", str(tmp_path / "pids")):
        pids = pids_in(tmp_path / "pids")
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids} == {min(19, ours + 19)}


def test_arguments_of_pytest_do_not_reach_what_is_made_before() -> None:
    command = [*run_tests.make(["image"]), "--dry-run"]
    environ = {**os.environ, "MAKEFLAGS": " -- ARGS=--given"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert "packaging/image/build.sh" in done.stdout
    assert "--given" not in done.stdout


def test_layers_that_need_programs_are_behind_all_that_do_not() -> None:
    needed = [layer.needs for layer in run_tests.LAYERS]
    assert needed == sorted(needed, key=["", run_tests.TOOLS, run_tests.PROGRAMS].index)


def test_all_that_is_made_beside_the_tests_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f'--beside "{run_tests.TOOLS} {run_tests.PROGRAMS}"' in makefile
    for name in (run_tests.TOOLS, run_tests.PROGRAMS):
        assert f"\n{name}:" in makefile


def test_a_layer_that_waits_for_the_tools_alone_asks_for_no_program_of_kubernetes() -> None:
    """Such a test would wait until its time is over while Kubernetes is compiled."""
    directories = [layer.directory for layer in run_tests.LAYERS if layer.needs == run_tests.TOOLS]
    assert directories
    asking = re.compile(
        r"tools import .*\bkubernetes|tools\.kubernetes\(|\b(ApiServer|kwok|operator_place)\b"
    )
    for path in (path for each in directories for path in (ROOT / each).rglob("*.py")):
        assert not asking.search(path.read_text()), (
            f"{path.relative_to(ROOT)} belongs into integration/apiserver"
        )
