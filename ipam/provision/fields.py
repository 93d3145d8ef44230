"""Fields of documents that programs exchange: how each is read, checked and written. Pure.

The reader may be older or newer than the writer: unknown fields are ignored, and absent ones have a
default. A field that is present has the right type and is within its bounds, or the document is refused.
It must not know what a document is about.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ipam.quoting import quoted
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipam.model import IPAddress, IPNetwork

V = TypeVar("V", bound=Value)


class FieldError(ValueError):
    """A document has an invalid field; says which, and why."""


class FieldKind(Protocol):
    """Of a field."""

    def read(self, value: Any, where: str) -> Any:
        """The value of JSON; raises FieldError. ``where``: the field, with those that it is in."""

    def write(self, value: Any) -> Any:
        """The same as JSON."""


class Text(Value):
    """At most so many characters. ``cut``: for people, what is too long is cut when it is written."""

    most: int
    cut: bool = False

    def read(self, value: Any, where: str) -> str:
        """See ``Kind``."""
        text: str = _typed(value, str, where)
        if len(text) > self.most:
            raise FieldError(f"{where}: {len(text)} characters, more than {self.most}")
        return text

    def write(self, value: str) -> str:
        """See ``Kind``."""
        return f"{value[: self.most - 3]}..." if self.cut and len(value) > self.most else value


class Whole(Value):
    """A whole number between 0 and ``most``, both included."""

    most: int

    def read(self, value: Any, where: str) -> int:
        """See ``Kind``."""
        return int(_within(_typed(value, int, where), self.most, where))

    def write(self, value: int) -> int:
        """See ``Kind``."""
        return value


class Real(Value):
    """A number between 0 and ``most``, both included."""

    most: float

    def read(self, value: Any, where: str) -> float:
        """See ``Kind``."""
        return float(_within(_typed(value, (int, float), where), self.most, where))

    def write(self, value: float) -> float:
        """See ``Kind``."""
        return value


class Flag:
    """True or false."""

    def read(self, value: Any, where: str) -> bool:
        """See ``Kind``."""
        return bool(_typed(value, bool, where))

    def write(self, value: bool) -> bool:  # noqa: FBT001 - the value itself
        """See ``Kind``."""
        return value


class AddressField:
    """An IP address."""

    def read(self, value: Any, where: str) -> IPAddress:
        """See ``Kind``."""
        try:
            return ip_address(_typed(value, str, where))
        except ValueError as error:
            raise FieldError(f"{where}: {quoted(value)} is not an IP address") from error

    def write(self, value: IPAddress) -> str:
        """See ``Kind``."""
        return str(value)


class Block:
    """An IP address, or a block of them with its length."""

    def read(self, value: Any, where: str) -> IPNetwork:
        """See ``Kind``."""
        try:
            return ip_network(_typed(value, str, where))
        except ValueError as error:
            raise FieldError(f"{where}: {quoted(value)} is neither an IP address nor a block") from error

    def write(self, value: IPNetwork) -> str:
        """See ``Kind``."""
        return str(value) if value.num_addresses > 1 else str(value.network_address)


class Items(Value):
    """A list of at most so many."""

    kind: FieldKind
    most: int

    def read(self, value: Any, where: str) -> tuple[Any, ...]:
        """See ``Kind``."""
        items = _typed(value, list, where)
        if len(items) > self.most:
            raise FieldError(f"{where}: {len(items)} items, more than {self.most}")
        return tuple(self.kind.read(each, f"{where}[{at}]") for at, each in enumerate(items))

    def write(self, value: tuple[Any, ...]) -> list[Any]:
        """See ``Kind``."""
        return [self.kind.write(each) for each in value]


class JsonObject(Generic[V]):
    """An object that is read as a value of a class, and written from one; None is left out.

    Args:
        made: the class.
        names: fields whose name in the document is not that of the class in camel case.
        absent: what fields are that the document does not have and the class has no default for.
        kinds: of every field of the class.
    """

    def __init__(
        self,
        made: type[V],
        names: Mapping[str, str] | None = None,
        absent: Mapping[str, Any] | None = None,
        **kinds: FieldKind,
    ) -> None:
        if differ := set(made.__match_args__) ^ set(kinds):
            raise TypeError(f"{made.__qualname__}: {', '.join(sorted(differ))}")
        self._made = made
        self._absent = dict(absent or {})
        self.fields: Mapping[str, tuple[str, FieldKind]] = {
            (names or {}).get(name) or camel(name): (name, kinds[name]) for name in made.__match_args__
        }
        """By the names in the document: name in the class, and kind."""

    def read(self, value: Any, where: str) -> V:
        """See ``Kind``. What is null counts as absent."""
        document = _typed(value, dict, where)
        found = {
            name: kind.read(document[key], f"{where}.{key}")
            for key, (name, kind) in self.fields.items()
            if document.get(key) is not None
        }
        try:
            return self._made(**{**self._absent, **found})
        except TypeError as error:
            raise FieldError(f"{where}: {error}") from error

    def write(self, value: V) -> dict[str, Any]:
        """See ``Kind``."""
        return {
            key: kind.write(there)
            for key, (name, kind) in self.fields.items()
            if (there := getattr(value, name)) is not None
        }


def camel(name: str) -> str:
    """``free_now`` as ``freeNow``."""
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)


def _typed(value: Any, kind: type | tuple[type, ...], where: str) -> Any:
    # In Python a bool is an int, in JSON it is not.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FieldError(f"{where}: {quoted(value)} has the wrong type")
    return value


def _within(value: float, most: float, where: str) -> float:
    if not 0 <= value <= most:
        raise FieldError(f"{where}: {value} is not between 0 and {most}")
    return value
