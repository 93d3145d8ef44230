"""The launcher is what it promises to be: small, static, without a heap, the same wherever it is built."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

from tests.launcher import programs
from tests.launcher.agents import Agent
from tests.launcher.programs import Bundle, finish
from tests.launcher.test_doubt import silent
from tests.waiting import Syscall, eventually, waits_in

WHAT_IT_CALLS = set(
    re.findall(
        r"\w+",
        """
        __errno_location _exit clock_gettime connect dup2 environ execve getenv getrandom getsockopt
        lseek memcmp memcpy memfd_create open poll read readlink recv sendmsg setsockopt signal socket stpcpy
        strchr strcmp strcpy strerror strlen strncmp strrchr write
        """,
    )
)
HELPS_OF_THE_COMPILER = {"__stack_chk_fail", "memset"}


def test_it_has_at_most_200_lines_that_fit_a_page() -> None:
    lines = (programs.SOURCE / "launcher.c").read_text().splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 110


def test_it_calls_nothing_that_allocates_or_formats(tmp_path: Path) -> None:
    object_file = tmp_path / "launcher.o"
    subprocess.run(
        [programs.BUILD, object_file, "-c"], env=os.environ | {"LINK": "-fno-pie", "STRIP": "no"}, check=True
    )
    listed = subprocess.run(["nm", "-u", object_file], stdout=subprocess.PIPE, text=True, check=True).stdout
    called = {line.split()[-1] for line in listed.splitlines()}
    assert called <= WHAT_IT_CALLS | HELPS_OF_THE_COMPILER
    assert "write" in called


def test_it_is_static_at_a_fixed_place_and_has_no_executable_stack(builds: dict[str, Path]) -> None:
    image = builds["shipped"].read_bytes()
    kind, _machine, _version, _entry, offset = struct.unpack_from("<HHIQQ", image, 16)
    size, count = struct.unpack_from("<HH", image, 54)
    headers = [struct.unpack_from("<II", image, offset + size * number) for number in range(count)]
    assert image[:4] == b"\x7fELF"
    assert kind == 2  # ET_EXEC
    types = {kind for kind, _flags in headers}
    assert not types & {2, 3}  # PT_DYNAMIC, PT_INTERP
    assert [flags & 1 for kind, flags in headers if kind == 0x6474E551] == [0]  # PT_GNU_STACK
    assert len(image) < 1_000_000


def test_it_is_the_same_wherever_it_is_built(builds: dict[str, Path], tmp_path: Path) -> None:
    elsewhere = shutil.copytree(programs.SOURCE, tmp_path / "another place" / "launcher")
    subprocess.run([elsewhere / "build.sh", "again"], cwd=tmp_path, check=True)
    assert (tmp_path / "again").read_bytes() == builds["shipped"].read_bytes()


def test_the_compilers_own_analysis_finds_nothing(tmp_path: Path) -> None:
    subprocess.run([programs.BUILD, tmp_path / "analysed", "-fanalyzer"], check=True)


def test_the_build_script_passes_shellcheck() -> None:
    subprocess.run(["shellcheck", programs.BUILD], check=True)


def test_the_shipped_launcher_grants_an_agent_25_seconds(shipped: Bundle) -> None:
    with Agent(shipped.socket, silent) as agent:
        process = shipped.start()
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        eventually(lambda: agent.heard, "the request is there")
        poll = eventually(lambda: waits_in(process.pid, Syscall.POLL), "it waits for the reply")
        assert 20_000 < poll[3] <= 25_000
        process.kill()
        finish(process)
