"""Writes our dataclasses out: what ``@dataclass`` makes at every import is made once, for the bundle.

    unfold.py BUNDLE/azvnet-lib

The decorator puts together the source of six methods and compiles it: a millisecond for each class, and
``inspect`` has to be loaded for it. A call loads 40 such classes; it would spend a third of its time on them.
The bytecode of a module that has frozen dataclasses with slots is replaced by that of the same module with
the methods written out. Classes that use more of the decorator than those are left to it.
"""

import ast
import marshal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cni_plugin", "ipam")
OPTIONS = ({"frozen": True, "slots": True}, {"frozen": True, "slots": True, "order": True})
HEADER_BYTES = 16
"""Of a .pyc file: magic number, flags, and how the source is recognised (PEP 552)."""

PROLOGUE = '''
class __Fields__:
    """``dataclasses.replace``, ``asdict`` and ``fields`` find here what they need, and load it only then."""
    __slots__ = ("names",)
    def __init__(self, *names):
        self.names = names
    def __get__(self, instance, owner=None):
        from dataclasses import make_dataclass
        return make_dataclass("Fields", self.names).__dataclass_fields__
__unset__ = object()
'''

METHODS = """
__slots__ = {names}
__match_args__ = {names}
__dataclass_fields__ = __Fields__(*{names})
def __init__(self{parameters}):
    {assignments}
def __repr__(self):
    return self.__class__.__qualname__ + f"({shown})"
def __eq__(self, other):
    if other.__class__ is not self.__class__:
        return NotImplemented
    return {own} == {others}
def __hash__(self):
    return hash({own})
def __reduce__(self):
    return self.__class__, {own}
def __setattr__(self, name, value):
    raise AttributeError(f"cannot assign to field {{name!r}}")
def __delattr__(self, name):
    raise AttributeError(f"cannot delete field {{name!r}}")
"""

COMPARISON = """
def {name}(self, other):
    if other.__class__ is not self.__class__:
        return NotImplemented
    return {own} {operator} {others}
"""
COMPARISONS = {"__lt__": "<", "__le__": "<=", "__gt__": ">", "__ge__": ">="}


@dataclass(frozen=True)
class Field:
    """One field as it is declared."""

    name: str
    default: str = ""
    """Python text of the default; empty where there is none."""
    factory: str = ""
    """Python text of what makes the default."""


def unfold(source: str, filename: str) -> ast.Module | None:
    """The module with its dataclasses written out; None where it has none that can be."""
    tree = ast.parse(source, filename)
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and _options(node) in OPTIONS]
    declared = {id(node): _fields(node) for node in found}
    written = [node for node in found if declared[id(node)] is not None]
    if not written:
        return None
    for node in written:
        _write_out(node, declared[id(node)] or [])
    _forget_import(tree)
    at = next(i for i, node in enumerate(tree.body) if not _comes_first(node))
    tree.body[at:at] = _parsed(PROLOGUE, tree.body[at])
    return tree


def _options(node: ast.ClassDef) -> dict[str, object] | None:
    """What the one decorator ``@dataclass(...)`` is given; None where the class has bases or more."""
    if len(node.decorator_list) != 1 or node.bases or node.keywords:
        return None
    call = node.decorator_list[0]
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "dataclass" or call.args:
        return None
    return {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}


def _fields(node: ast.ClassDef) -> list[Field] | None:
    """The fields, in order; None where one is not as simple as ``name: type = default``."""
    fields = []
    methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
    if "__post_init__" in methods or not methods.isdisjoint({"__init__", "__eq__", "__hash__", "__repr__"}):
        return None
    for each in node.body:
        if isinstance(each, ast.AnnAssign):
            field = _field(each)
            if field is None:
                return None
            fields.append(field)
        elif not isinstance(each, ast.FunctionDef | ast.Expr):
            return None
    return fields


def _field(node: ast.AnnAssign) -> Field | None:
    if not isinstance(node.target, ast.Name) or any(
        word in ast.unparse(node.annotation) for word in ("ClassVar", "InitVar", "KW_ONLY")
    ):
        return None
    name = node.target.id
    if node.value is None:
        return Field(name)
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "field":
        given = {str(each.arg): each.value for each in node.value.keywords}
        if node.value.args or len(given) != 1:
            return None
        if "default" in given:
            return Field(name, default=ast.unparse(given["default"]))
        factory = given.get("default_factory")
        return Field(name, factory=factory.id) if isinstance(factory, ast.Name) else None
    return Field(name, default=ast.unparse(node.value))


def _write_out(node: ast.ClassDef, fields: list[Field]) -> None:
    own, others = (_tuple(f"{who}.{each.name}" for each in fields) for who in ("self", "other"))
    text = METHODS.format(
        names=_tuple(repr(each.name) for each in fields),
        parameters="".join(f", {each.name}{_default(each)}" for each in fields),
        assignments="\n    ".join(
            f"object.__setattr__(self, {each.name!r}, {_value(each)})" for each in fields
        )
        or "pass",
        shown=", ".join(f"{each.name}={{self.{each.name}!r}}" for each in fields),
        own=own,
        others=others,
    )
    if "order" in (_options(node) or ()):
        for name, operator in COMPARISONS.items():
            text += COMPARISON.format(name=name, operator=operator, own=own, others=others)
    rest = [each for each in node.body if not isinstance(each, ast.AnnAssign)]
    docstring = rest[:1] if ast.get_docstring(node) is not None else []
    node.body = [*docstring, *_parsed(text, node.decorator_list[0]), *rest[len(docstring) :]]
    node.decorator_list = []


def _default(field: Field) -> str:
    return "=__unset__" if field.factory else f"={field.default}" if field.default else ""


def _value(field: Field) -> str:
    return (
        f"{field.factory}() if {field.name} is __unset__ else {field.name}" if field.factory else field.name
    )


def _tuple(items: Iterable[str]) -> str:
    return f"({''.join(f'{item}, ' for item in items)})"


def _parsed(text: str, place: ast.AST) -> list[ast.stmt]:
    """Statements that tracebacks show at the place they stand for."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr | ast.arg | ast.alias):
            ast.copy_location(node, place)
    return tree.body


def _comes_first(node: ast.stmt) -> bool:
    """The docstring and ``from __future__``."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or (isinstance(node, ast.ImportFrom) and node.module == "__future__")


def _forget_import(tree: ast.Module) -> None:
    """Take away what is imported from ``dataclasses`` and not used any more."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in list(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses":
            node.names = [each for each in node.names if (each.asname or each.name) in used]
            if not node.names:
                tree.body.remove(node)


def main(contents: Path) -> None:
    """Replace the bytecode of every module of ours that has dataclasses."""
    count = 0
    for path in sorted(each for package in PACKAGES for each in (ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT)
        tree = unfold(path.read_text(), str(name))
        compiled = (contents / name).with_suffix(".pyc")
        if tree is None or not compiled.exists():
            continue
        header = compiled.read_bytes()[:HEADER_BYTES]
        code = compile(tree, str(name), "exec", dont_inherit=True, optimize=2)
        compiled.write_bytes(header + marshal.dumps(code))
        count += 1
    print(f"unfold: the dataclasses of {count} modules")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
