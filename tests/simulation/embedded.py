"""Histories of embedded targets: real threads, or tasks of a real event loop, and each call's real beginning and end.

Here the order is the machine's, so a seed gives the same calls again but not the same history.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Literal

from langchain_kv import KVStore
from simulation.history import History, Step
from simulation.world import Plan, listed, plan_of, read, work

__all__ = ["judge_embedded"]


def judge_embedded(seed: int, url: str, mode: Literal["threads", "tasks"]) -> tuple[History, list[str]]:
    """Run a seed's calls, without its pauses and cancellations; return what happened and what must not have.

    Args:
        seed: of the calls.
        url: of the target; a collection of its own is made and dropped.
        mode: plain calls in threads, or coroutines in one event loop.
    """
    plan = plan_of(seed)
    plan = plan._replace(steps=tuple(step._replace(pause_s=0.0, patience_s=None) for step in plan.steps))
    history = History(plan.keys)
    stores = [KVStore(f"simulation_{seed}", url) for _ in range(plan.stores)]
    try:
        if mode == "threads":
            _run_threads(plan, stores, history)
        else:
            asyncio.run(_run_tasks(plan, stores, history))
        values = stores[0].mget(plan.keys)
        history.final = {key: value for key, value in zip(plan.keys, values, strict=True) if value is not None}
        stores[0].mdelete(plan.keys)
    finally:
        for store in stores:
            store.close()
    found = history.violations(may_repeat=False)
    return history, found + [
        f"call {each.step.number} failed: {each.ending}" for each in history.operations if each.ending != "ok"
    ]


def _run_threads(plan: Plan, stores: Sequence[Any], history: History) -> None:
    clients = sorted({step.client for step in plan.steps})
    together = threading.Barrier(len(clients))

    def client(number: int) -> None:
        together.wait()
        for step in plan.steps:
            if step.client == number:
                operation = history.begin(step)
                try:
                    history.succeed(operation, _call(step, stores[number % len(stores)], history))
                except Exception as error:  # is a violation whatever it is
                    history.fail(operation, error)

    threads = [threading.Thread(target=client, args=(number,)) for number in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _run_tasks(plan: Plan, stores: Sequence[Any], history: History) -> None:
    async with asyncio.TaskGroup() as group:
        for client in sorted({step.client for step in plan.steps}):
            steps = [step for step in plan.steps if step.client == client]
            group.create_task(work(steps, stores[client % len(stores)], history))


def _call(step: Step, store: Any, history: History) -> dict[str, Any]:
    """As ``world.call``, with plain calls."""
    keys = [key for key, _ in step.pairs]
    if step.kind == "put":
        store.mset(list(step.pairs))
        return {}
    if step.kind == "delete":
        store.mdelete(keys)
        return {}
    if step.kind == "get":
        return read(step, keys, store.mget(keys), history)
    scan = store.yield_keys if step.kind == "keys" else store.yield_items
    items: list[Any] = []
    for item in scan(prefix=step.prefix or None):
        items.append(item)
        if len(items) == step.take:
            break
    return listed(step, items, history)
