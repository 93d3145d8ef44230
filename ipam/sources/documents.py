"""JSON address documents: read within bounds, validated entry by entry.

pydantic belongs here and in the readers only, at the edge. It must not know which document it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ipam.sources.nic import not_a_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of any address document; 256 addresses take 20 KiB."""


class Part(BaseModel):
    """A part of a document. Lists in it hold ``Any``: each entry is validated by itself (``entries``), so
    that a bad one does not spoil the others.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)


P = TypeVar("P", bound=Part)


def json_document(model: type[P], document: bytes, source: str, where: str) -> P:
    """The whole document.

    Raises:
        SourceUnreadable: it is no JSON, or not of that shape.
    """
    try:
        return model.model_validate(json.loads(document))
    except (ValidationError, ValueError, RecursionError) as error:
        raise not_a_document(source, where, brief(error)) from error


def entries(model: type[P], raw: Iterable[Any], what: str, warnings: list[str]) -> Iterator[P]:
    """The entries of a list that are what they should be; a warning for each that is not."""
    for each in raw:
        try:
            yield model.model_validate(each)
        except ValidationError as error:
            warnings.append(f"{what}: {brief(error)}")


def brief(error: Exception) -> str:
    """One line of an error of json or pydantic."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return f"{type(error).__name__}: {error}"
