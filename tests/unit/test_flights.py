"""One flight a key: who waits for whom, and what comes of it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from langchain_kv.runtime import flights
from langchain_kv.runtime.flights import Flight


def plain(where: str = "here") -> Flight:
    return Flight(where, None)


def nothing_is_in_the_air() -> bool:
    return flights._sky.flights == {}


@pytest.fixture(autouse=True)
def _lands() -> Any:
    yield
    assert nothing_is_in_the_air()


def elsewhere(work: Any) -> tuple[threading.Thread, list[Any]]:
    """Run on a thread; return it and where its answer will be."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(work())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, answers


def test_a_key_is_whose_claims_it_first() -> None:
    with plain() as first, plain() as second, plain("there") as apart:
        assert first.claim(["a", "b"]) == {}
        assert second.claim(["b", "c"]) == {"b": first}
        assert apart.claim(["a", "b", "c"]) == {}
        first.land(["b"], [1])
        assert first.result("b", {"b"}) == 1
        with plain() as third:
            assert third.claim(["b"]) == {}


def test_who_waits_goes_on_when_its_keys_are_down_not_when_all_are() -> None:
    with plain() as first, plain() as second:
        first.claim(["a", "b", "c"])
        second.claim(["a", "b"])
        thread, answers = elsewhere(lambda: first.wait({"a", "b"}) or [first.result(key, {"a", "b"}) for key in "ab"])
        first.land(["a"], [1])
        assert not answers
        first.land(["b"], [2])
        thread.join(10)
        assert answers == [[1, 2]]
        first.wait({"a", "b"})  # at once


async def test_a_coroutine_waits_for_a_thread_and_may_be_cancelled() -> None:
    loop = asyncio.get_running_loop()
    with plain() as first, Flight("here", loop) as second:
        first.claim(["a"])
        second.claim(["a"])
        waiting = [asyncio.create_task(first.await_({"a"})) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.to_thread(first.land, ["a"], [1])
        await asyncio.gather(waiting[0], waiting[2])
        assert waiting[1].cancelled()
        assert second.result("a", {"a"}) is None  # it is asked of the flight that had it
        assert first.result("a", {"a"}) == 1


def test_an_error_is_raised_to_who_wants_all_that_failed_and_others_try_for_themselves() -> None:
    with plain() as first, plain() as all_of_it, plain() as some:
        first.claim(["a", "b", "c"])
        all_of_it.claim(["a", "b", "c"])
        some.claim(["b"])
        with pytest.raises(ValueError, match="too long"), first.answering(["a", "b"]):
            raise ValueError("too long")
        first.wait({"a", "b"})  # both are down
        with pytest.raises(ValueError, match="too long"):
            first.result("a", {"a", "b", "c"})
        assert first.result("b", {"b"}) is None
        first.land(["c"], [3])
        assert first.result("c", {"a", "b", "c"}) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_who_gives_up_leaves_its_keys_to_others(end: type[BaseException]) -> None:
    with plain() as second:
        first = plain().__enter__()
        first.claim(["a"])
        second.claim(["a"])
        with pytest.raises(end), first, first.answering(["a"]):
            raise end
        first.wait({"a"})
        assert first.result("a", {"a"}) is None
        assert second.claim(["a"]) == {}


def test_what_landed_before_an_error_is_not_lost() -> None:
    with plain() as first, plain() as second:
        first.claim(["a", "b"])
        second.claim(["a"])
        with pytest.raises(ValueError, match="b is wrong"), first.answering(["a", "b"]):
            _land_then_fail(first)
        assert first.result("a", {"a"}) == 1


def _land_then_fail(flight: Flight) -> None:
    flight.land(["a"], [1])
    raise ValueError("b is wrong")


def test_what_is_claimed_when_ctrl_c_comes_is_given_up() -> None:
    class Interrupted(list[str]):
        def __iter__(self) -> Any:
            yield "a"
            raise KeyboardInterrupt

    with plain() as other:
        other.claim(["b"])
        for keys in (Interrupted(["a"]), Interrupted(["a", "b"])):
            with pytest.raises(KeyboardInterrupt), plain() as first:
                first.claim(keys)
        with plain() as second:
            assert second.claim(["a"]) == {}


def test_nobody_waits_for_a_flight_that_it_is_part_of() -> None:
    with plain() as outer:
        outer.claim(["a"])
        with outer.aboard(), plain() as inner:
            assert inner.claim(["a"]) == {}
            inner.land(["a"], [1])
            copied = contextvars.copy_context()
            with plain() as deep:  # as langchain-core's executor calls a model
                assert copied.run(deep.claim, ["a"]) == {}
        with plain() as other:
            assert other.claim(["a"]) == {"a": outer}
        outer.land(["a"], [2])


async def test_only_coroutines_of_its_loop_wait_for_a_coroutine() -> None:
    here, another = asyncio.get_running_loop(), asyncio.new_event_loop()
    with Flight("here", here) as first, plain() as blocking, plain() as threaded:
        first.claim(["a"])
        with Flight("here", here) as neighbour, Flight("here", another) as far:
            assert neighbour.claim(["a"]) == {"a": first}
            assert far.claim(["a"]) == {}
            assert blocking.claim(["a"]) == {}
            assert await asyncio.to_thread(threaded.claim, ["a"]) == {"a": blocking}
            far.land(["a"], [2])
            blocking.land(["a"], [3])
            assert neighbour.claim(["a"]) == {"a": first}  # each landed its own
            first.land(["a"], [1])
            assert neighbour.result("a", {"a"}) is None
            assert first.result("a", {"a"}) == 1
            assert threaded.claim(["a"]) == {}
    another.close()


def test_a_forked_child_has_nothing_in_the_air() -> None:
    with plain() as parents:
        parents.claim(["a"])
        flights._sky._after_fork_in_child()
        assert nothing_is_in_the_air()
        with plain() as childs, plain() as another:
            assert childs.claim(["a"]) == {}
            parents.land(["a"], [1])  # of the thread that forked
            assert another.claim(["a"]) == {"a": childs}
