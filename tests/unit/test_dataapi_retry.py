"""When a failed request is sent again, and what is said when it is not."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_kv.backends.dataapi import retry
from langchain_kv.backends.dataapi.flow import Flow
from langchain_kv.backends.dataapi.retry import Attempt, Call
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    ConfigError,
    ConnectError,
    DataAPIError,
    PartialWriteError,
    RequestTimeoutError,
    StoreError,
    TransportError,
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0001)


def _call(*, deadline_s: float = 5.0, writes: bool = True, source: Any = "token", **more: Any) -> Call:
    return Call(source, deadline_s=deadline_s, timeout_s=1.0, writes=writes, **more)


class _Script:
    """An attempt that raises the given errors in turn, then succeeds."""

    def __init__(
        self,
        *errors: StoreError | Callable[[], StoreError],
        retry_after_s: float | None = None,
        stale: int = 0,
        unreached: int = 0,
    ) -> None:
        self.left = list(errors)
        self.stale = stale
        self.unreached = unreached
        self.tries: list[Attempt] = []
        self.retry_after_s = retry_after_s

    async def __call__(self, one: Attempt) -> str:
        self.tries.append(one)
        one.retry_after_s = self.retry_after_s
        one.is_stale = len(self.tries) <= self.stale
        one.is_unreached = len(self.tries) <= self.unreached
        if self.left:
            error = self.left.pop(0)
            raise error if isinstance(error, StoreError) else error()
        return "done"


def _sleep_by(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], Awaitable[None]]) -> None:
    # For this module only: a server on a thread of this process sleeps too, and would move the clock.
    monkeypatch.setattr(retry, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))


def _waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no time go by in waits; return the list that they are noted in."""
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    _sleep_by(monkeypatch, sleep)
    return waits


class _Clock:
    """A clock that only waits move; waits longer than a tick are noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(retry, "monotonic", lambda: self.now_s)
        _sleep_by(monkeypatch, self.sleep)

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("c"),
        RequestTimeoutError("t"),
        TransportError("reset"),
        BadReplyError("b", http_status=429),
        BadReplyError("b", http_status=502),
        DataAPIError.of("TIMEOUT_WRITING_DATA", "m"),
        DataAPIError.of("UNKNOWN_KEYSPACE", "m", scope="DATABASE"),
        DataAPIError.of("UNEXPECTED_DRIVER_ERROR", "m"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_passing_faults_are_tried_again(error: StoreError) -> None:
    script = _Script(error)
    assert await _call().persist(script, Flow()) == "done"
    assert len(script.tries) == 2


@pytest.mark.parametrize(
    "code",
    ["UNKNOWN_KEYSPACE", "SHRED_DOC_LIMIT_VIOLATION", "UNAUTHENTICATED_REQUEST", "INVALID_DATABASE_QUERY", "NEW_CODE"],
)
async def test_refusals_are_final(code: str) -> None:
    script = _Script(DataAPIError.of(code, "m"))
    with pytest.raises(DataAPIError, match=r"^m$"):
        await _call().persist(script, Flow())
    assert len(script.tries) == 1


@pytest.mark.parametrize("code", sorted(retry.ONCE))
async def test_unforeseen_faults_are_tried_once_more_only(code: str) -> None:
    script = _Script(*[DataAPIError.of(code, "m") for _ in range(5)])
    with pytest.raises(DataAPIError, match=r"2 tries"):
        await _call().persist(script, Flow())
    assert len(script.tries) == 2


async def test_refusal_after_an_unforeseen_fault_is_final() -> None:
    script = _Script(DataAPIError.of("INTERNAL_SERVER_ERROR", "m"), DataAPIError.of("SHRED_BAD_FIELD_NAME", "m"))
    with pytest.raises(DataAPIError) as caught:
        await _call().persist(script, Flow())
    assert len(script.tries) == 2
    assert caught.value.code == "SHRED_BAD_FIELD_NAME"


async def test_deadline_ends_with_the_last_error_and_tells_tries_and_seconds() -> None:
    script = _Script(*[(lambda: BadReplyError("busy", http_status=503)) for _ in range(100_000)])
    with pytest.raises(BadReplyError) as caught:
        await _call(deadline_s=0.05).persist(script, Flow())
    found = re.fullmatch(r"busy \((\d+) tries in 0\.\d s\)", str(caught.value))
    assert found
    assert int(found[1]) == len(script.tries) > 1


async def test_wait_that_outlasts_the_deadline_is_not_begun() -> None:
    script = _Script(BadReplyError("busy", http_status=429), retry_after_s=60)
    with pytest.raises(BadReplyError, match=r"busy The service asks to wait 60 s, longer than the deadline"):
        await _call(deadline_s=0.5).persist(script, Flow())
    assert len(script.tries) == 1


async def test_wait_that_the_service_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = _waits(monkeypatch)
    await _call().persist(_Script(BadReplyError("busy", http_status=429), retry_after_s=1.5), Flow())
    assert waits == [1.5]


async def test_waits_are_random_and_grow_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return 0.0

    monkeypatch.setattr(retry.random, "uniform", uniform)
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.1)
    await _call().persist(_Script(*[ConnectError("c") for _ in range(8)]), Flow())
    assert bounds == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


async def test_stale_connections_are_replaced_at_once_and_are_no_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry.random, "uniform", None)  # a wait would fail
    script = _Script(*[TransportError("stale") for _ in range(10)], ConfigError("final"), stale=10)
    with pytest.raises(ConfigError, match=r"^final$") as caught:
        await _call().persist(script, Flow())
    assert len(script.tries) == 11
    assert caught.value.applied is None  # the server may have read the request before it closed


async def test_fresh_connection_that_breaks_is_waited_after(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = _waits(monkeypatch)
    await _call().persist(_Script(TransportError("reset")), Flow())
    assert len(waits) == 1


async def test_try_gets_no_more_time_than_the_deadline_leaves() -> None:
    script = _Script()
    await _call(deadline_s=0.2).persist(script, Flow())
    assert script.tries[0].timeout_s <= 0.2


async def test_longer_try_moves_the_deadline() -> None:
    script = _Script()
    await _call(deadline_s=0.2).persist(script, Flow(), timeout_s=100)
    assert 99 < script.tries[0].timeout_s <= 100


async def test_part_that_comes_after_the_deadline_is_not_sent() -> None:
    script = _Script()
    with pytest.raises(RequestTimeoutError, match="was sent") as caught:
        await _call(deadline_s=0.0).persist(script, Flow())
    assert caught.value.applied is False
    assert not script.tries


@pytest.mark.parametrize(
    ("errors", "applied"),
    [
        ([ConnectError("c")], False),
        ([RequestTimeoutError("t")], None),
        ([RequestTimeoutError("t"), ConnectError("c")], None),
        ([ConnectError("c"), DataAPIError.of("SHRED_BAD_FIELD_NAME", "m")], False),
        ([TransportError("r"), DataAPIError.of("UNAUTHENTICATED_REQUEST", "m")], None),
        ([BadReplyError("b", http_status=502)], None),
    ],
)
async def test_applied_counts_every_try(errors: list[StoreError], applied: bool | None) -> None:
    last = errors[-1]
    last.retryable = False
    with pytest.raises(StoreError) as caught:
        await _call().persist(_Script(*errors), Flow())
    assert caught.value is last
    assert caught.value.applied is applied


async def test_failed_read_applied_nothing() -> None:
    error = RequestTimeoutError("t")
    error.retryable = False
    with pytest.raises(RequestTimeoutError) as caught:
        await _call(writes=False).persist(_Script(error), Flow())
    assert caught.value.applied is False


# -- patience of its own ----------------------------------------------------------------------------------------


def _busy(status: int = 503) -> BadReplyError:
    return BadReplyError("b", http_status=status)


async def test_hibernated_database_is_waited_for_beyond_the_deadline_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = _Clock(monkeypatch)
    call = _call(deadline_s=5, wake_timeout_s=180)
    with caplog.at_level(logging.WARNING, "langchain_kv"):
        assert await call.persist(_Script(*[_busy() for _ in range(17)], retry_after_s=10), Flow()) == "done"
        await call.persist(_Script(_busy(), retry_after_s=1), Flow())
    assert clock.now_s == 1000 + 171
    (line,) = caplog.records
    assert line.name == "langchain_kv"
    assert "hibernated" in line.getMessage()
    assert "up to 180 s" in line.getMessage()


@pytest.mark.parametrize(("deadline_s", "wake_timeout_s"), [(5, 180), (60, 7)])
async def test_hibernated_database_is_given_up_after_its_own_time(
    monkeypatch: pytest.MonkeyPatch, deadline_s: float, wake_timeout_s: float
) -> None:
    clock = _Clock(monkeypatch)
    with pytest.raises(BadReplyError):
        await _call(deadline_s=deadline_s, wake_timeout_s=wake_timeout_s).persist(
            _Script(*[_busy() for _ in range(1000)], retry_after_s=1), Flow()
        )
    assert clock.now_s - 1000 == wake_timeout_s - 1


async def test_fault_while_the_database_wakes_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    _Clock(monkeypatch)
    faults = [_busy(), TransportError("reset"), _busy(502), RequestTimeoutError("t")]
    assert await _call(deadline_s=5, wake_timeout_s=180).persist(_Script(*faults, retry_after_s=20), Flow()) == "done"


async def test_usual_deadline_is_back_once_the_database_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    call = _call(deadline_s=5, wake_timeout_s=180)
    await call.persist(_Script(_busy(), retry_after_s=100), Flow())
    with pytest.raises(BadReplyError):
        await call.persist(_Script(*[_busy(502) for _ in range(1000)], retry_after_s=1), Flow())
    assert clock.now_s == 1000 + 100 + 4


async def test_503_elsewhere_is_a_passing_fault_like_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = _Clock(monkeypatch)
    with pytest.raises(BadReplyError):
        await _call(deadline_s=5).persist(_Script(*[_busy() for _ in range(1000)], retry_after_s=1), Flow())
    assert clock.now_s == 1000 + 4
    assert not caplog.records


async def test_first_contact_is_given_up_soon_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.1)
    clock = _Clock(monkeypatch)
    script = _Script(*[ConnectError("c") for _ in range(1000)], unreached=1000)
    with caplog.at_level(logging.WARNING, "langchain_kv"), pytest.raises(ConnectError, match="tries in"):
        await _call(deadline_s=60).persist(script, Flow(), timeout_s=120)
    # Near the end of its time: a server that needs most of it is still met.
    assert 5 - retry.FIRST_CONTACT_DELAY_MAX_S <= clock.now_s - 1000 < 5
    (line,) = caplog.records
    assert "trying for up to 5 s" in line.getMessage()


async def test_first_contact_waits_no_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    with pytest.raises(ConnectError):
        await _call(deadline_s=1).persist(_Script(*[ConnectError("c") for _ in range(1000)], unreached=1000), Flow())
    assert clock.now_s - 1000 < 1


async def test_server_that_begins_to_listen_gets_the_usual_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    faults = [ConnectError("c"), *[_busy(502) for _ in range(9)]]
    assert await _call(deadline_s=60).persist(_Script(*faults, retry_after_s=4, unreached=1), Flow()) == "done"
    assert clock.now_s == 1000 + 40


# -- tokens -----------------------------------------------------------------------------------------------------


def begun(source: Any) -> Call:
    return asyncio.run(_call(source=source).begin())


def renewed(source: Any, error: StoreError) -> bool:
    return asyncio.run(_call(source=source).renew(error))


def test_source_is_asked_once_and_once_more_after_a_refusal() -> None:
    tokens = iter(["first", "second", "third"])
    call = begun(lambda: next(tokens))
    assert call.token == "first"
    assert asyncio.run(call.renew(DataAPIError.of("UNAUTHENTICATED_REQUEST", "m")))
    assert call.token == "second"


@pytest.mark.parametrize(
    "error",
    [ConnectError("c"), DataAPIError.of("UNKNOWN_KEYSPACE", "m"), PartialWriteError("p", errors={"a": ConnectError()})],
)
def test_other_errors_renew_nothing(error: StoreError) -> None:
    assert not renewed(lambda: "t", error)


def test_partial_write_that_failed_for_the_token_renews_it() -> None:
    refused = DataAPIError.of("UNAUTHENTICATED_REQUEST", "m")
    assert isinstance(refused, AuthError)
    assert renewed(lambda: "t", PartialWriteError("p", errors={"a": refused}))


def test_fixed_token_is_not_renewed() -> None:
    assert not renewed("t", DataAPIError.of("UNAUTHENTICATED_REQUEST", "m"))


@pytest.mark.parametrize("token", ["line\nbreak", "ümlaut", 5, b"bytes"])
def test_token_that_no_header_holds_is_refused_without_showing_it(token: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        begun(lambda: token)
    assert str(token) not in str(caught.value)


def test_asynchronous_token_source_is_refused_clearly() -> None:
    async def get_token() -> str:
        return "secret"

    with pytest.raises(ConfigError, match=r"get_token\(\) is asynchronous"):
        begun(get_token)


@pytest.mark.parametrize("token", [5, b"bytes", ["secret"]])
def test_token_source_that_gives_no_text_is_told_its_type(token: Any) -> None:
    with pytest.raises(ConfigError, match=rf"must return a string or None, it returned {type(token).__name__}"):
        begun(lambda: token)


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_none(token: str | None) -> None:
    assert begun(token).token is None


def test_call_does_not_show_its_token() -> None:
    assert "secret" not in repr(begun("secret"))


async def test_errors_stay_picklable() -> None:
    script = _Script(BadReplyError("b", http_status=503), BadReplyError("b", http_status=404))
    script.left[1].retryable = False  # type: ignore[union-attr]
    with pytest.raises(BadReplyError) as caught:
        await _call().persist(script, Flow())
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.http_status) == (str(caught.value), 404)


async def test_deadline_that_ends_during_a_wait_raises_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)

    async def sleep(_: float) -> None:
        clock.now_s += 99

    _sleep_by(monkeypatch, sleep)
    with pytest.raises(ConnectError, match=r"^c$"):
        await _call().persist(_Script(ConnectError("c")), Flow())


# -- turns ------------------------------------------------------------------------------------------------------


async def test_part_that_gets_no_turn_before_the_deadline_is_not_sent() -> None:
    flow, script = Flow(1), _Script()
    entered = await flow.enter()
    with pytest.raises(RequestTimeoutError, match="was sent") as caught:
        await _call(deadline_s=0.02).persist(script, flow)
    assert caught.value.applied is False
    assert not script.tries
    flow.leave(entered, kept_up=None)
    assert await _call().persist(script, flow) == "done"


async def test_part_that_waits_for_its_turn_goes_on_while_others_of_its_operation_succeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr(retry, "monotonic", lambda: now_s)
    flow, call, script = Flow(1), _call(deadline_s=0.02), _Script()
    entered = await flow.enter()
    waiting = asyncio.create_task(call.persist(script, flow))
    for _ in range(3):
        await asyncio.sleep(0)
        now_s += 0.015
        call.restart()
    await asyncio.sleep(0.1)  # it looks again after what the deadline left, and finds that it has moved
    assert not waiting.done()
    flow.leave(entered, kept_up=True)
    assert await waiting == "done"


@pytest.mark.parametrize(
    "error",
    [
        BadReplyError("b", http_status=429),
        BadReplyError("b", http_status=503),
        RequestTimeoutError("t"),
        DataAPIError.of("TIMEOUT_WRITING_DATA", "m"),
        DataAPIError.of("UNAVAILABLE_DATABASE", "m"),
    ],
    ids=str,
)
async def test_overload_halves_what_is_under_way(error: StoreError) -> None:
    flow = Flow(8)
    entered = [await flow.enter() for _ in range(7)]
    error.retryable = False
    with pytest.raises(StoreError):
        await _call().persist(_Script(error), flow)
    assert flow.width == 4
    for one in entered:
        flow.leave(one, kept_up=None)


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("c"),
        TransportError("reset"),
        BadReplyError("b", http_status=403),
        BadReplyError("garbled", http_status=200),
        DataAPIError.of("FAILED_CONCURRENT_OPERATIONS", "m"),
        DataAPIError.of("SHRED_BAD_FIELD_NAME", "m"),
    ],
    ids=str,
)
async def test_other_errors_say_nothing_of_the_width(error: StoreError) -> None:
    flow = Flow(8)
    flow.width = 5.0
    error.retryable = False
    with pytest.raises(StoreError):
        await _call().persist(_Script(error), flow)
    assert flow.width == 5


async def test_try_that_the_deadline_cut_short_says_nothing_of_the_width() -> None:
    flow = Flow(8)
    with pytest.raises(RequestTimeoutError):
        await _call(deadline_s=0.05).persist(_Script(*[RequestTimeoutError("t") for _ in range(99)]), flow)
    assert flow.width == 8
