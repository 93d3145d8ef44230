"""``azvnet status``: true on a node in any state, and changing nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.calls import Executable
from tests.netns.conftest import NewAgent
from tests.netns.node import RUN_DIR, Node
from tests.waiting import eventually

BareNode = Callable[..., Node]
Status = Callable[..., subprocess.CompletedProcess[str]]
STORE = f"{RUN_DIR}/azvnet.db"
WRONG = 3


@pytest.fixture
def node(bare_node: BareNode) -> Node:
    return bare_node()


@pytest.fixture
def status(node: Node, executable: Executable) -> Status:
    """Runs the command on the node."""

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return executable.command(node.sandbox, "status", *options)

    return run


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stderr == ""
    shown = json.loads(done.stdout)
    assert isinstance(shown, dict)
    assert done.returncode == (WRONG if shown["problems"] else 0), done
    return shown


def files(node: Node) -> dict[str, tuple[int, int, bytes]]:
    """Every file of the state directory: inode, time of its last change, content."""
    folder = node.sandbox.path(RUN_DIR)
    found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.exists() else []
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.fixture
def unchanged(node: Node) -> Iterator[Callable[[], None]]:
    """To be called when the state directory is as it has to stay."""
    before: list[dict[str, tuple[int, int, bytes]]] = []
    yield lambda: before.append(files(node))
    assert files(node) == before[0]


def test_an_address_of_a_pod_that_the_host_carries_too_is_wrong(node: Node, status: Status) -> None:
    address = node.add(node.sandbox.pod("pod")).done().address
    assert status().returncode == 0
    node.sandbox.batch(f"address add {address}/32 dev eth0")
    done = status()
    assert done.returncode == 3
    assert f"the host itself carries {address} of default/pod" in done.stdout


def test_addresses_that_the_host_carries_are_not_free(node: Node, status: Status) -> None:
    node.add(node.sandbox.pod("pod")).done()
    listed = document(status("--output", "json", "--addresses"))["addresses"]
    free = [each["address"].split("/")[0] for each in listed if each["state"] == "free"]
    for address in free:
        node.sandbox.batch(f"address add {address}/32 dev eth0")
    done = status("--output", "json")
    assert done.returncode == 3
    shown = json.loads(done.stdout)
    assert (shown["pool"]["free"], shown["pool"]["onHost"]) == (0, len(free))
    assert any(f"the host itself carries {len(free)} of {len(free)}" in each for each in shown["problems"])


def test_a_node_that_never_had_a_pod(node: Node, status: Status) -> None:
    done = status()
    assert done.returncode == 0, done
    assert "none: the executable handles calls itself" in done.stdout
    assert "there is no store" in done.stdout
    assert not node.sandbox.path(RUN_DIR).exists()
    shown = document(status("--output", "json"))
    assert (shown["pool"], shown["attachments"], shown["store"]["state"]) == (None, [], "missing")


@pytest.mark.alone("the agent writes to its store at any time")
def test_every_attachment_with_the_indexes_of_both_its_ends(
    node: Node, status: Status, unchanged: Callable[[], None]
) -> None:
    pods = node.sandbox.pods("0123456789abcdef0123", "second")
    added = [node.add(pod).done() for pod in pods]
    unchanged()
    shown = document(status("--output", "json"))
    assert shown["agent"]["state"] == "none"
    counted = {"free": 6, "assigned": 2, "cooling": 0, "quarantined": 0, "onHost": 0, "total": 8}
    assert shown["pool"] == {**counted, "families": {"ipv4": counted}}
    veths = node.veths()
    for pod, result, told in zip(pods, added, shown["attachments"], strict=True):
        assert told["containerID"] == pod.container_id
        assert (told["podNamespace"], told["podName"]) == ("default", pod.container_id)
        assert told["address"] == result.address
        assert told["hostIndex"] == veths[told["hostVeth"]]["ifindex"]
        (inside,) = pod.ip("link", "show", "dev", "eth0")
        assert told["podIndex"] == inside["ifindex"]
        assert told["state"] == "ok"
        assert abs(told["since"] - shown["takenAt"]) < 60
    lines = status().stdout.splitlines()
    row = next(line for line in lines if "default/second" in line).split()
    told = shown["attachments"][1]
    index = [str(told["hostIndex"]), str(told["podIndex"])]
    assert row[:7] == ["default/second", "second", "eth0", told["address"], told["hostVeth"], *index]
    assert any("0123456789ab " in line for line in lines), "container ids are shortened"


@pytest.mark.alone("the agent writes to its store at any time")
def test_columns_are_aligned_and_plain_where_there_is_no_terminal(node: Node, status: Status) -> None:
    for pod in node.sandbox.pods("a", "a-rather-long-name"):
        node.add(pod).done()
    done = status("--addresses")
    assert "\033" not in done.stdout
    tables = [part.splitlines() for part in done.stdout.split("\n\n")[1:]]
    assert [table[0].split()[0] for table in tables] == ["POD", "ADDRESS"]
    for table in tables:
        for word in ("ADDRESS", "STATE"):
            start = table[0].index(word)
            assert all(row[start] != " " and row[start - 1] == " " for row in table if start)
    assert len(tables[1]) == 1 + 8


@pytest.mark.alone("the agent writes to its store at any time")
def test_every_address_with_its_state_and_why(node: Node, status: Status) -> None:
    held, gone = node.sandbox.pods("held", "gone")
    node.add(held).done()
    node.add(gone).done()
    node.delete(gone).done()
    node.sandbox.batch("route add 10.10.0.7/32 dev eth0")
    node.add(node.sandbox.pod("next")).done()
    shown = document(status("--addresses", "--output", "json"))
    by_address = {each["address"].split("/")[0]: each for each in shown["addresses"]}
    assert by_address["10.10.0.5"]["state"] == "assigned"
    assert by_address["10.10.0.5"]["containerID"] == "held"
    assert by_address["10.10.0.6"]["state"] == "cooling"
    assert 0 < by_address["10.10.0.6"]["secondsLeft"] <= 30
    assert by_address["10.10.0.7"]["state"] == "quarantined"
    assert by_address["10.10.0.7"]["reason"]
    assert by_address["10.10.0.9"]["state"] == "free"
    states = [each["state"] for each in shown["addresses"]]
    for state in ("free", "assigned", "cooling", "quarantined"):
        assert shown["pool"][state] == states.count(state)


@pytest.mark.alone("an agent would put it right")
@pytest.mark.parametrize(
    ("damage", "state", "words"),
    [
        ("link delete {veth}", "missing", "1 attachment lost its endpoint"),
        ("link set {veth} down", "down", "1 attachment has a host veth that is down"),
        ("route flush proto 155", "no-route", "1 attachment has no host route"),
    ],
)
def test_an_endpoint_that_somebody_damaged(
    node: Node, status: Status, unchanged: Callable[[], None], damage: str, state: str, words: str
) -> None:
    node.add(node.sandbox.pod("damaged")).done()
    (veth,) = node.veths()
    node.sandbox.batch(damage.format(veth=veth))
    unchanged()
    shown = document(status("--output", "json"))
    assert [each["state"] for each in shown["attachments"]] == [state]
    assert shown["problems"] == [words]
    done = status()
    assert done.returncode == WRONG
    assert done.stdout.splitlines()[-1] == f"wrong: {words}"


@pytest.mark.alone("an agent would put it right")
@pytest.mark.parametrize(
    ("damage", "state"),
    [
        ("head -c 9000 /dev/urandom > {store}; rm -f {store}-*", "unreadable"),
        (": > {store}", "unreadable"),
        ("rm {store} && mkdir {store}", "unreadable"),
        ("rm -f {store}*", "missing"),
        ("rm -r {folder}", "missing"),
    ],
)
def test_a_store_that_is_lost_hides_no_pod_and_is_left_as_it_is(
    node: Node, status: Status, unchanged: Callable[[], None], damage: str, state: str
) -> None:
    result = node.add(node.sandbox.pod("living")).done()
    node.sandbox.run("sh", "-c", damage.format(store=STORE, folder=RUN_DIR))
    unchanged()
    shown = document(status("--output", "json"))
    assert shown["store"]["state"] == state
    assert shown["pool"] is None
    (told,) = shown["attachments"]
    assert (told["containerID"], told["address"], told["state"]) == ("living", result.address, "unknown")
    assert len(shown["problems"]) == 1
    assert status("--addresses").returncode == WRONG


@pytest.mark.alone("an agent would begin anew")
def test_a_store_from_before_a_restart_of_the_node(
    node: Node, status: Status, unchanged: Callable[[], None]
) -> None:
    pod = node.sandbox.pod("before")
    node.add(pod).done()
    (veth,) = node.veths()
    node.sandbox.batch(f"link delete {veth}")
    node.set_boot_id("another-boot")
    unchanged()
    shown = document(status("--output", "json"))
    assert shown["store"]["state"] == "other-boot"
    assert shown["attachments"] == []
    assert shown["pool"]["assigned"] == 0
    assert shown["problems"] == []
    assert "from before the last boot" in status().stdout


@pytest.mark.alone("an agent could not write either")
def test_a_state_directory_that_cannot_be_written(node: Node, status: Status) -> None:
    """Also with a log that the next writer would have to play back: its last writer was killed."""
    pod = node.sandbox.pod("read-only")
    node.add(pod).done()
    leave_a_log = (
        "import os,sys;sys.path[:0]=sys.argv[2:];from pathlib import Path;from ipam.ipam import Ipam;"
        "from ipam.model import *;i=Ipam(Path(sys.argv[1]));"
        "i.release(Attachment('read-only','eth0'));os.kill(os.getpid(),9)"
    )
    import sys

    root = str(Path(__file__).parents[2])
    node.sandbox.run(sys.executable, "-c", leave_a_log, RUN_DIR, root, *sys.path[1:], check=False)
    assert node.sandbox.path(f"{STORE}-wal").stat().st_size > 0
    node.sandbox.run("mount", "--bind", RUN_DIR, RUN_DIR)
    node.sandbox.run("mount", "-o", "remount,bind,ro", RUN_DIR)
    shown = document(status("--output", "json"))
    assert shown["pool"]["cooling"] == 1


@pytest.mark.with_agent("about an agent")
def test_an_agent_is_shown_with_what_it_says_of_itself(
    node: Node, status: Status, new_agent: NewAgent
) -> None:
    agent = new_agent(node)

    def is_ready() -> bool:
        return bool(document(status("--output", "json"))["agent"]["ready"])

    eventually(is_ready, "ready")
    shown = document(status("--output", "json"))
    assert shown["problems"] == []
    assert shown["agent"]["state"] == "running"
    assert shown["agent"]["pid"] == agent.pid
    assert shown["agent"]["socket"] == f"{RUN_DIR}/agent.sock"
    assert 0 <= shown["takenAt"] - shown["agent"]["started"] < 120
    line = next(line for line in status().stdout.splitlines() if line.startswith("agent"))
    assert f"pid {agent.pid}, version {shown['version']}, up " in line
    assert line.endswith("ready")


@pytest.mark.with_agent("about an agent")
def test_an_agent_that_hangs_is_told_from_one_that_is_gone(
    node: Node, status: Status, new_agent: NewAgent
) -> None:
    agent = new_agent(node)
    pod = node.sandbox.pod("living")
    node.add(pod).done()
    eventually(node.sandbox.path(f"{RUN_DIR}/http.sock").exists, "it would tell about itself")
    agent.signal(signal.SIGSTOP)
    shown = document(status("--output", "json"))
    assert shown["agent"]["state"] == "hangs"
    assert shown["agent"]["pid"] == agent.pid
    assert "the agent hangs" in shown["problems"][0]
    assert [each["state"] for each in shown["attachments"]] == ["ok"], "the rest is shown all the same"
    agent.kill()
    shown = document(status("--output", "json"))
    assert shown["agent"]["state"] == "none"
    assert shown["problems"] == []
    assert [each["state"] for each in shown["attachments"]] == ["ok"]


@pytest.mark.with_agent("about an agent")
def test_what_the_agent_lacks_is_in_the_last_line(node: Node, status: Status, new_agent: NewAgent) -> None:
    node.list_addresses(1)
    new_agent(node)
    node.add(node.sandbox.pod("only")).done()
    words = "wrong: the agent is not ready: no free IPv4 address: 1 known, 1 held (default/only)"

    def told() -> bool:
        done = status()
        return done.returncode == WRONG and done.stdout.splitlines()[-1].startswith(words)

    eventually(told, "what the agent found when it started may be a second old")


@pytest.mark.with_agent("about an agent")
def test_looking_at_a_busy_node_disturbs_nothing(node: Node, status: Status, new_agent: NewAgent) -> None:
    new_agent(node)
    eventually(lambda: sum(node.counts().values()) == 8, "the first listing")
    pod = node.sandbox.pod("busy")
    seen: set[str] = set()
    for _ in range(8):
        running = node.start("ADD", pod)
        shown = document(status("--output", "json"))
        running.finish().done()
        node.delete(pod).done()
        seen.update(each["state"] for each in shown["attachments"])
        assert sum(shown["pool"][state] for state in ("free", "assigned", "cooling", "quarantined")) == 8
    assert seen <= {"ok", "unconfirmed"}
