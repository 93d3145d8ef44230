"""The log of calls: bounded, safe among processes, and never in a pod's way (row 35)."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_plugin import log
from integration.fabric import syscalls as sc
from tests.netns.node import LOG_FILE, Node
from tests.netns.sandbox import Sandbox
from tests.waiting import eventually

LOG_DIR = "/var/log/azvnet"


def _replace_log_dir(node: Node, trouble: str) -> None:
    """In one step: an agent writes to its log at any time, and makes the directory where there is none."""
    node.sandbox.path(LOG_DIR).mkdir(exist_ok=True)
    node.sandbox.do(lambda: _replace(trouble))


def _replace(trouble: str) -> None:
    new = Path("/var/log/new")
    file = new / Path(LOG_FILE).name
    if trouble == "a file in its place":
        new.touch()
    else:
        new.mkdir()
    if trouble in FILE_SYSTEMS:
        sc.mount("log", str(new), "tmpfs", *FILE_SYSTEMS[trouble])
    if trouble == "full":
        (new / "ballast").write_bytes(b"x" * 4096)
    elif trouble == "a directory as the file":
        file.mkdir()
    elif trouble == "a link as the file":
        file.symlink_to("/etc/passwd")
    elif trouble == "a pipe as the file":
        os.mkfifo(file)
    if trouble in FILE_SYSTEMS:
        sc.mount(str(new), LOG_DIR, flags=sc.MS_BIND)
    else:
        sc.exchange(str(new), LOG_DIR)


FILE_SYSTEMS = {
    "full": (0, "size=4k"),
    "read-only": (sc.MS_RDONLY, ""),
    "no inodes": (0, "nr_inodes=1"),
}
TROUBLES = [
    *FILE_SYSTEMS,
    "a file in its place",
    "a directory as the file",
    "a link as the file",
    "a pipe as the file",
]


def test_the_error_that_a_caller_gets_names_its_record(bare_node: Callable[..., Node]) -> None:
    """Whoever carried the call out: what the kubelet shows leads to the one line of the log."""
    node = bare_node(addresses=1)
    check_that_errors_name_their_records(node)


@pytest.mark.with_agent("the same through the agent")
def test_the_error_that_the_agent_answers_names_its_record(node: Node) -> None:
    node.list_addresses(1)
    check_that_errors_name_their_records(node)


def check_that_errors_name_their_records(node: Node) -> None:
    node.list_addresses(1)
    pods = node.sandbox.pods("first", "second", "third")
    for pod in pods:
        node.add(pod)
    refused = [node.add(pod).error["details"] for pod in pods]
    eventually(lambda: len(node.log()) == 6, "each has its record")
    records = node.log()
    assert len({record["call"] for record in records}) == 6, "every call has a name of its own"
    for pod, details in zip(pods, refused, strict=True):
        (call,) = re.findall(r"\(call ([0-9a-f]{32})\)", details)
        (record,) = [each for each in records if each["call"] == call]
        assert (record["container"], record["verb"], record["exit"]) == (pod.container_id, "ADD", 1)
        assert record["error"]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_log_that_can_not_be_written_fails_no_call(busy_node: Node, trouble: str) -> None:
    before = Path("/etc/passwd").read_bytes()
    _replace_log_dir(busy_node, trouble)
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod).done()
    busy_node.check(pod, added).done()
    busy_node.delete(pod).done()
    busy_node.status().done()
    assert busy_node.add(pod, ifname="lo").code == 104
    assert not busy_node.residue()
    assert busy_node.sandbox.path("/etc/passwd").read_bytes() == before


def test_many_writers_rotate_one_file_and_lose_no_line_of_the_window(sandbox: Sandbox) -> None:
    """Twenty processes, more than the files may hold: every file is within its bound, every line is whole,
    and what is missing is the oldest.
    """
    path = Path("/var/log/calls.log")
    writers, each = 20, 3000
    padding = "x" * 400

    def write(writer: int) -> None:
        for number in range(each):
            log.write_record(path, "info", "info", writer=writer, number=number, padding=padding)

    running = [sandbox.fork(lambda writer=writer: write(writer)) for writer in range(writers)]  # type: ignore[misc]
    assert [process.wait() for process in running] == [0] * writers
    folder = sandbox.path("/var/log")
    files = sorted(folder.glob("calls.log*"))
    assert [file.name for file in files] == ["calls.log", *(f"calls.log.{n}" for n in range(1, len(files)))]
    assert len(files) == log.KEPT + 1
    # Nobody waits for whoever moves the files up, which takes longer on a busy machine.
    assert all(file.stat().st_size <= log.MAX_BYTES * 1.2 for file in files)
    found: dict[int, list[int]] = {writer: [] for writer in range(writers)}
    for file in reversed(files):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            found[record["writer"]].append(record["number"])
    for numbers in found.values():
        assert numbers == sorted(numbers), "lines stay in their order"
        assert numbers == list(range(numbers[0], each)) if numbers else True, "only the oldest are missing"
    total = sum(map(len, found.values()))
    assert total * (len(padding) + 80) > log.MAX_BYTES * log.KEPT


def test_a_process_that_was_stopped_while_it_rotates_stops_no_other(sandbox: Sandbox) -> None:
    path = sandbox.path("/var/log/calls.log")
    path.write_bytes(b'{"time":"'.ljust(log.MAX_BYTES, b"x"))
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        log.write_record(path, "info", "info", text="goes on")
    assert path.read_bytes().endswith(b'"text":"goes on"}\n')
    log.write_record(path, "info", "info", text="after it")
    assert [each.name for each in sorted(path.parent.glob("calls*"))] == ["calls.log", "calls.log.1"]
    assert json.loads(path.read_text())["text"] == "after it"


FOREIGN = [
    "/etc/shadow.log",
    "/var/log/syslog",
    "/var/log/azvnet/../../../etc/evil.log",
    "relative.log",
    "/var/log/azvnet",
]


@pytest.mark.parametrize(
    "named", [*FOREIGN, "/var/log/azvnet/x", "/var/log/azvnet/.log", "/var/log/azvnet/a/b.log"]
)
def test_a_configuration_can_name_a_log_in_one_directory_only(busy_node: Node, named: str) -> None:
    """It is written, renamed and made as root."""
    for each in FOREIGN[:2]:
        busy_node.sandbox.path(each).write_text("somebody else's\n")
    added = busy_node.add(busy_node.sandbox.pod("c1"), conf=busy_node.conf(logFile=named)).done()
    assert f"logFile {named!r} is not used" in added.stderr
    eventually(busy_node.log, "the call is logged where calls are logged otherwise")
    for each in FOREIGN[:2]:
        assert busy_node.sandbox.path(each).read_text() == "somebody else's\n"
    for path in ("/etc/evil.log", "/var/log/azvnet/x", "/var/log/azvnet/a"):
        assert not busy_node.sandbox.path(path).exists()


def _link(path: Path) -> None:
    path.symlink_to("/var/log/other")


def _hard_link(path: Path) -> None:
    path.hardlink_to("/var/log/other")


def _other_content(path: Path) -> None:
    path.write_text("Nov 26 15:00:00 node systemd[1]: started\n")


def _other_owner(path: Path) -> None:
    path.write_text('{"time":"')
    os.chown(path, 1000, 1000)


@pytest.mark.parametrize("put", [_link, _hard_link, _other_content, _other_owner, os.mkfifo, Path.mkdir])
@pytest.mark.parametrize("where", ["calls.log", "calls.log.1", "calls.log.4"])
def test_what_is_not_a_log_of_ours_is_neither_written_nor_moved(
    sandbox: Sandbox, where: str, put: Callable[[Path], None]
) -> None:
    def work() -> tuple[str, list[str], int]:
        other = Path("/var/log/other")
        other.write_text("somebody else's\n")
        folder = Path("/var/log/azvnet")
        folder.mkdir(exist_ok=True)
        path = folder / "calls.log"
        if where != path.name:
            path.write_bytes(b'{"time":"'.ljust(log.MAX_BYTES, b"x"))
        put(folder / where)
        before = _look(folder / where)
        for _ in range(3):
            log.write_record(path, "info", "info", text="y" * 100)
        assert _look(folder / where) == before
        return other.read_text(), sorted(each.name for each in folder.glob("calls*")), path.lstat().st_size

    other, names, size = sandbox.ask(work)
    assert other == "somebody else's\n"
    assert names == sorted({"calls.log", where})
    assert size <= log.MAX_BYTES


@pytest.mark.parametrize("put", [_link, _hard_link, _other_content, _other_owner, os.mkfifo])
def test_a_log_that_was_replaced_since_the_last_record_is_left_alone(
    sandbox: Sandbox, put: Callable[[Path], None]
) -> None:
    """A process that logs much keeps its log open."""

    def work() -> tuple[str, int]:
        other, path = Path("/var/log/other"), Path("/var/log/azvnet/calls.log")
        other.write_text("somebody else's\n")
        for _ in range(3):
            log.write_record(path, "info", "info", text="before")
        moved = path.rename(path.with_name("moved"))
        put(path)
        before = _look(path)
        for _ in range(3):
            log.write_record(path, "info", "info", text="after")
        assert _look(path) == before
        return other.read_text(), len(moved.read_text().splitlines())

    assert sandbox.ask(work) == ("somebody else's\n", 3)


def test_a_log_that_was_removed_is_begun_again_and_one_with_a_second_name_is_left_alone(
    sandbox: Sandbox,
) -> None:
    def work() -> list[int]:
        path = Path("/var/log/azvnet/calls.log")
        lines = []
        for number in range(12):
            log.write_record(path, "info", "info", number=number)
            if number == 4:
                path.unlink()
            elif number == 8:
                path.with_name("second").hardlink_to(path)
            lines.append(len(path.read_text().splitlines()) if path.exists() else 0)
        return lines

    assert sandbox.ask(work) == [1, 2, 3, 4, 0, 1, 2, 3, 4, 4, 4, 4]


def _look(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def test_the_log_holds_no_configuration_and_no_environment(busy_node: Node) -> None:
    """A netconf may carry secrets of other plugins."""
    pod = busy_node.sandbox.pod("c1")
    secret = {"token": "s3cr3t-in-netconf"}
    busy_node.add(pod, conf=busy_node.conf(args={"cni": secret}), env={"TOKEN": "s3cr3t-in-env"}).done()
    busy_node.delete(pod, conf=busy_node.conf(args={"cni": secret})).done()
    eventually(lambda: len(busy_node.log()) == 2, "both calls are logged")
    assert "s3cr3t" not in json.dumps(busy_node.log())


@pytest.mark.parametrize(
    ("threshold", "written"), [("off", []), ("error", ["error"]), ("info", ["info", "error"])]
)
def test_only_what_the_level_asks_for_is_written(busy_node: Node, threshold: str, written: list[str]) -> None:
    pod = busy_node.sandbox.pod("c1")
    conf = busy_node.conf(logLevel=threshold)
    busy_node.add(pod, conf=conf).done()
    busy_node.add(pod, conf=conf)
    busy_node.status().done()

    def levels(*verbs: str) -> list[str]:
        return sorted(record["level"] for record in busy_node.log() if record["verb"] in verbs)

    # An agent logs a call when its caller has the answer.
    eventually(lambda: levels("STATUS") == ["info"], "the call after them is logged")
    eventually(lambda: len(levels("ADD")) >= len(written), "both calls are logged")
    assert levels("ADD") == sorted(written)
