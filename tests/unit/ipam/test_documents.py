"""Address documents that are not as they should be: what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from ipam.errors import SourceUnreadable
from ipam.sources import documents_schema
from ipam.sources.documents import entries, json_document
from ipam.validation import validator

_compute = validator(documents_schema.IMDS_COMPUTE)


def test_the_field_that_is_wrong_is_named_and_its_value_is_not() -> None:
    with pytest.raises(SourceUnreadable) as refused:
        json_document(_compute, b'{"resourceId": ["s3cr3t"]}', "arm", "the document")
    said = str(refused.value)
    assert "resourceId: Input should be a valid string" in said
    assert "s3cr3t" not in said
    assert "http" not in said, "no link to documentation of pydantic"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"[]", "Input should be a valid"),
        (b"{", "JSONDecodeError: "),
        (b"[" * 100_000, "RecursionError: "),
        (b"\xff", "UnicodeDecodeError: "),
    ],
)
def test_what_is_no_document_at_all_is_said_in_a_line(document: bytes, words: str) -> None:
    with pytest.raises(SourceUnreadable) as refused:
        json_document(_compute, document, "arm", "the document")
    said = str(refused.value)
    assert words in said
    assert "\n" not in said


def test_an_entry_that_is_not_valid_is_skipped_with_a_warning() -> None:
    warnings: list[str] = []
    raw: list[Any] = [{"resourceId": "a"}, 7, {"resourceId": 7}, {"resourceId": "b"}]
    found = list(entries(_compute, raw, "a machine", warnings))
    assert [each.resource_id for each in found] == ["a", "b"]
    assert len(warnings) == 2
    assert warnings[0].startswith("a machine: Input should be")
    assert warnings[1].startswith("a machine: resourceId: Input should be")
