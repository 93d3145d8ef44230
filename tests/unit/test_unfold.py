"""The dataclasses that are written out for the bundle are what the decorator makes of them."""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for package in ("cni_plugin", "ipam") for path in sorted((ROOT / package).rglob("*.py"))]


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


unfold = _load(ROOT / "packaging" / "unfold.py", "unfold")


def _executed(tree: ast.Module, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    exec(compile(tree, name, "exec", dont_inherit=True, optimize=2), module.__dict__)
    return module


def _pairs() -> Iterator[tuple[str, type, type]]:
    """Every class of ours that is written out: as the decorator made it, and written out."""
    for path in SOURCES:
        tree = unfold.unfold(path.read_text(), str(path))
        if tree is None:
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        original, written = importlib.import_module(name), _executed(tree, name)
        for each, cls in vars(original).items():
            if inspect.isclass(cls) and cls.__module__ == name and dataclasses.is_dataclass(cls):
                other = getattr(written, each)
                if "__slots__" in vars(other) and not isinstance(vars(other)["__dataclass_fields__"], dict):
                    yield f"{name}.{each}", cls, other


PAIRS = list(_pairs())
IDS = [name for name, _, _ in PAIRS]
every_class = pytest.mark.parametrize(("cls", "written"), [pair[1:] for pair in PAIRS], ids=IDS)


def test_the_classes_of_every_call_are_among_them() -> None:
    assert {
        "ipam.model.Reservation",
        "cni_plugin.cni.call.Call",
        "cni_plugin.datapath.endpoint.Endpoint",
    } <= set(IDS)
    assert len(IDS) > 30


def _parameters(cls: type) -> list[tuple[str, Any, bool]]:
    """Names, kinds and whether they may be left out; what a factory makes is compared elsewhere."""
    return [
        (each.name, each.kind, each.default is each.empty)
        for each in inspect.signature(cls).parameters.values()
    ]


def _values(cls: type, offset: int = 0) -> list[Any]:
    return [f"{number + offset}" for number, _ in enumerate(dataclasses.fields(cls))]


def _facts(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}


def _shown(value: Any) -> dict[str, str]:
    """Fields as text: a default may be an object of a class that is written out as well, or a function."""
    return {name: getattr(each, "__qualname__", repr(each)) for name, each in _facts(value).items()}


@every_class
def test_it_is_made_of_the_same_arguments(cls: type, written: type) -> None:
    assert _parameters(written) == _parameters(cls)
    assert vars(written)["__match_args__"] == vars(cls)["__match_args__"]
    assert set(vars(written)["__slots__"]) == set(vars(cls)["__slots__"])
    needed = [each for each, (_, _, must) in zip(_values(cls), _parameters(cls), strict=True) if must]
    assert _shown(written(*needed)) == _shown(cls(*needed))
    assert _facts(written(*_values(cls))) == _facts(cls(*_values(cls)))


@every_class
def test_it_has_the_same_methods_and_properties(cls: type, written: type) -> None:
    generated = {
        "__doc__",
        "__annotations__",
        "__dataclass_params__",
        "__getstate__",
        "__setstate__",
        "__module__",
        "__reduce__",
        "__weakref__",
    }
    assert set(vars(cls)) - generated == set(vars(written)) - generated


@every_class
def test_it_is_compared_and_shown_the_same(cls: type, written: type) -> None:
    first, same, other = written(*_values(cls)), written(*_values(cls)), written(*_values(cls, 1))
    assert first == same
    assert hash(first) == hash(same) == hash(cls(*_values(cls)))
    assert first != cls(*_values(cls)), "another class is another thing"
    if _values(cls):
        assert first != other
    if "__str__" not in vars(cls):
        assert repr(first) == repr(cls(*_values(cls)))
    assert ("__lt__" in vars(cls)) == ("__lt__" in vars(written))
    if "__lt__" in vars(cls):
        assert (first < other, first <= same, first > other, first >= same) == (True, True, False, True)


@every_class
def test_it_can_not_be_changed(cls: type, written: type) -> None:
    value = written(*_values(cls))
    for name in (*(each.name for each in dataclasses.fields(cls)), "something_new"):
        with pytest.raises(AttributeError):
            setattr(value, name, 1)
        with pytest.raises(AttributeError):
            delattr(value, name)
    assert _facts(value) == _facts(cls(*_values(cls)))


@every_class
def test_the_functions_of_dataclasses_know_it(cls: type, written: type) -> None:
    value, original = written(*_values(cls)), cls(*_values(cls))
    asdict: Any = dataclasses.asdict
    replace: Any = dataclasses.replace
    assert dataclasses.is_dataclass(value)
    assert asdict(value) == asdict(original)
    for name in _facts(value):
        assert _facts(replace(value, **{name: "new"})) == {**_facts(value), name: "new"}
    assert copy.copy(value) == value


def test_what_a_factory_makes_is_made_for_each() -> None:
    written = PAIRS[IDS.index("cni_plugin.cni.call.VerbCall")][2]
    first, second = written(1, 2, 3), written(1, 2, 3)
    first.warnings.append("x")
    assert second.warnings == []


@pytest.mark.parametrize(
    "text",
    [
        "@dataclass\nclass C:\n    a: int\n",
        "@dataclass(slots=True)\nclass C:\n    a: int\n",
        "@dataclass(frozen=True, slots=True, kw_only=True)\nclass C:\n    a: int\n",
        "@dataclass(frozen=True, slots=True)\nclass C(Base):\n    a: int\n",
        "@other\n@dataclass(frozen=True, slots=True)\nclass C:\n    a: int\n",
        "@dataclass(frozen=True, slots=True)\nclass C:\n    a: ClassVar[int] = 1\n",
        "@dataclass(frozen=True, slots=True)\nclass C:\n    a: int = field(compare=False)\n",
        "@dataclass(frozen=True, slots=True)\nclass C:\n    a: list = field(default_factory=lambda: [])\n",
        "@dataclass(frozen=True, slots=True)\nclass C:\n    a: int\n    def __post_init__(self): ...\n",
        "@dataclass(frozen=True, slots=True)\nclass C:\n    a: int\n    def __eq__(self, other): ...\n",
        "@dataclass(frozen=True, slots=True)\nclass C:\n    a: int\n    b = 1\n",
        "class C:\n    a: int\n",
    ],
)
def test_what_is_more_than_plain_is_left_to_the_decorator(text: str) -> None:
    assert unfold.unfold(text, "x") is None


def test_a_module_keeps_what_it_still_needs_of_dataclasses() -> None:
    text = (
        '"""Doc."""\nfrom __future__ import annotations\nfrom dataclasses import dataclass, field, replace\n'
        "@dataclass(frozen=True, slots=True)\nclass C:\n    a: int = 1\n"
        "@dataclass(slots=True)\nclass D:\n    a: int = 2\n"
    )
    module = _executed(unfold.unfold(text, "x"), __name__)
    assert (module.C(), module.D(3).a) == (module.C(1), 3)
    assert not hasattr(module, "field")


def test_tracebacks_keep_the_lines_of_the_source() -> None:
    path = ROOT / "ipam" / "model.py"
    tree = unfold.unfold(path.read_text(), str(path))
    functions = {node.name: node.lineno for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert path.read_text().splitlines()[functions["total"] - 1].strip().startswith("def total")
