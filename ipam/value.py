"""Immutable values with named fields: frozen dataclasses with slots, made without compiling anything.

The decorator writes the source of six methods for each class and compiles it, a millisecond every time, and
it imports ``inspect``. A process that lives for one call would spend half of its time on that. Here the
methods exist once, and the class says which fields there are. docs/performance.md has the numbers.

It imports nothing of the project: everything else may import it.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter, ge, gt, le, lt
from typing import Any, ClassVar, TypeVar, dataclass_transform

_V = TypeVar("_V", bound="Value")
_REQUIRED: Any = object()
"""Stands for the default of a field that has none."""


class _Factory:
    """Stands for a default that is created separately for every value."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class _Compiling:
    is_on = False


def compile_constructors() -> None:
    """Make values two to three times as fast from now on, at 0.1 ms for each class: for a resident process.

    An agent's ADD makes about 60 values. The classes behave as before.
    """
    _Compiling.is_on = True
    for each in Value.__subclasses__():
        _compile_constructor(each)


def replace(value: _V, **changes: Any) -> _V:
    """A copy with other values in some fields; raises TypeError for a field that does not exist."""
    fields = [changes.pop(n) if n in changes else getattr(value, n) for n in value.__match_args__]
    return type(value)(*fields, **changes)


def field(*, default_factory: Callable[[], Any]) -> Any:
    """The default of a field of which every value gets its own, such as a list."""
    return _Factory(default_factory)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class _ValueType(type):
    """Makes a class of the annotations in its body.

    Raises:
        TypeError: the body has no fields, or one without a default after one that has a default, or a
            default that every value would share and could change; or the class inherits fields.
    """

    def __new__(
        cls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, order: bool = False
    ) -> _ValueType:
        if not bases:
            return super().__new__(cls, name, bases, body)
        names = tuple(body.get("__annotations__", ()))
        defaults = tuple(body.pop(each, _REQUIRED) for each in names)
        required = defaults.count(_REQUIRED)
        if not names or bases != (Value,) or _REQUIRED in defaults[required:]:
            raise TypeError(f"{name}: a value has fields, all of them its own, those without default first")
        if any(type(each).__hash__ is None for each in defaults):
            raise TypeError(f"{name}: a default that can change is given with field(default_factory=...)")
        if order:
            body |= _COMPARISONS
        body |= {"__slots__": names, "__match_args__": names, "_defaults": defaults, "_required": required}
        body["_has_factories"] = any(type(each) is _Factory for each in defaults)
        body["_fields"] = attrgetter(*names)
        made = super().__new__(cls, name, bases, body)
        type.__setattr__(made, "_setters", tuple(vars(made)[each].__set__ for each in names))
        if _Compiling.is_on:
            _compile_constructor(made)  # type: ignore[arg-type]  # the metaclass is of nothing else
        return made


class Value(metaclass=_ValueType):
    """Base of every class of values; those of ``class Point(Value, order=True)`` sort by their fields.

    The module of the class needs ``from __future__ import annotations``.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[tuple[Any, ...]]
    _required: ClassVar[int]
    _has_factories: ClassVar[bool]
    _setters: ClassVar[tuple[Callable[[Any, Any], None], ...]]
    _fields: ClassVar[attrgetter[Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs or len(args) != len(self._setters):
            args = _complete(type(self), args, kwargs)
        for setter, value in zip(self._setters, args, strict=False):
            setter(self, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__qualname__} is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__qualname__} is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._fields(self) == self._fields(other)  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return hash(self._fields(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__qualname__}({shown})"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), tuple(getattr(self, name) for name in self.__match_args__)


def _complete(cls: type[Value], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All values, in the order of the fields."""
    given = len(args)
    names, rest = cls.__match_args__[given:], cls._defaults[given:]
    if kwargs:
        rest = tuple([kwargs.pop(*each) for each in zip(names, rest, strict=True)])
    if given > len(cls._defaults):
        raise TypeError(f"{cls.__qualname__} takes {len(cls._defaults)} values, not {given}")
    if kwargs:
        raise TypeError(f"{cls.__qualname__}: no field {', '.join(kwargs)}, or its value is given twice")
    if given < cls._required and any(each is _REQUIRED for each in rest):
        missing = [name for name, each in zip(names, rest, strict=True) if each is _REQUIRED]
        raise TypeError(f"{cls.__qualname__}: no value for {', '.join(missing)}")
    if cls._has_factories:
        rest = tuple([each.make() if type(each) is _Factory else each for each in rest])
    return args + rest


def _compile_constructor(cls: type[Value]) -> None:
    """Write ``__init__`` out for the fields of a class."""
    fields = list(zip(cls.__match_args__, cls._defaults, cls._setters, strict=True))
    scope: dict[str, Any] = {}
    parameters, body = ["self"], []
    for at, (name, default, setter) in enumerate(fields):
        scope |= {f"_default{at}": default, f"_set{at}": setter}
        parameters.append(name if default is _REQUIRED else f"{name}=_default{at}")
        made = f"_default{at}.make() if {name} is _default{at} else " if type(default) is _Factory else ""
        body.append(f" _set{at}(self, {made}{name})")
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *body]), scope)  # noqa: S102 - names of fields
    type.__setattr__(cls, "__init__", scope["__init__"])


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[Value, object], bool]:
    def compared(self: Value, other: object) -> bool:
        return (
            compare(self._fields(self), self._fields(other)) if type(other) is type(self) else NotImplemented
        )

    return compared


_COMPARISONS = {f"__{each.__name__}__": _ordering(each) for each in (lt, le, gt, ge)}
