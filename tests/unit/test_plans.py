"""A plan is run alike by a plain call and by a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from langchain_kv.runtime.plans import PAUSE, Plan, Step, arun, run


@pytest.fixture(params=["plain", "coroutine"])
def made(request: pytest.FixtureRequest) -> Callable[[Plan[Any]], Any]:
    return run if request.param == "plain" else lambda plan: asyncio.run(arun(plan))


def step(call: Callable[..., Any], *args: Any) -> Step:
    async def coroutine(*args: Any) -> Any:
        await asyncio.sleep(0)
        return call(*args)

    return Step.of(call, coroutine, *args)


def failing(error: BaseException) -> Any:
    raise error


def test_answers_come_back_and_the_result_is_returned(made: Any) -> None:
    def plan() -> Plan[list[Any]]:
        one = yield step(int, "1")
        assert (yield PAUSE) is None
        return [one, (yield step(str, 2))]

    assert made(plan()) == [1, "2"]


def test_an_error_may_be_caught_and_the_plan_goes_on(made: Any) -> None:
    def plan() -> Plan[Any]:
        try:
            yield step(int, "x")
        except ValueError:
            return (yield step(int, "7"))

    assert made(plan()) == 7


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=repr)
def test_what_is_not_caught_is_raised_once_the_plan_has_cleaned_up(made: Any, error: BaseException) -> None:
    ended = []

    def plan() -> Plan[None]:
        try:
            yield step(failing, error)
        finally:
            ended.append(True)

    with pytest.raises(type(error)):
        made(plan())
    assert ended == [True]


async def test_a_cancelled_task_ends_its_plan_at_once() -> None:
    ended = []

    def plan() -> Plan[None]:
        try:
            yield Step(lambda: None, asyncio.Event().wait)
        finally:
            ended.append(True)

    task = asyncio.create_task(arun(plan()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
