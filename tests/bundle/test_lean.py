"""What a call that goes well does not load: each of these once took longer than all its kernel work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.bench import contenders
from integration.bench.sandbox import Sandbox
from tests.bundle.places import STRACE, Bundle, Trace, run

HEAVY = {
    "asyncio": "nothing here waits for more than one thing",
    "azure": "only the agent asks Azure Resource Manager",
    "dataclasses": "ipam/value.py makes values without a compiler",
    "email": "",
    "hashlib": "it loads OpenSSL; see cni_plugin/kernel/digest.py",
    "importlib/metadata": "",
    "inspect": "",
    "logging": "",
    "lxml": "only for the wireserver's answer",
    "multiprocessing": "",
    "prometheus_client": "only the agent counts",
    "pydantic": "packaging/compile_models.py compiles its models; the engine alone is loaded",
    "pyroute2": "packaging/prepare.py compiles the requests",
    "socket": "_socket does it",
    "ssl": "",
    "subprocess": "only for a delegate",
    "traceback": "only for a defect of ours",
    "typing_extensions": "",
    "urllib/request": "",
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The files of the bundle that each verb opened, in a pool that is fresh."""
    bundle = Bundle(contenders.BUNDLE)
    folder = tmp_path_factory.mktemp("traces")
    sandbox = Sandbox(contenders.alone(), 1)
    found = {}
    try:
        for verb in ("ADD", "DEL"):
            assert not sandbox.calls(verb, [0]).calls[0].problem
        for verb in ("ADD", "CHECK", "DEL"):
            log = folder / verb
            sandbox.use(
                [STRACE, "-f", "-qq", "-o", str(log), "-s", "4096", "-e", "trace=file", str(bundle.python)]
            )
            assert not sandbox.calls(verb, [0]).calls[0].problem
            trace = Trace(log.read_text(errors="replace"), run("/bin/true"))
            contents = f"{bundle.contents}/"
            found[verb] = {path.removeprefix(contents) for path in trace.opened if path.startswith(contents)}
        yield found
    finally:
        sandbox.close()


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_a_call_loads_what_it_needs_and_no_more(opened: dict[str, set[str]], verb: str) -> None:
    files = opened[verb]
    assert "cni_plugin/process.pyc" in files
    loaded = {
        name: why
        for name, why in HEAVY.items()
        if any(file.startswith((f"{name}.pyc", f"{name}/")) for file in files)
    }
    assert not loaded
    assert not [file for file in files if Path(file).name.startswith(("libcrypto", "libssl"))]
    assert sum(file.endswith(".pyc") for file in files) < 130
