"""The process itself: its descriptors closed, full or broken, its limits. One document or nothing."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable
from functools import partial

import pytest

from integration.fabric import syscalls as sc
from tests.netns.calls import Executable
from tests.netns.node import LOG_FILE, Node, pod_args
from tests.netns.sandbox import Pod
from tests.waiting import eventually

IO_FAILURE, INTERNAL = 5, 999


Start = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def start(executable: Executable, busy_node: Node) -> Start:
    return partial(_start, executable, busy_node)


def _start(
    executable: Executable,
    node: Node,
    verb: str,
    pod: Pod,
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    closed: tuple[int, ...] = (),
    before: Callable[[], object] | None = None,
) -> tuple[int, bytes, bytes]:
    """A call with pipes, as runtimes make it, and whatever else is asked for; exit code, stdout, stderr."""
    env = {
        **node.environ,
        **executable.environ,
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": pod.container_id,
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": pod_args(pod.container_id),
    }

    def prepare() -> None:
        for fd in closed:
            os.close(fd)
        if before is not None:
            before()

    process = node.sandbox.popen(
        [str(executable.program)],
        env=env,
        stdin=subprocess.PIPE if stdin is None else stdin,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE if stderr is None else stderr,
        before=prepare,
    )
    out, err = process.communicate(json.dumps(node.netconf).encode() if stdin is None else None)
    return process.returncode, out or b"", err or b""


def _open(path: str, flags: int = os.O_RDWR) -> int:
    return os.open(path, flags | os.O_CLOEXEC)


@pytest.fixture
def pod(busy_node: Node) -> Pod:
    return busy_node.sandbox.pod("c1")


def test_a_result_that_finds_no_room_is_no_success_and_leaves_nothing(
    busy_node: Node, start: Start, pod: Pod
) -> None:
    full = _open("/dev/full")
    code, _, err = start("ADD", pod, stdout=full)
    os.close(full)
    assert code > 0
    assert err.strip()
    assert not busy_node.residue()
    busy_node.add(pod).done()


def test_a_result_that_nobody_reads_is_no_success_and_leaves_nothing(
    busy_node: Node, start: Start, pod: Pod
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, _ = start("ADD", pod, stdout=writing)
    os.close(writing)
    assert code > 0, "and it was not ended by SIGPIPE"
    assert not busy_node.residue()
    busy_node.add(pod).done()


def test_a_closed_stdout_is_no_success_and_leaves_nothing(busy_node: Node, start: Start, pod: Pod) -> None:
    code, _, _ = start("ADD", pod, closed=(1,))
    assert code > 0
    assert not busy_node.residue()


@pytest.mark.parametrize("stdout", ["/dev/full", "closed"])
def test_a_version_that_finds_no_room_is_no_success(
    busy_node: Node, start: Start, pod: Pod, stdout: str
) -> None:
    full = None if stdout == "closed" else _open(stdout)
    code, _, _ = start("VERSION", pod, stdout=full, closed=() if full else (1,))
    if full:
        os.close(full)
    assert code > 0


@pytest.mark.parametrize("stderr", ["/dev/full", "closed", "broken"])
def test_what_can_not_be_said_on_stderr_fails_nothing(
    busy_node: Node, start: Start, pod: Pod, stderr: str
) -> None:
    busy_node.netconf["bridge"] = "azure0"  # has no effect, which is worth a warning
    reading, writing = os.pipe()
    os.close(reading)
    given = {"/dev/full": lambda: _open("/dev/full"), "broken": lambda: os.dup(writing)}.get(stderr)
    fd = given() if given else None
    code, out, _ = start("ADD", pod, stderr=fd, closed=() if given else (2,))
    os.close(writing)
    if fd is not None:
        os.close(fd)
    assert code == 0
    assert json.loads(out)["ips"]
    assert busy_node.held() == {"10.10.0.5": "c1"}


def test_with_every_descriptor_closed_nothing_is_written_where_it_does_not_belong(
    busy_node: Node, start: Start, pod: Pod
) -> None:
    code, _, _ = start("ADD", pod, closed=(0, 1, 2))
    assert code > 0
    assert not busy_node.residue()
    busy_node.add(pod).done()


def test_a_closed_stdin_is_an_error_that_says_so(busy_node: Node, start: Start, pod: Pod) -> None:
    code, out, _ = start("ADD", pod, closed=(0,))
    assert code > 0
    assert json.loads(out)["code"] in (5, 6, 7)
    assert not busy_node.residue()


def test_a_stdin_that_can_not_be_read_is_an_input_error(busy_node: Node, start: Start, pod: Pod) -> None:
    not_for_reading = _open("/dev/null", os.O_WRONLY)
    code, out, _ = start("ADD", pod, stdin=not_for_reading)
    os.close(not_for_reading)
    assert code > 0
    assert json.loads(out)["code"] == IO_FAILURE


def test_warnings_go_to_stderr_and_the_document_alone_to_stdout(
    busy_node: Node, start: Start, pod: Pod
) -> None:
    busy_node.netconf |= {"bridge": "azure0", "nonsense": True}
    code, out, err = start("ADD", pod)
    assert code == 0
    assert json.loads(out)["cniVersion"] == "1.1.0"
    assert out.count(b"\n") == 1
    assert b"bridge" in err
    assert b"nonsense" in err


def test_a_crash_inside_is_a_document_and_its_traceback_is_in_the_log_alone(
    busy_node: Node, pod: Pod
) -> None:
    """A sysctl whose value is not text is nothing that the code expects."""
    forwarding = "/proc/sys/net/ipv4/ip_forward"
    busy_node.sandbox.path("/run/not-text").write_bytes(b"\xff\xfe")
    busy_node.sandbox.do(lambda: sc.mount("/run/not-text", forwarding, flags=sc.MS_BIND))
    failed = busy_node.add(pod)
    assert failed.code == INTERNAL
    assert failed.document["cniVersion"] == "1.1.0"
    assert "Traceback" not in failed.stderr
    assert not busy_node.residue()
    eventually(busy_node.log, "the call is logged")
    (record,) = [each for each in busy_node.log() if each["verb"] == "ADD"]
    assert "Traceback" in record["traceback"]
    assert record["call"] in failed.error["details"]
    busy_node.sandbox.do(lambda: sc.unmount(forwarding))
    busy_node.add(pod).done()


def _limit(what: int, value: int) -> Callable[[], object]:
    return lambda: resource.setrlimit(what, (value, value))


LIMITS = [
    *(pytest.param(resource.RLIMIT_NOFILE, count, id=f"{count} files") for count in (4, 6, 8, 10, 12, 16)),
    *(pytest.param(resource.RLIMIT_AS, mib << 20, id=f"{mib} MiB") for mib in (24, 48, 96, 160)),
    pytest.param(resource.RLIMIT_FSIZE, 0, id="no byte in any file"),
    pytest.param(resource.RLIMIT_FSIZE, 20_000, id="small files"),
]


@pytest.mark.alone("the limits are those of the process that carries the call out")
@pytest.mark.parametrize(("what", "value"), LIMITS)
def test_at_any_limit_of_the_process_there_is_one_document_or_nothing(
    busy_node: Node, start: Start, pod: Pod, what: int, value: int
) -> None:
    code, out, err = start("ADD", pod, before=_limit(what, value))
    assert code >= 0, (code, err)
    if code:
        assert not out or json.loads(out)["code"] > 0, out
        assert not busy_node.veths(), err
    else:
        assert json.loads(out)["ips"]
    busy_node.delete(pod).done()
    assert not busy_node.residue()
    busy_node.add(pod).done()


def test_every_call_leaves_one_record_in_the_log(busy_node: Node, pod: Pod) -> None:
    previous = busy_node.add(pod)
    busy_node.check(pod, previous).done()
    busy_node.check(pod, {"ips": []}, env={"CNI_IFNAME": "eth7"})
    busy_node.delete(pod).done()
    eventually(lambda: len(busy_node.log()) == 4, "an agent logs a call when its caller has the answer")
    records = busy_node.log()
    outcomes = sorted((each["verb"], each["exit"]) for each in records)
    assert outcomes == [("ADD", 0), ("CHECK", 0), ("CHECK", 1), ("DEL", 0)]
    assert {each["container"] for each in records} == {"c1"}
    assert len({each["call"] for each in records}) == len(records)
    (failed,) = [each for each in records if each["exit"]]
    assert "eth7" in failed["error"]
    assert busy_node.sandbox.path(LOG_FILE).stat().st_mode & 0o777 == 0o640
