"""When not even the frozen Python can be started, the runtime still gets an error that says so."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

import pytest

from tests.launcher.agents import Agent
from tests.launcher.programs import Bundle, finish


def error_of(stdout: bytes) -> dict[str, object]:
    """The one error object that was printed."""
    error = json.loads(stdout)
    assert isinstance(error, dict)
    assert error.keys() == {"cniVersion", "code", "msg"}
    assert (error["cniVersion"], error["code"]) == ("1.0.0", 5)
    return error


@pytest.mark.parametrize("arguments", [[], ["status"]], ids=["call", "subcommand"])
def test_a_missing_python_is_named(bundle: Bundle, arguments: list[str]) -> None:
    bundle.python.unlink()
    done = bundle.run(*arguments)
    assert done.code == 1
    assert error_of(done.stdout)["msg"] == (
        "azvnet: the installation is incomplete, install it again: "
        f"cannot execute {bundle.python}: No such file or directory"
    )


def test_a_python_that_may_not_be_executed_is_named(bundle: Bundle) -> None:
    bundle.python.chmod(0o600)
    assert "azvnet-python: Permission denied" in str(error_of(bundle.run().stdout)["msg"])


def test_a_python_that_is_no_program_is_named(bundle: Bundle) -> None:
    bundle.python.write_bytes(b"\0" * 100)
    assert "azvnet-python: Exec format error" in str(error_of(bundle.run().stdout)["msg"])


@pytest.mark.parametrize("name", ['with "quotes"', "back\\slash", "new\nline", "\x01\x1f control"])
def test_an_odd_path_leaves_the_error_an_object(bundle: Bundle, name: str) -> None:
    odd = bundle.directory.parent / name
    bundle.directory.rename(odd)
    (odd / "azvnet-python").unlink()
    done = bundle.run(program=odd / "azvnet")
    assert "azvnet-python: No such file" in str(error_of(done.stdout)["msg"])


def test_the_error_goes_nowhere_without_death_by_signal(bundle: Bundle) -> None:
    bundle.python.unlink()
    read, write = os.pipe()
    os.close(read)
    process = bundle.start(stdout=write)
    os.close(write)
    assert finish(process).code == 1


def test_a_stdin_without_end_is_refused_within_bounds(shipped: Bundle) -> None:
    with Agent(shipped.socket, lambda *_: None), Path("/dev/zero").open("rb") as endless:
        done = finish(shipped.start(stdin=endless))
    assert done.code == 1
    assert "stdin: File too large" in str(error_of(done.stdout)["msg"])
    assert shipped.record() is None


def test_a_stdin_that_cannot_be_given_back_is_not_forgotten(shipped: Bundle) -> None:
    """No descriptor is left for the copy, because the connection has the last one."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))

    with Agent(shipped.socket, lambda connection, _agent: connection.shutdown(2)):
        done = subprocess.run(
            [shipped.launcher],
            env=shipped.environment(),
            input=b"{}",
            stdout=subprocess.PIPE,
            preexec_fn=limited,
            check=False,
        )
    assert "stdin: No file descriptors available" in str(error_of(done.stdout)["msg"])
