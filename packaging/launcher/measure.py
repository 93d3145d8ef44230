"""What a call through the launcher costs, against programs that everybody has.

    python3 packaging/launcher/measure.py LAUNCHER [ROUNDS]

Whole processes from spawn to wait, in turns so that a noisy machine is noisy for all of them, medians. The
agent is a thread that answers at once, so only the way there and back is measured.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

REPLY = struct.pack("<4sHHIIB7x", b"AZVR", 1, 0, 2, 0, 0) + b"{}"


def serve(listener: socket.socket) -> None:
    """Answer every call with an empty object."""
    while True:
        connection, _address = listener.accept()
        with connection:
            _request, (netns,), _flags, _address = socket.recv_fds(connection, 1 << 16, 1)
            os.close(netns)
            connection.sendall(REPLY)


def take(program: list[str], environment: dict[str, str], null: int) -> float:
    """Milliseconds of one whole process."""
    streams = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
    begin = time.perf_counter()
    pid = os.posix_spawn(program[0], program, environment, file_actions=streams)
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit(f"{program[0]} failed")
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    launcher, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300
    programs = {
        "/bin/true": ["/bin/true"],
        "launcher, answered by an agent": [str(Path(launcher).resolve())],
        "python3 -I -S -c ''": ["/usr/bin/python3", "-I", "-S", "-c", ""],
    }
    with tempfile.TemporaryDirectory() as run_dir, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{run_dir}/agent.sock")
        listener.listen(16)
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        call = {"CNI_COMMAND": "ADD", "CNI_NETNS": "/proc/self/ns/net", "AZVNET_RUN_DIR": run_dir}
        null = os.open(os.devnull, os.O_RDWR)
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                times[name].append(take(program, call | {"PATH": os.environ["PATH"]}, null))
    base = statistics.median(times["/bin/true"])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:32} {median:7.2f} ms  {median / base:6.2f} x /bin/true")


if __name__ == "__main__":
    main()
