"""What docs/architecture.md says about who may know what, held against the imports of the code.

Each rule stands with its reason. An import inside a function counts as any other: it is later, not less.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = "cni_plugin/cni/netconf/netconf_schema.py"
LONGEST_FILE, LONGEST_FUNCTION = 350, 60


@dataclass(frozen=True)
class Only:
    """Nobody but ``may`` imports ``what``, unless for a type checker alone."""

    what: str
    may: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Never:
    """``who`` imports nothing of ``what``, except ``but``; ``unless`` it is one of those."""

    who: tuple[str, ...]
    what: tuple[str, ...]
    reason: str
    but: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


ONLY = [
    Only(
        "pyroute2",
        ("cni_plugin/kernel/messages.py",),
        "one place knows its inner interface, and when it loads",
    ),
    Only(
        "sqlite3",
        ("ipam/store/database.py", "ipam/store/read_only.py", "ipam/store/connections.py"),
        "one opens the store to write, one to read, both in the same way; others name its types alone",
    ),
    Only(
        "azure",
        ("ipam/sources/arm.py", "ipam/sources/arm_client.py"),
        "it takes 0.3 s to load: it stays off the path of a pod; what reads and what writes reach ARM alike",
    ),
    Only("lxml", ("ipam/sources/wireserver.py",), "XML comes from one source alone"),
    Only(
        "prometheus_client",
        (
            *("cni_plugin/agent/metrics.py", "cni_plugin/agent/provision_metrics.py"),
            *("cni_plugin/agent/metric_families.py", "ipam/operator/metrics.py"),
        ),
        "only agent and operator have metrics",
    ),
    Only(
        "kubernetes",
        ("ipam/operator/cluster.py",),
        "one place knows how the API server is asked; the node's bundle does not carry the client",
    ),
    Only(
        "urllib3",
        ("ipam/sources/arm_http.py", "ipam/operator/cluster.py", "ipam/provision/api_client.py"),
        "the clients of ARM and of Kubernetes send with it; its errors are told there",
    ),
    Only(
        "ipam.operator",
        ("ipam/operator/*.py", "cni_plugin/operator/*.py", "cni_plugin/cli/operator.py"),
        "only the operator's bundle has it",
    ),
    Only(
        "pydantic",
        (
            "cni_plugin/cni/netconf/netconf_models.py",
            "cni_plugin/agent/settings_models.py",
            "ipam/sources/models.py",
            "ipam/sources/arm_settings_models.py",
            "ipam/operator/settings_models.py",
        ),
        "models stand at the edges; a call validates with the engine alone (compiled.py)",
    ),
    Only(
        "pydantic_core",
        ("ipam/validation.py",),
        "pydantic's engine without pydantic is used in one place",
    ),
    Only("http.client", ("ipam/sources/http.py",), "one place has the timeouts and limits of all requests"),
    Only(
        "urllib",
        ("ipam/sources/http.py", "ipam/sources/arm_http.py", "ipam/sources/managed_identity.py"),
        "the same; the others read and write URLs and send nothing with it",
    ),
    Only(
        "requests",
        ("ipam/sources/arm_http.py", "ipam/provision/api_client.py"),
        "what the SDK sends is bounded in one place, and a watch of the cluster in another",
    ),
    Only(
        "subprocess",
        ("cni_plugin/cni/delegate.py", "cni_plugin/install/trial.py"),
        "no program is run for a pod but the IPAM plugin that its network names",
    ),
    Only(
        "ctypes",
        (
            "cni_plugin/cni/delegate.py",
            "cni_plugin/kernel/netns.py",
            "cni_plugin/kernel/packet_filter.py",
            "cni_plugin/agent/service.py",
        ),
        "prctl, setns, mallopt and a getsockopt that is asked something, which Python 3.11 lacks",
    ),
    Only(
        "dataclasses",
        ("cni_plugin/agent/*.py", "cni_plugin/install/*.py"),
        "it needs inspect and compiles for every class: ipam/value.py does the same at a tenth of the time",
    ),
    Only("argparse", ("cni_plugin/cli/*.py",), "the command line is the only one that has arguments"),
    Only(
        "ipam.store",
        ("ipam/*.py",),
        "the pool is used through Ipam",
    ),
    Only("ipam.store.transaction", ("ipam/*.py",), "the same"),
    Only(
        "ipam.sources",
        (
            "ipam/refresh.py",
            "ipam/sources/*.py",
            "ipam/provision/*.py",
            "ipam/operator/*.py",
            "cni_plugin/agent/networks.py",
            "cni_plugin/agent/settings_models.py",
            "cni_plugin/agent/settings.py",
            "cni_plugin/cli/plan.py",
        ),
        "sources are read through Ipam; the agent says with which reader and how that reaches ARM, which "
        "what writes there reaches alike; a plan is not for the pool of a node",
    ),
    Only("cni_plugin.process", ("cni_plugin/entry.py",), "environment and stdin are read at the start, once"),
    Only(
        "cni_plugin.verbs",
        (
            "cni_plugin/entry.py",
            "cni_plugin/cni/contract.py",
            "cni_plugin/verbs/*.py",
        ),
        "a verb is reached through the contract",
    ),
    Only(
        "cni_plugin.cli",
        ("cni_plugin/entry.py", "cni_plugin/cli/*.py"),
        "a command is run from the command line",
    ),
]

HEAVY = ("azure", "lxml", "prometheus_client", "pydantic", "asyncio", "http", "urllib", "email", "ssl")
KERNEL = ("cni_plugin.kernel", "cni_plugin.datapath")
STORE = ("ipam.store", "ipam.ipam", "ipam.store.transaction", "ipam.store.records", "sqlite3")
ENGINE = (
    *(
        "cni_plugin/cni/contract.py",
        "cni_plugin/verbs/*.py",
        "cni_plugin/datapath/transparent.py",
        "cni_plugin/addresses/allocate.py",
    ),
    *(
        "cni_plugin/cni/delegate.py",
        "cni_plugin/datapath/endpoint.py",
        "cni_plugin/addresses/uplink.py",
        "cni_plugin/node.py",
    ),
    *(
        "cni_plugin/cni/result.py",
        "cni_plugin/cni/params.py",
        "cni_plugin/cni/netconf/__init__.py",
        "cni_plugin/kernel/*.py",
    ),
)

NEVER = [
    Never(("ipam/*",), ("cni_plugin",), "imports point one way: cni_plugin knows ipam"),
    Never(
        ("*",), ("multiprocessing",), "in a frozen program it starts the program again (PyInstaller's docs)"
    ),
    Never(("*",), ("xml", "pyexpat"), "expat asks for a newer glibc than the bundle may"),
    Never(("*",), ("pkg_resources", "importlib.metadata"), "they search the disk: 0.1 s of a call"),
    Never(("*",), ("pyroute2",), "its __init__ loads the whole library", but=("pyroute2.netlink",)),
    Never(("*",), ("tests", "integration", "packaging"), "the product does not need its own workshop"),
    Never(ENGINE, HEAVY, "a call that goes well loads none of it"),
    Never(
        ENGINE,
        (
            "cni_plugin.process",
            "cni_plugin.agent",
            "cni_plugin.cli",
            "cni_plugin.install",
            "cni_plugin.entry",
        ),
        "one engine: it does not know how a call came here",
    ),
    Never(
        ("ipam/model.py", "ipam/value.py", "ipam/errors.py"),
        ("ipam", "cni_plugin", "os", "socket"),
        "values know nothing",
        ("ipam.model", "ipam.value"),
    ),
    Never(("ipam/pool.py",), ("os", "time", "socket", "pathlib", *STORE), "pure choice: no I/O, no clock"),
    Never(
        (
            *("ipam/provision/plan.py", "ipam/provision/demand.py", "ipam/provision/nic_document.py"),
            *("ipam/provision/exchange.py", "ipam/provision/fields.py", "ipam/provision/told.py"),
        ),
        ("os", "time", "socket", "pathlib", "ipam.sources", *STORE),
        "pure: counts and documents in, steps and documents out",
    ),
    Never(("ipam/planning.py",), ("os", "time", "socket", "pathlib", *STORE), "pure arithmetic on counts"),
    Never(("ipam/sources/*",), STORE, "sources are stateless readers"),
    Never(
        ("ipam/*",), ("socket", "http", "urllib"), "only sources use the network", unless=("ipam/sources/*",)
    ),
    Never(
        ("cni_plugin/datapath/endpoint.py", "cni_plugin/addresses/uplink.py"),
        ("os", "socket", "pathlib", "time", "subprocess", *STORE),
        "pure: the plan of an endpoint, the choice of the uplink",
    ),
    Never(
        ("cni_plugin/checks.py",),
        ("os", "socket", "pathlib", "time", "subprocess", "cni_plugin.agent", "cni_plugin.cli", *STORE),
        "pure: facts in, problems out",
    ),
    Never(
        (
            "cni_plugin/cni/errors.py",
            "cni_plugin/cni/versions.py",
            "cni_plugin/cni/result.py",
            "cni_plugin/cni/params.py",
        ),
        (*KERNEL, *STORE, "os", "socket"),
        "the words of the spec need neither kernel nor store",
    ),
    Never(
        ("cni_plugin/kernel/*",),
        ("cni_plugin", "ipam"),
        "the kernel's side knows no pods, pools and CNI, but how its errors are called",
        but=("cni_plugin.kernel", "cni_plugin.cni.errors", "ipam.model", "ipam.value"),
    ),
    Never(
        ("cni_plugin/datapath/transparent.py",),
        (
            "ipam",
            "cni_plugin.addresses.allocate",
            "cni_plugin.cni.contract",
            "cni_plugin.cni.netconf",
            "cni_plugin.verbs",
        ),
        "it does not know where an address came from",
        but=("ipam.model", "ipam.value"),
    ),
    Never(
        ("cni_plugin/addresses/allocate.py", "cni_plugin/addresses/provider.py"),
        ("cni_plugin.datapath.transparent",),
        "it neither makes nor removes links",
    ),
    Never(
        ("cni_plugin/cni/delegate.py",),
        ("ipam", "cni_plugin.addresses.allocate", *KERNEL),
        "it does not know our own pool, only which addresses no pod can have",
        but=("ipam.subnet", "ipam.quoting"),
    ),
    Never(
        ("cni_plugin/process.py",),
        ("cni_plugin.verbs", "cni_plugin.datapath", "cni_plugin.addresses.allocate", "ipam"),
        "it does not know what a verb does",
        but=("ipam.quoting",),
    ),
    Never(
        ("cni_plugin/install/*",),
        (*KERNEL, *STORE, "cni_plugin.cni.contract", "cni_plugin.verbs", "cni_plugin.process"),
        "files on a disk: neither calls nor the kernel",
    ),
    Never(
        ("cni_plugin/cli/*",),
        ("cni_plugin.datapath.transparent", "cni_plugin.verbs"),
        "what it shows it reads",
    ),
]

MAY_TOUCH_THE_PROCESS = (
    *("cni_plugin/entry.py", "cni_plugin/stdio.py", "cni_plugin/process.py", "cni_plugin/verbs/version.py"),
    *("cni_plugin/agent/systemd.py", "cni_plugin/cli/*.py"),
)
"""The start of a call, what systemd tells a service, and the command line."""


@cache
def _files() -> dict[str, ast.Module]:
    """The product's modules, by path."""
    paths = sorted([*(ROOT / "cni_plugin").rglob("*.py"), *(ROOT / "ipam").rglob("*.py")])
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def _imports(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported anywhere in a tree; of ``from a import b`` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def _without_types(tree: ast.Module) -> ast.Module:
    """The module without what stands under ``if TYPE_CHECKING``, which never runs."""
    kept = [
        node for node in tree.body if not (isinstance(node, ast.If) and _is_name(node.test, "TYPE_CHECKING"))
    ]
    return ast.Module(kept, [])


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _below(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


@pytest.mark.parametrize("rule", ONLY, ids=lambda rule: rule.what)
def test_what_only_some_may_import(rule: Only) -> None:
    importers = {
        path
        for path, tree in _files().items()
        if any(_below(each, rule.what) for each in _imports(_without_types(tree)))
    }
    strangers = {path for path in importers if not _matches(path, rule.may)}
    assert not strangers, f"{rule.what} is for {', '.join(rule.may)} alone: {rule.reason}"
    assert importers, f"nobody imports {rule.what} any more: the rule says nothing"


@pytest.mark.parametrize("rule", NEVER, ids=lambda rule: f"{rule.who[0]} not {rule.what[0]}")
def test_what_some_may_not_import(rule: Never) -> None:
    concerned = [path for path in _files() if _matches(path, rule.who) and not _matches(path, rule.unless)]
    assert concerned, "the rule is about nobody"
    for path in concerned:
        wrong = {
            each
            for each in _imports(_files()[path])
            if any(_below(each, bad) for bad in rule.what)
            and not any(_below(each, good) or _below(good, each) for good in rule.but)
        }
        assert not wrong, f"{path} imports {', '.join(sorted(wrong))}: {rule.reason}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Each can be read, tested and moved without the one that uses it.

    A package and its own members count as one: its ``__init__`` loads them by need, and they use its words.
    """
    modules = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in _files()
    }
    graph = {
        name: {
            each
            for each in _imports(tree)
            if each in modules and each != name and not name.startswith(each + ".")
        }
        for name, tree in ((name, _files()[path]) for name, path in modules.items())
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert len(order) == len(modules)


def test_environment_and_standard_streams_are_touched_at_the_start_alone() -> None:
    """The engine gets bytes and gives bytes, so that it does the same in the agent."""
    for path, tree in _files().items():
        if _matches(path, MAY_TOUCH_THE_PROCESS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                assert name not in {
                    *("os.environ", "os.environb", "os.getenv", "posix.environ", "sys.argv"),
                    *("sys.stdin", "sys.stdout", "sys.stderr", "sys.exit"),
                }, f"{path}:{node.lineno} touches {name}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "input", "exit", "quit"}, f"{path}:{node.lineno}"


def test_the_command_line_changes_nothing_in_the_kernel() -> None:
    for path, tree in _files().items():
        if path.startswith("cni_plugin/cli/"):
            calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
            wrong = [
                f.lineno for f in calls if isinstance(f, ast.Attribute) and f.attr in {"change", "setns"}
            ]
            assert not wrong, f"{path}:{wrong}"


@pytest.mark.parametrize("path", ["cni_plugin/entry.py", "cni_plugin/stdio.py"])
def test_the_thin_start_imports_nothing_that_is_not_built_in(path: str) -> None:
    """Every file it loads is time that a runtime waits."""
    top = ast.Module([node for node in _files()[path].body if not isinstance(node, ast.FunctionDef)], [])
    allowed = {*sys.builtin_module_names, "cni_plugin", "cni_plugin.stdio"}
    assert {
        each for each in _imports(top) if each.partition(".")[0] not in sys.builtin_module_names
    } <= allowed


def test_version_is_answered_with_next_to_nothing_loaded() -> None:
    code = (
        "import sys; before = set(sys.modules); from cni_plugin import entry; sys.argv = ['azvnet'];"
        "entry.main(); print(sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        input='{"cniVersion": "1.0.0"}',
        env={"CNI_COMMAND": "VERSION"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"cniVersion":"1.0.0"' in done.stdout
    loaded = set(ast.literal_eval(done.stderr))
    ours = {
        "cni_plugin",
        "cni_plugin.entry",
        "cni_plugin.stdio",
        "cni_plugin.verbs",
        "cni_plugin.verbs.version",
    }
    assert loaded - set(sys.builtin_module_names) <= {*ours, "_json"}


def test_version_knows_the_versions_that_everything_else_knows() -> None:
    from cni_plugin.cni import versions
    from cni_plugin.verbs import version

    assert version.SPOKEN == versions.SUPPORTED


def test_every_module_stands_in_the_table_of_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("## Packages") : text.index("## State")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named: set[str] = set()
    for row in rows:
        folder = ""
        for word in row.replace("`", " ").replace(",", " ").split():
            folder = word[: word.rindex("/") + 1] if "/" in word else folder
            named.add(word if "/" in word else folder + word)
    missing = [
        path
        for path in _files()
        if not path.endswith("__init__.py")
        and path not in named
        and not any(path.startswith(each) for each in named if each.endswith("/"))
    ]
    assert not missing, f"docs/architecture.md does not say what these own: {', '.join(missing)}"


@pytest.mark.parametrize("folder", ["cni_plugin", "ipam"])
def test_files_and_functions_fit_into_a_head(folder: str) -> None:
    """One file owns one thing; a function is read without scrolling."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name == GENERATED:
            continue
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_FILE, f"{name} has {len(text.splitlines())} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                length = node.end_lineno - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", sorted(_files()))
def test_every_module_says_what_it_owns(path: str) -> None:
    if _files()[path].body:
        assert ast.get_docstring(_files()[path]), f"{path} has no docstring"
