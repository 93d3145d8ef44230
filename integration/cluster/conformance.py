"""Kubernetes' own end-to-end specs against a cluster, and what came of each of them.

Owns how the suite is run and how its report is read. The suite runs in the control plane's machine,
where nodes and pods are reached as from any host of the virtual network. Its output is huge and goes
to a file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.cluster.program import ClusterError, without_proxies
from integration.marked import with_part, written
from integration.tools import kubernetes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CONFORMANCE = r"\[sig-network\].*\[Conformance\]"
"""The specs of [sig-network] that every conformant cluster passes: 45 in v1.34."""
SERVICES = (
    r"\[sig-network\] (Services|HostPort|EndpointSlice should support a Service"
    r"|DNS should provide DNS for (the cluster|services)).*\[Conformance\]"
)
"""Those of them that need what kube-proxy sets up."""

_KUBECONFIG = "/etc/kubernetes/admin.conf"
_PAUSE = 1.0

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
MODES = ("nftables", "iptables")
"""Of kube-proxy, as the columns of the page."""
BEGIN = "<!-- Compared with the results by `make e2e` and `make test-kind`. -->\n"
"""Of their part of the page."""
_PART = """\
nftables: {nftables}; iptables: {iptables}.

{table}
"""


@dataclass(frozen=True, slots=True)
class Spec:
    """One spec that was to run."""

    name: str
    state: str
    """``passed``, ``failed``, ``timedout``, ``panicked``, ``interrupted``, or ``skipped`` by itself."""
    seconds: float
    message: str = ""
    """Why it failed or skipped itself; the first lines."""

    @property
    def passed(self) -> bool:
        """Whether it ran and found nothing wrong."""
        return self.state == "passed"


def run(
    pid: int,
    folder: Path,
    *,
    nodes: int,
    taints: Sequence[str] = (),
    focus: str = CONFORMANCE,
    skip: str = "",
    processes: int = 6,
    minutes: int = 30,
    kubeconfig: str = _KUBECONFIG,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Spec]:
    """Run the specs that ``focus`` matches; returns what came of each, in the order of their names.

    Args:
        pid: first process of the machine where the suite runs (``holder_pid``); 0: this machine.
        folder: for ``output.log`` and ``report.json``.
        nodes: how many nodes the cluster has.
        taints: keys of taints that nodes have and that the suite should not wait for to go.
        focus: regular expression over the full name of a spec.
        skip: those of them that this one matches do not run.
        processes: how many specs run at once.
        minutes: after which the suite gives up.
        kubeconfig: an administrator's, as that machine sees it.
        progress: is told how many specs have ended, each time there are more.

    Raises:
        ClusterError: the suite did not run to its end; the message ends with its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output, report = folder / "output.log", folder / "report.json"
    report.unlink(missing_ok=True)
    programs = kubernetes()
    command = ["nsenter", "-t", str(pid), "-m", "-n", "-u", "-p", "--"] if pid else []
    command += [str(programs / "ginkgo"), f"--procs={processes}", f"--focus={focus}"]
    command += [f"--skip={skip}"] if skip else []
    command += [
        f"--timeout={minutes}m",
        "--no-color",
        f"--output-dir={folder}",
        f"--json-report={report.name}",
    ]
    command += [str(programs / "e2e.test"), "--", f"--kubeconfig={kubeconfig}", "--provider=skeleton"]
    command += [f"--num-nodes={nodes}"]
    if taints:
        command += [f"--non-blocking-taints={','.join(taints)}"]
    with output.open("w", encoding="utf-8") as log:
        suite = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # The specs call kubectl, and what that remembers of the API would go into the home.
            env={**without_proxies(os.environ), "KUBECACHEDIR": str(folder / "kubectl")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # nsenter's child is a process that signals to nsenter don't reach
        )
        told = 0
        try:
            while suite.poll() is None:
                time.sleep(_PAUSE)
                if (now := ended(output)) != told:
                    progress(told := now)
        except BaseException:
            os.killpg(suite.pid, signal.SIGKILL)
            suite.wait()
            raise
    if not report.exists():
        tail = "\n".join(output.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
        raise ClusterError(f"the e2e suite ended with code {suite.returncode} and no report\n{tail}")
    return specs(json.loads(report.read_text(encoding="utf-8")), focus, skip)


def ended(output: Path) -> int:
    """How many specs have ended so far, by the marks that ginkgo prints."""
    return output.read_text(encoding="utf-8", errors="replace").count("•")


def specs(report: Sequence[dict[str, Any]], focus: str, skip: str = "") -> list[Spec]:
    """What ginkgo's JSON report says of the specs that were to run."""
    wanted, unwanted = re.compile(focus), re.compile(skip or r"(?!)")
    found = []
    for suite in report:
        for entry in suite["SpecReports"] or ():
            name = " ".join([*(entry["ContainerHierarchyTexts"] or ()), entry["LeafNodeText"]])
            about = entry.get("Failure", {})
            is_spec = entry["LeafNodeType"] == "It" and wanted.search(name) and not unwanted.search(name)
            if is_spec or entry["State"] in {"failed", "panicked"}:  # what is not a spec failed before all
                spec = Spec(
                    name.strip() or entry["LeafNodeType"],
                    entry["State"],
                    entry["RunTime"] / 1e9,
                    "\n".join(about.get("Message", "").splitlines()[:5]),
                )
                found.append(spec)
    return sorted(found, key=lambda spec: spec.name)


def table(found: Sequence[Spec]) -> str:
    """One run in Markdown."""
    lines = ["| spec | result | seconds |", "|---|---|--:|"]
    lines += [f"| {short(spec.name)} | {spec.state} | {spec.seconds:.1f} |" for spec in found]
    passed = sum(spec.passed for spec in found)
    return "\n".join([*lines, "", f"{passed} of {len(found)} passed."])


def documented(page: str) -> dict[str, tuple[str, str]]:
    """What a page says of each conformance spec, in the order of `MODES`; empty: not run in that mode."""
    rows = re.findall(r"^\| (.+) \| (\w*) \| (\w*) \|$", written(page, BEGIN), re.MULTILINE)
    return {name: (first, second) for name, first, second in rows if name != "spec"}


def document(page: str, mode: str, found: Sequence[Spec]) -> str:
    """A page of the documentation with the results of a run in ``mode`` in place of those that it has."""
    states = {short(spec.name): spec.state for spec in found}
    columns = [{name: row[at] for name, row in documented(page).items() if row[at]} for at in range(2)]
    columns[MODES.index(mode)] = states
    first, second = columns
    lines = ["| spec | nftables | iptables |", "|---|---|---|"]
    lines += [
        f"| {name} | {first.get(name, '')} | {second.get(name, '')} |" for name in sorted(first | second)
    ]
    part = _PART.format(table="\n".join(lines), nftables=_count(first), iptables=_count(second))
    return with_part(page, BEGIN, part)


def _count(states: Mapping[str, str]) -> str:
    passed = sum(state == "passed" for state in states.values())
    return f"{passed} of {len(states)} passed"


def short(name: str) -> str:
    """A name without the labels that all of its table have."""
    return re.sub(r" ?\[(sig-network|Conformance|NodeConformance|LinuxOnly)\]", "", name).strip()
