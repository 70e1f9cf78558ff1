"""What calls others and waits for them, written once for both colours.

A plan is a generator. It yields each call that it wants made, in both colours (``Step``), is given the answer, or has
what the call raised raised in it, and returns its result. A plain call ``run``s it, a coroutine ``arun``s it. Whatever
ends it early, Ctrl-C and a cancelled task, too, ends it through its ``finally`` blocks, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

__all__ = ["PAUSE", "Plan", "Step", "arun", "run"]

T = TypeVar("T")


class Step(NamedTuple):
    """A call that a plan wants made.

    Attributes:
        plain: makes it.
        coroutine: makes it for a coroutine.
    """

    plain: Callable[[], Any]
    coroutine: Callable[[], Awaitable[Any]]

    @classmethod
    def of(cls, plain: Callable[..., Any], coroutine: Callable[..., Awaitable[Any]], *args: Any) -> Step:
        """Return the call of either with these arguments."""
        return cls(partial(plain, *args), partial(coroutine, *args))


Plan = Generator[Step, Any, T]
"""Calls to be made, and what comes of them."""

PAUSE: Final = Step(lambda: None, partial(asyncio.sleep, 0))
"""A coroutine gives its loop back here; a plain call goes on."""


def run(plan: Plan[T]) -> T:
    """Make the calls, one after the other; return what the plan returns."""
    try:
        step = next(plan)
        while True:
            try:
                answer = step.plain()
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        plan.close()


async def arun(plan: Plan[T]) -> T:
    """As ``run``."""
    try:
        step = next(plan)
        while True:
            try:
                answer = await step.coroutine()
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        plan.close()
