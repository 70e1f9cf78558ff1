"""Calls of coroutines that are made in one turn of an event loop, made together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from langchain_kv.errors import StoreError

__all__ = ["Gathering"]

A = TypeVar("A")
R = TypeVar("R")


class _Call(NamedTuple):
    argument: Any
    future: asyncio.Future[Any]


class Gathering(Generic[A, R]):
    """Makes one call of those that come in one turn of a loop; each caller has its own answer.

    A caller that is cancelled before the turn ends asks for nothing. Where a call of several fails for what one of them
    gave (a ValueError), each is made for itself, so it has no effects that a second run would spoil.

    Args:
        work: makes the calls of these arguments, and returns the answer of each.
    """

    def __init__(self, work: Callable[[Sequence[A]], Awaitable[Sequence[R]]]) -> None:
        self._work = work
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Call]] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()  # a loop refers to its tasks weakly

    async def call(self, argument: A) -> R:
        """Return the answer of one call."""
        loop = asyncio.get_running_loop()
        calls = self._turns.get(loop)
        if calls is None:
            calls = self._turns[loop] = []
            loop.call_soon(self._start, loop)
        call = _Call(argument, loop.create_future())
        calls.append(call)
        answer: R = await call.future
        return answer

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = [call for call in self._turns.pop(loop) if not call.future.done()]
        if calls:
            task = loop.create_task(self._run(calls))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, calls: Sequence[_Call]) -> None:
        try:
            answers = await self._work([call.argument for call in calls])
        except asyncio.CancelledError:  # the loop ends
            for call in calls:
                call.future.cancel()
            raise
        except ValueError as error:
            if len(calls) == 1 or not isinstance(error, StoreError):
                _fail(calls, error)
            else:
                await asyncio.gather(*(self._run([call]) for call in calls))
        except Exception as error:
            _fail(calls, error)
        else:
            for call, answer in zip(calls, answers, strict=True):
                if not call.future.done():
                    call.future.set_result(answer)


def _fail(calls: Sequence[_Call], error: Exception) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)
