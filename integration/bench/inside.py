"""The process inside a place that makes the calls: obeys one request a line, answers with one line.

Owns the runtime's side of a contender: container ids, results kept for CHECK and DEL, the agent's
process. It must not know what the numbers are for. Run by ``sandbox``; ends when its stdin does.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from integration.bench import place
from integration.bench.calls import Call, Done, run
from integration.waiting import found_within

AGENT_SOCKET = "/run/azvnet/agent.sock"
AGENT_PATIENCE = 20.0
AGENT_SAID = Path("/run/agent.stderr")
CALL_LOGS = Path("/var/log/azvnet")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runtime:
    """A container runtime that has one contender as its plugin."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._program: list[str] = spec["program"]
        self._netconf: dict[str, Any] = spec["netconf"]
        self._cni_path: str = spec["cni_path"]
        self._pods = [place.make_pod(number) for number in range(spec["pods"])]
        self._ids: dict[int, str] = {}
        self._results: dict[int, dict[str, Any]] = {}
        self._made = 0
        self._agent: subprocess.Popen[bytes] | None = None
        for path, content in spec["files"].items():
            Path(path).write_text(content)

    def calls(self, verb: str, pods: list[int], width: int) -> dict[str, Any]:
        """One call for each pod; what each took, and what was wrong with it, if anything."""
        if verb == "ADD":
            for pod in pods:
                self._made += 1
                self._ids[pod] = hashlib.sha256(f"{self._made}".encode()).hexdigest()
        wall, done = run([self._call(verb, pod) for pod in pods], width)
        rows = [
            [each.seconds, each.cpu, self._problem(verb, pod, each)]
            for pod, each in zip(pods, done, strict=True)
        ]
        return {"wall": wall, "calls": rows}

    def start_agent(self, argv: list[str]) -> dict[str, Any]:
        """Start the agent and wait until it answers at its socket; ``said`` where it does not."""
        with AGENT_SAID.open("wb") as said:
            self._agent = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={"PATH": PATH}
            )
        agent = self._agent
        found_within(AGENT_PATIENCE, lambda: _agent_answers() or agent.poll() is not None, pause=0.02)
        if _agent_answers():
            return {}
        self.stop_agent()
        lines = AGENT_SAID.read_text(errors="replace").strip().splitlines()
        return {"said": lines[-1] if lines else "it never listened"}

    def stop_agent(self) -> dict[str, Any]:
        """End the agent as systemd does."""
        if self._agent is not None:
            self._agent.send_signal(signal.SIGTERM)
            try:
                self._agent.wait(30)
            except subprocess.TimeoutExpired:
                self._agent.kill()
                self._agent.wait()
            self._agent = None
        return {}

    def use(self, program: list[str]) -> dict[str, Any]:
        """Take another program for the calls from now on."""
        self._program = program
        return {}

    def usage(self) -> dict[str, Any]:
        """What the agent has used, and how many calls on pods were logged by anybody but it."""
        if self._agent is None:
            return {"cpu": 0.0, "idle_cpu": 0.0, "rss": 0, "peak": 0, "not_taken": 0}
        pid = self._agent.pid
        rss, peak = place.memory_bytes(pid)
        return {
            "cpu": place.cpu_seconds(pid),
            "idle_cpu": place.fine_cpu_seconds(pid),
            "rss": rss,
            "peak": peak,
            "not_taken": sum(log.read_text().count('"by":"executable"') for log in CALL_LOGS.glob("*.log*")),
        }

    def _call(self, verb: str, pod: int) -> Call:
        container = self._ids.get(pod, "0" * 64)
        pod_args = f"K8S_POD_NAME=pod-{container[:12]};K8S_POD_INFRA_CONTAINER_ID={container}"
        environ = {
            "PATH": PATH,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": self._pods[pod],
            "CNI_PATH": self._cni_path,
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;{pod_args};K8S_POD_UID={container[:32]}",
        }
        conf = self._netconf
        if verb in {"CHECK", "DEL"} and pod in self._results:
            conf = {**conf, "prevResult": self._results[pod]}
        return Call(self._program, environ, json.dumps(conf).encode())

    def _problem(self, verb: str, pod: int, done: Done) -> str | None:
        words = (done.stdout + done.stderr).decode(errors="replace").strip()
        if done.exit_code:
            return f"{verb} ended with {done.exit_code}: {words}"
        if verb == "ADD":
            try:
                self._results[pod] = json.loads(done.stdout)
            except ValueError:
                return f"ADD printed no JSON: {words!r}"
            return None if self._results[pod].get("ips") else f"ADD gave no address: {words}"
        if verb == "DEL":
            self._results.pop(pod, None)
        return None


def _agent_answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(AGENT_SOCKET) == 0


def main() -> None:
    """Enter a place, then serve requests until stdin ends."""
    place.enter()
    runtime: Runtime | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if runtime is None:
                runtime, answer = Runtime(request), {}
            else:
                answer = getattr(runtime, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 - told to who asked, whatever it is
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    # The first process of its namespace: the kernel ends the rest with it.
    os._exit(0)


if __name__ == "__main__":
    main()
