"""Parts of the cluster that need no Kubernetes: the relay, the reading of reports, the cache of programs."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from integration import tools
from integration.cluster import Cluster, ClusterError, cni
from integration.cluster.api import Api, ApiError, Watch
from integration.cluster.comparison import CONTENDERS, SELECTIONS, Run, faults
from integration.cluster.comparisonpage import begin, with_table
from integration.cluster.conformance import BEGIN, Spec, document, documented, ended, specs, table
from integration.cluster.program import Program
from integration.cluster.relay import Relay
from integration.fabric import Fabric
from integration.marked import END
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine


@pytest.fixture
def host() -> Iterator[Machine]:
    """An ordinary machine of the virtual network."""
    with Fabric(nodes=0) as fabric:
        yield fabric.vnet_hosts["vm1"]


@pytest.fixture
def shout(host: Machine) -> Iterator[tuple[str, int]]:
    """A server in the machine that reads to the end, and answers in capitals."""
    listener = host.in_network(lambda: socket.create_server((str(host.primary_ip), 0)))

    def answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            connection.sendall(stream.read().upper())

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,)).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[:2]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def asked(port: int, text: bytes) -> bytes:
    """What a server answers that waits for the end of what it is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.read()


def test_relay_carries_both_ways_and_passes_the_end_of_each_on(host: Machine, shout: tuple[str, int]) -> None:
    relay = Relay(host, shout)
    try:
        long = b"abc" * 200_000
        assert asked(relay.port, long) == long.upper()
        assert asked(relay.port, b"") == b""
    finally:
        relay.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", relay.port), timeout=10)


def test_relay_ends_connections_that_are_open_when_it_is_closed(
    host: Machine, shout: tuple[str, int]
) -> None:
    relay = Relay(host, shout)
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as connection:
        connection.sendall(b"half a sentence")
        assert asked(relay.port, b"whole") == b"WHOLE"  # so the one before was carried on as well
        relay.close()
        # The server sees the end of what was sent, or the client that of the connection: nobody waits.
        assert connection.recv(100) in (b"", b"HALF A SENTENCE")


def test_relay_to_a_port_that_nobody_serves_ends_the_connection(host: Machine) -> None:
    relay = Relay(host, (str(host.primary_ip), 1))
    try:
        assert asked(relay.port, b"") == b""
    finally:
        relay.close()


def test_program_that_ends_early_is_told_with_what_it_said(host: Machine, tmp_path: Path) -> None:
    program = Program(
        host, "doomed", ["sh", "-c", "echo no such flag; exit 3"], tmp_path / "logs" / "doomed.log"
    )
    program.start()
    with pytest.raises(ClusterError, match=r"(?s)doomed of vm1 does not run.*no such flag"):
        program.wait_until("ready", lambda: False, patience=30)


def test_program_that_takes_too_long_is_told_with_what_it_said(host: Machine, tmp_path: Path) -> None:
    program = Program(host, "slow", ["sh", "-c", "echo waiting; exec sleep 100"], tmp_path / "slow.log")
    program.start()
    program.wait_until("waiting", lambda: "waiting" in program.log_tail())
    with pytest.raises(ClusterError, match=r"(?s)slow of vm1: not once within 0 s ready.*waiting"):
        program.wait_until("ready", lambda: False, patience=0.2)
    pid = program.pid
    program.restart(kill=True)
    assert program.pid != pid
    program.stop()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("bad", [{"proxy": "userspace"}, {"cni": "calico"}])
def test_unknown_choice_is_refused_before_anything_starts(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"there are|it has"):
        Cluster(**bad)


def test_reference_plugins_get_addresses_that_the_nic_owns() -> None:
    with Fabric(nodes=1, addresses=8, vnet_hosts=0) as fabric:
        node = fabric.nodes["node1"]
        ipam = cni.reference_conflist(node)["plugins"][0]["ipam"]["ranges"][0][0]
        own = sorted(node.pod_addresses)
        assert (ipam["rangeStart"], ipam["rangeEnd"], ipam["gateway"]) == tuple(
            map(str, (own[0], own[-2], own[-1]))
        )


def test_reference_plugins_get_addresses_of_both_families_where_the_nic_has_them() -> None:
    with Fabric(nodes=1, addresses=4, ipv6=3, vnet_hosts=0) as fabric:
        node = fabric.nodes["node1"]
        ipam = cni.reference_conflist(node)["plugins"][0]["ipam"]
        (_,), (v6,) = ipam["ranges"]
        own = node.vm.primary_nic.ipv6[1:]
        assert (v6["rangeStart"], v6["rangeEnd"], v6["gateway"]) == tuple(map(str, own))
        assert v6["subnet"] == "fd00:10:10::/64"
        assert [route["dst"] for route in ipam["routes"]] == ["0.0.0.0/0", "::/0"]


REPORT = [
    {
        "SpecReports": [
            {
                "ContainerHierarchyTexts": ["[sig-network] Services"],
                "LeafNodeType": "It",
                "LeafNodeText": "should work [Conformance]",
                "State": "passed",
                "RunTime": 2_500_000_000,
            },
            {
                "ContainerHierarchyTexts": ["[sig-network] DNS"],
                "LeafNodeType": "It",
                "LeafNodeText": "should resolve [Conformance]",
                "State": "failed",
                "RunTime": 1_000_000_000,
                "Failure": {"Message": "timed out\\nwaiting"},
            },
            {
                "ContainerHierarchyTexts": ["[sig-storage] Volumes"],
                "LeafNodeType": "It",
                "LeafNodeText": "should mount [Conformance]",
                "State": "skipped",
                "RunTime": 0,
            },
            {
                "ContainerHierarchyTexts": None,
                "LeafNodeType": "SynchronizedBeforeSuite",
                "LeafNodeText": "",
                "State": "passed",
                "RunTime": 0,
            },
        ]
    }
]


def test_report_tells_of_the_specs_that_were_to_run_and_of_no_others() -> None:
    found = specs(REPORT, r"\[sig-network\].*\[Conformance\]")
    assert [(spec.name, spec.state, spec.seconds) for spec in found] == [
        ("[sig-network] DNS should resolve [Conformance]", "failed", 1.0),
        ("[sig-network] Services should work [Conformance]", "passed", 2.5),
    ]
    assert "timed out" in found[0].message
    assert "1 of 2 passed" in table(found)


def test_page_of_results_gets_those_of_one_mode_and_keeps_the_others() -> None:
    found = specs(REPORT, r"\[sig-network\].*\[Conformance\]")
    page = document(f"# Title\n{BEGIN}{END}More.\n", "nftables", found)
    assert page.startswith("# Title\n")
    assert page.endswith("More.\n")
    assert documented(page) == {"DNS should resolve": ("failed", ""), "Services should work": ("passed", "")}
    assert "1 of 2 passed" in page
    both = document(page, "iptables", found[1:])
    assert documented(both) == {
        "DNS should resolve": ("failed", ""),
        "Services should work": ("passed", "passed"),
    }
    assert document(both, "iptables", []) == page


def compared(ours: str, theirs: str, dropped: dict[str, int] | None = None) -> dict[str, Run]:
    """A spec that came to these states with azvnet and with ptp."""
    states = zip(CONTENDERS, (ours, theirs), strict=True)
    made = {name: (Spec("[sig-network] A", state, 1.0, "why"),) for name, state in states}
    return {name: Run(specs, (dropped or {}) if name == "azvnet" else {}) for name, specs in made.items()}


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (compared("passed", "passed"), []),
        (compared("passed", "failed"), []),
        (compared("failed", "passed"), ["failed with azvnet, passed with ptp"]),
        (compared("skipped", "passed"), ["skipped with azvnet, passed with ptp"]),
        (compared("failed", "failed"), ["failed with azvnet, failed with ptp"]),
        (compared("passed", "passed", {"node1": 2}), ["dropped 2 packets of node1"]),
        ({**compared("passed", "passed"), "azvnet": Run((), {})}, ["did not run with azvnet"]),
    ],
)
def test_comparison_finds_fault_with_azvnet_alone(runs: dict[str, Run], words: list[str]) -> None:
    found = faults(runs)
    assert len(found) == len(words)
    assert all(word in fault for word, fault in zip(words, found, strict=True))


def test_table_of_a_comparison_has_a_line_for_each_spec_and_keeps_the_rest_of_the_page() -> None:
    chosen = SELECTIONS["beyond"]
    page = f"# Title\n{begin(chosen, 'nftables')}old\n{END}More.\n"
    found = with_table(page, chosen, "nftables", compared("passed", "failed"))
    assert "azvnet: 1 of 1 passed, ptp: 0 of 1 passed." in found
    assert "| A | passed | failed |" in found
    assert "old" not in found
    assert (found.splitlines()[0], found.splitlines()[-1]) == ("# Title", "More.")


def test_suite_that_fails_before_its_first_spec_is_not_taken_for_one_that_passed() -> None:
    entry = {
        "ContainerHierarchyTexts": None,
        "LeafNodeType": "SynchronizedBeforeSuite",
        "LeafNodeText": "",
        "State": "failed",
        "RunTime": 1,
        "Failure": {"Message": "no nodes"},
    }
    found = specs([{"SpecReports": [entry]}], "Conformance")
    assert [(spec.name, spec.passed, spec.message) for spec in found] == [
        ("SynchronizedBeforeSuite", False, "no nodes")
    ]


def test_specs_that_have_ended_are_counted_by_ginkgos_marks(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("SSSS•SSS•\n• [FAILED] [3.2 seconds]\n", encoding="utf-8")
    assert ended(tmp_path / "output") == 3


def test_checkouts_that_differ_do_not_build_over_one_another(tmp_path: Path) -> None:
    """Two checkouts that shared a cache once rebuilt what the other one was running."""
    here = Path(tools.__file__).parent
    other = tmp_path / "integration" / "tools"
    shutil.copytree(here, other, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "packaging").mkdir()
    shutil.copy(here.parents[1] / "packaging" / "go-toolchain.sh", tmp_path / "packaging")
    cache = tools.tools().parent
    environment = {**os.environ, "AZVNET_TOOLS_CACHE": str(cache)}

    def folder() -> Path:
        done = subprocess.run(
            [other / "build.sh"], env=environment, capture_output=True, text=True, check=True
        )
        return Path(done.stdout.strip())

    assert folder() == tools.tools(), "the same inputs, the same programs"
    with (other / "criclient" / "main.go").open("a") as source:
        source.write("\n// changed\n")
    changed = folder()
    try:
        assert changed != tools.tools()
        assert (changed / "criclient").exists()
        assert (tools.tools() / "criclient").exists()
    finally:
        shutil.rmtree(changed)


Answer = list[tuple[str, str]] | int
"""Of a watch: kinds and versions of what it tells of, then the connection ends; or a status."""


@contextlib.contextmanager
def watched(answers: list[Answer]) -> Iterator[tuple[list[str], list[str]]]:
    """A watch of a server that gives these answers; from which versions it went on, and what it told of."""
    since: list[str] = []
    told: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if len(since) == len(answers):
                return  # the test has seen what it wants
            answer = answers[len(since)]
            since.append(*parse_qs(urlsplit(self.path).query).get("resourceVersion", [""]))
            self.send_response(answer if isinstance(answer, int) else http.client.OK)
            self.end_headers()
            for kind, version in [] if isinstance(answer, int) else answer:
                event = {"type": kind, "object": {"metadata": {"resourceVersion": version}}}
                self.wfile.write(json.dumps(event).encode() + b"\n")

        def log_message(self, format: str, *_arguments: object) -> None:  # noqa: A002 - as it is called there
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        plain = http.client.HTTPConnection
        watch = Watch(
            lambda: cast("http.client.HTTPSConnection", plain("127.0.0.1", server.server_address[1])),
            "/pods",
            lambda _, kind, document: told.append(kind + document["metadata"]["resourceVersion"]),
            {},
        )
        try:
            with watch:
                yield since, told
        finally:
            server.shutdown()
            thread.join()


def test_watch_that_is_cut_off_goes_on_where_it_ended() -> None:
    """Told of 20,000 pods anew, a busy watcher did not keep up, and was cut off again."""
    with watched([[("ADDED", "3"), ("BOOKMARK", "5")], [("MODIFIED", "6")], []]) as (since, told):
        eventually(lambda: len(since) == 3, "it has asked three times")
    assert since == ["", "5", "6"]
    assert told == ["ADDED3", "MODIFIED6"]


@pytest.mark.parametrize("too_old", [[("ERROR", "")], http.client.GONE])
def test_watch_begins_anew_where_the_server_does_not_know_that_version_any_more(too_old: Answer) -> None:
    with watched([[("ADDED", "3")], too_old, [("ADDED", "9")]]) as (since, told):
        eventually(lambda: len(told) == 2, "it has begun anew")
    assert since == ["", "3", ""]
    assert told == ["ADDED3", "ADDED9"]


@pytest.fixture
def closing(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """An API server that closes each connection after an answer, without a word; the methods it was asked."""
    authority, asked = trustme.CA(), list[str]()

    class Closing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            asked.append(self.command)
            self.send_response(http.client.OK)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            self.close_connection = True

        do_GET = do_POST = _answer  # noqa: N815 - as they are called there

        def log_message(self, format: str, *_arguments: object) -> None:  # noqa: A002 - as it is called there
            """Say nothing."""

    def encoded(*blobs: trustme.Blob) -> str:
        return base64.b64encode(b"".join(each.bytes() for each in blobs)).decode()

    own, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Closing) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        place = f"https://127.0.0.1:{server.server_address[1]}"
        cluster = {"server": place, "certificate-authority-data": encoded(authority.cert_pem)}
        user = {
            "client-certificate-data": encoded(*client.cert_chain_pems),
            "client-key-data": encoded(client.private_key_pem),
        }
        config = {"clusters": [{"cluster": cluster}], "users": [{"user": user}]}
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        try:
            yield tmp_path / "kubeconfig", asked
        finally:
            server.shutdown()
            thread.join()


def test_connection_that_the_server_closed_while_it_was_idle_costs_no_answer(
    closing: tuple[Path, list[str]],
) -> None:
    kubeconfig, asked = closing
    with Api(kubeconfig) as api:
        for _ in range(3):
            assert api.get("/pods") == {}
    assert asked == ["GET"] * 3


def test_what_changes_something_is_not_sent_twice(closing: tuple[Path, list[str]]) -> None:
    """It may have arrived."""
    kubeconfig, asked = closing
    with Api(kubeconfig) as api:
        api.create("/pods", {})
        with pytest.raises(ApiError):
            api.create("/pods", {})
    assert asked == ["POST"]
