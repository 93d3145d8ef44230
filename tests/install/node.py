"""A node made of folders, and installing on it: here, or in a process that can be killed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from cni_plugin import cli
from tests.install.forge import ROOT

CALL = {"CNI_COMMAND": "VERSION", "AZVNET_RUN_DIR": "/nonexistent/azvnet"}
COMMAND = (sys.executable, "-m", "cni_plugin.entry")
LONG = 1000.0


@dataclass(frozen=True)
class Node:
    """Where the three folders of an installation are below one."""

    root: Path
    seen_through: Path = Path("/")
    """Where the installer sees the node's root: another folder than ``/`` when it is in a container."""

    @property
    def prefix(self) -> Path:
        return self.root / "opt" / "azvnet"

    @property
    def bin_dir(self) -> Path:
        return self.root / "opt" / "cni" / "bin"

    @property
    def conf_dir(self) -> Path:
        return self.root / "etc" / "cni" / "net.d"

    @property
    def command_dir(self) -> Path:
        return self.root / "usr" / "local" / "bin"

    @property
    def conflist(self) -> Path:
        return self.conf_dir / "10-azvnet.conflist"

    @property
    def places(self) -> list[str]:
        """As arguments."""
        return [
            f"--prefix={self.prefix}",
            f"--bin-dir={self.bin_dir}",
            f"--conf-dir={self.conf_dir}",
            f"--command-dir={self.command_dir}",
            *([] if self.seen_through == Path("/") else [f"--root={self.seen_through}"]),
        ]

    def furnish(self) -> Node:
        """What a node with another plugin has."""
        self.bin_dir.mkdir(parents=True)
        self.conf_dir.mkdir(parents=True)
        (self.bin_dir / "portmap").write_text("another plugin")
        (self.conf_dir / "87-podman.conflist").write_text('{"name": "podman", "plugins": []}')
        return self

    def argv(self, command: str, *arguments: str | Path) -> list[str]:
        return [command, *self.places, *map(str, arguments)]

    def run(self, command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Carry it out."""
        argv = self.argv(command, *arguments)
        out, err = io.StringIO(), io.StringIO()
        umask = os.umask(0o077)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("AZVNET_RUN_DIR", str(self.root / "run"))
            patch.setenv("AZVNET_LOG_FILE", str(self.root / "log" / "azvnet.log"))
            code = cli.run(argv)
        os.umask(umask)
        return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())

    def install(self, bundle: Path, *arguments: str | Path) -> str:
        """Install, successfully; returns what was said."""
        done = self.run("install", f"--bundle={bundle}", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def number(self, name: str = "azvnet") -> int:
        """Which bundle answers when a runtime calls."""
        done = subprocess.run(
            [self.bin_dir / name], env=CALL, input=b"", capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 0, (done.returncode, done.stderr)
        number: int = json.loads(done.stdout)["number"]
        return number

    @property
    def versions(self) -> dict[int, Path]:
        """Installed versions by number."""
        folders = (self.prefix / "versions").glob("[0-9]*")
        return {json.loads((each / "azvnet-lib" / "answer").read_text())["number"]: each for each in folders}

    def let_rest(self) -> None:
        """As if all versions were left long ago, in the order in which they were."""
        self.let_rest_but(0)

    def let_rest_but(self, newest: int) -> None:
        """The same, but for the newest: calls may be about to open their files."""
        numbers = sorted(self.versions)
        for folder in map(self.versions.__getitem__, numbers[: len(numbers) - newest]):
            left = folder.stat().st_mtime
            if left:
                os.utime(folder, (left - LONG, left - LONG))

    def left_overs(self) -> list[Path]:
        """What an installer that was killed left."""
        return [path for path in self.root.rglob(".*") if path.name != ".lock"]


def run(argv: Sequence[str], run_dir: Path) -> subprocess.CompletedProcess[str]:
    """A program, with the sources' modules and a state directory of its own."""
    environ = {
        **os.environ,
        "AZVNET_RUN_DIR": str(run_dir / "run"),
        "AZVNET_LOG_FILE": str(run_dir / "log" / "azvnet.log"),
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }
    return subprocess.run(
        argv,
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder: kind, mode, owner, content."""
    return dict(_tree(folder))


def _tree(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(found.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = ""
        name = str(path.relative_to(folder))
        yield name, f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid} {content}"
