"""How many requests may be under way at once: halving, growing, turns in order, turns given up."""

from __future__ import annotations

import asyncio
import random

import pytest

from langchain_kv.backends.dataapi.flow import OVERLOAD_CODES, OVERLOAD_STATUSES, WIDTH_MAX, Flow, is_overload
from langchain_kv.errors import BadReplyError, ConnectError, DataAPIError, RequestTimeoutError


async def _entered(flow: Flow, count: int) -> list[int]:
    return [await flow.enter() for _ in range(count)]


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_starts_at_its_most() -> None:
    flow = Flow()
    await _entered(flow, WIDTH_MAX)
    assert not flow.is_free


async def test_requests_sent_before_a_halving_halve_only_once() -> None:
    flow = Flow(16)
    for one in await _entered(flow, 16):
        flow.leave(one, kept_up=False)
    assert flow.width == 8


async def test_what_is_under_way_is_halved_rather_than_the_bound() -> None:
    flow = Flow(100)
    entered = await _entered(flow, 10)
    flow.leave(entered[0], kept_up=False)
    assert flow.width == 5


async def test_one_request_is_always_allowed() -> None:
    flow = Flow(4)
    for _ in range(10):
        flow.leave(await flow.enter(), kept_up=False)
    assert flow.width == 1
    assert flow.is_free


async def test_as_many_successes_as_are_under_way_allow_about_one_more() -> None:
    flow = Flow(100)
    flow.width = 10.0
    for _ in range(10):
        flow.leave(await flow.enter(), kept_up=True)
    assert flow.width == pytest.approx(11, abs=0.1)


async def test_growth_ends_at_the_most() -> None:
    flow = Flow(3)
    flow.width = 1.0
    for _ in range(100):
        flow.leave(await flow.enter(), kept_up=True)
    assert flow.width == 3


async def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    flow, order = Flow(1), []

    async def work(number: int) -> None:
        one = await flow.enter()
        order.append(number)
        flow.leave(one, kept_up=None)

    first = await flow.enter()
    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    await _settled()
    assert not order
    flow.leave(first, kept_up=None)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_turn_given_up_while_waiting_goes_to_the_next() -> None:
    flow = Flow(1)
    first = await flow.enter()
    gone, next_one = asyncio.create_task(flow.enter()), asyncio.create_task(flow.enter())
    await _settled()
    gone.cancel()
    await _settled()
    flow.leave(first, kept_up=None)
    await asyncio.wait_for(next_one, 5)


async def test_turn_given_up_at_the_moment_it_comes_goes_to_the_next() -> None:
    flow = Flow(1)
    first = await flow.enter()
    gone, next_one = asyncio.create_task(flow.enter()), asyncio.create_task(flow.enter())
    await _settled()
    flow.leave(first, kept_up=None)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(next_one, 5)


@pytest.mark.parametrize("seed", range(10))
async def test_no_turn_is_lost_and_none_too_many_is_given(seed: int) -> None:
    chance, flow, under_way = random.Random(seed), Flow(4), 0

    async def work() -> None:
        nonlocal under_way
        one = await flow.enter()
        under_way += 1
        assert under_way <= 4
        try:
            await asyncio.sleep(chance.random() / 1000)
        finally:
            under_way -= 1
            flow.leave(one, kept_up=chance.choice([True, None, False]))

    tasks = [asyncio.create_task(work()) for _ in range(100)]
    for task in chance.sample(tasks, 40):
        await asyncio.sleep(chance.random() / 1000)
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError)
    flow.width = 4.0
    await asyncio.wait_for(_entered(flow, 4), 5)
    assert not flow.is_free


@pytest.mark.parametrize("status", [*sorted(OVERLOAD_STATUSES), 500, 502, None])
def test_a_gateways_answer_is_overload_by_its_status(status: int | None) -> None:
    assert is_overload(BadReplyError("no", http_status=status)) is (status in OVERLOAD_STATUSES)


@pytest.mark.parametrize("code", [*sorted(OVERLOAD_CODES), "DOCUMENT_ALREADY_EXISTS"])
def test_an_answer_of_the_data_api_is_overload_by_its_code(code: str) -> None:
    error = DataAPIError.of(code, "no")
    error.retryable = True

    assert is_overload(error) is (code in OVERLOAD_CODES)


@pytest.mark.parametrize("passing", [True, False])
def test_an_error_of_the_driver_is_overload_only_while_it_is_passing(passing: bool) -> None:
    error = DataAPIError.of("UNEXPECTED_DRIVER_ERROR", "no")
    error.retryable = passing

    assert is_overload(error) is passing


def test_a_request_that_took_too_long_is_overload_and_a_refused_connection_is_not() -> None:
    assert is_overload(RequestTimeoutError("late"))
    assert not is_overload(ConnectError("refused"))
