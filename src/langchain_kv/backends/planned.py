"""The waist in coroutines over plans of Redis's commands; who sends the commands subclasses it."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Any, Final, TypeVar

from langchain_kv.backends.async_base import AsyncBackend
from langchain_kv.backends.base import Change, Page, Record, Stored
from langchain_kv.backends.redis_plans import VALUE_MAX_BYTES, Batch, Plan, Plans, check_size
from langchain_kv.errors import StoreError

__all__ = ["Fresh", "PlannedBackend", "Runner", "driven", "ping"]

T = TypeVar("T")

Runner = Callable[..., Awaitable[Any]]
"""Runs plans, each to its answer; further arguments say on which node."""

_PAGES_REMEMBERED: Final = 10


class PlannedBackend(AsyncBackend):
    """The verbs. A subclass says how plans are run, and is opened by its first use.

    Attributes:
        can_update: it can.
        key_max_bytes: what Redis takes.
    """

    can_update = True
    _plans: Plans

    @property
    def key_max_bytes(self) -> int:
        return VALUE_MAX_BYTES - len(self._plans.prefix.encode())

    @abstractmethod
    async def _runner(self, *, writes: bool) -> Runner:
        """Begin an operation; return what runs its plans."""

    async def _asked_nodes(self) -> list[dict[str, Any]]:
        """Return what a runner is told for each node that has keys."""
        return [{}]

    async def _carry_out(self, plan: Plan[T], *, writes: bool = False) -> T:
        run = await self._runner(writes=writes)
        answer: T = await run(plan)
        return answer

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return await self._carry_out(self._plans.get(keys))

    async def aput_many(self, records: Sequence[Record]) -> None:
        await self._carry_out(self._plans.put(records), writes=True)

    def check_many(self, records: Sequence[Record]) -> None:
        for record in records:
            check_size(record)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._carry_out(self._plans.delete(keys), writes=True)

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        return await self._carry_out(self._plans.add(records), writes=True)

    async def aupdate(self, key: str, change: Change) -> None:
        await self._carry_out(self._plans.update(key, change), writes=True)

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self._carry_out(self._plans.touch(keys, expires_at_ms), writes=True)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        run = await self._runner(writes=False)
        async for group in self._listed(run, prefix, values=values):
            found = await run(self._plans.get(group)) if values else [None] * len(group)
            yield [(key, one) for key, one in zip(group, found, strict=True) if one is not None or not values]

    async def apurge(self) -> int:
        run = await self._runner(writes=True)
        count = 0
        async for group in self._listed(run, "", values=False, expired=True):
            await run(self._plans.delete(group))
            count += len(group)
        return count

    async def aopen(self, *, clear: bool = False) -> None:
        await self._carry_out(ping())
        if clear:
            await self.aclear("")

    async def _listed(
        self, run: Runner, prefix: str, *, values: bool, expired: bool = False
    ) -> AsyncGenerator[list[str]]:
        fresh = Fresh()
        for node in await self._asked_nodes():
            cursor = b"0"
            while True:
                plan = self._plans.listed(prefix, cursor, values=values, expired=expired)
                cursor, groups = await run(plan, **node)
                for group in fresh.of(groups):
                    yield group
                if cursor == b"0":
                    break


async def driven(plan: Plan[T], send: Callable[[Batch], Awaitable[list[Any]]]) -> T:
    """Run a plan: send its batches, and return its answer."""
    try:
        batch = next(plan)
        while True:
            batch = plan.send(await send(batch))
    except StopIteration as end:
        answer: T = end.value
    return answer


class Fresh:
    """Leaves out keys that a listing has had: SCAN answers some again soon after, where its table changed size."""

    def __init__(self) -> None:
        self._pages: deque[set[str]] = deque(maxlen=_PAGES_REMEMBERED)

    def of(self, groups: Sequence[Sequence[str]]) -> Generator[list[str]]:
        """Yield of each group the keys that are new, once."""
        for group in groups:
            unique = dict.fromkeys(group)
            fresh = [key for key in unique if not any(key in page for page in self._pages)]
            self._pages.append(set(unique))
            if fresh:
                yield fresh


def ping() -> Plan[None]:
    """Ask whether the server is there, and lets one in."""
    (reply,) = yield Batch([("PING",)], reads=True)
    if isinstance(reply, StoreError):
        raise reply
