"""A value behaves as the frozen dataclass of the same fields does."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.model import Attachment
from ipam.value import Value, _compile_constructor, field, replace

NAMES = ("address", "mac", "mtu", "name", "netns")
NUMBERS = st.integers(-3, 3)


class Link(Value):
    """One with all kinds of fields."""

    name: str
    mtu: int = 1500
    addresses: list[str] = field(default_factory=list)

    @property
    def first(self) -> str:
        """The first address."""
        return self.addresses[0]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same class twice: as a value, and as the decorator makes it."""

    value: Any
    decorated: Any


def _new(name: str, base: type, body: dict[str, Any], **keywords: Any) -> type:
    return types.new_class(name, (base,), keywords, lambda namespace: namespace.update(body))


def _outcome(made: Any, *args: Any, **kwargs: Any) -> Any:
    """What a call comes to: the fields, or that the arguments do not fit."""
    try:
        return _fields(made(*args, **kwargs))
    except TypeError:
        return TypeError


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__match_args__}


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    required = draw(st.integers(0, len(names)))
    defaults = {
        name: draw(st.one_of(NUMBERS, st.just(list)))
        for name in names[required:]  # a type stands for a factory
    }
    order = draw(st.booleans())
    body: dict[str, Any] = {name: each for name, each in defaults.items() if each is not list}
    made = {name: list for name in defaults if name not in body}
    decorated: Any = dataclasses.make_dataclass(
        "Made",
        [
            (name, Any, dataclasses.field(default_factory=list) if name in made else body[name])
            if name in defaults
            else (name, Any)
            for name in names
        ],
        frozen=True,
        slots=True,
        order=order,
    )
    body |= {name: field(default_factory=list) for name in made}
    body |= {"__annotations__": dict.fromkeys(names, "Any"), "__qualname__": "Made", "__module__": __name__}
    return Pair(_new("Made", Value, body, order=order), decorated)


ARGUMENTS = st.tuples(
    st.lists(NUMBERS, max_size=len(NAMES) + 1), st.dictionaries(st.sampled_from((*NAMES, "other")), NUMBERS)
)


@given(pairs(), ARGUMENTS, st.booleans())
def test_it_takes_the_same_arguments(
    pair: Pair, arguments: tuple[list[int], dict[str, int]], compiled: bool
) -> None:
    args, kwargs = arguments
    if compiled:
        _compile_constructor(pair.value)
    outcome = _outcome(pair.value, *args, **kwargs)
    assert outcome == _outcome(pair.decorated, *args, **kwargs)
    if outcome is not TypeError:
        assert repr(pair.value(*args, **kwargs)) == repr(pair.decorated(*args, **kwargs))


@given(pairs(), st.lists(NUMBERS, min_size=10, max_size=10))
def test_it_is_compared_and_hashed_by_its_fields(pair: Pair, numbers: list[int]) -> None:
    count = len(pair.value.__match_args__)
    first, second = numbers[:count], numbers[5 : 5 + count]
    one, other = pair.value(*first), pair.value(*second)
    same, different = pair.decorated(*first), pair.decorated(*second)
    assert (one == other, one != other) == (same == different, same != different)
    assert one == pair.value(*first)
    assert hash(one) == hash(pair.value(*first))
    assert one != same, "another class is another thing"
    for name in ("__lt__", "__le__", "__gt__", "__ge__"):
        if hasattr(pair.decorated, "__lt__") and "__lt__" in vars(pair.decorated):
            assert getattr(one, name)(other) == getattr(same, name)(different)
            assert getattr(one, name)(same) is NotImplemented
        else:
            assert name not in vars(pair.value)


@given(pairs(), st.lists(NUMBERS, min_size=5, max_size=5), ARGUMENTS)
def test_a_copy_with_changes_is_the_same(
    pair: Pair, numbers: list[int], arguments: tuple[list[int], dict[str, int]]
) -> None:
    count, changes = len(pair.value.__match_args__), arguments[1]
    value, decorated = pair.value(*numbers[:count]), pair.decorated(*numbers[:count])
    assert _outcome(lambda: replace(value, **changes)) == _outcome(
        lambda: dataclasses.replace(decorated, **changes)
    )
    assert _fields(value) == _fields(decorated)


@given(pairs(), st.lists(NUMBERS, min_size=5, max_size=5), st.sampled_from((*NAMES, "other")))
def test_it_can_not_be_changed(pair: Pair, numbers: list[int], name: str) -> None:
    value = pair.value(*numbers[: len(pair.value.__match_args__)])
    before = _fields(value)
    with pytest.raises(AttributeError):
        setattr(value, name, 7)
    with pytest.raises(AttributeError):
        delattr(value, name)
    assert _fields(value) == before
    assert not hasattr(value, "__dict__")


def test_a_factory_makes_one_for_each() -> None:
    first, second = Link("eth0"), Link("eth0")
    first.addresses.append("10.0.0.4")
    assert (first.first, second.addresses) == ("10.0.0.4", [])


def test_patterns_and_copies() -> None:
    link = Link("eth0", addresses=["10.0.0.4"])
    match link:
        case Link(name, mtu):
            assert (name, mtu) == ("eth0", 1500)
    assert copy.copy(link) == copy.deepcopy(link) == link
    assert copy.deepcopy(link).addresses is not link.addresses
    key = Attachment("pod-1", "eth0")
    assert pickle.loads(pickle.dumps(key)) == key
    assert {key: 1}[Attachment("pod-1", "eth0")] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no value for name"),
        (("eth0", 1, [], 4), "Link takes 3"),
        (("eth0", 1, [], 4, 5), "Link takes 3"),
    ],
)
def test_what_does_not_fit_is_named(arguments: tuple[Any, ...], words: str) -> None:
    make: Any = Link
    with pytest.raises(TypeError, match=words):
        make(*arguments)
    with pytest.raises(TypeError, match="no field speed"):
        make("eth0", speed=1)
    with pytest.raises(TypeError, match="name"):
        make("eth0", name="eth1")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"__annotations__": {"a": "int", "b": "int"}, "a": 1},
        {"__annotations__": {"a": "list[int]"}, "a": []},
    ],
    ids=["no field", "a default before a field without", "a default that is shared"],
)
def test_a_class_that_can_not_work_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _new("Wrong", Value, body)


def test_fields_are_not_inherited() -> None:
    with pytest.raises(TypeError):
        _new("Longer", Link, {"__annotations__": {"speed": "int"}})


def test_a_process_that_stays_compiles_the_classes_of_before_and_later() -> None:
    code = (
        "from ipam import value, model; value.compile_constructors(); from ipam import pool;"
        "print([each.__init__ is value.Value.__init__ for each in (model.Attachment, pool.Choice)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[False, False]\n"


def test_making_classes_compiles_and_inspects_nothing() -> None:
    code = "import sys, ipam.model; print({'inspect', 'dataclasses', 'ast'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
