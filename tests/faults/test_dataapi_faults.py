"""Every fault, every operation, sync and async: the error, whether it says the write happened, and what is stored.

The matrix has most of it; here are also the faults that change, and the client's own clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from faults import matrix
from faults.matrix import CELLS, FAULTS, HTML, Cell
from faults.proxy import Answer, Fault, Misbehaving, Request, api_error, errors, unused_port
from langchain_kv.backends.base import Record
from langchain_kv.backends.dataapi import retry
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.errors import (
    BadReplyError,
    ConnectError,
    DataAPIError,
    PartialWriteError,
    RequestTimeoutError,
    StoreError,
    TransportError,
)

RECORDS = [Record(key, b'"new"') for key in ("a", "b")]
OLD = {"a": "old", "b": "old"}


# A sample runs in the fast suite too.
def _marked(cell: Cell) -> Any:
    is_sample = cell.operation == "put 2" and cell.mode == "async"
    return pytest.param(cell, id=str(cell), marks=() if is_sample else pytest.mark.slow)


@pytest.mark.parametrize("cell", [_marked(cell) for cell in CELLS])
def test_error_and_applied_and_what_is_stored_are_right(cell: Cell) -> None:
    assert matrix.run(cell).wrong == []


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.002)
    monkeypatch.setattr(retry, "DELAY_MAX_S", 0.02)


@pytest.fixture
def server(_no_waiting: None) -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        server.plant(**OLD)
        yield server


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _backend(url: str, *, request_timeout_s: float = 5.0, deadline_s: float = 10.0) -> DataAPIBackend:
    return DataAPIBackend(
        url, collection="c", keyspace="k", token="t", request_timeout_s=request_timeout_s, deadline_s=deadline_s
    )


def _call(backend: DataAPIBackend, mode: str, verb: str, *arguments: Any) -> Any:
    if mode == "sync":
        return getattr(backend, verb)(*arguments)
    return asyncio.run(getattr(backend, "a" + verb)(*arguments))


def _leaves(error: StoreError) -> list[StoreError]:
    return list(error.errors.values()) if isinstance(error, PartialWriteError) else [error]


@pytest.mark.usefixtures("_no_waiting")
def test_refused_connection_applied_nothing(mode: str) -> None:
    backend = _backend(f"http://127.0.0.1:{unused_port()}", deadline_s=0.05)
    with pytest.raises(StoreError) as caught:
        _call(backend, mode, "put_many", RECORDS)
    backend.close()
    assert all(isinstance(error, ConnectError) for error in _leaves(caught.value))
    assert caught.value.applied is False


@pytest.mark.parametrize("fault", ["resets, applied", "429", "502 page", "passing code"])
def test_fault_that_lasts_ends_with_the_deadline(server: Misbehaving, fault: str, mode: str) -> None:
    """With the client's own clock, which the matrix puts forward."""
    backend = _backend(server.url, deadline_s=0.5)
    right = FAULTS[fault]
    assert isinstance(right.fault, Answer | Fault)
    server.faults.extend([right.fault] * 10_000)
    started = monotonic()
    with pytest.raises(right.errors) as caught:
        _call(backend, mode, "put_many", RECORDS[:1])
    backend.close()
    assert "tries in" in str(caught.value)
    # On a busy machine the deadline may cut even the first try, whose outcome is then unknown.
    assert caught.value.applied in (*right.applied, None)
    assert monotonic() - started < 5.0


@pytest.mark.parametrize("kind", ["stall", "stall in the middle", "drip"])
def test_request_is_given_its_time_and_no_more(server: Misbehaving, kind: str, mode: str) -> None:
    """A drip too, in which no byte is ever long in coming."""
    backend = _backend(server.url, request_timeout_s=0.1)
    server.faults.append(Fault(kind, applied=True))
    _call(backend, mode, "put_many", RECORDS[:1])
    backend.close()
    assert len(server.requests) >= 2
    assert server.values() == {"a": "new", "b": "old"}


@pytest.mark.parametrize("status", [301, 400, 404, 405, 415])
@pytest.mark.parametrize("verb", ["get_many", "put_many", "delete_many"])
def test_other_refusals_are_final(server: Misbehaving, verb: str, status: int, mode: str) -> None:
    backend = _backend(server.url)
    server.script = lambda request: Answer(status)
    with pytest.raises(BadReplyError) as caught:
        _call(backend, mode, verb, RECORDS[:1] if verb == "put_many" else ["a"])
    backend.close()
    assert caught.value.applied is False
    assert caught.value.retryable is False
    assert len(server.requests) == 1
    assert server.values() == OLD


def test_timeout_then_refusal_leaves_the_write_unknown(server: Misbehaving, mode: str) -> None:
    backend = _backend(server.url, request_timeout_s=0.2)
    server.faults.extend([Fault("stall", applied=True), Answer(403)])
    with pytest.raises(BadReplyError) as caught:
        _call(backend, mode, "put_many", RECORDS[:1])
    backend.close()
    assert caught.value.applied is None
    assert server.values()["a"] == "new"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("reset"), TransportError),
        (Answer(502, HTML), BadReplyError),
        (errors(api_error("UNAVAILABLE_DATABASE")), DataAPIError),
    ],
    ids=["reset", "502", "code"],
)
def test_batch_that_fails_in_part_names_its_keys(
    server: Misbehaving, fault: Answer | Fault, kind: type[StoreError], mode: str
) -> None:
    """With the real limits of a chunk, and the client's own clock."""
    backend = _backend(server.url, deadline_s=0.5)
    records = [Record(f"k{n}", b"%d" % n) for n in range(300)]

    def fail_third_chunk(request: Request) -> Answer | Fault | None:
        documents = request.options.get("documents", [])
        return fault if any(document["_id"] == "k250" for document in documents) else None

    server.script = fail_third_chunk
    with pytest.raises(PartialWriteError) as caught:
        _call(backend, mode, "put_many", records)
    backend.close()
    assert set(caught.value.written) == {f"k{n}" for n in range(200)}
    assert set(caught.value.unknown) == {f"k{n}" for n in range(200, 300)}
    assert all(isinstance(error, kind | RequestTimeoutError) for error in caught.value.errors.values())
    assert set(server.values()) == set(caught.value.written) | set(OLD)


def test_every_second_request_failing_slows_but_does_not_fail(server: Misbehaving, mode: str) -> None:
    backend = _backend(server.url)
    turn = iter(range(10**9))
    faults: list[Callable[[], Answer | Fault | None]] = [
        lambda: None,
        lambda: Fault("reset", applied=True),
        lambda: Answer(503),
    ]
    server.script = lambda request: faults[next(turn) % 3]()
    records = [Record(f"k{n}", b"%d" % n) for n in range(50)]
    _call(backend, mode, "put_many", records)
    found = _call(backend, mode, "get_many", [f"k{n}" for n in range(50)])
    backend.close()
    assert [stored.value for stored in found] == list(range(50))


def test_door_that_is_shut_while_running_and_opened_again(server: Misbehaving, mode: str) -> None:
    backend = _backend(server.url, deadline_s=0.05)
    for _ in range(2):
        server.set_door("shut")
        server.close_idle()
        with pytest.raises(TransportError):
            _call(backend, mode, "get_many", ["a"])
        server.set_door("open")
        assert _call(_backend(server.url), mode, "get_many", ["a"])[0].value == "old"
    backend.close()
