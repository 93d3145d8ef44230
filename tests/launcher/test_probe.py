"""The probe: what a page says and whether it is well, in time, whatever answers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.launcher import programs
from tests.waiting import Syscall, eventually, send_byte_by_byte, waits_in

WHAT_IT_CALLS = set(
    re.findall(
        r"\w+",
        """
        __errno_location clock_gettime connect getenv memchr memmem poll recv send setsockopt signal socket
        stpcpy strcasestr strerror strlen strncmp strspn write
        """,
    )
)
HELPS_OF_THE_COMPILER = {"__stack_chk_fail", "memset", "memcpy"}
ROUNDS = 100_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
Script = Callable[[socket.socket], None]


def build(out: Path, **environment: str) -> Path:
    subprocess.run([programs.BUILD, out], env=os.environ | {"SOURCE": "probe.c"} | environment, check=True)
    return out


@pytest.fixture(scope="module", params=["shipped", "sanitised"])
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe") / str(request.param)
    if request.param == "sanitised":
        return build(out, LINK=programs.SANITISE, STRIP="no")
    return build(out)


def start(probe: Path, run_dir: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [probe, *arguments],
        env={"ASAN_OPTIONS": "detect_leaks=0", "AZVNET_RUN_DIR": str(run_dir)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ask(probe: Path, run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with start(probe, run_dir, *arguments) as process:
        try:
            said = process.communicate(timeout=30)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


@contextmanager
def agent(run_dir: Path, script: Script, backlog: int = 8) -> Iterator[list[bytes]]:
    """Something that listens where an agent does, and treats each connection by a script."""
    requests: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(run_dir / "http.sock"))
    listening.listen(backlog)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                requests.append(connection.recv(1 << 16))
                try:
                    script(connection)
                except OSError:  # it did not wait
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield requests
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listening.close()


def says(reply: bytes) -> Script:
    return lambda connection: connection.sendall(reply)


def keeps_open(reply: bytes) -> Script:
    """Says this, and waits for the other side to close."""

    def script(connection: socket.socket) -> None:
        connection.sendall(reply)
        connection.recv(1)

    return script


def trickles(connection: socket.socket) -> None:
    """Begins an answer that has no end; an error ends it when the other side has closed."""
    while True:
        connection.sendall(b"H")
        time.sleep(0.2)


def test_a_page_that_is_well_is_printed(probe: Path, run_dir: Path) -> None:
    with agent(run_dir, says(OK)) as requests:
        for page in ("readyz", "/readyz"):
            done = ask(probe, run_dir, page)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"ok\n", b"")
    assert requests == [b"GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n"] * 2


@pytest.mark.parametrize(
    "status", ["503 Service Unavailable", "404 Not Found", "500 X", "301 Moved", "204 No Content"]
)
def test_any_other_status_is_ill_and_its_reason_is_printed(status: str, probe: Path, run_dir: Path) -> None:
    reply = f"HTTP/1.1 {status}\r\nContent-Length: 20\r\n\r\nnot ready: no source".encode()
    with agent(run_dir, says(reply)):
        done = ask(probe, run_dir, "readyz")
    assert (done.returncode, done.stdout) == (1, b"not ready: no source")


def test_an_answer_in_pieces_is_put_together(probe: Path, run_dir: Path) -> None:
    with agent(run_dir, lambda connection: send_byte_by_byte(connection, OK)):
        assert ask(probe, run_dir, "healthz").stdout == b"ok\n"


def test_an_answer_that_is_there_whole_is_not_waited_for_longer(probe: Path, run_dir: Path) -> None:
    with agent(run_dir, keeps_open(OK)):
        assert ask(probe, run_dir, "healthz").returncode == 0


def test_a_large_page_comes_whole(probe: Path, run_dir: Path) -> None:
    body = b"azvnet_ready 1.0\n" * 100_000
    with agent(run_dir, says(b"HTTP/1.1 200 OK\r\n\r\n" + body)):
        done = ask(probe, run_dir, "metrics")
    assert (done.returncode, done.stdout) == (0, body)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "does not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", "does not answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", "does not answer"),
        (b"HTTP/1.1 200 OK\r\n\0\r\n\r\n", "does not answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP server"),
        (b"HTTP/1.1 OK\r\n\r\n", "no HTTP server"),
        (b"HTTP/1.1 2 0\r\n\r\n", "no HTTP server"),
        (b"\r\n\r\n", "no HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok\n", "incomplete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\n", "incomplete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", "incomplete"),
    ],
)
def test_what_is_no_whole_answer_is_ill_and_said(
    reply: bytes, words: str, probe: Path, run_dir: Path
) -> None:
    with agent(run_dir, says(reply)):
        done = ask(probe, run_dir, "healthz")
    assert done.returncode == 1
    assert words in done.stderr.decode()


@pytest.mark.parametrize("script", [keeps_open(b""), trickles])
@pytest.mark.parametrize(("arguments", "granted"), [(["1"], 1.0), ([], 4.0)], ids=["one second", "default"])
def test_who_does_not_answer_in_time_is_ill(
    script: Script, arguments: list[str], granted: float, probe: Path, run_dir: Path
) -> None:
    """The default is less than the manifest grants the probe, or nobody would hear the reason."""
    with agent(run_dir, script):
        started = time.monotonic()
        process = start(probe, run_dir, "healthz", *arguments)
        poll = eventually(lambda: waits_in(process.pid, Syscall.POLL), "it waits for the answer", pause=0.001)
        _, words = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"no answer in time" in words
    assert poll[3] / 1000 <= granted <= time.monotonic() - started + 0.1


def test_a_full_backlog_is_waited_for_no_longer(probe: Path, run_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run_dir / "http.sock"))
        listening.listen(0)
        waiting = []
        while True:
            sock = socket.socket(socket.AF_UNIX)
            waiting.append(sock)
            sock.setblocking(False)
            try:
                sock.connect(str(run_dir / "http.sock"))
            except BlockingIOError:
                break
        done = ask(probe, run_dir, "healthz", "1")
        assert done.returncode == 1
        assert b"no answer in time" in done.stderr
        for sock in waiting:
            sock.close()


def test_no_agent_is_ill_and_said(probe: Path, run_dir: Path) -> None:
    done = ask(probe, run_dir, "healthz")
    assert done.returncode == 1
    wanted = f"azvnet-probe: the agent can't be reached at {run_dir}/http.sock: No such file or directory\n"
    assert done.stderr.decode() == wanted
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(run_dir / "http.sock"))
    assert b"Connection refused" in ask(probe, run_dir, "healthz").stderr


def test_without_a_word_on_the_directory_it_is_the_usual_one(probe: Path) -> None:
    asked = "strace", "-f", "-e", "trace=connect", str(probe), "healthz"
    for environment in ({}, {"AZVNET_RUN_DIR": ""}):
        traced = subprocess.run(asked, env=environment, capture_output=True, check=False, timeout=30)
        if b"LeakSanitizer" in traced.stderr or b"ptrace" in traced.stderr:
            continue  # the sanitiser does not work under a tracer; the shipped one is the same source
        assert b'sun_path="/run/azvnet/http.sock"' in traced.stderr


def test_a_directory_whose_name_is_too_long_is_said(probe: Path) -> None:
    assert b"name too long" in ask(probe, Path("/" + "x" * 200), "healthz").stderr
    done = ask(probe, Path("/" + "x" * 5000), "healthz")
    assert (done.returncode, b"too long" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["/"],
        ["//healthz"],
        ["Healthz"],
        ["health z"],
        ["healthz HTTP/1.1\r\nX: y"],
        ["x" * 64],
        ["healthz", "0"],
        ["healthz", "-1"],
        ["healthz", "1.5"],
        ["healthz", "601"],
        ["healthz", "99999999999999999999"],
        ["healthz", "1", "more"],
    ],
)
def test_what_can_not_be_asked_is_said_and_nobody_is_asked(
    arguments: list[str], probe: Path, run_dir: Path
) -> None:
    with agent(run_dir, says(OK)) as requests:
        done = ask(probe, run_dir, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"azvnet-probe: usage: ")
    assert requests == []


def test_a_reader_that_went_away_is_no_crash(probe: Path, run_dir: Path) -> None:
    with agent(run_dir, says(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000)):
        read, write = os.pipe()
        os.close(read)
        command = [str(probe), "metrics"]
        environment = {"AZVNET_RUN_DIR": str(run_dir), "ASAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run(
            command, env=environment, stdout=write, stderr=subprocess.PIPE, check=False, timeout=30
        )
        os.close(write)
    assert done.returncode == 1
    assert b"Broken pipe" in done.stderr


def test_it_calls_nothing_that_allocates_or_formats(tmp_path: Path) -> None:
    environment = os.environ | {"SOURCE": "probe.c", "LINK": "-fno-pie", "STRIP": "no"}
    subprocess.run([programs.BUILD, tmp_path / "probe.o", "-c"], env=environment, check=True)
    listed = subprocess.run(
        ["nm", "-u", tmp_path / "probe.o"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    called = {line.split()[-1] for line in listed.splitlines()}
    assert called <= WHAT_IT_CALLS | HELPS_OF_THE_COMPILER, called - WHAT_IT_CALLS


def test_the_compilers_own_analysis_finds_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"SOURCE": "probe.c"}
    subprocess.run([programs.BUILD, tmp_path / "analysed", "-fanalyzer"], env=environment, check=True)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "fuzz"
    return build(out, SOURCE="fuzz_probe.c", LINK=programs.SANITISE, STRIP="no")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_mutant_of_an_answer_is_misread(fuzzer: Path, seed: int) -> None:
    subprocess.run([fuzzer, str(ROUNDS), str(seed)], check=True, timeout=100)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("- answer.bytes) + 4;", "- answer.bytes) + 3;"),
        ("status == 200 ? OK", "status != 503 ? OK"),
        ("length == -1 || passed == length", "true"),
        ("errno = ETIMEDOUT;\n    return false;", "return true;"),
    ],
)
def test_the_harness_sees_what_is_wrong(right: str, wrong: str, tmp_path: Path) -> None:
    source = (programs.SOURCE / "probe.c").read_text()
    assert source.count(right) == 1
    copied = shutil.copytree(programs.SOURCE, tmp_path / "launcher")
    (copied / "probe.c").write_text(source.replace(right, wrong))
    environment = os.environ | {"SOURCE": "fuzz_probe.c", "LINK": programs.SANITISE, "STRIP": "no"}
    subprocess.run([copied / "build.sh", tmp_path / "fuzz"], env=environment, check=True)
    try:
        done = subprocess.run(
            [tmp_path / "fuzz", "20000"], stderr=subprocess.DEVNULL, check=False, timeout=20
        )
    except subprocess.TimeoutExpired:
        return  # it waits for ever
    assert done.returncode < 0
