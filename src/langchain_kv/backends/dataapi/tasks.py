"""Work of one operation that goes on at once, and parts of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

__all__ = ["abandon", "chunks", "each"]

T = TypeVar("T")


async def each(job: Callable[[T], Awaitable[None]], items: Sequence[T], width: int) -> None:
    """Run ``job`` on each item, at most ``width`` at once. The first exception ends the others before it is raised."""
    if len(items) == 1:
        await job(items[0])
        return
    left = iter(items)

    async def work() -> None:
        for item in left:
            await job(item)

    failure: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(width, len(items))):
                group.create_task(work())
        return
    except BaseExceptionGroup as caught:
        failure = caught.exceptions[0]
    raise failure


async def abandon(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; what it raises is nobody's."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen


def chunks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    """Return the items in parts of ``size``, the last of what is left."""
    return [items[start : start + size] for start in range(0, len(items), size)]
