"""A list of Kubernetes read item by item, however it arrives."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.provision.json_items import each_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEM = st.dictionaries(
    st.text(max_size=5), st.one_of(st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.none()))
)


def read(parts: list[bytes], longest: int = 10_000) -> tuple[list[Any], dict[str, Any]]:
    found: list[Any] = []
    rest = each_of(parts, longest, found.append)
    return found, rest


@given(items=st.lists(ITEM, max_size=5), size=st.integers(1, 50), first=st.booleans(), spaces=st.booleans())
def test_every_item_is_found_wherever_the_text_is_cut(
    items: list[Any], size: int, first: bool, spaces: bool
) -> None:
    around = {"kind": "PodList", "metadata": {"resourceVersion": "7"}}
    document = {"items": items, **around} if first else {**around, "items": items}
    text = json.dumps(document, ensure_ascii=False, indent=1 if spaces else None).encode()
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    assert read(parts) == (items, {**around, "items": []})


@pytest.mark.parametrize(
    "text", ['{"metadata": {}}', '{"items": null, "metadata": {}}', '{"items": [], "metadata": {}}']
)
def test_a_list_without_items_has_none(text: str) -> None:
    items, rest = read([text.encode()])
    assert (items, rest["metadata"]) == ([], {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "nonsense",
        '{"items": [{"a": 1}, {"b"',
        '{"items": [{"a": 1}]',
        '{"items": [1]}',
        '{"items": [{}}]}',
        '{"items": [{"a": "' + "x" * 20_000,
        '{"kind": "' + "x" * 20_000,
        '{"items": []' + " " * 20_000,
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_whole_list_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read([text[at : at + 100].encode() for at in range(0, len(text), 100)])


@pytest.mark.parametrize(
    "text",
    [
        '{"items": [{"a": "' + "x" * 20_000 + '"}]}',
        '{"kind": "' + "x" * 20_000 + '", "items": []}',
        '{"items": []' + " " * 20_000 + "}",
    ],
    ids=["item", "before", "after"],
)
def test_a_list_that_is_too_long_is_refused_even_if_it_is_complete(text: str) -> None:
    parts = [text[at : at + 100].encode() for at in range(0, len(text), 100)]
    with pytest.raises(ValueError, match="more than 10000 characters"):
        read(parts)
    assert read(parts, len(text))


@pytest.mark.parametrize("text", [b'{"items": [{"a": "\xff"}]}', b'{"items": []}\xe2'])
def test_bytes_that_are_not_utf_8_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        read([text])


def test_memory_does_not_grow_with_the_list() -> None:
    """500 pods of 20 kB: 10 MB of text, and several times as much as objects."""

    def pods() -> Iterator[bytes]:
        yield b'{"metadata": {"resourceVersion": "7"}, "items": ['
        for number in range(500):
            pod = {"metadata": {"uid": str(number), "more": ["x" * 90] * 200}}
            yield (b"," if number else b"") + json.dumps(pod).encode()
        yield b"]}"

    seen: list[str] = []
    tracemalloc.start()
    try:
        each_of(pods(), 4 << 20, lambda pod: seen.append(pod["metadata"]["uid"]))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(seen) == 500
    assert most < 1_000_000
