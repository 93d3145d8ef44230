"""docs/cnitool.md and docs/walkthrough.md are true: their commands are run, and their output is compared."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import pages, plugins
from integration.pages import Command, Shell, as_shown, commands, normal
from integration.tools import tools

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.fixture
def environ() -> dict[str, str]:
    """What whoever follows a page has; where Go's programs are built may be said by a variable."""
    plugins.bundle()
    tools()
    kept = ("AZVNET_TOOLS_CACHE", "HOME", "GOPATH", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY")
    return ENVIRON | {name: os.environ[name] for name in kept if name in os.environ}


def test_cnitool_page(environ: dict[str, str]) -> None:
    with Shell(environ) as shell:
        for command in commands((pages.DOCS / "cnitool.md").read_text()):
            shell.follow(command)


@pytest.fixture
def demo_node() -> Iterator[list[str]]:
    """How ``make demo ARGS=--keep`` says that its first node is entered."""
    as_with_ampersand = ("env", "--ignore-signal=INT")  # which Ctrl-C must end all the same
    argv = [*as_with_ampersand, sys.executable, "-m", "integration.demo", "--keep", "--pods", "2"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=pages.DOCS.parent) as demo:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:
            lines.append(line)
            found = re.match(r" *node1 +(nsenter .*)", line)
            if found:
                break
        else:
            pytest.fail("".join(lines))
        yield found[1].split()
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)


def test_walkthrough_page(demo_node: list[str], environ: dict[str, str]) -> None:
    # That section is followed in a kind cluster, by integration/kind/tests/test_walk.py.
    on_this_node, _, _ = (pages.DOCS / "walkthrough.md").read_text().partition("\n## On kind\n")
    with Shell(environ, demo_node) as shell:
        for command in commands(on_this_node):
            shell.follow(command)


def test_commands_are_read_with_what_they_print() -> None:
    page = (
        "Text.\n```console\n$ elsewhere\nnot looked at\n# first\n> goes on\nprints\n  two lines\n"
        "# second\n```\n```\n# not a console\n```\n"
    )
    assert list(commands(page)) == [
        Command("first\ngoes on", ("prints", "  two lines")),
        Command("second", ()),
    ]


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        (["eth0 index 2, MTU 1500"], ["eth0  index 17, MTU 1500"], True),
        (["2026-01-01 00:00:00Z, 1s ago"], ["2027-11-30 23:59:59Z, 3m2s ago"], True),
        (["index 104, peer 105"], ["index 104, peer 106"], False),
        (["one", "...", "three"], ["one", "two", "two", "three"], True),
        (["one", "..."], ["two", "one"], False),
        (["10.10.0.5"], ["10.10.0.6"], False),
        (["mtu 1500"], ["mtu 1400"], False),
        ([], ["unexpected"], False),
        (["expected"], [], False),
    ],
)
def test_what_varies_and_nothing_else_may_differ(shown: list[str], printed: list[str], fits: bool) -> None:
    assert as_shown(shown, printed) is fits


def test_a_page_that_is_wrong_is_found(environ: dict[str, str]) -> None:
    with Shell(environ) as shell:
        shell.follow(Command("echo so", ("so",)))
        with pytest.raises(AssertionError, match="instead of"):
            shell.follow(Command("echo so", ("otherwise",)))
        with pytest.raises(AssertionError, match="ended with 3"):
            shell.follow(Command("(exit 3)", ()))


def test_a_page_does_nothing_to_this_machine(environ: dict[str, str]) -> None:
    with Shell(environ) as shell:
        shell.follow(Command("ip -brief link | wc -l", ("1",)))
        for space in ("net", "mnt"):
            code, printed = shell.run(f"readlink /proc/$$/ns/{space}")
            assert code == 0
            assert normal(printed) != [str(Path(f"/proc/self/ns/{space}").readlink())]
