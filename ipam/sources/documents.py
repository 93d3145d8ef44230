"""JSON address documents: read within bounds, validated entry by entry.

What is taken from each is declared in ``models``. It must not know which document it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from ipam.quoting import one_line
from ipam.sources.nic import not_a_document
from ipam.validation import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ipam.sources.models import Part

    P = TypeVar("P", bound=Part)

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of any address document; 256 addresses take 20 KiB."""


def json_document(validated: Callable[[Any], P], document: bytes, source: str, where: str) -> P:
    """The whole document. Raises SourceUnreadable: it is not valid JSON, or not of that shape."""
    try:
        return validated(json.loads(document))
    except (ValidationError, ValueError, RecursionError) as error:
        raise not_a_document(source, where, brief(error)) from error


def entries(validated: Callable[[Any], P], raw: Iterable[Any], what: str, warnings: list[str]) -> Iterator[P]:
    """The valid entries of a list; a warning for each of the others."""
    for each in raw:
        try:
            yield validated(each)
        except ValidationError as error:
            warnings.append(f"{what}: {brief(error)}")


def brief(error: Exception) -> str:
    """One line of an error of json or pydantic."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return one_line(f"{type(error).__name__}: {error}")
