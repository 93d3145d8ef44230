"""A list of Kubernetes read item by item: its whole text may be large, and is never in memory at once.

Pure. It must not know what the items are, nor where the text comes from.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Json = dict[str, Any]

_ITEMS = re.compile(r'"items"\s*:\s*\[')
_BETWEEN = " \t\r\n,"
_DECODER = json.JSONDecoder()


def each_of(parts: Iterable[bytes], longest: int, take: Callable[[Json], None]) -> Json:
    """Call ``take`` with each item of a list; returns the list without them.

    ``parts``: its text as it arrives. ``longest``: characters of one item, or of what is around the items.

    Raises:
        ValueError: it is not such a list, it is cut off, or an item is longer.
    """
    source = _texts(parts)
    text = ""
    while (begin := _ITEMS.search(text)) is None:
        more = next(source, None)
        if more is None:
            return _object(text)  # without items, or null instead
        text = _appended(text, more, longest)
    head, text = text[: begin.end()], text[begin.end() :]
    while True:
        text = text.lstrip(_BETWEEN)
        if text.startswith("]"):
            break
        try:
            item, end = _DECODER.raw_decode(text)
        except ValueError:
            more = next(source, None)
            if more is None:
                raise
            text = _appended(text, more, longest)
            continue
        if not isinstance(item, dict):
            raise ValueError("an item is not a JSON object")  # noqa: TRY004 - as any other text
        take(item)
        text = text[end:]
    for more in source:
        text = _appended(text, more, longest)
    return _object(head + text)


def _texts(parts: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for part in parts:
        yield decoder.decode(part)
    yield decoder.decode(b"", final=True)


def _appended(text: str, more: str, longest: int) -> str:
    if len(text) + len(more) > longest:
        raise ValueError(f"more than {longest} characters without an end")
    return text + more


def _object(text: str) -> Json:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - as any other text
    return found
