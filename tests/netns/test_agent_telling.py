"""What a real agent tells on a real node: metrics that add up under load, and when pods can come."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.netns.conftest import NewAgent
from tests.netns.node import INTERFACES, Node
from tests.netns.pages import HTTP_SOCKET, get
from tests.netns.sandbox import Sandbox
from tests.netns.watching import IN_MOVED_TO, watching
from tests.netns.ways import Agent, Executables
from tests.waiting import eventually, unread

pytestmark = pytest.mark.with_agent("it is the agent that tells")

BareNode = Callable[..., Node]
NET_D = "/etc/cni/net.d"
CONFLIST = f"{NET_D}/10-azvnet.conflist"
SOURCE = "/run/source.conflist"
INSTALLED = {"conflist": {"source": SOURCE, "destination": CONFLIST}}


def ready(node: Node) -> bool:
    return get(node.sandbox, "/readyz").status == 200


def samples(node: Node) -> dict[tuple[str, ...], float]:
    """Every sample: its name and label values to its value."""
    text = get(node.sandbox, "/metrics").body
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


@pytest.fixture
def telling_agent(new_agent: NewAgent) -> NewAgent:
    """Starts agents and waits until they tell."""

    def start(node: Node, **settings: object) -> Agent:
        agent = new_agent(node, **settings)

        def tells() -> bool:
            try:
                return bool(json.loads(get(node.sandbox, "/info").body)["pid"] == agent.pid)
            except (OSError, ValueError):
                return False

        eventually(tells, "the agent tells")
        return agent

    return start


@pytest.fixture
def node(bare_node: BareNode) -> Node:
    made = bare_node()
    made.sandbox.path(NET_D).mkdir(parents=True, exist_ok=True)
    plugin = {"type": "azvnet", "ipam": made.netconf["ipam"]}
    made.sandbox.write(SOURCE, json.dumps({"cniVersion": "1.1.0", "name": "azvnet", "plugins": [plugin]}))
    return made


def pods_come_and_go(node: Node, name: str, cycles: int) -> list[str]:
    """Complaints of a caller that adds and deletes one pod over and over."""
    pod = node.sandbox.pod(name)
    failures = []
    for _ in range(cycles):
        for verb in ("ADD", "DEL"):
            done = node.call(verb, pod)
            if not done.ok:
                failures.append(f"{verb}: {done.stdout!r} {done.stderr}")
    return failures


def test_the_four_states_add_up_at_every_scrape_while_pods_come_and_go(
    bare_node: BareNode, telling_agent: NewAgent
) -> None:
    node = bare_node(addresses=16)
    telling_agent(node)
    eventually(lambda: ready(node), "the first listing")
    failures: list[str] = []
    callers = [
        threading.Thread(target=lambda name=name: failures.extend(pods_come_and_go(node, name, 12)))
        for name in ("churn-a", "churn-b", "churn-c", "churn-d")
    ]
    for caller in callers:
        caller.start()
    scrapes = []
    while any(caller.is_alive() for caller in callers):
        scrapes.append(samples(node))
    for caller in callers:
        caller.join()
    assert failures == []
    assert len(scrapes) > 10
    states = ("free", "assigned", "cooling", "quarantined")
    for scrape in scrapes:
        told = {state: scrape["azvnet_pool_addresses", "ipv4", state] for state in states}
        assert sum(told.values()) == scrape["azvnet_pool_known_addresses",], told
        assert scrape["azvnet_store_up",] == 1
    assert {scrape["azvnet_pool_known_addresses",] for scrape in scrapes} == {16}
    # A page is rendered once a second: the calls may all lie between two of them.
    eventually(
        lambda: samples(node)["azvnet_pool_addresses", "ipv4", "cooling"] > 0, "released addresses cool down"
    )
    # A call is counted when the caller has its answer.
    eventually(lambda: samples(node)["azvnet_call_duration_seconds_count", "ok", "DEL"] == 48, "each DEL")
    last = samples(node)
    assert last["azvnet_call_duration_seconds_count", "ok", "ADD"] == 48
    assert last["azvnet_call_duration_seconds_count", "ok", "DEL"] == 48
    assert last["process_resident_memory_bytes",] < 80 * 1024 * 1024
    assert last["process_open_fds",] < 100


def test_scrapes_leave_no_descriptor_and_no_thread(node: Node, telling_agent: NewAgent) -> None:
    agent = telling_agent(node)
    eventually(lambda: ready(node), "ready")

    def size() -> tuple[int, ...]:
        return tuple(len(list(Path(f"/proc/{agent.pid}/{what}").iterdir())) for what in ("fd", "task"))

    for _ in range(20):
        samples(node)
    before = size()
    for _ in range(200):
        get(node.sandbox, "/readyz")
        get(node.sandbox, "/metrics")
    eventually(lambda: all(now <= then for now, then in zip(size(), before, strict=True)), "as before")


def test_errors_are_told_with_the_code_that_the_caller_got(
    bare_node: BareNode, telling_agent: NewAgent
) -> None:
    node = bare_node(addresses=1)
    telling_agent(node)
    first, second = node.sandbox.pods("first", "second")
    node.add(first).done()
    assert node.add(second).code == 100
    # The call is counted when the caller has its answer.
    counted = ("azvnet_call_errors_total", "100", "ADD")
    eventually(lambda: samples(node).get(counted) == 1, "it is counted")
    told = samples(node)
    assert told["azvnet_pool_exhausted_total", "ipv4"] >= 1
    assert told["azvnet_pool_addresses", "ipv4", "assigned"] == 1


def test_a_repair_is_counted(node: Node, telling_agent: NewAgent) -> None:
    telling_agent(node, reconcile_seconds=0.2)
    node.add(node.sandbox.pod("flushed")).done()
    node.sandbox.run("ip", "route", "flush", "proto", "155")
    eventually(lambda: samples(node)["azvnet_repairs_total", "host_route"] == 1, "the repair is counted")


def test_status_and_readyz_say_the_same(bare_node: BareNode, telling_agent: NewAgent) -> None:
    node = bare_node(addresses=1)
    telling_agent(node, refresh_seconds=0.5)
    eventually(lambda: ready(node), "ready")
    assert node.status().ok
    pod = node.sandbox.pod("only")
    node.add(pod).done()
    eventually(lambda: not ready(node), "not ready")
    refused = node.status()
    assert refused.code == 50
    why = get(node.sandbox, "/readyz").body
    assert "1 held (default/only)" in why
    assert "1 held (default/only)" in refused.msg
    node.delete(pod).done()
    eventually(lambda: ready(node), "ready again")
    assert node.status().ok


def test_not_ready_when_the_host_itself_carries_the_pods_addresses(
    bare_node: BareNode, telling_agent: NewAgent
) -> None:
    """As cloud-init leaves a node: known, held by nobody, and yet none can be given."""
    node = bare_node(addresses=1)
    node.sandbox.batch("address add 10.10.0.5/16 dev eth0")
    telling_agent(node)
    eventually(lambda: "carried by the node itself" in get(node.sandbox, "/readyz").body, "said")
    told = samples(node)
    assert told["azvnet_pool_addresses", "ipv4", "free"] == 0
    assert told["azvnet_pool_addresses", "ipv4", "on_host"] == told["azvnet_pool_known_addresses",] == 1
    assert node.status().code == 50


def test_trouble_of_a_live_pod_is_told_until_it_is_over(node: Node, telling_agent: NewAgent) -> None:
    """The NIC loses the address of one pod, and the host gets that of another: their packets go nowhere."""
    lost, doubled = node.sandbox.pods("lost", "doubled")
    addresses = [node.add(pod).done().address for pod in (lost, doubled)]
    agent = telling_agent(node, refresh_seconds=0.5, reconcile_seconds=0.1)
    document = json.loads(node.sandbox.path(INTERFACES).read_text())
    subnet = document["Interfaces"][0]["IPSubnets"][0]
    listed = subnet["IPAddresses"]
    subnet["IPAddresses"] = [each for each in listed if each["Address"] != addresses[0]]
    node.sandbox.write(INTERFACES, json.dumps(document))
    node.sandbox.batch(f"address add {addresses[1]}/32 dev eth0")

    def kinds() -> dict[str, float]:
        return {key[1]: value for key, value in samples(node).items() if key[0] == "azvnet_problems"}

    eventually(lambda: kinds()["not-on-nic"] == kinds()["host-has-pod-address"] == 1, "both are counted")
    told = get(node.sandbox, "/readyz").body
    assert f"{addresses[0]} of default/lost is no longer listed by the source" in told
    assert f"the host itself carries {addresses[1]} of default/doubled" in told
    subnet["IPAddresses"] = listed
    node.sandbox.write(INTERFACES, json.dumps(document))
    node.sandbox.batch(f"address del {addresses[1]}/32 dev eth0")
    eventually(lambda: not any(kinds().values()), "it is over")

    def levels(words: str) -> list[str]:
        log = [json.loads(line) for line in agent.said().splitlines()]
        return [each["level"] for each in log if words in each["msg"]]

    def told_twice() -> bool:
        words = ("is no longer listed by the source", "the host itself carries")
        return [levels(each) for each in words] == [["error", "info"]] * 2

    eventually(told_twice, "each is logged when it begins and when it ends, and not again")


def test_a_full_state_directory_is_not_ready_and_says_so(node: Node, telling_agent: NewAgent) -> None:
    node.sandbox.run("mkdir", "-m", "700", "/run/azvnet")
    node.sandbox.run("mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "small", "/run/azvnet")
    telling_agent(node)
    eventually(lambda: ready(node), "ready")
    node.sandbox.run("sh", "-c", "cat /dev/zero > /run/azvnet/filler", check=False)
    eventually(lambda: "is full" in get(node.sandbox, "/readyz").body, "said")
    assert node.status().code == 51
    node.sandbox.path("/run/azvnet/filler").unlink()
    eventually(lambda: ready(node), "ready again")


def test_the_conflist_appears_after_the_source_became_readable_whole_and_once(
    node: Node, telling_agent: NewAgent
) -> None:
    """A cloud that is late: as long as no address is known the runtime must not believe in a network."""
    listed = node.sandbox.path(INTERFACES).read_text()
    node.sandbox.path(INTERFACES).unlink()
    with watching(node.sandbox.path(NET_D)) as happened:
        agent = telling_agent(node, refresh_seconds=0.5, **INSTALLED)
        eventually(lambda: "not ready: " in agent.said(), "it has looked for seconds")
        eventually(lambda: node.reads()[1] >= 3, "the source was asked again and again")
        assert happened() == []
        assert not ready(node)
        assert node.status().code == 50
        node.sandbox.write(INTERFACES, listed)
        eventually(node.sandbox.path(CONFLIST).exists, "the conflist")
        node.add(node.sandbox.pod("at-once")).done()
        eventually(lambda: ready(node), "ready")
        events = happened()
    name = Path(CONFLIST).name
    assert [event for event in events if event[0] == name] == [(name, IN_MOVED_TO)]
    assert not any(each.endswith((".conf", ".conflist", ".json")) for each, _ in events if each != name)
    assert [path.name for path in node.sandbox.path(NET_D).iterdir()] == [name]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_leaves_the_conflist_alone(node: Node, telling_agent: NewAgent, end: int) -> None:
    agent = telling_agent(node, **INSTALLED)
    eventually(node.sandbox.path(CONFLIST).exists, "the conflist")
    pod = node.sandbox.pod("living")
    node.add(pod).done()
    before = node.sandbox.path(CONFLIST).stat()
    with watching(node.sandbox.path(NET_D)) as happened:
        agent.kill() if end == signal.SIGKILL else agent.stop()
        assert node.sandbox.path(CONFLIST).exists()
        telling_agent(node, **INSTALLED)
        eventually(lambda: ready(node), "ready")
        node.delete(pod).done()
        assert happened() == []
    after = node.sandbox.path(CONFLIST).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_conflist_says_which_source_is_read_before_the_first_call(
    node: Node, telling_agent: NewAgent
) -> None:
    """Without it an agent that waits for an address, and a runtime that waits for it, wait for ever."""
    telling_agent(node, source="imds", **INSTALLED)
    eventually(lambda: ready(node), "ready")
    assert [each for each in samples(node) if each[:2] == ("azvnet_source_info", "file")]


def test_a_reload_installs_the_changed_conflist(node: Node, telling_agent: NewAgent) -> None:
    agent = telling_agent(node, **INSTALLED)
    eventually(lambda: ready(node), "ready")
    changed = json.loads(node.sandbox.path(SOURCE).read_text()) | {"name": "renamed"}
    node.sandbox.write(SOURCE, json.dumps(changed))
    agent.signal(signal.SIGHUP)
    eventually(lambda: json.loads(node.sandbox.path(CONFLIST).read_text()) == changed, "the changed one")
    assert ready(node)


def test_a_source_is_no_longer_read_when_the_conflist_names_another(
    node: Node, telling_agent: NewAgent
) -> None:
    """A living cluster moves: the next agent does not even have the former file."""
    agent = telling_agent(node, refresh_seconds=0.2, **INSTALLED)
    eventually(node.sandbox.path(CONFLIST).exists, "the conflist")
    pod = node.sandbox.pod("living")
    node.add(pod).done()
    agent.stop()
    moved = json.loads(node.sandbox.path(SOURCE).read_text())
    moved["plugins"][0]["ipam"]["file"] = "/run/moved.json"
    node.sandbox.write("/run/moved.json", node.sandbox.path(INTERFACES).read_text())
    node.sandbox.path(INTERFACES).unlink()
    node.sandbox.write(SOURCE, json.dumps(moved))
    telling_agent(node, refresh_seconds=0.2, **INSTALLED)

    def read() -> set[str]:
        return {key[1] for key in samples(node) if key[0] == "azvnet_source_up"}

    eventually(lambda: read() == {"file:/run/moved.json"}, "only the new source is read")
    assert samples(node)["azvnet_source_up", "file:/run/moved.json"] == 1
    node.delete(pod).done()


def test_readyz_is_503_while_the_agent_finishes_what_it_has(node: Node, telling_agent: NewAgent) -> None:
    agent = telling_agent(node)
    eventually(lambda: ready(node), "ready")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(node.sandbox.path("/run/azvnet/agent.sock")))
        caller.sendall(b"AZVN")  # a call that is not whole yet
        eventually(lambda: not unread(caller, termios.TIOCOUTQ), "the agent has it")
        agent.signal(signal.SIGTERM)
        eventually(lambda: not ready(node), "not ready")
        assert "the agent is stopping" in get(node.sandbox, "/readyz").body
        assert get(node.sandbox, "/healthz").status == 200
        assert not agent.over
    agent.stop()


def test_the_sockets_are_for_root_alone(node: Node, telling_agent: NewAgent) -> None:
    telling_agent(node)
    eventually(node.sandbox.path(HTTP_SOCKET).exists, "the socket")
    assert node.sandbox.path(HTTP_SOCKET).stat().st_mode & 0o777 == 0o600
    assert node.sandbox.path("/run/azvnet").stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_a_kubelet_made_is_closed_to_others(
    node: Node, telling_agent: NewAgent
) -> None:
    """For a pod's volume of type DirectoryOrCreate it makes one that all may read."""
    node.sandbox.path("/run/azvnet").mkdir(mode=0o755, exist_ok=True)
    node.sandbox.path("/run/azvnet").chmod(0o755)
    telling_agent(node)
    assert node.sandbox.path("/run/azvnet").stat().st_mode & 0o777 == 0o700


def test_a_port_that_is_none_keeps_the_agent_from_starting(node: Node, product: Executables) -> None:
    node.sandbox.write("/run/agent.json", '{"metrics_address": "node1:9631"}')
    process = node.sandbox.popen(
        [str(product.python), "agent", "--config", "/run/agent.json"],
        env={"PATH": "/usr/bin:/bin", **product.environ},
    )
    try:
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "is not address:port" in said.decode()
    assert not node.sandbox.path("/run/azvnet/agent.sock").exists()


def test_the_service_manager_is_told_of_start_life_reload_and_end(node: Node, product: Executables) -> None:
    """As the unit asks for: Type=notify and WatchdogSec (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(node.sandbox.path("/run/notify")))
        manager.settimeout(20)
        environ = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "400000"}
        process = node.sandbox.popen([str(product.python), "agent"], env={**environ, **product.environ})

        def told() -> str:
            return manager.recv(1024).decode()

        def next_other_than_a_sign_of_life() -> str:
            said = told()
            while said == "WATCHDOG=1":
                said = told()
            return said

        try:
            assert told() == "READY=1"
            assert node.sandbox.path("/run/azvnet/agent.sock").exists(), "it serves before it says so"
            assert [told(), told(), told()] == ["WATCHDOG=1"] * 3
            process.send_signal(signal.SIGHUP)
            assert next_other_than_a_sign_of_life() == "RELOADING=1"
            assert next_other_than_a_sign_of_life() == "READY=1"
            process.send_signal(signal.SIGTERM)
            assert next_other_than_a_sign_of_life() == "STOPPING=1"
            process.communicate(timeout=20)
            assert process.returncode == 0
        finally:
            process.kill()
            process.communicate()


def test_the_service_manager_hears_nothing_of_an_agent_that_is_stuck(sandbox: Sandbox) -> None:
    """So that it kills it: no sign of life while the background work is silent for longer than it may be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(sandbox.path("/run/notify")))
        manager.settimeout(20)

        def work() -> int:
            from cni_plugin.agent import maintenance, service
            from cni_plugin.agent.settings import Settings

            maintenance.SILENT_SECONDS = -1.0
            os.environ["NOTIFY_SOCKET"] = "/run/notify"
            return service.run({"WATCHDOG_USEC": "100000"}, Settings.of({}))

        agent = sandbox.fork(work)
        try:
            assert manager.recv(100) == b"READY=1"
            manager.settimeout(1.0)
            with pytest.raises(TimeoutError):
                manager.recv(100)
            assert get(sandbox, "/healthz").status == 503
        finally:
            agent.kill()


def test_nobody_reads_what_the_agent_says_and_it_works_all_the_same(node: Node, product: Executables) -> None:
    """journald, or the runtime that reads a container's stderr, may have stopped; a pipe is soon full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    node.sandbox.write("/run/agent.json", '{"reconcile_seconds": 0.2, "refresh_seconds": 0.2}')
    with os.fdopen(writing, "wb", buffering=0) as stderr:
        process = node.sandbox.popen(
            [str(product.python), "agent", "--config", "/run/agent.json"],
            env={"PATH": "/usr/bin:/bin", **product.environ},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        eventually(node.sandbox.path("/run/azvnet/agent.sock").exists, "it serves")
        node.add(node.sandbox.pod("pod")).done()
        before = node.host_routes()
        for _ in range(3):
            node.sandbox.run("ip", "route", "flush", "proto", "155")
            eventually(lambda: node.host_routes() == before, "the route is put back, which is said each time")
        log = node.sandbox.path("/var/log/azvnet/agent.log")
        eventually(lambda: log.read_text().count("host_route") == 3, "it is in the log")
        process.terminate()
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_an_agent_that_is_stopped_leaves_a_store_without_a_log_to_recover(
    node: Node, telling_agent: NewAgent
) -> None:
    agent = telling_agent(node)
    node.add(node.sandbox.pod("pod")).done()
    agent.stop()
    names = {path.name for path in node.sandbox.path("/run/azvnet").iterdir()}
    assert "azvnet.db" in names
    assert "azvnet.db-wal" not in names
