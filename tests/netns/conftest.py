"""Nodes for the tests, in the way that ``--way`` or AZVNET_TEST_WAY asks for (see ``ways``)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.netns import calls, ways
from tests.netns.calls import Caller, Executable
from tests.netns.node import Node
from tests.netns.sandbox import Sandbox
from tests.netns.ways import Agent, Executables, Way

NewNode = Callable[..., Node]
NewAgent = Callable[..., Agent]


def pytest_addoption(parser: pytest.Parser) -> None:
    names = [way.value for way in Way]
    parser.addoption("--way", choices=names, help="how calls are carried out (or AZVNET_TEST_WAY)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone(reason): about the executable that carries calls out itself")
    config.addinivalue_line("markers", "with_agent(reason): about calls that are handed to the agent")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that is about one way only is left out of the others: there is nothing it could check there."""
    other = "with_agent" if chosen_way(config) is Way.ALONE else "alone"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(other)]


def chosen_way(config: pytest.Config) -> Way:
    return Way(config.getoption("--way") or os.environ.get("AZVNET_TEST_WAY") or "alone")


@pytest.fixture(scope="session")
def way(pytestconfig: pytest.Config) -> Way:
    """How calls are carried out in this run."""
    return chosen_way(pytestconfig)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Executables:
    """What is executed in this run."""
    if os.geteuid() != 0:
        pytest.fail("these tests make network namespaces: run them as root")
    calls.preload()
    return ways.executables(tmp_path_factory.mktemp("executables"))


@pytest.fixture(scope="session")
def executable(way: Way, product: Executables) -> Executable:
    """What a runtime executes in this run."""
    return product.caller()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A machine without an uplink."""
    made = Sandbox()
    yield made
    made.close()


@pytest.fixture
def new_node(way: Way, product: Executables) -> Iterator[NewNode]:
    """Makes nodes of any kind; ``many`` for one whose test makes hundreds of calls."""
    with ExitStack() as undo:

        def make(*, many: bool = False, addresses: int = 8, mtu: int = 1500) -> Node:
            machine = Sandbox()
            undo.callback(machine.close)
            caller: Caller = ways.many(way, product) if many else product.caller()
            node = Node(machine, caller, addresses=addresses, mtu=mtu)
            if way is not Way.ALONE:
                undo.callback(Agent(product, machine).stop)
            return node

        yield make


@pytest.fixture
def new_agent(product: Executables) -> Iterator[NewAgent]:
    """Starts agents that the test itself stops, kills and starts again."""
    started: list[Agent] = []

    def start(
        node: Node,
        *,
        of: Executables = product,
        environ: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Agent:
        agent = Agent(of, node.sandbox, settings or None, environ)
        started.append(agent)
        return agent

    yield start
    for agent in started:
        if not agent.over:
            agent.signal(signal.SIGCONT)
            agent.kill()


@pytest.fixture
def bare_node(way: Way, product: Executables) -> Iterator[Callable[..., Node]]:
    """Makes nodes without an agent, whose calls look for one all the same."""
    with ExitStack() as undo:

        def make(*, addresses: int = 8) -> Node:
            machine = Sandbox()
            undo.callback(machine.close)
            return Node(machine, product.caller(), addresses=addresses)

        yield make


@pytest.fixture
def node(new_node: NewNode) -> Node:
    """A node with eight addresses for pods, whose calls are made by the executable under test."""
    return new_node()


@pytest.fixture
def busy_node(new_node: NewNode) -> Node:
    """A node for a test that makes hundreds of calls."""
    return new_node(many=True)
