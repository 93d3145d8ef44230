"""Which refusal an answer or the end of an operation is: by its code, or else by its status."""

from __future__ import annotations

from typing import Any

import pytest

from ipam.provision.refusals import Kind, Refusal, of_answer, of_operation
from tests.unit.ipam.arm_service import refusal

VNET_LIMIT = "The virtual network exceeds the maximum number of private IP addresses."


def ended(*errors: tuple[str, str]) -> dict[str, Any]:
    """An operation that failed: code and message, each the detail of the one before."""
    error: dict[str, Any] = {}
    for code, message in reversed(errors):
        error = {"code": code, "message": message, "details": [error] if error else []}
    return {"status": "Failed", "error": error}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("RetryableErrorDueToAnotherOperation", Kind.BUSY),
        ("AnotherOperationInProgress", Kind.BUSY),
        ("RetryableError", Kind.BUSY),
        ("PreconditionFailed", Kind.CHANGED),
        ("SubnetIsFull", Kind.SUBNET_FULL),
        ("NoAvailableIPAddressesInSubnet", Kind.SUBNET_FULL),
        ("PrefixUnavailable", Kind.NO_BLOCK),
        ("InsufficientCidrBlocks", Kind.NO_BLOCK),
        ("PrivateIPAddressIsAllocated", Kind.ADDRESS_TAKEN),
        ("PrivateIPAddressInUse", Kind.ADDRESS_TAKEN),
        ("AuthorizationFailed", Kind.FORBIDDEN),
        ("LinkedAuthorizationFailed", Kind.FORBIDDEN),
        ("SomethingNew", Kind.REFUSED),
    ],
)
def test_a_code_says_the_kind_though_an_operation_has_no_status(code: str, kind: Kind) -> None:
    assert of_operation("x", ended((code, "no"))).kind is kind
    assert of_answer("x", refusal(418, code)).kind is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.REFUSED),
        (401, Kind.NO_IDENTITY),
        (402, Kind.REFUSED),
        (403, Kind.FORBIDDEN),
        (404, Kind.NOT_FOUND),
        (409, Kind.BUSY),
        (412, Kind.CHANGED),
        (429, Kind.THROTTLED),
        (499, Kind.REFUSED),
        (500, Kind.SERVER_ERROR),
    ],
)
def test_where_the_code_is_not_known_the_status_says_the_kind(status: int, kind: Kind) -> None:
    assert of_answer("x", refusal(status, "SomethingNew")).kind is kind


def test_a_code_that_is_known_comes_before_what_a_message_is_like() -> None:
    assert of_operation("x", ended(("PrivateIPAddressInUse", VNET_LIMIT))).kind is Kind.ADDRESS_TAKEN
    assert of_operation("x", ended(("SomethingNew", VNET_LIMIT))).kind is Kind.VNET_FULL


def test_an_inner_code_that_is_not_known_leaves_it_to_the_outer_one() -> None:
    error = ended(("SubnetIsFull", "full"), ("SomethingNew", "why"))
    assert of_operation("x", error).kind is Kind.SUBNET_FULL
    assert (
        of_operation("x", ended(("SomethingNew", "why"), ("SubnetIsFull", "full"))).kind is Kind.SUBNET_FULL
    )


def test_details_that_are_no_errors_and_a_code_without_a_message_are_no_defect() -> None:
    found = of_operation(
        "x", {"error": {"code": "New", "details": [None, "words", {"code": "SubnetIsFull"}]}}
    )
    assert found.kind is Kind.SUBNET_FULL
    assert str(found).endswith(": New: ; SubnetIsFull:")


@pytest.mark.parametrize("kind", Kind)
def test_every_refusal_says_what_to_do(kind: Kind) -> None:
    assert Refusal(kind, "no").remedy.endswith(".")
