"""What the frozen Python finds after a doubt: the call, as if it had been executed in the first place."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.launcher.agents import Agent, answer, reply
from tests.launcher.programs import STDIN, Bundle, Outcome, Record, assert_taken_over, finish


def without_ours(environment: list[bytes]) -> list[bytes]:
    """An environment without what the launcher adds for the fallback."""
    ours = (b"AZVNET_AGENT=", b"AZVNET_CALL_ID=")
    return [entry for entry in environment if not entry.startswith(ours)]


HARDENED = """
[ ! -e /proc/sys/vm/memfd_noexec ] || echo 2 > /proc/sys/vm/memfd_noexec || exit 1
exec "$@"
"""


def test_the_copy_of_stdin_can_never_be_executed_where_the_kernel_knows_that(shipped: Bundle) -> None:
    with Agent(shipped.socket, answer(reply(kind=1))):
        shipped.run(input=STDIN)
    f_seal_exec = 0x20
    known = Path("/proc/sys/vm/memfd_noexec").exists()
    assert bool(shipped.fallback().seals & f_seal_exec) == known


def test_stdin_is_given_back_on_a_node_that_refuses_executable_memory_files(shipped: Bundle) -> None:
    """sysctl vm.memfd_noexec=2, which is one of each PID namespace."""
    isolated: list[str | Path] = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        HARDENED,
        "sh",
    ]
    with Agent(shipped.socket, answer(reply(kind=1))) as agent:
        done = subprocess.run(
            [*isolated, shipped.launcher], env=shipped.environment(), input=STDIN, stdout=-1, check=False
        )
    assert agent.only().stdin == STDIN
    assert_taken_over(shipped, Outcome(done.returncode, done.stdout, b"", 0), b"none")


@contextmanager
def blocked(number: signal.Signals) -> Iterator[None]:
    """Programs started in here inherit a blocked signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("restore_signals", [True, False], ids=["sigpipe-kills", "sigpipe-ignored"])
@pytest.mark.parametrize("after_a_try", [False, True], ids=["no-agent", "agent-lost"])
def test_the_fallback_is_started_as_if_directly(
    bundle: Bundle, tmp_path: Path, restore_signals: bool, after_a_try: bool
) -> None:
    directory = tmp_path / "the working directory"
    directory.mkdir()
    environment = bundle.environment(ODD=b"\xff\n", AZVNET_CALL_ID="1" * 32, CNI_NETNS="/proc/self/ns/net")
    read, write = os.pipe()

    def run(program: Path) -> Record:
        with blocked(signal.SIGUSR1):
            done = bundle.run(
                input=STDIN,
                name="odd name/azvnet-ipam",
                program=program,
                environment=environment,
                pass_fds=[read, write],
                restore_signals=restore_signals,
                cwd=directory,
            )
        assert done.code == 42
        return bundle.fallback()

    direct = run(bundle.python)
    if after_a_try:
        with Agent(bundle.socket, answer(reply(b"{}")[:-1])) as agent:
            through = run(bundle.launcher)
        assert len(agent.heard) == 1
    else:
        through = run(bundle.launcher)
    os.close(read)
    os.close(write)
    assert through.argv == direct.argv == [b"odd name/azvnet-ipam"]
    assert without_ours(through.environment) == without_ours(direct.environment)
    assert through.variable(b"AZVNET_CALL_ID") == b"1" * 32
    assert through.stdin == direct.stdin == STDIN
    assert through.cwd == direct.cwd == str(directory)
    assert through.signals == direct.signals
    assert set(through.descriptors) == set(direct.descriptors) == {0, 1, 2, read, write}
    assert through.descriptors[read] == direct.descriptors[read]
    assert through.descriptors[0].startswith("/memfd:stdin" if after_a_try else "pipe:")


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- >&-"])
def test_standard_streams_that_are_closed_are_found_closed(bundle: Bundle, streams: str) -> None:
    def run(program: Path) -> Record:
        shell: list[str | Path] = ["/bin/sh", "-c", f'exec "$@" {streams}', "sh", program]
        subprocess.run(shell, env=bundle.environment(), stdin=subprocess.DEVNULL, check=False)
        return bundle.fallback()

    direct = run(bundle.python)
    with Agent(bundle.socket, answer(reply(b"{}"))) as agent:
        through = run(bundle.launcher)
    assert set(through.descriptors) == set(direct.descriptors)
    assert agent.heard == []
    assert through.agent == b"none"


def test_a_stdin_that_cannot_be_read_is_left_to_the_fallback(bundle: Bundle, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with Agent(bundle.socket, lambda *_: None):
        process = bundle.start(stdin=directory)
        os.close(directory)
        assert finish(process).code == 42
    record = bundle.fallback()
    assert record.agent == b"none"
    assert record.descriptors[0] == str(tmp_path)


def test_a_word_on_the_agent_from_outside_is_replaced(bundle: Bundle) -> None:
    done = bundle.run(input=STDIN, environment=bundle.environment(AZVNET_AGENT="hung"))
    assert_taken_over(bundle, done, b"none")


@pytest.mark.parametrize("arguments", [["status"], ["agent", "--config", "\udcff"], [""]])
def test_a_subcommand_goes_to_python_untouched_even_in_a_runtimes_environment(
    bundle: Bundle, arguments: list[str]
) -> None:
    environment = bundle.environment(AZVNET_AGENT="hung", AZVNET_CALL_ID="")
    with Agent(bundle.socket, answer(reply(b"{}"))) as agent:
        assert bundle.run(*arguments, input=STDIN, environment=environment).code == 42
    assert not agent.connected.is_set()
    record = bundle.fallback()
    assert record.argv == [os.fsencode(bundle.launcher), *map(os.fsencode, arguments)]
    assert record.environment == [b"%b=%b" % pair for pair in environment.items()]
    assert record.stdin == STDIN


def test_a_start_without_a_cni_command_goes_to_python_untouched(bundle: Bundle) -> None:
    environment = bundle.environment(CNI_COMMAND=None, XCNI_COMMAND="ADD", CNI_COMMANDS="ADD")
    with Agent(bundle.socket, answer(reply(b"{}"))) as agent:
        assert bundle.run(input=STDIN, environment=environment).code == 42
    assert not agent.connected.is_set()
    assert bundle.fallback().environment == [b"%b=%b" % pair for pair in environment.items()]


def test_python_is_found_beside_the_file_itself_through_any_links(bundle: Bundle, tmp_path: Path) -> None:
    installed = tmp_path / "opt" / "azvnet"
    installed.mkdir(parents=True)
    (installed / "current").symlink_to(bundle.directory)
    bin_directory = tmp_path / "opt" / "cni" / "bin"
    bin_directory.mkdir(parents=True)
    (bin_directory / "azvnet-ipam").symlink_to("../../azvnet/current/azvnet-ipam")
    done = bundle.run(program=bin_directory / "azvnet-ipam")
    assert done.code == 42
    assert bundle.fallback().argv == [os.fsencode(bin_directory / "azvnet-ipam")]
