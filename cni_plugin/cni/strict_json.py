"""JSON as defined by RFC 8259: the extensions of Python's module are refused.

``NaN``, ``Infinity``, numbers too large for a float, duplicate keys in an object, unlimited nesting: other
readers (libcni, another plugin) refuse or misread these. It must not know what a document means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from ipam.quoting import quoted

DEEPEST = 64
"""Levels of objects and lists: a configuration with a previous result has seven."""

_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def loads(text: bytes) -> Any:
    """The value of a JSON text in UTF-8 (RFC 8259, 8.1).

    Raises:
        ValueError: it is not valid JSON, with the reason.
    """
    try:
        decoded = text.decode()
        document = _decode(decoded)
        if "\\ud" in decoded or "\\uD" in decoded:
            # Half a surrogate pair is not a character: replaced, as Go does.
            document = _decode(json.dumps(document, ensure_ascii=False).encode(errors="replace").decode())
    except RecursionError as error:
        raise _too_deep() from error
    if decoded.count("{") + decoded.count("[") > DEEPEST:  # with fewer it can't be nested so deeply
        _require_depth(document, DEEPEST)
    return document


def dumps(document: object) -> bytes:
    """A document as JSON text, in ASCII. Raises ValueError: it has a number that JSON cannot have."""
    return _encode(document).encode()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {quoted(text)} is too large")
    return number


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {quoted(twice)} is duplicated")
    return found


_decode = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_float=_finite, parse_constant=_no_constant
).decode


def _require_depth(value: object, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not left:
        raise _too_deep()
    for each in value.values() if isinstance(value, dict) else value:
        _require_depth(each, left - 1)


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEEPEST} levels deep")
