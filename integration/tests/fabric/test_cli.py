"""The command line does what the Python interface does, on a fabric that lives by itself."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from integration.fabric import control, records, standalone
from integration.tests.fabric.test_cleanup import command

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    name = f"t{secrets.token_hex(4)}"
    command(name, "up", "--nodes", "2", "--addresses", "4", "--internet", "--accelerated")
    yield name
    with contextlib.suppress(Exception):
        standalone.take_down(name)


def test_up_shows_the_machines(lab: str) -> None:
    shown = command(lab, "status").stdout
    for word in ("node1", "node2", "vm1", "internet", "10.10.0.4", "10.10.0.5 .. 10.10.0.8"):
        assert word in shown


def test_exec_runs_inside_and_gives_back_the_exit_code(lab: str) -> None:
    assert command(lab, "exec", "node2", "--", "hostname").stdout == "node2\n"
    assert command(lab, "exec", "node1", "sh", "-c", "exit 7", check=False).returncode == 7


def status_of(lab: str, machine: str, url: str) -> str:
    """The HTTP status that a program in the machine gets, which trusts what the machine is given to trust."""
    script = (
        "import ssl, sys, urllib.request, urllib.error\n"
        "trust = ssl.create_default_context(cafile='/etc/azure-fabric/ca.pem')\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=5, context=trust).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    return command(lab, "exec", machine, "--", sys.executable, "-c", script, url).stdout.strip()


def test_programs_inside_find_arm_by_name_and_can_trust_it(lab: str) -> None:
    assert status_of(lab, "node1", "https://management.azure.com/") == "401"


def test_writes_through_arm_are_switched_by_words(lab: str) -> None:
    command(lab, "arm", "role", "writer")
    command(lab, "arm", "speed", "1000")
    command(lab, "arm", "edit", "node1-nic0")
    assert "client" not in command(lab, "arm", "log").stdout
    refused = command(lab, "arm", "edit", "nothing", check=False)
    assert refused.returncode != 0
    assert "nothing" in refused.stderr
    command(lab, "arm", "clear")


def test_faults_go_on_and_off(lab: str) -> None:
    url = "http://168.63.129.16/?comp=versions"
    command(lab, "fault", "wireserver", "--status", "503", "--node", "node1")
    assert "fault wireserver: node=node1 status=503" in command(lab, "status").stdout
    assert status_of(lab, "node1", url) == "503"
    assert status_of(lab, "node2", url) == "200"
    command(lab, "clear")
    assert status_of(lab, "node1", url) == "200"


def test_a_fault_that_makes_no_sense_is_refused_with_what_does(lab: str) -> None:
    refused = command(lab, "fault", "fabric", "--delay", "1", check=False)
    assert refused.returncode == 1
    assert "set its lag" in refused.stderr


def test_addresses_are_added_and_removed(lab: str) -> None:
    added = command(lab, "address", "add", "node1", "2").stdout.split()
    assert len(added) == 2
    command(lab, "address", "state", "node1", added[0], "--state", "Updating")
    assert "6 (1 unfinished)" in command(lab, "status").stdout
    command(lab, "address", "remove", "node1", *added)
    assert "10.10.0.5 .. 10.10.0.8" in command(lab, "status").stdout
    refused = command(lab, "address", "add", "node1", "10.10.0.1", check=False)
    assert "PrivateIPAddressInReservedRange" in refused.stderr


def test_counters_tell_who_spoofed(lab: str) -> None:
    ping = ["ping", "-c1", "-W0.2", "-I", "10.99.0.1", "10.10.0.9"]
    command(lab, "exec", "node1", "--", "ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    command(lab, "exec", "node1", "--", *ping, check=False)
    shown = command(lab, "counters").stdout
    assert "10.99.0.1" in shown


def test_lag_and_vf_and_reboot(lab: str) -> None:
    command(lab, "lag", "imds", "2.5")
    assert "lag imds: 2.5 s" in command(lab, "status").stdout
    command(lab, "vf", "add", "node2")
    assert "enP1s1" in command(lab, "exec", "node2", "--", "ls", "/sys/class/net").stdout
    command(lab, "reboot", "node2")
    assert "enP1s1" not in command(lab, "exec", "node2", "--", "ls", "/sys/class/net").stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["exec", "nobody", "--", "true"], "there are node1, node2"),
        (["exec", "node1"], "say which program"),
        (["reboot", "nobody"], "there is no machine nobody"),
    ],
)
def test_mistakes_are_answered_with_what_is_right(lab: str, words: list[str], hint: str) -> None:
    done = command(lab, *words, check=False)
    assert done.returncode == 1
    assert hint in done.stderr


def test_a_fabric_that_is_not_there(lab: str) -> None:
    done = command(lab + "x", "status", check=False)
    assert done.returncode == 1
    assert "is it up?" in done.stderr


def test_rubbish_on_the_control_socket_breaks_nothing(lab: str) -> None:
    for rubbish in (b"", b"\n", b"[]\n", b'{"do": 5}\n', b'{"do": "status", "more": 1}\n', b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(records.root() / lab / control.SOCKET))
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            assert b"error" in connection.recv(4096)
    assert control.ask(lab, "status")["name"] == lab


def test_the_control_socket_takes_several_callers(lab: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        assert {s["name"] for s in pool.map(lambda _: control.ask(lab, "status"), range(16))} == {lab}


def test_the_plugin_is_installed_in_the_nodes_or_it_is_said_how_to_build_it(lab: str) -> None:
    from integration.plugins import BUNDLE

    name = f"{lab}z"
    try:
        done = command(name, "up", "--nodes", "1", "--plugin", check=False)
        if (BUNDLE / "azvnet").exists():
            listed = command(
                name, "exec", "node1", "--", "ls", "/opt/cni/bin", "/etc/cni/net.d"
            ).stdout.split()
            assert {"azvnet", "azvnet-ipam", "10-azvnet.conflist"} <= set(listed)
        else:
            assert done.returncode == 1
            assert "make build" in done.stderr
            assert name not in records.names()
    finally:
        standalone.take_down(name)


def test_down_ends_the_process(lab: str) -> None:
    name = f"{lab}y"
    command(name, "up", "--nodes", "0")
    record = records.read(name)
    assert record is not None
    assert "down" in command(name, "down").stdout
    assert not record.owner.alive()
    assert name not in standalone.running()
