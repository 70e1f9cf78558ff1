"""Work in slices: the same result, sync and async, and turns of the loop in between."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest

from langchain_kv.backends.base import Damaged, Found, Kind
from langchain_kv.errors import DamagedValueError
from langchain_kv.runtime.slices import (
    SLICE_BYTES,
    SLICE_KEYS,
    Steps,
    by_bytes,
    by_parts,
    gathered,
    in_slices,
    next_turn,
    parts,
    pieces,
    whole,
)
from langchain_kv.stores.arguments import achecked_keys, achecked_pairs, unique_keys
from langchain_kv.stores.coding import decode_all
from loop_turns import counted_turns


def counting(done: list[int], count: int) -> Steps[str]:
    for number in range(count):
        if number:
            yield
        done.append(number)
    return "done"


async def turns_of(work: Awaitable[Any]) -> tuple[Any, int]:
    """Return what the work returns, and how often another task ran meanwhile."""
    async with counted_turns() as turns:
        return await work, turns.count


async def test_sync_and_async_return_the_same() -> None:
    plain: list[int] = []
    sliced: list[int] = []
    assert whole(counting(plain, 5)) == await in_slices(counting(sliced, 5)) == "done"
    assert plain == sliced == [0, 1, 2, 3, 4]


async def test_others_run_between_two_parts() -> None:
    assert await turns_of(in_slices(counting([], 5))) == ("done", 4)


async def test_one_part_costs_no_turn() -> None:
    assert await turns_of(in_slices(counting([], 1))) == ("done", 0)


async def test_many_at_work_do_one_part_in_a_turn_of_the_loop() -> None:
    parts_of_turn: Counter[int] = Counter()

    def noting() -> Steps[None]:
        for _ in range(10):
            yield
            parts_of_turn[turns.count] += 1

    async with counted_turns() as turns, asyncio.TaskGroup() as group:
        for _ in range(7):
            group.create_task(in_slices(noting()))
    assert parts_of_turn.total() == 70
    assert max(parts_of_turn.values()) == 1
    assert turns.count <= 75  # no place is left free


async def test_who_is_cancelled_while_it_waits_keeps_no_turn() -> None:
    waiting = [asyncio.create_task(next_turn()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:-1]:
        task.cancel()
    await waiting[-1]
    assert [task.cancelled() for task in waiting] == [True] * 4 + [False]
    async with asyncio.timeout(5):
        await next_turn()


def test_each_loop_has_its_own_turns_and_is_not_kept_for_them() -> None:
    loops = []

    async def left_waiting() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(next_turn() for _ in range(5)))
        tasks = [asyncio.create_task(next_turn()) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)  # asyncio.run cancels them

    for _ in range(3):
        asyncio.run(left_waiting())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


async def test_an_error_is_passed_on() -> None:
    def failing() -> Steps[None]:
        yield
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        whole(failing())
    with pytest.raises(ValueError, match="wrong"):
        await in_slices(failing())


async def test_who_is_cancelled_does_no_more() -> None:
    done: list[int] = []
    task = asyncio.create_task(in_slices(counting(done, 5)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [0]


def test_parts_and_what_is_gathered_join_to_the_whole() -> None:
    items = list(range(10))
    assert [list(some) for some in parts(items, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    steps = gathered(iter(items), 4)
    assert len(list(steps)) == 2
    assert whole(gathered(iter(items), 4)) == items


@pytest.mark.parametrize("size", [1, 3, 10, 1_000])
def test_pieces_join_to_the_whole_and_are_of_one_size(size: int) -> None:
    texts = [b"a", b"", b"bcdefghijklmnop", b"q", b"rst"]
    found = [bytes(piece) for piece in pieces(texts, size)]
    assert b"".join(found) == b"".join(texts)
    assert max(map(len, found)) <= max(size, 3)


MANY = 5 * SLICE_KEYS + 1
KEYS = [f"k{number % (MANY - 10)}" for number in range(MANY)]
STORED: list[Any] = [Found(1), None, Found(b"x", Kind.BYTES)] * MANY
UNIQUE = [str(number) for number in range(len(STORED))]
WORK: dict[str, tuple[Any, Any]] = {
    "keys checked": (lambda: achecked_keys(KEYS), KEYS),
    "keys once": (lambda: unique_keys(KEYS), list(dict.fromkeys(KEYS))),
    "pairs checked": (lambda: achecked_pairs(zip(KEYS, KEYS, strict=True)), dict(zip(KEYS, KEYS, strict=True))),
    "values": (lambda: in_slices(decode_all(lambda value: value, UNIQUE, UNIQUE, STORED)), [1, None, b"x"] * MANY),
    "any part": (lambda: by_parts(list, KEYS), KEYS),
}


async def test_what_is_one_part_waits_for_no_turn() -> None:
    for work in (achecked_pairs([("a", 1)]), unique_keys(["a", "a"]), achecked_keys(["a"])):
        assert (await turns_of(work))[1] == 0


@pytest.mark.parametrize("name", WORK)
async def test_what_grows_with_the_keys_alone_gives_turns_too(name: str) -> None:
    work, expected = WORK[name]
    result, turns = await turns_of(work())
    assert result == expected
    assert turns >= 4


async def test_one_value_that_is_damaged_is_found_in_any_part() -> None:
    for at in (0, SLICE_KEYS, len(STORED) - 1):
        stored = list(STORED)
        stored[at] = Damaged("why")
        with pytest.raises(DamagedValueError, match="why") as caught:
            await in_slices(decode_all(lambda value: value, UNIQUE, UNIQUE, stored))
        assert list(caught.value.errors) == [UNIQUE[at]]
        assert len(caught.value.values) == len(STORED) - 1


@pytest.mark.parametrize("size", [0, 1, 100, 10_000_000])
def test_parts_by_bytes_join_to_the_whole_and_are_bounded(size: int) -> None:
    items = list(range(2 * SLICE_KEYS + 1))
    found = list(by_bytes(items, lambda item: size))
    assert [item for some in found for item in some] == items
    most = max(map(len, found))
    assert most <= SLICE_KEYS
    assert (most - 1) * size <= SLICE_BYTES
    assert list(by_bytes([], lambda item: size)) == []


@pytest.mark.parametrize("keys", [["a", "", "b"], ["a", 1]])
async def test_a_bad_key_is_found_in_any_part(keys: list[Any]) -> None:
    with pytest.raises(ValueError, match="A key must"):
        await achecked_keys([*KEYS, *keys])
    with pytest.raises(ValueError, match="A key must"):
        await achecked_pairs([(key, 1) for key in [*KEYS, *keys]])
