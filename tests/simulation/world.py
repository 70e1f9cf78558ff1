"""One history: a seed decides what the clients call, what the network does, and in which order all of it happens."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

from langchain_kv import KVStore, SetupMode, limits
from langchain_kv.backends.dataapi import service
from langchain_kv.errors import StoreError
from simulation.history import History, Kind, Operation, Step
from simulation.linearizability import ABSENT
from simulation.model_server import ModelServer, Sizes
from simulation.network import CURRENT, FAULTS, Conditions, Network
from simulation.virtual_time import VirtualLoop, clock_of

__all__ = ["Plan", "accusation", "call", "judge", "listed", "plan_of", "read", "run", "shrunk", "work"]

KEYS = ("a", "b", "ab", "b:1", "ä", "a.$x")
KINDS: tuple[Kind, ...] = ("put", "put", "put", "get", "get", "delete", "keys", "items")
ENDPOINT = "http://model.invalid"
TOKEN = "a-token-of-the-simulation"


class Plan(NamedTuple):
    """What a seed makes of itself.

    Attributes:
        seed: of every choice.
        keys: in use.
        stores: how many there are; a client uses the one of its number, modulo this.
        steps: the calls, each client's in order.
        sizes: of the server.
        conditions: of the network.
        limits: the client's numbers, small enough that few keys need several requests.
        timeouts_s: of a request, and of an operation without success.
    """

    seed: int
    keys: tuple[str, ...]
    stores: int
    steps: tuple[Step, ...]
    sizes: Sizes
    conditions: Conditions
    limits: dict[str, int]
    timeouts_s: tuple[float, float]


# -- plans --------------------------------------------------------------------------------------------------------


def plan_of(seed: int) -> Plan:
    """Return what a seed stands for."""
    dice = Random(seed)
    keys = tuple(dice.sample(KEYS, dice.randint(1, len(KEYS))))
    clients = dice.randint(2, 4)
    request_timeout_s = dice.uniform(0.3, 1.0)
    return Plan(
        seed,
        keys,
        dice.randint(1, clients),
        tuple(_steps(dice, keys, clients)),
        Sizes(dice.randint(1, 4), dice.randint(1, 4)),
        _conditions(dice),
        {
            "FEW_KEYS": dice.randint(0, 2),
            "INSERT_MANY_MAX": dice.randint(1, 4),
            "IN_MAX": dice.randint(1, 4),
            "DELETE_MANY_MAX": dice.randint(1, 4),
        },
        (request_timeout_s, request_timeout_s * dice.uniform(1, 4)),
    )


def _conditions(dice: Random) -> Conditions:
    start_s = dice.uniform(0, 1)
    return Conditions(
        share=dice.choice((0.0, 0.05, 0.2, 0.5)),
        outage_s=(start_s, start_s + dice.choice((0, 0, 1, 4))),
        kinds=tuple(dice.sample(sorted(FAULTS), dice.randint(1, len(FAULTS)))),
        delay_s=0.005,
    )


def _steps(dice: Random, keys: Sequence[str], clients: int) -> Iterator[Step]:
    values = iter(range(1, 10_000))
    for number in range(dice.randint(2, 7) * clients):
        kind = dice.choice(KINDS)
        some = dice.choices(keys, k=dice.choice((1, 1, 2, 3, 6))) if kind in ("put", "get", "delete") else []
        is_scan = not some
        yield Step(
            number,
            number % clients,
            kind,
            tuple((key, next(values) if kind == "put" else None) for key in some),
            prefix=dice.choice(("", "", "a", "b")) if is_scan else "",
            pause_s=dice.choice((0.0, 0.0, 0.02, 0.3)),
            patience_s=dice.uniform(0, 0.3) if dice.random() < 0.05 else None,
            take=dice.randint(1, 2) if is_scan and dice.random() < 0.1 else None,
        )


# -- runs ---------------------------------------------------------------------------------------------------------


def run(plan: Plan) -> History:
    """Run a plan in virtual time; return what happened, with what is stored in the end."""
    history = History(plan.keys)
    server = ModelServer(plan.sizes, Random(plan.seed))
    network = Network(plan.seed, plan.conditions, server, history)
    loop = VirtualLoop()
    with _simulated(plan, network, loop), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_main(plan, network, history))
    history.final = {key: document["value"] for key, document in server.documents.items()}
    return history


async def _main(plan: Plan, network: Network, history: History) -> None:
    request_timeout_s, deadline_s = plan.timeouts_s
    stores = [
        KVStore(
            "kv",
            ENDPOINT,
            token=TOKEN,
            setup_mode=SetupMode.OFF,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
        )
        for _ in range(plan.stores)
    ]
    async with asyncio.TaskGroup() as group:
        for client in {step.client for step in plan.steps}:
            steps = [step for step in plan.steps if step.client == client]
            group.create_task(work(steps, stores[client % plan.stores], history))
    await network.drain()
    for store in stores:
        await store.aclose()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        history.complaints.append(f"{len(left)} tasks are left when every call has returned")


async def work(steps: Sequence[Step], store: Any, history: History) -> None:
    """Make the calls of one client, one after the other."""
    for step in steps:
        await asyncio.sleep(step.pause_s)
        operation = history.begin(step)
        # In a task of its own, so that what the client leaves behind is known by its context.
        await asyncio.create_task(_perform(operation, store, history))


async def _perform(operation: Operation, store: Any, history: History) -> None:
    CURRENT.set(operation)
    try:
        async with asyncio.timeout(operation.step.patience_s):
            seen = await call(operation.step, store, history)
    except StoreError as error:
        history.fail(operation, error)
    except TimeoutError as error:
        history.fail(operation, error)
        if operation.step.patience_s is None:
            history.complaints.append(f"call {operation.step.number} raised a TimeoutError that is no StoreError")
    else:
        history.succeed(operation, seen)


async def call(step: Step, store: Any, history: History) -> dict[str, Any]:
    """Make a call of a store; return what it saw, by key."""
    if step.kind == "put":
        await store.amset(list(step.pairs))
        return {}
    if step.kind == "delete":
        await store.amdelete([key for key, _ in step.pairs])
        return {}
    if step.kind == "get":
        wanted = [key for key, _ in step.pairs]
        return read(step, wanted, await store.amget(wanted), history)
    scan = store.ayield_keys if step.kind == "keys" else store.ayield_items
    items: list[Any] = []
    async with aclosing(scan(prefix=step.prefix or None)) as found:
        async for item in found:
            items.append(item)
            if len(items) == step.take:
                break
    return listed(step, items, history)


def read(step: Step, wanted: Sequence[str], values: Sequence[Any], history: History) -> dict[str, Any]:
    """Return what a call of mget saw, by key."""
    pairs = list(zip(wanted, values, strict=True))
    seen = dict(pairs)
    if any(seen[key] != value for key, value in pairs):
        history.complaints.append(f"call {step.number} got different values for one key: {pairs}")
    return {key: ABSENT if value is None else value for key, value in seen.items()}


def listed(step: Step, items: Sequence[Any], history: History) -> dict[str, Any]:
    """Return what a scan saw, by key: of the missing keys too, where it went to its end."""
    pairs = [(item, True) for item in items] if step.kind == "keys" else list(items)
    seen = dict(pairs)
    if len(seen) < len(pairs) or not all(key.startswith(step.prefix) for key in seen):
        history.complaints.append(f"call {step.number} listed a key twice, or without its prefix: {pairs}")
    if step.take is not None:  # what it did not come to see may be there or not
        return seen
    missing = False if step.kind == "keys" else ABSENT
    return {key: seen.get(key, missing) for key in history.keys if key.startswith(step.prefix)}


@contextmanager
def _simulated(plan: Plan, network: Network, loop: VirtualLoop) -> Iterator[None]:
    """Put the network, the clock, the small numbers and the seed of all jitter in place."""
    package = service.__name__.rpartition(".")[0]
    modules = [module for name, module in sys.modules.items() if name.startswith(package)]
    jitter = random.getstate()
    with ExitStack() as stack:
        stack.callback(random.setstate, jitter)
        random.seed(plan.seed)
        stack.enter_context(patch.object(service, "Pool", lambda *_, **__: network))
        stack.enter_context(clock_of(loop, modules))
        for name, value in plan.limits.items():
            stack.enter_context(patch.object(limits, name, value))
        log = logging.getLogger("langchain_kv")
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        yield


# -- failures -------------------------------------------------------------------------------------------------------


def judge(plan: Plan) -> tuple[History, list[str]]:
    """Run a plan; return what happened, and what of it must not have happened."""
    history = run(plan)
    found = history.violations(may_repeat=True)
    if not history.faults:
        failed = [each for each in history.operations if each.ending not in ("ok", "TimeoutError")]
        found += [f"call {each.step.number} failed without a fault: {each.ending}" for each in failed]
    return history, found


def shrunk(plan: Plan) -> Plan:
    """Return a plan that still goes wrong, and does not without any one of its calls."""
    position = 0
    while position < len(plan.steps):
        less = plan._replace(steps=plan.steps[:position] + plan.steps[position + 1 :])
        if judge(less)[1]:
            plan = less
        else:
            position += 1
    return plan


def accusation(seed: int) -> str:
    """Return what goes wrong with a seed, with as few calls as that takes, and how to see it again."""
    plan = shrunk(plan_of(seed))
    _, found = judge(plan)
    return (
        f"seed {seed}, of {len(plan_of(seed).steps)} calls {len(plan.steps)} are enough; to see it again:"
        f" make simulate SEED={seed}\n{plan.conditions}, {plan.limits}\n" + "\n".join(found)
    )
