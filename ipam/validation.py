"""pydantic's validation without pydantic: its engine, and objects for it to fill in.

Importing pydantic and building models from their annotations takes longer than everything else a call
does. What they come to is a description for the engine, ``pydantic_core``, which is compiled code and
loads in a few milliseconds; packaging/compile_models.py writes that description down. It must not know what
is validated.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import ValidationError

__all__ = ["Made", "Read", "ValidationError", "model", "model_field", "validator", "with_field"]

ENGINE = "pydantic_core"


_SLOTS = ("__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")


class Read:
    """One object that the engine has read: its fields are attributes, as those of a model."""

    # What the engine sets, as pydantic.BaseModel has it.
    __slots__ = ("__dict__", *_SLOTS)

    __pydantic_extra__: dict[str, Any] | None
    __pydantic_fields_set__: set[str]

    @property
    def model_extra(self) -> dict[str, Any] | None:
        """Keys that no field has, as ``pydantic.BaseModel.model_extra``."""
        return self.__pydantic_extra__


def with_field(read: Any, name: str, value: object) -> Any:
    """The same object with another value in one field, which is not validated."""
    copied = object.__new__(type(read))
    for slot in _SLOTS:
        object.__setattr__(copied, slot, getattr(read, slot, None))
    object.__setattr__(copied, "__dict__", {**vars(read), name: value})
    return copied


class Made:
    """A default that is an object: it is made from these values each time it is needed."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values


def model_field(schema: dict[str, Any], *, alias: str = "", **default: object) -> dict[str, Any]:
    """The schema of one key of an object; without ``default`` it has to be there."""
    if "default" in default:
        made = default["default"]
        schema = {"type": "default", "schema": schema, "default": made}
        if isinstance(made, Made):
            schema |= {"default": made.values, "validate_default": True}
    return {"type": "model-field", "schema": schema, **({"validation_alias": alias} if alias else {})}


def model(name: str, fields: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object."""
    return {
        "type": "model",
        "cls": type(name, (Read,), {"__slots__": ()}),
        "schema": {"type": "model-fields", "fields": fields, "model_name": name},
        "config": {**config, "title": name},
    }


def validator(schema: dict[str, Any], cls: type | None = None) -> Callable[[Any], Any]:
    """What reads an object by its schema: into ``cls``, a subclass of ``Read``, where it is given.

    It raises ``ValidationError``, as ``pydantic.BaseModel.model_validate`` does.
    """
    engine = _SchemaValidator({**schema, "cls": cls} if cls else schema)
    read: Callable[[Any], Any] = engine.validate_python
    return read


def _engine() -> Any:
    """The compiled part of ``pydantic_core`` alone.

    Its package loads type definitions that nothing needs at run time (50 ms). So a bare package object
    stands in for it while the compiled part is imported, and nobody finds it there afterwards.
    """
    if ENGINE not in sys.modules:
        spec = PathFinder.find_spec(ENGINE)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"{ENGINE} is not installed")
        package = ModuleType(ENGINE)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[ENGINE] = package
        try:
            from pydantic_core import _pydantic_core
        finally:
            del sys.modules[ENGINE]
        return _pydantic_core
    from pydantic_core import _pydantic_core

    return _pydantic_core


_compiled = _engine()
_SchemaValidator = _compiled.SchemaValidator
if not TYPE_CHECKING:
    ValidationError = _compiled.ValidationError
