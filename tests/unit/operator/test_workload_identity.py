"""The operator with a workload identity: real requests of the SDK to the emulated login endpoint.

Whatever the login endpoint does, the node is told a state, the operator goes on without being started again,
and neither a token nor an assertion is in the log, in a resource or in an event.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from integration.fabric import identity
from integration.fabric.identity import Principal
from ipam.operator import arm_pipeline
from ipam.provision import progress
from ipam.provision.refusals import Kind
from ipam.sources import arm_client
from tests.unit.operator.world import World, world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.fabric.model import Estate
    from integration.fabric.web import Request, Response
    from tests.unit.operator.agent import Agent

pytestmark = pytest.mark.slow

CLIENT = "c11e0000-0000-4000-8000-0000000000a2"
FIRST, SECOND = "eyJhbGciOiJub25lIn0.eyJuIjoxfQ.Zmlyc3Q", "eyJhbGciOiJub25lIn0.eyJuIjoyfQ.c2Vjb25k"
"""Tokens of a service account, as far as one can tell from the outside."""


class Login(identity.Identity):
    """The login endpoint, which takes one assertion at a time, as one that has expired is taken no more."""

    def __init__(self) -> None:
        super().__init__()
        self.system_assigned = None
        self.principal = Principal(CLIENT, "0b000000-0000-4000-8000-0000000000a2")
        self.user_assigned = [self.principal]
        self.takes = FIRST
        self.asked: list[str] = []
        """Assertions that were sent."""

    def login(self, request: Request, estate: Estate) -> Response:
        assertion = parse_qs(request.body.decode())["client_assertion"][0]
        self.asked.append(assertion)
        if assertion != self.takes:
            text = f"AADSTS700024: Client assertion {assertion} is not within its valid time range."
            return identity.error(401, "invalid_client", text)
        return super().login(request, estate)


class Workload:
    """A world whose operators have a workload identity."""

    def __init__(self, place: World, login: Login, token_file: Path) -> None:
        self.place, self.login, self.token_file = place, login, token_file
        self.agent: Agent = place.agent("node1")
        arm = {"base_url": place.azure.url, "ca_file": str(place.azure.ca_file)}
        self.operator = place.operator(arm={**arm, "credential": "workload-identity"})

    def serves(self, pods: int) -> None:
        """Pods come, and get addresses."""
        self.agent.pods = pods
        self.place.soon(lambda: len(self.agent.held) == pods)
        self.place.soon(lambda: self.place.says("node1", progress.IDLE))

    def cannot(self, pods: int, word: str) -> None:
        """Pods come, and the node is told why they get none."""
        self.agent.pods = pods
        self.place.soon(lambda: word in self.place.status("node1").text)
        assert self.place.says("node1", Kind.NO_IDENTITY.value)
        assert "federated credential" in self.place.status("node1").remedy

    def needs_another_token(self) -> None:
        """No token that was given out before is good any more."""
        self.login.issuer.revoke_all()

    def said(self) -> str:
        """All that anybody can read."""
        resources = [each[3] for each in self.place.api.history]
        return json.dumps([self.operator.told, resources, self.place.api.events], default=str)


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workload]:
    login, token_file = Login(), tmp_path / "token"
    token_file.write_text(FIRST)
    with world(tmp_path, monkeypatch, tokens=login) as place:
        cloud, _ = arm_client._CLOUDS["azurepubliccloud"]
        monkeypatch.setitem(
            arm_client._CLOUDS, "azurepubliccloud", (cloud, place.azure.url.removeprefix("https://"))
        )
        monkeypatch.setattr(arm_pipeline, "ANEW_SECONDS", 10.0)
        monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
        monkeypatch.setenv("AZURE_TENANT_ID", place.azure.estate.tenant)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token_file))
        made = Workload(place, login, token_file)
        yield made
        made.serves(9)
        assert len(made.place.operators) == 1
        said = made.said()
        assert "eyJ" not in said


def test_one_token_serves_all_requests(workload: Workload) -> None:
    workload.serves(3)
    assert workload.login.asked == [FIRST]


def test_a_token_that_the_login_endpoint_refuses_is_told_and_taken_when_it_is_accepted(
    workload: Workload,
) -> None:
    workload.login.takes = SECOND
    workload.cannot(3, "AADSTS700024")
    workload.login.takes = FIRST


def test_a_token_file_that_is_rotated_is_read_again(workload: Workload) -> None:
    """The SDK alone would send the token that it has read for ten minutes."""
    workload.serves(3)
    workload.login.takes = SECOND
    workload.needs_another_token()
    workload.cannot(6, "AADSTS700024")
    workload.token_file.write_text(SECOND)
    workload.serves(7)
    assert workload.login.asked[-1] == SECOND


def test_a_token_file_that_is_not_there_is_told_and_read_when_it_is(workload: Workload) -> None:
    workload.token_file.unlink()
    workload.cannot(3, str(workload.token_file))
    workload.token_file.write_text(FIRST)


def test_an_identity_that_is_removed_and_returned_is_noticed(workload: Workload) -> None:
    workload.serves(3)
    workload.login.user_assigned = []
    workload.needs_another_token()
    workload.cannot(6, "AADSTS700016")
    workload.login.user_assigned = [workload.login.principal]


def test_a_login_endpoint_that_does_not_answer_is_told(workload: Workload) -> None:
    workload.serves(3)
    answer: Any = workload.login.login
    workload.login.login = lambda *_: identity.error(503)  # type: ignore[method-assign]
    workload.needs_another_token()
    workload.agent.pods = 6
    workload.place.soon(lambda: workload.place.says("node1", Kind.NO_IDENTITY.value))
    workload.login.login = answer  # type: ignore[method-assign]
