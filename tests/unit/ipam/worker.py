"""A process that adds and deletes pods on a store shared with others, until it is done or killed.

    python -m tests.unit.ipam.worker DIRECTORY NAME CYCLES

DIRECTORY holds the state (``run``), the boot id and ``kernel``: one file for each address that a pod
carries, made exclusively as the host route is. An address that is there already was given twice.
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

from ipam.ipam import Ipam
from ipam.model import AddressRequest, Attachment, Owner, SourceConfig

COOLDOWN = 0.05


class Worker:
    def __init__(self, directory: Path, name: str) -> None:
        self.kernel = directory / "kernel"
        self.name = name
        self.ipam = Ipam(directory / "run", boot_id_file=directory / "boot_id", busy_timeout=30)

    def add(self, pod: str) -> None:
        owner = Owner("azure", pod_namespace="ns", pod_name=pod, call_id=pod)
        request = AddressRequest(SourceConfig().key, (4,), cooldown=COOLDOWN)
        (made,) = self.ipam.reserve(Attachment(pod, "eth0"), owner, request)
        said = self.kernel.with_name(f"{self.name}.said")
        said.write_text(pod)
        try:
            # At once with its content: a kill in between must not leave a file that says nothing.
            os.link(said, self.kernel / str(made.ip))
        except FileExistsError:
            print(f"{made.ip} was given twice, the second time to {pod}")
            sys.exit(9)
        said.unlink()
        self.ipam.confirm(made)

    def delete(self, pod: str) -> None:
        detach(self.kernel, pod)
        self.ipam.release(Attachment(pod, "eth0"))


def detach(kernel: Path, pod: str) -> None:
    for path in kernel.iterdir():
        try:
            if path.read_text() == pod:
                path.unlink()
        except FileNotFoundError:
            continue


def carries(kernel: Path, worker: str) -> bool:
    """Whether any pod of this worker carries an address."""
    for path in kernel.iterdir():
        with suppress(FileNotFoundError):
            if path.read_text().startswith(f"{worker}-"):
                return True
    return False


def main() -> None:
    directory, name, cycles = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    worker = Worker(directory, name)
    random.seed(name)
    living: list[str] = []
    for cycle in range(cycles):
        pod = f"{name}-{cycle}"
        worker.add(pod)
        living.append(pod)
        if len(living) > 3:
            worker.delete(living.pop(random.randrange(len(living))))
        if random.random() < 0.1:
            worker.ipam.close()
        time.sleep(random.random() * 0.004)
    for pod in living:
        worker.delete(pod)


if __name__ == "__main__":
    main()
