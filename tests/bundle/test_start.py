"""How a frozen call starts: thin, alone, and deaf to the environment."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bundle.places import VERSION, Bundle, is_version_reply, run, watched

THIN = {
    "cni_plugin/__init__.pyc",
    "cni_plugin/stdio.pyc",
    "cni_plugin/verbs/__init__.pyc",
    "cni_plugin/verbs/version.pyc",
    "encodings/__init__.pyc",
    "encodings/aliases.pyc",
    "encodings/utf_8.pyc",
}
"""The modules that a VERSION call may read: the interpreter's own three, and ours that know the answer."""
RATIO = 2.5


def _hostile(folder: Path) -> dict[str, str]:
    """An environment that tries to get modules and libraries of its own loaded."""
    for name in ("encodings", "cni_plugin", "ipam", "json", "site", "sitecustomize", "usercustomize"):
        (folder / f"{name}.py").write_text("raise SystemExit('loaded from the environment')")
    place = str(folder)
    return {
        "PYTHONPATH": place,
        "PYTHONHOME": place,
        "PYTHONSTARTUP": f"{place}/site.py",
        "PYTHONINSPECT": "1",
        "PYTHONVERBOSE": "1",
        "PYTHONPLATLIBDIR": place,
        "PYTHONUSERBASE": place,
        "PYTHONEXECUTABLE": f"{place}/python",
        "PYTHONOPTIMIZE": "",
        "PYTHONIOENCODING": "utf-16",
        "PYTHONUTF8": "0",
        "PYTHONWARNINGS": "error",
        "PYTHONDEVMODE": "1",
        "PYTHONMALLOC": "debug",
        "PYTHONPROFILEIMPORTTIME": "1",
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": place,
        "VIRTUAL_ENV": place,
        "_MEIPASS2": place,
        "_PYI_APPLICATION_HOME_DIR": place,
        "_PYI_ARCHIVE_FILE": f"{place}/site.py",
        "_PYI_PARENT_PROCESS_LEVEL": "1",
        "_PYI_SPLASH_IPC": "3",
        "LD_LIBRARY_PATH_ORIG": place,
        "TMPDIR": place,
        "HOME": place,
        "LC_ALL": "xx_XX.UTF-7",
        "LANG": "xx",
    }


def test_version_reads_next_to_no_modules(bundle: Bundle, scratch: Path) -> None:
    trace = watched(bundle.python, scratch / "trace")
    assert is_version_reply(trace.done)
    contents = f"{bundle.contents}/"
    read = {path.removeprefix(contents) for path in trace.opened if path.endswith(".pyc")}
    assert read <= THIN


def test_version_loads_the_interpreter_its_zlib_and_the_json_scanner_alone(
    bundle: Bundle, scratch: Path
) -> None:
    trace = watched(bundle.python, scratch / "trace")
    libraries = {path for path in trace.opened if ".so" in path and path.startswith(str(bundle.path))}
    names = {Path(path).name.split(".so")[0].split(".cpython")[0] for path in libraries}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert names == {f"libpython{version}", "libz", "_json"}


def test_version_starts_in_at_most_two_and_a_half_bare_interpreters(bundle: Bundle) -> None:
    """Interleaved, so that a busy machine slows both; the best of three rounds, so that no burst counts."""
    bare = [os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"]

    def seconds(command: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run(command, env=VERSION, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started

    ratios = []
    for _ in range(3):
        pairs = [(seconds([str(bundle.python)]), seconds(bare)) for _ in range(15)]
        ratios.append(
            statistics.median(ours for ours, _ in pairs) / statistics.median(base for _, base in pairs)
        )
    assert min(ratios) <= RATIO, ratios


def test_a_call_is_one_process(bundle: Bundle, scratch: Path) -> None:
    """A runtime kills the process it started; with another behind it, that one would go on."""
    trace = watched(bundle.azvnet, scratch / "trace")
    assert is_version_reply(trace.done)
    assert trace.processes == 1
    assert {Path(path).name for path in trace.executed} <= {"azvnet", "azvnet-python"}


def test_a_call_writes_no_file(bundle: Bundle, scratch: Path) -> None:
    trace = watched(bundle.python, scratch / "trace")
    assert not trace.opened_for_writing - {"/dev/null"}


@pytest.mark.parametrize("program", ["azvnet", "azvnet-python"])
def test_a_hostile_environment_changes_nothing_that_is_loaded(
    bundle: Bundle, scratch: Path, program: str
) -> None:
    hostile = _hostile(scratch)
    plain = watched(bundle.path / program, scratch / "plain.trace")
    attacked = watched(bundle.path / program, scratch / "attacked.trace", {**hostile, **VERSION})
    assert is_version_reply(attacked.done), attacked.done.stderr
    ours = {path for path in plain.opened if path.startswith(str(bundle.path))}
    assert {path for path in attacked.opened if path.startswith(str(bundle.path))} == ours
    assert not {path for path in attacked.opened if path.startswith(str(scratch))}


def test_pretending_that_the_bootloader_has_run_changes_nothing_that_is_loaded(
    bundle: Bundle, scratch: Path
) -> None:
    """The bootloader sets LD_LIBRARY_PATH, executes itself again, and knows that by the environment."""
    spoofed = {
        "_PYI_ARCHIVE_FILE": str(bundle.python.resolve()),
        "_PYI_PARENT_PROCESS_LEVEL": "1",
        "_PYI_APPLICATION_HOME_DIR": str(scratch),
        "LD_LIBRARY_PATH": str(scratch),
    }
    plain = watched(bundle.python, scratch / "plain.trace")
    attacked = watched(bundle.python, scratch / "attacked.trace", {**spoofed, **VERSION})
    assert is_version_reply(attacked.done), attacked.done.stderr
    ours = {path for path in plain.opened if path.startswith(str(bundle.path))}
    assert {path for path in attacked.opened if path.startswith(str(bundle.path))} == ours
    assert not [path for path in attacked.opened if path.startswith(str(scratch))]


@pytest.mark.parametrize("name", ["LC_ALL", "LANG", "TZ", "PATH", "HOME", "TERM"])
@pytest.mark.parametrize("value", ["", "C", "/nowhere", "zh_CN.GBK", "\udcff\udcfe"])
def test_odd_values_of_common_variables_do_no_harm(bundle: Bundle, name: str, value: str) -> None:
    assert is_version_reply(run(bundle.azvnet, {**VERSION, name: value}))


def test_the_reply_is_the_same_under_every_name(bundle: Bundle) -> None:
    replies = [json.loads(run(program).stdout) for program in (bundle.azvnet, bundle.ipam, bundle.python)]
    assert replies[0] == replies[1] == replies[2]


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_standard_streams_never_spoil_the_one_document(bundle: Bundle, closed: str) -> None:
    command = ["/bin/sh", "-c", f'"{bundle.python}" {closed}']
    done = subprocess.run(command, env=VERSION, input="{}", capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert ("supportedVersions" in document) == (done.returncode == 0)
    assert ("code" in document) == (done.returncode != 0)
