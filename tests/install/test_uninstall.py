"""Uninstalling gives the node back as it was."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from cni_plugin.host.forwarding import BEFORE
from cni_plugin.install.network import DEFAULT
from tests.install.forge import ROOT, Forge, number_of
from tests.install.node import CALL, COMMAND, Node, run, tree
from tests.install.test_install import agent
from tests.waiting import Syscall, eventually, waits_in


def test_a_node_is_as_it_was_before(forge: Forge, node: Node) -> None:
    before = tree(node.root)
    for _ in range(3):
        node.install(forge.bundle())

    done = node.run("uninstall")

    assert done.returncode == 0, done.stderr
    assert tree(node.root) == before


def test_the_command_is_on_the_path_until_then(forge: Forge, node: Node) -> None:
    node.command_dir.mkdir(parents=True)
    before = tree(node.root)
    bundle = forge.bundle()

    assert f"{node.command_dir} has azvnet\n" in node.install(bundle)
    assert "nothing to do" in node.install(bundle)

    told = subprocess.run(
        ["azvnet"],
        env={**CALL, "PATH": str(node.command_dir)},
        input=b"",
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert json.loads(told.stdout)["number"] == node.number()
    elsewhere = node.run("uninstall", f"--command-dir={node.root}/other")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert tree(node.root) == before, "the record says where it was put"


def test_a_command_of_somebody_else_stays(forge: Forge, node: Node) -> None:
    node.command_dir.mkdir(parents=True)
    (node.command_dir / "azvnet").write_text("theirs")
    before = tree(node.root)

    told = node.install(forge.bundle())

    assert f"note: {node.command_dir}/azvnet is another program" in told
    assert node.run("uninstall").returncode == 0
    assert tree(node.root) == before


def test_a_directory_for_commands_that_can_not_be_written_is_no_obstacle(forge: Forge, node: Node) -> None:
    node.command_dir.mkdir(parents=True)
    bundle = forge.bundle()
    before = tree(node.root)
    read_only = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f'mount --bind -o ro "{node.command_dir}" "$0"; exec "$@"',
    ]
    done = run(
        [*read_only, str(node.command_dir), *COMMAND, *node.argv("install", f"--bundle={bundle}")], node.root
    )

    assert done.returncode == 0, done.stderr
    assert f"note: {node.command_dir} can't be written" in done.stdout
    assert node.run("uninstall").returncode == 0
    assert tree(node.root) == before


def test_folders_that_were_not_there_go_again(forge: Forge, tmp_path: Path) -> None:
    node = Node(tmp_path / "bare")
    node.root.mkdir()
    node.install(forge.bundle())

    assert node.run("uninstall").returncode == 0

    assert tree(node.root) == {}


def test_every_folder_of_plugins_that_was_ever_used_is_cleared(forge: Forge, node: Node) -> None:
    before = tree(node.root)
    bundle = forge.bundle()
    node.install(bundle, f"--bin-dir={node.root}/other/bin")
    node.install(bundle)

    assert node.run("uninstall").returncode == 0
    assert tree(node.root) == before


def test_a_conflist_of_before_comes_back(forge: Forge, node: Node, tmp_path: Path) -> None:
    node.conflist.write_bytes(DEFAULT.replace(b'"transparent"', b'"transparent", "mtu": 1400'))
    node.conflist.chmod(0o644)
    before = tree(node.root)
    given = tmp_path / "given"
    given.write_bytes(DEFAULT)
    node.install(forge.bundle(), f"--conflist={given}")

    assert node.run("uninstall").returncode == 0

    assert tree(node.root) == before


def test_a_conflist_that_the_installation_did_not_write_stays_and_is_named(forge: Forge, node: Node) -> None:
    node.conflist.write_bytes(DEFAULT)
    before = tree(node.root)
    node.install(forge.bundle())

    done = node.run("uninstall")

    assert done.returncode == 0
    assert "10-azvnet.conflist stays" in done.stdout
    assert tree(node.root) | {} == before


def test_what_is_somebody_elses_by_now_stays(forge: Forge, node: Node) -> None:
    node.install(forge.bundle())
    node.conflist.write_text('{"name": "other", "plugins": [{"type": "ptp"}]}')
    (node.bin_dir / "azvnet").unlink()
    (node.bin_dir / "azvnet").write_text("theirs")
    (node.prefix / "notes").write_text("theirs")

    done = node.run("uninstall")

    assert done.returncode == 0
    assert "ptp" in node.conflist.read_text()
    assert (node.bin_dir / "azvnet").read_text() == "theirs"
    assert not (node.bin_dir / "azvnet-ipam").exists()
    assert [path.name for path in node.prefix.iterdir()] == ["notes"]


def test_nothing_to_uninstall_is_no_error(node: Node) -> None:
    before = tree(node.root)

    done = node.run("uninstall")

    assert done.returncode == 0
    assert "nothing is installed" in done.stdout
    assert tree(node.root) == before


def test_it_is_refused_while_pods_are_attached(forge: Forge, node: Node) -> None:
    bundle = forge.bundle()
    node.install(bundle)
    before = tree(node.root)
    name = "azv369c8d47e56"
    link = f"ip link add {name} type veth peer name other; ip link set {name} alias 'azvnet1 c1 eth0 azure'"
    in_netns = ["unshare", "--net", "sh", "-ec", f'{link}; exec "$@"', "sh", *COMMAND]

    done = run([*in_netns, *node.argv("uninstall")], node.root)

    assert done.returncode == 1
    assert "1 attachment is alive" in done.stderr
    assert tree(node.root) == before
    assert run([*in_netns, *node.argv("uninstall", "--force")], node.root).returncode == 0
    assert not node.prefix.exists()


def test_it_is_refused_while_the_agent_runs(forge: Forge, node: Node) -> None:
    bundle = forge.bundle()
    node.install(bundle)
    with agent(node):
        done = node.run("uninstall")

    assert done.returncode == 1
    assert "processes of" in done.stderr
    assert node.number() == number_of(bundle)


def test_the_nodes_state_and_logs_go_only_when_it_is_asked_for(forge: Forge, node: Node) -> None:
    state, logs = node.root / "run", node.root / "log"
    before = tree(node.root)
    for folder in (state, logs):
        folder.mkdir()
    (state / "azvnet.db").write_text("")
    for name in ("azvnet.log", "azvnet.log.1", "agent.log"):
        (logs / name).write_text("")
    bundle = forge.bundle()
    node.install(bundle)
    assert node.run("uninstall").returncode == 0
    assert len(list(logs.iterdir())) == 3
    assert state.exists()

    node.install(bundle)
    assert node.run("uninstall", "--purge").returncode == 0
    assert tree(node.root) == before


def test_what_is_not_of_ours_in_the_state_directory_stays(forge: Forge, node: Node) -> None:
    """The environment names that directory: it may be any."""
    state = node.root / "run"
    (state / "azvnet.db.d").mkdir(parents=True)
    (state / "azvnet.db-wal").mkdir()
    others = ["systemd", "other.lock", "azvnet.db.backup", "docker.sock", "azvnet.database"]
    ours = ["azvnet.db", "azvnet.db-shm", "azvnet.db.new", "azvnet.db.corrupt-20261126T150000Z", "store.lock"]
    ours += ["attachments.lock", "agent.sock", "http.sock.0a1b2c3d", "sysctls-before.json", "source.lock"]
    ours += ["source-0a1b2c3d.lock", "azvnet.db.newer-20261126T150000Z"]
    for name in (*others, *ours):
        (state / name).write_text("")
    (state / "azvnet.db.corrupt-20261126T150001Z").symlink_to(node.bin_dir / "portmap")

    done = node.run("uninstall", "--purge")

    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in state.iterdir())
    assert left == sorted([*others, "azvnet.db.d", "azvnet.db-wal"])
    assert "run stays: it has azvnet.database" in done.stdout
    assert (node.bin_dir / "portmap").read_text() == "another plugin"


def test_what_is_not_of_ours_beside_the_logs_stays(forge: Forge, node: Node) -> None:
    logs = node.root / "log"
    logs.mkdir()
    for name in ("azvnet.log", "azvnet.log.old", "syslog"):
        (logs / name).write_text("")
    assert node.run("uninstall", "--purge").returncode == 0
    assert sorted(path.name for path in logs.iterdir()) == ["azvnet.log.old", "syslog"]


def test_the_agents_conflist_goes_when_it_is_asked_for_and_no_other(forge: Forge, node: Node) -> None:
    """Where the agent is a pod, it and not the installation writes the conflist."""
    before = tree(node.root)
    node.install(forge.bundle(), "--no-conflist")
    node.conflist.write_bytes(DEFAULT)
    done = node.run("uninstall", "--remove-conflist")
    assert "removed" in done.stdout
    assert tree(node.root) == before

    node.conflist.write_bytes(DEFAULT)  # the one that was killed before it got here
    assert node.run("uninstall", "--remove-conflist").returncode == 0
    assert tree(node.root) == before

    node.conflist.write_text('{"name": "other", "plugins": [{"type": "ptp"}]}')
    assert node.run("uninstall", "--remove-conflist").returncode == 0
    assert node.conflist.exists()


def test_it_is_refused_while_an_agent_listens_wherever_it_runs(forge: Forge, node: Node) -> None:
    """One in a container can't be found among the processes, and would write the conflist again."""
    node.install(forge.bundle())
    before = tree(node.bin_dir)
    run_dir = node.root / "run"
    run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run_dir / "agent.sock"))
        listening.listen()
        done = node.run("uninstall")
        assert done.returncode == 1
        assert "an agent listens at" in done.stderr
        assert tree(node.bin_dir) == before
        assert node.run("uninstall", "--force").returncode == 0
    assert not node.prefix.exists()


def test_it_stays_until_it_is_ended_when_it_is_asked_to(forge: Forge, node: Node) -> None:
    node.install(forge.bundle())
    environ = {**os.environ, "AZVNET_RUN_DIR": str(node.root / "run"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*COMMAND, *node.argv("uninstall", "--stay")], env=environ, cwd=ROOT)
    try:
        eventually(lambda: not node.prefix.exists(), "it is uninstalled")
        eventually(lambda: waits_in(process.pid, Syscall.SELECT, Syscall.PSELECT6), "it waits for a signal")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()


FORWARDING = "proc/sys/net/ipv4/ip_forward"
REDIRECTS = "proc/sys/net/ipv4/conf/all/accept_redirects"


@pytest.fixture
def forwarding(forge: Forge, tmp_path: Path) -> tuple[Node, list[str]]:
    """A node below a root of its own, whose forwarding was switched on for pods; arguments for it."""
    node = Node(tmp_path / "host")
    node.conf_dir.mkdir(parents=True)
    for name, value in ((FORWARDING, "1"), (REDIRECTS, "0")):
        (node.root / name).parent.mkdir(parents=True)
        (node.root / name).write_text(value)
    (node.root / "run").mkdir()
    before = {"ipv4/ip_forward": "0", "ipv4/conf/all/accept_redirects": "1"}
    (node.root / "run" / BEFORE).write_text(json.dumps(before))
    places = ["--prefix=/opt/azvnet", "--bin-dir=/opt/cni/bin", "--conf-dir=/etc/cni/net.d"]
    arguments = [f"--root={node.root}", *places]
    node.install(forge.bundle(), *arguments)
    return node, arguments


def test_forwarding_is_off_again_where_it_was_switched_on_for_pods(
    forwarding: tuple[Node, list[str]],
) -> None:
    node, arguments = forwarding
    done = node.run("uninstall", *arguments)
    assert done.returncode == 0
    assert "net.ipv4.ip_forward is 0, as it was before" in done.stdout
    assert (node.root / FORWARDING).read_text() == "0"
    assert (node.root / REDIRECTS).read_text() == "1"
    assert not (node.root / "run" / BEFORE).exists()


def test_forwarding_stays_on_where_another_network_may_need_it(forwarding: tuple[Node, list[str]]) -> None:
    node, arguments = forwarding
    (node.conf_dir / "20-other.conflist").write_text('{"name": "other", "plugins": []}')
    done = node.run("uninstall", *arguments)
    assert done.returncode == 0
    kept = "ip_forward, which was 0, stays as it is, since /etc/cni/net.d/20-other.conflist may need it"
    assert kept in done.stdout
    assert (node.root / FORWARDING).read_text() == "1"
