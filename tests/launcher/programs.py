"""Launchers as the tests run them: how each kind is built, a bundle around one, what its fallback saw."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "packaging" / "launcher"
BUILD = SOURCE / "build.sh"

STDIN = b'{"cniVersion":"1.1.0"}\n'
"""What a call has on its stdin where it does not matter."""

IMPATIENT_SECONDS = 0.4
"""The deadline for a reply of the builds that are called impatient."""

SANITISE = "-g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
_WRAPPED = "-Wl,--wrap=read,--wrap=write,--wrap=recv,--wrap=sendmsg,--wrap=poll,--wrap=memfd_create"
_IMPATIENT = f"-DREPLY_DEADLINE_MS={int(IMPATIENT_SECONDS * 1000)}"


@dataclass(frozen=True)
class Kind:
    """One way to build the launcher: flags, and how it is linked when not as it is shipped."""

    flags: tuple[str, ...] = ()
    link: str | None = None


KINDS = {
    "shipped": Kind(),
    "sanitised": Kind((str(HERE / "sanitised.c"),), SANITISE),
    "interrupted": Kind((str(HERE / "adverse.c"), _WRAPPED)),
    "impatient": Kind((_IMPATIENT,)),
    "impatient-sanitised": Kind((_IMPATIENT, str(HERE / "sanitised.c")), SANITISE),
}


def build(kind: str, directory: Path) -> Path:
    """Build one kind of launcher with the script that builds the shipped one."""
    out = directory / kind
    environment = dict(os.environ)
    link = KINDS[kind].link
    if link is not None:
        environment |= {"LINK": link, "STRIP": "no"}
    subprocess.run([BUILD, out, *KINDS[kind].flags], env=environment, check=True)
    return out


def build_recorder(directory: Path) -> Path:
    """Build what stands in the place of the frozen Python."""
    out = directory / "recorder"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", out, HERE / "recorder.c"], check=True)
    return out


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    stdout: bytes
    stderr: bytes
    seconds: float


@dataclass(frozen=True)
class Record:
    """What the program in the place of the frozen Python was started with."""

    argv: list[bytes]
    environment: list[bytes]
    stdin: bytes | None
    cwd: str
    descriptors: dict[int, str]
    seals: int
    """Of stdin, F_GET_SEALS of fcntl(2); -1 when it is no file in memory."""
    signals: dict[str, str]
    """Of /proc/PID/status: what is blocked, ignored and pending."""

    @property
    def agent(self) -> bytes | None:
        """The launcher's word on the agent."""
        return self.variable(b"AZVNET_AGENT")

    def variable(self, name: bytes) -> bytes | None:
        """The value of a variable that is there at most once."""
        values = [entry.partition(b"=")[2] for entry in self.environment if entry.startswith(name + b"=")]
        assert len(values) <= 1, values
        return values[0] if values else None


@dataclass(frozen=True)
class Bundle:
    """A directory as it is installed: launcher, and a recorder as the frozen Python beside it."""

    directory: Path
    run_dir: Path

    @classmethod
    def make(cls, directory: Path, launcher: Path, recorder: Path, run_dir: Path) -> Bundle:
        """Put copies into a new directory."""
        directory.mkdir(parents=True)
        shutil.copy(launcher, directory / "azvnet")
        (directory / "azvnet-ipam").symlink_to("azvnet")
        shutil.copy(recorder, directory / "azvnet-python")
        return cls(directory, run_dir)

    @property
    def launcher(self) -> Path:
        """What the runtime executes."""
        return self.directory / "azvnet"

    @property
    def python(self) -> Path:
        """What the launcher falls back to."""
        return self.directory / "azvnet-python"

    @property
    def socket(self) -> Path:
        """Where the agent is looked for."""
        return self.run_dir / "agent.sock"

    def environment(self, **variables: str | bytes | None) -> dict[bytes, bytes]:
        """A call's environment: ADD with this run directory; None takes a variable away."""
        given = {"CNI_COMMAND": "ADD", "AZVNET_RUN_DIR": str(self.run_dir), "PATH": os.environ["PATH"]}
        merged: Mapping[str, str | bytes | None] = given | variables
        return {os.fsencode(name): os.fsencode(value) for name, value in merged.items() if value is not None}

    def start(
        self,
        *arguments: str | bytes,
        name: str | bytes | None = None,
        program: Path | None = None,
        environment: Mapping[bytes, bytes] | None = None,
        stdin: int | IO[bytes] | None = subprocess.PIPE,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
        restore_signals: bool = True,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start the launcher, under another name (argv[0]) if one is given."""
        program = program or self.launcher
        return subprocess.Popen(
            [name if name is not None else str(program), *arguments],
            executable=str(program),
            env=self.environment() if environment is None else environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            restore_signals=restore_signals,
            cwd=cwd,
        )

    def run(
        self,
        *arguments: str | bytes,
        input: bytes = b"",  # noqa: A002 - as subprocess calls it
        name: str | bytes | None = None,
        program: Path | None = None,
        environment: Mapping[bytes, bytes] | None = None,
        pass_fds: Sequence[int] = (),
        restore_signals: bool = True,
        cwd: Path | None = None,
    ) -> Outcome:
        """Run the launcher to its end."""
        begin = time.monotonic()
        process = self.start(
            *arguments,
            name=name,
            program=program,
            environment=environment,
            pass_fds=pass_fds,
            restore_signals=restore_signals,
            cwd=cwd,
        )
        return finish(process, input, begin)

    def record(self) -> Record | None:
        """What the fallback was started with; None when there was none. Forgotten afterwards."""
        directory = self.directory / "record"
        if not directory.exists():
            return None
        status = dict(line.split(":\t", 1) for line in (directory / "status").read_text().splitlines())
        stdin = directory / "stdin"
        lines = [line.split(" ", 1) for line in (directory / "descriptors").read_text().splitlines()]
        descriptors = {int(number): target for number, target in lines}
        found = Record(
            argv=_strings(directory / "cmdline"),
            environment=_strings(directory / "environ"),
            stdin=stdin.read_bytes() if stdin.exists() else None,
            cwd=(directory / "cwd").read_text(),
            seals=int(descriptors.pop(-1)),
            descriptors=descriptors,
            signals={name: status[name] for name in ("SigBlk", "SigIgn", "SigPnd", "ShdPnd")},
        )
        shutil.rmtree(directory)
        return found

    def fallback(self) -> Record:
        """The same, where there must have been one."""
        found = self.record()
        assert found is not None, "the launcher did not become the frozen Python"
        return found


def finish(
    process: subprocess.Popen[bytes], given: bytes | None = None, begin: float | None = None
) -> Outcome:
    """Give a started launcher its stdin and wait for its end."""
    begin = time.monotonic() if begin is None else begin
    try:
        stdout, stderr = process.communicate(given, timeout=60)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Outcome(process.returncode, stdout or b"", stderr or b"", time.monotonic() - begin)


def assert_taken_over(bundle: Bundle, done: Outcome, word: bytes, stdin: bytes = STDIN) -> Record:
    """The run ended as the fallback's, with the call untouched and this word on the agent."""
    assert (done.code, done.stdout, done.stderr) == (42, b"recorded\n", b"")
    record = bundle.fallback()
    assert record.agent == word
    assert record.stdin == stdin
    call_id = record.variable(b"AZVNET_CALL_ID")
    assert call_id is not None
    assert len(call_id) == 32
    return record


def _strings(path: Path) -> list[bytes]:
    """Strings that each end with NUL, as procfs shows them."""
    return path.read_bytes().split(b"\0")[:-1]
