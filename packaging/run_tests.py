"""Runs the layers of tests one after the other and closes with one line of counts.

    run_tests.py [--first TARGETS] [--beside TARGETS] [LAYER...] [-- PYTEST ARGUMENT...]

``--beside`` names targets of the Makefile that are made in the background, from the beginning on: programs of
other people, which take long to compile. The layers that need them wait for them, and fail with their output
where that failed. ``--first`` names targets that are made before any test runs.

Every layer runs even when one before it failed. A skipped test counts as failed: what cannot be
checked on this machine is not known to work. Reports go to .cache/reports/LAYER.xml.

The few tests of a layer that failed run once more, alone. Those that pass then are listed as flaky, with
their first failure in the output: a race, in the test or in azvnet, that somebody has to find, but no
reason to stop what has nothing to do with it. AZVNET_TEST_RETRY=0: a failure is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from beside import Beside

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / ".cache" / "reports"
RETRY = os.environ.get("AZVNET_TEST_RETRY", "1") != "0"
TOOLS, PROGRAMS = "tools", "programs"
"""Targets: the reference plugins and runtimes; these and Kubernetes."""
FEW = 5
"""Tests of a layer that may be flaky; if more fail, something is broken."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One directory of tests and in how many processes it runs."""

    name: str
    directory: str
    processes: int
    what: str
    arguments: tuple[str, ...] = ()
    """For pytest, beside the directory."""
    needs: str = ""
    """The target of the Makefile with the programs of other people that it needs."""


LAYERS = (
    Layer(
        "unit",
        "tests/unit",
        2,
        "pure functions, contracts, the store: no root, no kernel",
        ("--hypothesis-profile=deep",),
    ),
    Layer("launcher", "tests/launcher", 2, "the static launcher against a scripted agent"),
    Layer("netns", "tests/netns", 2, "the real kernel, in network namespaces"),
    Layer(
        "launcher-way", "tests/netns", 2, "the same, handed to the agent by the launcher", ("--way=launcher",)
    ),
    Layer("install", "tests/install", 2, "install, uninstall and verify, on a node's directories"),
    Layer("bundle", "tests/bundle", 2, "the frozen executable as a file on a node"),
    Layer("image", "tests/image", 2, "the container image and its bill of materials"),
    # From here on with programs of other people, which take long to compile: behind all that do without them.
    Layer(
        "integration",
        "integration/tests",
        2,
        "emulated nodes, cnitool, containerd, reference plugins",
        needs=TOOLS,
    ),
    Layer("chart", "tests/chart", 2, "the Helm chart and the plain manifests", needs=PROGRAMS),
    Layer(
        "apiserver",
        "integration/apiserver",
        2,
        "a real API server without a kubelet; CoreDNS",
        needs=PROGRAMS,
    ),
    # One process: its tests share one cluster.
    Layer("e2e", "integration/e2e", 0, "a real Kubernetes on emulated nodes", ("--timeout=600",), PROGRAMS),
    # Behind e2e and in one process: its clusters and those of e2e need more inotify instances than there are.
    Layer("kind", "integration/kind", 0, "a real kind cluster, what it leaves", ("--timeout=900",), PROGRAMS),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a layer came to."""

    layer: Layer
    passed: int
    failed: int
    skipped: int
    seconds: float
    flaky: tuple[str, ...] = ()
    """Tests that failed, and passed when they ran alone."""


def main() -> int:
    """The command line."""
    options, extra = parsed(sys.argv[1:])
    known = {layer.name: layer for layer in LAYERS}
    if lost := outside_layers():
        print(f"run_tests: tests that no layer runs: {', '.join(lost)}", file=sys.stderr)
        return 2
    if unknown := set(options.layers) - set(known):
        print(
            f"run_tests: no layer {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr
        )
        return 2
    REPORTS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, terminated)
    with contextlib.ExitStack() as stack:
        made = {name: Beside(name, make([name]), REPORTS / f"{name}.log") for name in options.beside}
        for each in made.values():
            stack.enter_context(each)
        if options.first and (code := subprocess.run(make(options.first), cwd=ROOT, check=False).returncode):
            return code
        return report([outcome(known[name], extra, made) for name in options.layers or known])


def parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what is for pytest."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=str.split, default=[], metavar="TARGETS")
    parser.add_argument("--beside", type=str.split, default=[], metavar="TARGETS")
    parser.add_argument("layers", nargs="*", metavar="LAYER")
    return parser.parse_args(arguments[:at]), list(arguments[at + 1 :])


def make(targets: Sequence[str]) -> list[str]:
    """The command that makes targets. ARGS are for pytest, and would reach them through MAKEFLAGS."""
    return ["make", "--no-print-directory", "ARGS=", *targets]


def terminated(number: int, _frame: object) -> NoReturn:
    """End as after Ctrl-C, so that what runs in the background ends as well."""
    sys.exit(128 + number)


def outcome(layer: Layer, extra: list[str], made: Mapping[str, Beside]) -> Outcome:
    """What a layer comes to, when what it needs is there; without that it has failed."""
    needed = made.get(layer.needs)
    if needed is not None:
        needed.wait()
    for each in made.values():
        print(f"    {each.stands()}", flush=True)
    if needed is not None and needed.failed:
        print(f"{needed.why()}\nrun_tests: without it there are no {layer.name} tests", file=sys.stderr)
        return Outcome(layer, 0, 1, 0, 0.0)
    return run(layer, extra)


def outside_layers() -> list[str]:
    """Test files that stand in no directory of a layer."""
    found = [
        path.relative_to(ROOT) for top in ("tests", "integration") for path in (ROOT / top).rglob("test_*.py")
    ]
    known = [layer.directory for layer in LAYERS]
    return sorted(str(path) for path in found if not any(map(path.is_relative_to, known)))


def run(layer: Layer, extra: list[str]) -> Outcome:
    """Run one layer with pytest, and what failed of it once more."""
    print(f"==> {layer.name} tests: {layer.what}", flush=True)
    started = time.monotonic()
    path = REPORTS / f"{layer.name}.xml"
    code = pytest(layer, path, ["--cache-clear", "-n", str(layer.processes), *extra])
    passed, failed, skipped = counts(path)
    flaky: tuple[str, ...] = ()
    if RETRY and code == 1 and 0 < failed <= FEW:
        print(f"==> {layer.name} tests: what failed, once more and alone", flush=True)
        again = REPORTS / f"{layer.name}-again.xml"
        if pytest(layer, again, ["--last-failed", "-n", "0", *extra]) in (0, 1) and again.exists():
            bad = {name for name, good in verdicts(path).items() if not good}
            flaky = tuple(sorted(name for name, good in verdicts(again).items() if good and name in bad))
            passed, failed = passed + len(flaky), len(bad) - len(flaky)
    elif code != 0 and failed == 0:
        print(f"run_tests: pytest ended with code {code} in the {layer.name} layer", file=sys.stderr)
        failed = 1
    return Outcome(layer, passed, failed, skipped, time.monotonic() - started, flaky)


def pytest(layer: Layer, report_path: Path, arguments: list[str]) -> int:
    """Run a layer's directory with pytest; returns its exit code."""
    report_path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--durations=5", "--durations-min=1"]
    command += [f"--junitxml={report_path}", "--dist=loadgroup", *layer.arguments, *arguments]
    return subprocess.run([*command, layer.directory], cwd=ROOT, check=False).returncode


def verdicts(path: Path) -> dict[str, bool]:
    """The tests of a JUnit report by name: whether each passed, with its fixtures."""
    found: dict[str, bool] = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = case.find("failure") is not None or case.find("error") is not None
        found[name] = found.get(name, True) and not bad
    return found


def counts(path: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit report; nothing when there is none."""
    if not path.exists():
        return 0, 0, 0
    passed = failed = skipped = 0
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        left_out = int(suite.get("skipped", 0))
        passed += int(suite.get("tests", 0)) - bad - left_out
        failed += bad
        skipped += left_out
    return passed, failed, skipped


def report(outcomes: list[Outcome]) -> int:
    """Print the table and the closing line; returns the exit code."""
    print(f"\n{'layer':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for each in outcomes:
        row = f"{each.layer.name:<14}{each.passed:>8}{each.failed:>8}{each.skipped:>9}{each.seconds:>9.0f}"
        print(row)
    passed = sum(each.passed for each in outcomes)
    skipped = sum(each.skipped for each in outcomes)
    failed = sum(each.failed for each in outcomes) + skipped
    for each in outcomes:
        for name in each.flaky:
            print(f"flaky in {each.layer.name}: {name} failed, and passed alone", file=sys.stderr)
    if skipped:
        print(f"{skipped} skipped tests count as failed: this machine lacks what they need", file=sys.stderr)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
