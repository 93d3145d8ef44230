"""What is in the bundle, and what must not be."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.bundle.places import ROOT, Bundle

BARE_PYROUTE2 = "from cni_plugin.kernel import messages; messages._without_running_init()"
"""As the product does before it imports a message class: the library's own __init__ is not in use."""
STDLIB_EXTENSIONS = f"python{sys.version_info.major}.{sys.version_info.minor}/lib-dynload"


def _modules(*packages: str) -> dict[str, Path]:
    """The product's modules that a node has, with their sources."""
    found = [path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")]
    return {
        ".".join(path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts): ROOT / path
        for path in sorted(found)
        if "operator" not in path.parts
    }


def import_in(bundle: Bundle, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script on the build interpreter with the bundle's modules and no others."""
    paths = [str(bundle.contents), str(bundle.contents / STDLIB_EXTENSIONS)]
    prelude = f"import sys; sys.path[:] = {paths!r}; sys.modules['pyexpat'] = None\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-OO", "-c", prelude + script],
        env={"LD_LIBRARY_PATH": str(bundle.contents)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module without what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _executed(node)


def imported(sources: Iterable[Path]) -> set[str]:
    """Every module that sources name in an import, at the top of a file or inside a function."""
    found = set()
    for path in sources:
        for node in _executed(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return found


def test_every_module_that_the_product_imports_is_in_the_bundle(bundle: Bundle) -> None:
    own = _modules("cni_plugin", "ipam")
    assert "cni_plugin.entry" in own
    found = sorted({*own, *imported(own.values())})
    names = [name for name in found if not name.startswith(("cni_plugin.operator", "ipam.operator"))]
    done = import_in(
        bundle, f"{BARE_PYROUTE2}\nimport importlib\nfor name in {names!r}: importlib.import_module(name)"
    )
    assert done.returncode == 0, done.stderr


def test_every_kind_of_link_that_pyroute2_knows_is_there(bundle: Bundle) -> None:
    from pyroute2.netlink.rtnl.ifinfmsg import plugins

    installed = {path.stem for folder in plugins.__path__ for path in Path(folder).glob("*.py")}
    frozen = {
        path.stem
        for path in (bundle.contents / "pyroute2" / "netlink" / "rtnl" / "ifinfmsg" / "plugins").iterdir()
    }
    assert {"vlan", "vxlan", "ipvlan"} <= frozen
    assert frozen == installed


def test_a_veth_request_compiled_in_the_bundle_is_the_one_compiled_from_source(bundle: Bundle) -> None:
    script = f"""if True:
        {BARE_PYROUTE2}
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        peer = dict(index=8, attrs=[("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", "02:00:00:00:00:01")])
        data = dict(attrs=[("VETH_INFO_PEER", peer)])
        info = dict(attrs=[("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)])
        message = ifinfmsg()
        message["attrs"] = [("IFLA_IFNAME", "azv0"), ("IFLA_LINKINFO", info)]
        message.encode()
        print(message.data.hex())
    """
    frozen = import_in(bundle, script)
    source = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert frozen.stdout == source.stdout != "", frozen.stderr


@pytest.mark.parametrize(
    "name",
    [
        "xml.dom",
        "xml.parsers",
        "xml.sax",
        "xmlrpc",
        "tkinter",
        "unittest",
        "pip",
        "setuptools",
        "pytest",
        "test",
    ],
)
def test_what_nothing_of_ours_needs_is_left_out(each_bundle: Bundle, name: str) -> None:
    done = import_in(each_bundle, f"import {name}")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


def test_the_interpreter_has_no_expat_built_in(each_bundle: Bundle) -> None:
    """That of Debian 12 needs GLIBC_2.36; packaging/libpython.sh leaves its two modules out."""
    [library] = each_bundle.contents.glob("libpython*.so.*")
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    assert "PyInit__datetime" in symbols
    assert "PyInit_pyexpat" not in symbols
    assert "PyInit__elementtree" not in symbols


def test_there_is_bytecode_and_no_source(each_bundle: Bundle) -> None:
    names = [path.name for path in each_bundle.files()]
    assert sum(name.endswith(".pyc") for name in names) > 100
    assert not [name for name in names if name.endswith(".py")]


def test_bytecode_is_used_whatever_the_times_of_files_are(each_bundle: Bundle) -> None:
    """PEP 552, unchecked hash: a copy that loses times must not cost a compilation, there is no source."""
    for path in each_bundle.files():
        if path.suffix == ".pyc":
            assert path.read_bytes()[4:8] == b"\x01\0\0\0", path


def test_no_file_names_the_machine_it_was_built_on(each_bundle: Bundle) -> None:
    places = [f"{ROOT}/{name}/".encode() for name in (".venv", "build", "cni_plugin", "ipam", "packaging")]
    found = [path for path in each_bundle.files() if any(place in path.read_bytes() for place in places)]
    assert not found


def test_only_root_may_write_and_nothing_raises_privileges(each_bundle: Bundle) -> None:
    """PyInstaller and the CNI directory alike: whoever may write here is root on the node."""
    for path in [each_bundle.path, *each_bundle.path.rglob("*")]:
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        if stat.S_ISLNK(found.st_mode):
            continue
        assert not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID), path
        assert "security.capability" not in os.listxattr(path), path
        assert found.st_mode & stat.S_IROTH, path


def test_all_times_are_the_same(each_bundle: Bundle) -> None:
    """Part of a reproducible build: an archive of the bundle has the same bytes tomorrow."""
    assert len({path.lstat().st_mtime for path in each_bundle.path.rglob("*")}) == 1


def test_its_conflist_is_the_one_that_is_shipped(bundle: Bundle) -> None:
    done = import_in(
        bundle, "from cni_plugin.install import network; print(network.DEFAULT.decode(), end='')"
    )
    assert done.stdout == (ROOT / "conf" / "10-azvnet.conflist").read_text(), done.stderr
