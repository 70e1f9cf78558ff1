"""When a failed request is sent again, and what is said when it is not."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from langchain_kv.backends.dataapi import retry
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

    def __init__(self, *errors: StoreError | Callable[[], StoreError], retry_after_s: float | None = None) -> None:
        self.left = list(errors)
        self.tries: list[Attempt] = []
        self.retry_after_s = retry_after_s

    async def __call__(self, one: Attempt) -> str:
        self.tries.append(one)
        one.retry_after_s = self.retry_after_s
        if self.left:
            error = self.left.pop(0)
            raise error if isinstance(error, StoreError) else error()
        return "done"


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
    assert await _call().persist(script) == "done"
    assert len(script.tries) == 2


@pytest.mark.parametrize(
    "code",
    ["UNKNOWN_KEYSPACE", "SHRED_DOC_LIMIT_VIOLATION", "UNAUTHENTICATED_REQUEST", "INVALID_DATABASE_QUERY", "NEW_CODE"],
)
async def test_refusals_are_final(code: str) -> None:
    script = _Script(DataAPIError.of(code, "m"))
    with pytest.raises(DataAPIError, match=r"^m$"):
        await _call().persist(script)
    assert len(script.tries) == 1


@pytest.mark.parametrize("code", sorted(retry.ONCE))
async def test_unforeseen_faults_are_tried_once_more_only(code: str) -> None:
    script = _Script(*[DataAPIError.of(code, "m") for _ in range(5)])
    with pytest.raises(DataAPIError, match=r"2 tries"):
        await _call().persist(script)
    assert len(script.tries) == 2


async def test_refusal_after_an_unforeseen_fault_is_final() -> None:
    script = _Script(DataAPIError.of("INTERNAL_SERVER_ERROR", "m"), DataAPIError.of("SHRED_BAD_FIELD_NAME", "m"))
    with pytest.raises(DataAPIError) as caught:
        await _call().persist(script)
    assert len(script.tries) == 2
    assert caught.value.code == "SHRED_BAD_FIELD_NAME"


async def test_deadline_ends_with_the_last_error_and_tells_tries_and_seconds() -> None:
    script = _Script(*[(lambda: BadReplyError("busy", http_status=503)) for _ in range(100_000)])
    with pytest.raises(BadReplyError) as caught:
        await _call(deadline_s=0.05).persist(script)
    found = re.fullmatch(r"busy \((\d+) tries in 0\.\d s\)", str(caught.value))
    assert found
    assert int(found[1]) == len(script.tries) > 1


async def test_wait_that_outlasts_the_deadline_is_not_begun() -> None:
    script = _Script(BadReplyError("busy", http_status=429), retry_after_s=60)
    with pytest.raises(BadReplyError):
        await _call(deadline_s=0.5).persist(script)
    assert len(script.tries) == 1


async def test_wait_that_the_service_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr(retry.asyncio, "sleep", sleep)
    await _call().persist(_Script(BadReplyError("busy", http_status=429), retry_after_s=1.5))
    assert waits == [1.5]


async def test_waits_are_random_and_grow_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return 0.0

    monkeypatch.setattr(retry.random, "uniform", uniform)
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.1)
    await _call().persist(_Script(*[ConnectError("c") for _ in range(8)]))
    assert bounds == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


async def test_broken_connection_is_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 3600.0)
    monkeypatch.setattr(retry, "DELAY_MAX_S", 3600.0)
    assert await _call().persist(_Script(TransportError("reset"))) == "done"


async def test_try_gets_no_more_time_than_the_deadline_leaves() -> None:
    script = _Script()
    await _call(deadline_s=0.2).persist(script)
    assert script.tries[0].timeout_s <= 0.2


async def test_longer_try_moves_the_deadline() -> None:
    script = _Script()
    await _call(deadline_s=0.2).persist(script, timeout_s=100)
    assert 99 < script.tries[0].timeout_s <= 100


async def test_part_that_comes_after_the_deadline_is_not_sent() -> None:
    script = _Script()
    with pytest.raises(RequestTimeoutError, match="was sent") as caught:
        await _call(deadline_s=0.0).persist(script)
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
        await _call().persist(_Script(*errors))
    assert caught.value is last
    assert caught.value.applied is applied


async def test_failed_read_applied_nothing() -> None:
    error = RequestTimeoutError("t")
    error.retryable = False
    with pytest.raises(RequestTimeoutError) as caught:
        await _call(writes=False).persist(_Script(error))
    assert caught.value.applied is False


async def test_hibernated_database_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    call = _call(is_astra=True)
    with caplog.at_level(logging.WARNING, "langchain_kv"):
        for _ in range(2):
            await call.persist(_Script(*[BadReplyError("b", http_status=503) for _ in range(3)]))
    assert [record.name for record in caplog.records] == ["langchain_kv"]
    assert "hibernated" in caplog.text


async def test_503_elsewhere_is_not_called_hibernation(caplog: pytest.LogCaptureFixture) -> None:
    await _call().persist(_Script(BadReplyError("b", http_status=503)))
    assert not caplog.records


# -- tokens -----------------------------------------------------------------------------------------------------


def test_source_is_asked_once_and_once_more_after_a_refusal() -> None:
    tokens = iter(["first", "second", "third"])
    call = _call(source=lambda: next(tokens))
    assert call.token == "first"
    assert call.renew(DataAPIError.of("UNAUTHENTICATED_REQUEST", "m"))
    assert call.token == "second"


@pytest.mark.parametrize(
    "error",
    [ConnectError("c"), DataAPIError.of("UNKNOWN_KEYSPACE", "m"), PartialWriteError("p", errors={"a": ConnectError()})],
)
def test_other_errors_renew_nothing(error: StoreError) -> None:
    assert not _call(source=lambda: "t").renew(error)


def test_partial_write_that_failed_for_the_token_renews_it() -> None:
    refused = DataAPIError.of("UNAUTHENTICATED_REQUEST", "m")
    assert isinstance(refused, AuthError)
    assert _call(source=lambda: "t").renew(PartialWriteError("p", errors={"a": refused}))


def test_fixed_token_is_not_renewed() -> None:
    assert not _call(source="t").renew(DataAPIError.of("UNAUTHENTICATED_REQUEST", "m"))


@pytest.mark.parametrize("token", ["line\nbreak", "ümlaut", 5, b"bytes"])
def test_token_that_no_header_holds_is_refused_without_showing_it(token: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        _call(source=lambda: token)
    assert str(token) not in str(caught.value)


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_none(token: str | None) -> None:
    assert _call(source=token).token is None


def test_call_does_not_show_its_token() -> None:
    assert "secret" not in repr(_call(source="secret"))


async def test_errors_stay_picklable() -> None:
    script = _Script(BadReplyError("b", http_status=503), BadReplyError("b", http_status=404))
    script.left[1].retryable = False  # type: ignore[union-attr]
    with pytest.raises(BadReplyError) as caught:
        await _call().persist(script)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.http_status) == (str(caught.value), 404)


async def test_deadline_that_ends_during_a_wait_raises_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 0.0, 0.0, 99.0, 99.0, 99.0])
    monkeypatch.setattr(retry, "monotonic", lambda: next(clock))
    with pytest.raises(ConnectError, match=r"^c$"):
        await _call().persist(_Script(ConnectError("c")))
