"""What the agent tells of itself: ready only when an address can be given, and why not in words."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from cni_plugin import __version__
from cni_plugin.agent import network_ready
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.unixsocket import SocketOwner, UnixSocket
from cni_plugin.checks import EXHAUSTED, Problem
from ipam.settings_file import SettingsError
from tests.unit.agent.conftest import NewFront
from tests.unit.agent.test_conflist import CONFLIST
from tests.unit.agent.work import Answer, Front, Place, Work, get, new_settings
from tests.waiting import eventually


def page(place: Place, path: str) -> Answer:
    return get(place.run_dir / "http.sock", path)


def ready_or_why(place: Place) -> str:
    """Empty when ready; else why not."""
    answer = page(place, "/readyz")
    assert answer.status == (503 if answer.body.startswith("not ready: ") else 200), answer
    return answer.body.removeprefix("not ready: ").strip() if answer.status == 503 else ""


def said(tmp_path: Path) -> list[dict[str, Any]]:
    log = tmp_path / "agent.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def net_d(tmp_path: Path) -> Path:
    made = tmp_path / "net.d"
    made.mkdir()
    return made


@pytest.fixture
def conflist(tmp_path: Path, net_d: Path) -> dict[str, Path]:
    source = tmp_path / "source.conflist"
    source.write_text(json.dumps(CONFLIST))
    return {"source": source, "destination": net_d / "10-azvnet.conflist"}


def test_ready_is_what_an_add_would_find(place: Place, new_front: NewFront) -> None:
    front = new_front()
    assert "no address is known on this node" in ready_or_why(place)
    place.list_addresses(2)
    eventually(lambda: not ready_or_why(place), "ready")
    place.hold("a")
    gone = place.hold("b")
    eventually(lambda: "no free IPv4 address: 2 known, 2 held" in ready_or_why(place), "not ready")
    assert "default/a, default/b" in ready_or_why(place)
    place.node.ipam.release(gone)
    eventually(lambda: not ready_or_why(place), "one that cools down can be given at need")
    assert front.registry.get_sample_value("azvnet_ready") == 1


def test_healthy_is_only_that_a_restart_would_not_help(place: Place, new_front: NewFront) -> None:
    new_front()
    assert page(place, "/healthz").status == 200
    assert page(place, "/readyz").status == 503
    assert page(place, "/").status == 404


def test_an_agent_on_a_full_node_does_its_work(place: Place, new_front: NewFront) -> None:
    new_front()
    place.list_addresses(1)
    eventually(lambda: page(place, "/agentz").status == 200, "working")
    place.hold("a")
    eventually(lambda: ready_or_why(place), "not ready")
    assert page(place, "/agentz").status == 200


def test_an_agent_that_never_read_its_source_or_is_stopping_does_not(
    place: Place, work: Work, new_front: NewFront
) -> None:
    front = new_front()
    assert "no address is known on this node" in page(place, "/agentz").body
    place.list_addresses(1)
    eventually(lambda: page(place, "/agentz").status == 200, "working")
    work.why_no_listing = "the token was refused"
    assert (page(place, "/agentz").status, ready_or_why(place)) == (503, "")
    assert "the token was refused" in page(place, "/agentz").body
    work.why_no_listing = ""
    work.stuck = "the background work has stopped"
    assert page(place, "/agentz").status == 503
    work.stuck = ""
    assert page(place, "/agentz").status == 200
    front.readiness.stopping = True
    assert "stopping" in page(place, "/agentz").body


def test_a_pool_smaller_than_the_pods_that_may_come_is_told_of_until_it_is_not(
    place: Place, new_front: NewFront, tmp_path: Path
) -> None:
    place.list_addresses(2)
    front = new_front(expected_pods=3)
    words = "the pool has 2 addresses for 3 pods"
    eventually(lambda: words in page(place, "/readyz").body, "it is on the page")
    eventually(lambda: any(words in each["msg"] for each in said(tmp_path)), "it is in the log")
    assert page(place, "/readyz").status == 200
    place.list_addresses(3)
    front.use(new_settings(expected_pods=3, log_file=tmp_path / "agent.log"))
    eventually(lambda: words not in page(place, "/readyz").body, "it is gone")
    eventually(
        lambda: any(each["msg"].startswith("no longer: the pool has 2") for each in said(tmp_path)), "said"
    )


def test_a_pool_that_nothing_is_known_of_is_no_small_one(place: Place, new_front: NewFront) -> None:
    new_front(expected_pods=3).look()
    assert json.loads(page(place, "/info").body)["warnings"] == []


def test_what_the_background_work_knows_of_the_node_is_told(
    place: Place, work: Work, new_front: NewFront
) -> None:
    place.list_addresses(1)
    work.warnings = ("namespaces can't be entered",)
    new_front()
    assert work.warnings[0] in page(place, "/readyz").body


def test_no_conflist_before_the_plugins_that_it_names_are_there(
    place: Place, new_front: NewFront, conflist: dict[str, Path], tmp_path: Path
) -> None:
    """Links count: in a container they lead to what only the host has."""
    plugins = tmp_path / "bin"
    plugins.mkdir()
    (plugins / "azvnet").symlink_to("/nowhere/azvnet")
    chained = {**CONFLIST, "plugins": [*CONFLIST["plugins"], {"type": "portmap"}]}
    conflist["source"].write_text(json.dumps(chained))
    place.list_addresses(1)
    front = new_front(conflist={**conflist, "bin_dir": plugins})
    eventually(lambda: "names azvnet-ipam, portmap, and" in ready_or_why(place), "it is the reason")
    (plugins / "portmap").touch()
    (plugins / "azvnet-ipam").symlink_to("azvnet")
    assert not conflist["destination"].exists()
    front.use(new_settings(conflist={**conflist, "bin_dir": plugins}, log_file=tmp_path / "agent.log"))
    eventually(conflist["destination"].exists, "written")


def test_what_only_a_restart_helps_is_neither_ready_nor_healthy(
    place: Place, work: Work, new_front: NewFront
) -> None:
    """Where there is no systemd with a watchdog, the kubelet asks and restarts."""
    place.list_addresses(2)
    front = new_front()
    assert ready_or_why(place) == ""
    assert page(place, "/healthz").status == 200
    front.stuck = "16 calls are stuck"
    assert "16 calls are stuck" in ready_or_why(place)
    assert page(place, "/healthz").body == "stuck: 16 calls are stuck\n"
    work.stuck = "the agent's background work has stopped"
    assert "background work has stopped" in ready_or_why(place)
    assert page(place, "/healthz").status == 503


def test_an_agent_that_another_took_over_from_leaves_the_conflist_alone(
    place: Place, new_front: NewFront, conflist: dict[str, Path], tmp_path: Path
) -> None:
    settings = new_settings(conflist=conflist, log_file=tmp_path / "agent.log")
    place.list_addresses(1)
    front = new_front(conflist=conflist)
    eventually(conflist["destination"].exists, "the conflist")
    front.serves = False
    conflist["destination"].write_text("what the newer agent has written")
    front.use(settings)
    front.look()
    assert conflist["destination"].read_text() == "what the newer agent has written"
    front.serves = True
    front.use(settings)
    eventually(lambda: conflist["destination"].read_text() == json.dumps(CONFLIST), "its own again")


def test_not_ready_while_stopping_and_still_telling_so(place: Place, new_front: NewFront) -> None:
    place.list_addresses(2)
    front = new_front()
    assert ready_or_why(place) == ""
    front.readiness.stopping = True
    assert ready_or_why(place) == "the agent is stopping"
    assert page(place, "/metrics").status == 200


def test_not_ready_with_a_state_directory_that_is_gone(place: Place, new_front: NewFront) -> None:
    place.list_addresses(2)
    front = new_front()
    assert front.readiness.why_not() == ""
    place.node.ipam.close()
    place.run_dir.rename(place.run_dir.with_name("elsewhere"))
    place.run_dir.touch()
    why = front.readiness.no_address(fresh=True)
    assert why is not None
    assert "can't be used" in why.text
    assert str(place.run_dir) in why.text


def test_probes_cost_one_look_a_second(place: Place, new_front: NewFront) -> None:
    place.list_addresses(2)
    front = new_front()
    ready_or_why(place)
    place.hold("a")
    place.hold("b")
    assert front.readiness.why_not() == "", "the answer of a moment ago"
    eventually(lambda: ready_or_why(place), "a second later it is the one of now")


def test_info_says_who_this_is(place: Place, new_front: NewFront) -> None:
    place.list_addresses(1)
    new_front()
    info = json.loads(page(place, "/info").body)
    assert page(place, "/info").body.count("\n") == 1
    assert info["pid"] == os.getpid()
    assert info["version"] == __version__
    assert info["protocol"] == 1
    assert abs(info["started"] - time.time()) < 60
    assert info["ready"] is True
    assert info["reason"] == ""


def test_the_conflist_comes_last(
    place: Place, work: Work, new_front: NewFront, conflist: dict[str, Path]
) -> None:
    front = new_front(conflist=conflist)
    assert [each["name"] for each in work.netconfs] == ["azvnet"], "it says which source to read"
    front.look()
    assert not conflist["destination"].exists()
    place.list_addresses(1)
    eventually(conflist["destination"].exists, "the conflist")
    assert conflist["destination"].read_text() == json.dumps(CONFLIST)
    eventually(lambda: not ready_or_why(place), "ready")


def test_not_ready_as_long_as_the_conflist_is_not_there(
    place: Place, new_front: NewFront, conflist: dict[str, Path], net_d: Path, tmp_path: Path
) -> None:
    place.list_addresses(1)
    net_d.rmdir()
    new_front(conflist=conflist)
    eventually(lambda: "does not exist: is a container runtime installed?" in ready_or_why(place), "said")
    net_d.mkdir()
    eventually(conflist["destination"].exists, "it is tried again")
    eventually(lambda: not ready_or_why(place), "ready")
    messages = [each["msg"] for each in said(tmp_path)]
    assert any("was written" in each for each in messages)


def test_a_conflist_that_is_right_is_not_touched_and_outlives_the_agent(
    place: Place, work: Work, new_front: NewFront, conflist: dict[str, Path], tmp_path: Path
) -> None:
    place.list_addresses(1)
    target = conflist["destination"]
    for _ in range(3):
        front = Front(place, work, new_settings(conflist=conflist, log_file=tmp_path / "agent.log"))
        front.start()
        try:
            eventually(target.exists, "the conflist")
            eventually(lambda: not ready_or_why(place), "ready")
            seen = target.stat()
        finally:
            front.stop()
        assert (target.stat().st_ino, target.stat().st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns)
    assert [each["msg"] for each in said(tmp_path)].count(f"the conflist {target} was written") == 1


def test_a_pool_that_runs_out_keeps_the_conflist(
    place: Place, new_front: NewFront, conflist: dict[str, Path]
) -> None:
    place.list_addresses(1)
    front = new_front(conflist=conflist)
    eventually(conflist["destination"].exists, "the conflist")
    place.hold("a")
    eventually(lambda: ready_or_why(place), "not ready")
    front.use(new_settings(conflist=conflist))
    front.look()
    assert conflist["destination"].exists()


def test_a_changed_conflist_is_installed_on_reload(
    place: Place, work: Work, new_front: NewFront, conflist: dict[str, Path], tmp_path: Path
) -> None:
    place.list_addresses(1)
    front = new_front(conflist=conflist)
    eventually(lambda: not ready_or_why(place), "ready")
    conflist["source"].write_text(json.dumps({**CONFLIST, "name": "renamed"}))
    front.use(new_settings(conflist=conflist, log_file=tmp_path / "agent.log"))
    eventually(lambda: json.loads(conflist["destination"].read_text())["name"] == "renamed", "the new one")
    assert work.netconfs[-1]["name"] == "renamed"
    conflist["source"].write_text("{")
    front.use(new_settings(conflist=conflist, log_file=tmp_path / "agent.log"))
    eventually(lambda: "is not valid JSON" in ready_or_why(place), "what is wrong is said")
    assert json.loads(conflist["destination"].read_text())["name"] == "renamed"


def test_a_conflist_that_is_changed_or_removed_is_put_right_without_being_told(
    place: Place, new_front: NewFront, conflist: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cni_plugin.agent import network_ready as module

    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    place.list_addresses(1)
    new_front(conflist=conflist)
    target = conflist["destination"]
    eventually(target.exists, "the conflist")
    target.unlink()
    eventually(target.exists, "the conflist again")
    conflist["source"].write_text(json.dumps({**CONFLIST, "name": "renamed"}))
    eventually(lambda: json.loads(target.read_text())["name"] == "renamed", "the new one")


def test_a_conflist_that_the_runtime_prefers_is_named(
    place: Place, new_front: NewFront, conflist: dict[str, Path], net_d: Path, tmp_path: Path
) -> None:
    place.list_addresses(1)
    (net_d / "05-other.conflist").touch()
    new_front(conflist=conflist)
    words = f"05-other.conflist sorts before 10-azvnet.conflist in {net_d}"
    eventually(lambda: any(words in each["msg"] for each in said(tmp_path)), "it is in the log")
    assert words in page(place, "/readyz").body
    assert words in json.loads(page(place, "/info").body)["warnings"][0]


def test_the_port_answers_what_the_socket_answers(place: Place, new_front: NewFront) -> None:
    port = free_port()
    new_front(metrics_address=f"127.0.0.1:{port}")
    assert get(("127.0.0.1", port), "/healthz").status == 200
    assert "azvnet_pool_addresses" in get(("127.0.0.1", port), "/metrics").body


def test_beyond_the_node_there_are_numbers_alone(place: Place, new_front: NewFront) -> None:
    port = free_port()
    new_front(metrics_address=f"0.0.0.0:{port}")
    assert "azvnet_pool_addresses" in get(("127.0.0.1", port), "/metrics").body
    for path in ("/info", "/readyz", "/agentz", "/healthz", "/"):
        assert get(("127.0.0.1", port), path).status == 404
    assert page(place, "/info").status == 200


def test_what_is_no_address_is_refused(place: Place, work: Work) -> None:
    with pytest.raises(SettingsError, match="is not address:port"):
        Front(place, work, new_settings(metrics_address="node1:9631"))


def test_a_port_that_is_taken_is_said_and_taken_when_it_is_free(
    place: Place, new_front: NewFront, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        front = new_front(metrics_address=f"127.0.0.1:{port}")
        assert page(place, "/healthz").status == 200
        assert any("Address already in use" in each["msg"] for each in said(tmp_path))

    def answers() -> bool:
        front.pages.listen()
        try:
            return get(("127.0.0.1", port), "/healthz").status == 200
        except ConnectionRefusedError:
            return False

    eventually(answers, "the port is taken again")


def test_other_settings_move_the_port_and_wrong_ones_leave_it(
    place: Place, new_front: NewFront, tmp_path: Path
) -> None:
    first, second = free_port(), free_port()
    log = tmp_path / "agent.log"
    front = new_front(metrics_address=f"127.0.0.1:{first}")
    front.use(new_settings(metrics_address="node1:9631", log_file=log))
    assert any("is not address:port" in each["msg"] for each in said(tmp_path))
    assert get(("127.0.0.1", first), "/healthz").status == 200
    front.use(new_settings(metrics_address=f"127.0.0.1:{second}", log_file=log))
    eventually(lambda: _answers(second), "the new port")
    assert not _answers(first)
    front.use(new_settings(log_file=log))
    eventually(lambda: not _answers(second), "no port at all")


def _answers(port: int) -> bool:
    try:
        return get(("127.0.0.1", port), "/healthz").status == 200
    except (ConnectionError, IndexError):
        return False


def test_the_socket_comes_back_when_somebody_removes_it(place: Place, new_front: NewFront) -> None:
    front = new_front()
    (place.run_dir / "http.sock").unlink()
    front.use(new_settings(log_file=place.run_dir / "agent.log"))
    eventually((place.run_dir / "http.sock").exists, "the socket")
    eventually(lambda: page(place, "/healthz").status == 200, "an answer")


def test_the_socket_is_taken_back_from_an_agent_that_was_killed(place: Place, new_front: NewFront) -> None:
    front = new_front()
    successor = UnixSocket(place.run_dir / "http.sock", 1)
    front.use(new_settings(log_file=place.run_dir / "agent.log"))
    assert successor.owner() is SocketOwner.OURS, "as long as it lives"
    successor.close()
    front.use(new_settings(log_file=place.run_dir / "agent.log"))

    def answers() -> bool:
        try:
            return page(place, "/healthz").status == 200
        except OSError:
            return False

    eventually(answers, "an answer")


def test_the_end_leaves_no_socket_and_not_another_agents(
    place: Place, work: Work, new_front: NewFront, tmp_path: Path
) -> None:
    settings = new_settings(log_file=tmp_path / "agent.log")
    old, new = Front(place, work, settings), Front(place, work, settings)
    old.start()
    new.start()
    old.stop()
    assert page(place, "/healthz").status == 200
    new.stop()
    assert not (place.run_dir / "http.sock").exists()


def test_its_own_log_has_lines_of_json_and_minds_the_level(
    place: Place, work: Work, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(new_settings(log_file=tmp_path / "agent.log", log_level="warning"))
    journal.write("warning", "host_route of eth0 was put back", address="10.1.0.5")
    journal.write("info", "not asked for")
    (record,) = said(tmp_path)
    assert record["msg"] == "host_route of eth0 was put back"
    assert record["address"] == "10.1.0.5"
    assert record["level"] == "warning"
    assert record["pid"] == os.getpid()
    assert json.loads(capfd.readouterr().err) == record


def test_a_log_that_cannot_be_written_stops_nothing(place: Place, work: Work, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = Journal(new_settings(log_file=tmp_path / "file" / "agent.log"))
    journal.write("error", "goes to stderr alone")


def test_trouble_is_said_when_it_begins_changes_and_ends(
    place: Place, new_front: NewFront, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cni_plugin.agent import network_ready as module

    monkeypatch.setattr(module, "STARTING_SECONDS", 0.0)
    front = new_front()
    for _ in range(4):
        front.look()
    place.list_addresses(1)
    eventually(lambda: any(each["msg"].startswith("ready") for each in said(tmp_path)), "ready")
    messages = [each["msg"] for each in said(tmp_path)]
    assert sum("not been read yet" in each for each in messages) == 1
    assert messages[-1] == "ready: pods get addresses"


def test_a_state_is_logged_once_although_its_words_change(tmp_path: Path) -> None:
    """A full node says how long ago the source was read; that is no news at every look."""
    journal = Journal(new_settings(log_file=tmp_path / "agent.log"))
    for seconds in range(30):
        full = Problem(EXHAUSTED, f"no free address; read {seconds} s ago", level="error", over="ready")
        journal.report("readiness", [full])
    journal.report("readiness", [])
    assert [each["msg"] for each in said(tmp_path)] == ["no free address; read 0 s ago", "ready"]


def test_a_node_that_is_not_ready_for_another_reason_is_not_said_to_be_ready(tmp_path: Path) -> None:
    journal = Journal(new_settings(log_file=tmp_path / "agent.log"))
    for reason in ("not read yet", "never readable"):
        journal.report("readiness", [Problem("no-address", reason, reason, level="error", over="ready")])
    assert [each["msg"] for each in said(tmp_path)] == ["not read yet", "never readable"]
    journal.report("readiness", [])
    assert [each["msg"] for each in said(tmp_path)] == ["not read yet", "never readable", "ready"]


def test_a_full_node_logs_that_once(
    place: Place, new_front: NewFront, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_ready, "STARTING_SECONDS", 0.0)
    place.list_addresses(1)
    place.hold("a")
    front = new_front()
    reasons = set()

    def changes() -> bool:
        front.network_ready.use(new_settings(log_file=tmp_path / "agent.log"))  # it looks at once
        reasons.add(ready_or_why(place))
        return len(reasons) > 2

    eventually(changes, "the reason has changed twice: it says how long ago the source was read")
    assert sum("not ready" in each["msg"] for each in said(tmp_path)) == 1
