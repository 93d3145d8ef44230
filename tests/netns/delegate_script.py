#!/usr/bin/python3 -ISB
"""An IPAM plugin that notes how it was called and does what /run/delegate/behaviour says for each verb.

It stands for any other project's plugin: it uses nothing of ours and runs with the system's interpreter.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path("/run/delegate")
ANSWERS: dict[str, dict[str, object]] = {
    "0.2.0": {"ip4": {"ip": "172.20.0.9/24", "gateway": "172.20.0.1", "routes": [{"dst": "0.0.0.0/0"}]}},
    "0.4.0": {"ips": [{"version": "4", "address": "172.20.0.9/24", "gateway": "172.20.0.1"}], "routes": []},
    "1.1.0": {
        "ips": [{"address": "172.20.0.9/24", "gateway": "172.20.0.1"}],
        "dns": {"nameservers": ["172.20.0.1"]},
    },
    "1.0.0": {"ips": [{"address": "172.20.0.9/24"}, {"address": "172.20.0.10/24"}]},
    "no host": {"ips": [{"address": "0.0.0.0/0"}]},
    "everybody": {"ips": [{"address": "224.0.0.5/24"}]},
    "platform": {"ips": [{"address": "168.63.129.16/24"}]},
    "link-local": {"ips": [{"address": "169.254.1.1/16"}]},
    "itself": {"ips": [{"address": "127.0.0.1/8"}]},
    "odd": {"ips": [{"address": 7}], "dns": 7},
    "odd dns": {"ips": [{"address": "172.20.0.9/24"}], "dns": {"nameservers": 7}},
    "v6": {"ips": [{"address": "fd00::9/64"}]},
    "none": {"ips": []},
}


def main() -> int:
    """Note the call, then behave."""
    stdin = sys.stdin.read()
    verb = os.environ.get("CNI_COMMAND", "")
    maps = Path("/proc/self/maps").read_text().splitlines()
    libraries = sorted({line.split()[-1] for line in maps if ".so" in line})
    note = {"verb": verb, "environ": dict(os.environ), "stdin": json.loads(stdin), "libraries": libraries}
    with (FOLDER / "calls").open("a") as calls:
        calls.write(json.dumps(note) + "\n")
    behaviour = json.loads((FOLDER / "behaviour").read_text()).get(verb, "ok")
    sys.stderr.write(f"delegate says {verb}\n")
    if behaviour == "error":
        print(json.dumps({"cniVersion": "1.0.0", "code": 117, "msg": "no luck", "details": "try another"}))
        return 1
    if behaviour.startswith("code "):
        print(f'{{"code": {behaviour[5:]}, "msg": "no luck"}}')
        return 1
    if behaviour == "nested":
        print("[" * 200_000)
        return 0
    if behaviour == "a list":
        print("[1]")
        return 0
    if behaviour == "garbage":
        print("this is no JSON")
        return 0
    if behaviour == "fails without a word":
        return 3
    if behaviour == "killed":
        os.kill(os.getpid(), 9)
    if behaviour == "looks":
        enter = [
            "nsenter",
            f"--net={os.environ['CNI_NETNS']}",
            "ip",
            "link",
            "show",
            os.environ["CNI_IFNAME"],
        ]
        (FOLDER / "link").write_bytes(subprocess.run(enter, capture_output=True, check=True).stdout)
    if behaviour == "hangs":
        (FOLDER / "pid").write_text(str(os.getpid()))
        signal.pause()
    if verb == "ADD":
        version = behaviour if behaviour in ANSWERS else "1.1.0"
        print(json.dumps({"cniVersion": version, **ANSWERS[version]}))
    return 0


sys.exit(main())
