"""What is measured, in which order.

Owns the interleaving: every contender makes a call before any makes its next one, in an order that is
random each time, so that other load on the machine affects all of them alike. It must not know how
a call is made or what is shown.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from integration.bench import contenders, targets
from integration.bench.contenders import AGENT, ALONE, BARE, BUNDLE, REFERENCE, Contender
from integration.bench.samples import ONE_AT_A_TIME, Samples
from integration.bench.sandbox import Sandbox

BURST, WIDTH = 100, 16
WARM_UP = 3
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int = 60
    bursts: int = 4
    bursts_alone: int = 2
    """Of the contender that starts an interpreter for each call; its bursts take seconds."""
    growth_rounds: int = 40
    idle_seconds: float = 60.0
    """One whole period of the work that it does by itself."""
    names: frozenset[str] = frozenset({REFERENCE, ALONE, AGENT, BARE})
    bundle: Path = BUNDLE
    masquerade: bool = False
    """``ipMasq`` of all. Where anything is masqueraded, the kernel takes longer to remove a link."""


SETTLE_SECONDS = 10.0
"""After a burst: threads that were there for it end, and what they used counts no more then."""
QUICK = Plan(rounds=15, bursts=2, bursts_alone=1, growth_rounds=0)


def measure(plan: Plan, say: Step) -> Samples:
    """Carry the plan out.

    Raises:
        SandboxError, NotBuilt: something that is needed is not there.
    """
    samples = Samples()
    with ExitStack() as stack:
        sandboxes = _main_sandboxes(plan, samples, stack, say)
        _one_at_a_time(plan, sandboxes, samples, say)
        _bursts(plan, sandboxes, samples, say)
        agent = sandboxes.get(AGENT)
        if plan.growth_rounds:
            _growth(plan, samples, say, with_agent=agent is not None)
        if agent is not None:
            _idle(plan, agent, samples, say)
            samples.usage = agent.usage()
    return samples


def _main_sandboxes(plan: Plan, samples: Samples, stack: ExitStack, say: Step) -> dict[str, Sandbox]:
    chosen = [
        make()
        for name, make in (
            (REFERENCE, contenders.reference),
            (ALONE, lambda: contenders.alone(plan.bundle)),
            (AGENT, lambda: contenders.with_agent(plan.bundle)),
            (BARE, contenders.bare),
        )
        if name in plan.names
    ]
    say(f"places for {', '.join(each.name for each in chosen)}")
    sandboxes = {}
    for contender in chosen:
        sandbox = stack.enter_context(_open(contender, BURST if "ADD" in contender.verbs else 1, plan))
        if contender.agent and (said := sandbox.start_agent()):
            samples.agent_missing = said
            continue
        sandboxes[contender.name] = sandbox
        for _ in range(WARM_UP):
            for verb in contender.verbs:
                samples.check(contender.name, sandbox.calls(verb, [0]))
    return sandboxes


@contextmanager
def _open(contender: Contender, pods: int, plan: Plan) -> Iterator[Sandbox]:
    netconf = {**contender.netconf, "ipMasq": plan.masquerade}
    sandbox = Sandbox(dataclasses.replace(contender, netconf=netconf), pods)
    try:
        yield sandbox
    finally:
        sandbox.close()


def _shuffled(items: Sequence[str]) -> list[str]:
    return random.sample(items, len(items))


def _one_at_a_time(plan: Plan, sandboxes: dict[str, Sandbox], samples: Samples, say: Step) -> None:
    for number in range(plan.rounds):
        if number % 10 == 0:
            say(f"one at a time: round {number + 1} of {plan.rounds}")
        for verb in ONE_AT_A_TIME:
            for name in _shuffled(list(sandboxes)):
                if verb in sandboxes[name].contender.verbs:
                    samples.take(verb, name, sandboxes[name].calls(verb, [0]))


def _bursts(plan: Plan, sandboxes: dict[str, Sandbox], samples: Samples, say: Step) -> None:
    pods = range(BURST)
    able = [name for name, each in sandboxes.items() if "ADD" in each.contender.verbs]
    for number in range(plan.bursts):
        say(f"{BURST} at {WIDTH} in parallel: round {number + 1} of {plan.bursts}")
        for name in _shuffled(able):
            if name == ALONE and number >= plan.bursts_alone:
                continue
            for verb in ("ADD", "DEL"):
                _burst(verb, name, sandboxes[name], pods, samples)


def _burst(verb: str, name: str, sandbox: Sandbox, pods: Sequence[int], samples: Samples) -> None:
    before = sandbox.usage().cpu
    batch = sandbox.calls(verb, pods, WIDTH)
    agent = sandbox.usage().cpu - before
    samples.take_burst(f"burst of {verb}s", name, batch)
    caller = sum(call.cpu for call in batch.calls)
    samples.add(f"CPU per {verb} of a burst", name, (caller + agent) / len(pods))
    if sandbox.contender.agent:
        samples.add(f"CPU per {verb} of a burst, caller", name, caller / len(pods))
        samples.add(f"CPU per {verb} of a burst, agent", name, agent / len(pods))


GROWTH = (
    (targets.FEW, 10, 16),
    (targets.MANY_PODS, 250, 300),
    (targets.MANY_ADDRESSES, 10, 4000),
)
"""What it is called, pods that exist, addresses of the pool."""


def _growth(plan: Plan, samples: Samples, say: Step, *, with_agent: bool) -> None:
    """ADD in nodes of different sizes, side by side: a round of each before the next."""
    with ExitStack() as stack:
        grown: list[tuple[str, str, Sandbox, int]] = []
        for name in (REFERENCE, ALONE, AGENT):
            if name not in plan.names or (name == AGENT and not with_agent):
                continue
            for measure, pods, addresses in GROWTH:
                if name == REFERENCE and measure == targets.MANY_ADDRESSES:
                    continue
                say(f"{name}: a node with {pods} pods, {addresses} addresses")
                grower = _grower(name, addresses, plan, with_agent)
                sandbox = stack.enter_context(_open(grower, pods + 1, plan))
                _fill(sandbox, name, pods, samples, plan)
                grown.append((measure, name, sandbox, pods))
        for number in range(plan.growth_rounds):
            if number % 10 == 0:
                say(f"growth: round {number + 1} of {plan.growth_rounds}")
            for measure, name, sandbox, spare in random.sample(grown, len(grown)):
                batch = sandbox.calls("ADD", [spare])
                samples.check(name, batch)
                samples.add(measure, name, batch.calls[0].seconds)
                samples.check(name, sandbox.calls("DEL", [spare]))


def _grower(name: str, addresses: int, plan: Plan, with_agent: bool) -> Contender:
    """No cooldown: a small pool would be under pressure all the time, a large one never."""
    if name == REFERENCE:
        return contenders.reference()
    make = contenders.with_agent if with_agent else contenders.alone
    return make(plan.bundle, addresses, 0)


def _fill(sandbox: Sandbox, name: str, pods: int, samples: Samples, plan: Plan) -> None:
    """Make the pods; with the agent's help where there is one, since they are the same either way."""
    if sandbox.contender.agent:
        sandbox.start_agent()
    samples.check(name, sandbox.calls("ADD", range(pods), WIDTH))
    if name == ALONE and sandbox.contender.agent:
        sandbox.become(contenders.alone(plan.bundle))
    for verb in ("ADD", "DEL") * 2:
        samples.check(name, sandbox.calls(verb, [pods]))


def _idle(plan: Plan, agent: Sandbox, samples: Samples, say: Step) -> None:
    pods = range(BURST)
    samples.check(AGENT, agent.calls("ADD", pods, WIDTH))
    say(f"the agent with {BURST} pods and nothing to do: {plan.idle_seconds:.0f} s")
    time.sleep(SETTLE_SECONDS)
    before, started = agent.usage().idle_cpu, time.monotonic()
    time.sleep(plan.idle_seconds)
    samples.idle_share = (agent.usage().idle_cpu - before) / (time.monotonic() - started)
    samples.check(AGENT, agent.calls("DEL", pods, WIDTH))
