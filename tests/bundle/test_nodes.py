"""The bundle on odd nodes: no shell, no PATH, nothing but glibc, read-only root, no usable /tmp."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.bundle.places import Bundle, sealed


@pytest.mark.parametrize("program", ["azvnet", "azvnet-python"])
@pytest.mark.parametrize("tmp", ["missing", "readonly", "noexec", "full"])
def test_add_and_del_work_with_a_read_only_root_no_shell_and_no_usable_tmp(
    bundle: Bundle, scratch: Path, program: str, tmp: str
) -> None:
    node = sealed(bundle, scratch, program, tmp)
    assert node.text("add.code").strip() == "0", node.text("add.json") + node.text("add.stderr")
    address = json.loads(node.text("add.json"))["ips"][0]["address"]
    assert f"inet {address} " in node.text("pod.txt")
    assert node.text("del.code").strip() == "0", node.text("del.stdout") + node.text("del.stderr")
    assert node.text("left.txt") == ""


def test_a_whole_add_is_one_process_and_executes_nothing_but_itself(bundle: Bundle, scratch: Path) -> None:
    trace = sealed(bundle, scratch, traced=True).trace
    assert trace.done.returncode == 0, trace.done.stdout
    assert trace.processes == 1
    assert {Path(path).name for path in trace.executed} == {"chroot", "azvnet", "azvnet-python"}


def test_a_whole_add_writes_only_where_it_says(bundle: Bundle, scratch: Path) -> None:
    trace = sealed(bundle, scratch, traced=True).trace
    assert trace.opened_for_writing
    allowed = ("/run/azvnet", "/var/log/azvnet", "/proc/sys/net/", "/dev/null", "/run/netns/")
    assert not {path for path in trace.opened_for_writing if not path.startswith(allowed)}


def test_an_add_imports_nothing_of_azure_and_starts_no_multiprocessing(bundle: Bundle, scratch: Path) -> None:
    trace = sealed(bundle, scratch, traced=True).trace
    modules = {path.partition("/azvnet-lib/")[2] for path in trace.opened if path.endswith((".pyc", ".so"))}
    heavy = (
        "azure/",
        "msal/",
        "cryptography/",
        "requests/",
        "urllib3/",
        "lxml/",
        "prometheus_client/",
        "asyncio/",
    )
    assert modules
    assert not {name for name in modules if name.startswith(heavy)}
    assert not {name for name in modules if name.startswith("multiprocessing/") and "shared_memory" in name}


KILLS = 60
KILLING = r"""
set -eu
export CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_IFNAME=eth0 CNI_NETNS=/proc/self/ns/net CNI_PATH=/
mount --make-rprivate /
mount --bind "$1" /mnt
for folder in /tmp /var/tmp /dev/shm /run; do mount -t tmpfs tmpfs $folder; done
mkfifo /run/stdin
exec 3<>/run/stdin
turn=0
while [ $turn -lt $2 ]; do
    "/mnt/$3" <&3 >/dev/null &
    pid=$!
    /bin/sleep 0.$(printf %03d $((turn % 40 * 2)))
    kill -9 $pid
    wait $pid 2>/dev/null || true
    turn=$((turn + 1))
done
exec 3>&-
rm /run/stdin
set -- /proc/[0-9]*
echo "processes: $#"
find /tmp /var/tmp /dev/shm /run -mindepth 1 -not -path '/run/azvnet*'
"""


@pytest.mark.parametrize("program", ["azvnet", "azvnet-python"])
def test_kill_9_at_any_moment_of_the_start_leaves_no_process_and_no_file(
    bundle: Bundle, program: str
) -> None:
    """In namespaces of its own: every file and process that is left was made by a killed call."""
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", KILLING, "sh"]
    done = subprocess.run(
        [*command, str(bundle.path), str(KILLS), program],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("processes: ")
    assert int(lines[0].split()[1]) == 1, "only the shell"
    assert lines[1:] == []
