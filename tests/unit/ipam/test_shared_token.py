"""One token for all threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from ipam.sources.managed_identity import NoToken
from ipam.sources.shared_token import EARLY_SECONDS, REFUSED_SECONDS, SharedToken
from tests.unit.ipam.node import Clock

SCOPE = "https://management.azure.com/.default"


class Issuer:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked = 0
        self.refuses = False
        self.slow = threading.Event()
        self.slow.set()

    def get_token(self, *scopes: str, **asked: Any) -> AccessToken:
        self.asked += 1
        self.slow.wait(20)
        if self.refuses:
            raise NoToken("no")
        return AccessToken(f"token-{self.asked}", int(self.clock()) + 3600)


class Place:
    def __init__(self) -> None:
        self.clock = Clock()
        self.issuer = Issuer(self.clock)
        self.token = SharedToken(self.issuer, self.clock)


@pytest.fixture
def place() -> Place:
    return Place()


def test_it_is_asked_for_once_however_many_need_it(place: Place) -> None:
    place.issuer.slow.clear()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(place.token.get_token(SCOPE).token)) for _ in range(8)
    ]
    for each in threads:
        each.start()
    place.issuer.slow.set()
    for each in threads:
        each.join(20)
    assert found == ["token-1"] * 8


def test_it_is_replaced_before_it_expires_and_where_it_is_not_accepted(place: Place) -> None:
    place.token.get_token(SCOPE)
    place.clock.advance(3600 - EARLY_SECONDS - 2)
    assert place.token.get_token(SCOPE).token == "token-1"
    place.clock.advance(3)
    assert place.token.get_token(SCOPE).token == "token-2"
    assert place.token.get_token(SCOPE, claims="x").token == "token-3"
    assert place.token.get_token(SCOPE).token == "token-3"


def test_where_there_is_none_it_is_not_asked_for_at_every_request(place: Place) -> None:
    place.issuer.refuses = True
    for _ in range(5):
        with pytest.raises(NoToken):
            place.token.get_token(SCOPE)
    assert place.issuer.asked == 1
    place.issuer.refuses = False
    place.clock.advance(REFUSED_SECONDS)
    assert place.token.get_token(SCOPE).token == "token-2"
