"""Running the bundle: plainly, watched by strace, and in a root file system of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STRACE = shutil.which("strace") or "strace"
VERSION_REPLY_KEYS = {"cniVersion", "supportedVersions"}
VERSION = {"CNI_COMMAND": "VERSION"}
CONFIGURATION = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "azvnet"})

_OPENED = re.compile(r'\bopen(?:at)?\((?:AT_FDCWD, )?"([^"]+)", ([A-Z_|]+)[^)]*\) = \d+')
_EXECUTED = re.compile(r'\bexecve\("([^"]+)".* = 0$')


@dataclass(frozen=True)
class Bundle:
    """A copy of the bundle."""

    path: Path

    @property
    def azvnet(self) -> Path:
        return self.path / "azvnet"

    @property
    def ipam(self) -> Path:
        return self.path / "azvnet-ipam"

    @property
    def python(self) -> Path:
        """The frozen interpreter: what the launcher gives way to."""
        return self.path / "azvnet-python"

    @property
    def contents(self) -> Path:
        return self.path / "azvnet-lib"

    def files(self) -> Iterator[Path]:
        return (path for path in sorted(self.path.rglob("*")) if path.is_file() and not path.is_symlink())

    def elves(self) -> Iterator[Path]:
        for path in self.files():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def run(
    program: Path | str,
    environ: Mapping[str, str] | None = None,
    stdin: str = CONFIGURATION,
    arguments: Sequence[str] = (),
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program with exactly this environment."""
    return subprocess.run(
        [program, *arguments],
        input=stdin,
        env=dict(VERSION if environ is None else environ),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def is_version_reply(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether the call succeeded and printed one VERSION document and nothing else."""
    return done.returncode == 0 and set(json.loads(done.stdout)) == VERSION_REPLY_KEYS


@dataclass(frozen=True)
class Trace:
    """What strace saw of a program and everything it started."""

    text: str
    done: subprocess.CompletedProcess[str]

    @property
    def opened(self) -> set[str]:
        """Files that were opened."""
        return {match[1] for match in _OPENED.finditer(self.text)}

    @property
    def opened_for_writing(self) -> set[str]:
        return {
            m[1]
            for m in _OPENED.finditer(self.text)
            if {"O_WRONLY", "O_RDWR", "O_CREAT"} & set(m[2].split("|"))
        }

    @property
    def executed(self) -> list[str]:
        """Programs that were executed."""
        return [match[1] for line in self.text.splitlines() if (match := _EXECUTED.search(line))]

    @property
    def processes(self) -> int:
        """How many processes there were; threads are not counted."""
        forks = re.findall(r"\b(?:fork|vfork|clone3?)\((.*)= \d+", self.text)
        return 1 + sum("CLONE_THREAD" not in arguments for arguments in forks)


def watched(
    program: Path | str,
    log: Path,
    environ: Mapping[str, str] | None = None,
    stdin: str = CONFIGURATION,
    arguments: Sequence[str] = (),
) -> Trace:
    """Run a program under strace, with exactly this environment."""
    strace = ["-f", "-qq", "-o", str(log), "-s", "4096", "-e", "trace=file,process,desc", "-e", "signal=none"]
    done = run(STRACE, environ, stdin, [*strace, str(program), *arguments])
    return Trace(log.read_text(errors="replace"), done)


@dataclass(frozen=True)
class Sealed:
    """What an ADD and a DEL did on a node with nothing on it."""

    folder: Path

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def trace(self) -> Trace:
        done = subprocess.CompletedProcess[str]([], int(self.text("add.code")), self.text("add.json"), "")
        return Trace((self.folder / "trace").read_text(errors="replace"), done)


def sealed(
    bundle: Bundle, scratch: Path, program: str = "azvnet", tmp: str = "missing", *, traced: bool = False
) -> Sealed:
    """Run ``sealed.sh``."""
    script = Path(__file__).with_name("sealed.sh")
    trace = [str(scratch / "trace")] if traced else []
    command = [
        "unshare",
        "--mount",
        "--net",
        str(script),
        str(bundle.path),
        program,
        str(scratch),
        tmp,
        *trace,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return Sealed(scratch)
