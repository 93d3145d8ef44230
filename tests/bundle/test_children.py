"""What a program that the bundle runs gets to see of the bundle: nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.bundle.places import Bundle

DUMP = """#!/bin/sh
cat /proc/$$/environ > "$0.$CNI_COMMAND.environ"
cat /proc/$$/maps > "$0.$CNI_COMMAND.maps"
echo '{"cniVersion": "1.1.0", "code": 100, "msg": "dumped"}'
exit 1
"""
NODE = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir /run/netns
ip link set lo up
ip link add eth0 type veth peer name fabric
ip address add 10.0.0.4/16 dev eth0
ip link set eth0 up
ip link set fabric up
ip route add default via 10.0.0.1
ip netns add pod
exec /usr/bin/env -i "$@"
"""


def _delegate(bundle: Bundle, scratch: Path, program: str, *variables: str) -> tuple[dict[str, str], str]:
    """Have the plugin run a script as its IPAM plugin; what the script found in its environment and maps."""
    script = scratch / "dump"
    script.write_text(DUMP)
    script.chmod(0o755)
    netconf = {"cniVersion": "1.1.0", "name": "net", "type": "azvnet", "ipam": {"type": "dump"}}
    call = ["CNI_COMMAND=ADD", "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/pod"]
    started = ["unshare", "--mount", "--net", "/bin/sh", "-c", NODE, "sh"]
    done = subprocess.run(
        [*started, *variables, *call, f"CNI_PATH={scratch}", str(bundle.path / program)],
        input=json.dumps(netconf),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "dumped" in done.stdout, done.stdout + done.stderr
    entries = (scratch / "dump.ADD.environ").read_text().rstrip("\0").split("\0")
    return dict(entry.split("=", 1) for entry in entries), (scratch / "dump.ADD.maps").read_text()


@pytest.mark.parametrize("program", ["azvnet", "azvnet-python"])
@pytest.mark.parametrize(
    "variables",
    [(), ("LD_LIBRARY_PATH=",), ("LD_LIBRARY_PATH=/nowhere",), ("LD_LIBRARY_PATH_ORIG=/nowhere",)],
)
def test_a_delegated_plugin_sees_no_library_path_and_no_library_of_ours(
    bundle: Bundle, scratch: Path, program: str, variables: tuple[str, ...]
) -> None:
    environ, maps = _delegate(bundle, scratch, program, *variables)
    assert environ["CNI_COMMAND"] == "ADD"
    assert str(bundle.path) not in "".join(environ.values())
    assert not [name for name in environ if name.startswith(("_PYI", "_MEI", "PYTHON"))]
    assert str(bundle.path) not in maps


def test_a_delegated_plugin_has_the_callers_variables(bundle: Bundle, scratch: Path) -> None:
    environ, _ = _delegate(
        bundle, scratch, "azvnet", "HTTP_PROXY=http://10.0.0.9", "CNI_ARGS=IgnoreUnknown=1"
    )
    assert environ["HTTP_PROXY"] == "http://10.0.0.9"
    assert environ["CNI_ARGS"] == "IgnoreUnknown=1"
    assert environ["CNI_PATH"] == str(scratch)
