"""Every fault, every operation, both colours: the error, whether it says the write happened, and what is stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faults.proxy import Answer, Fault, Misbehaving, api_error, errors, unused_port
from langchain_kv.backends.dataapi import retry
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.errors import (
    BadReplyError,
    ConnectError,
    DataAPIError,
    LimitError,
    PartialWriteError,
    RequestTimeoutError,
    StoreError,
    TransportError,
)

pytestmark = pytest.mark.slow

RECORDS = [(key, json.dumps({"_id": key, "value": "new"}).encode()) for key in ("a", "b")]
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"

Operation = Callable[[DataAPIBackend, str], Any]


def _call(verb: str, *arguments: Any) -> Operation:
    def call(backend: DataAPIBackend, colour: str) -> Any:
        if colour == "sync":
            result = getattr(backend, verb)(*arguments)
            return [item for page in result for item in page] if verb.startswith("scan") else result

        async def main() -> Any:
            result = getattr(backend, "a" + verb)(*arguments)
            if verb.startswith("scan"):
                return [item async for page in result for item in page]
            return await result

        return asyncio.run(main())

    return call


OPERATIONS = {
    "get": _call("get_many", ["a", "b"]),
    "put": _call("put_many", RECORDS),
    "put one": _call("put_many", RECORDS[:1]),
    "delete": _call("delete_many", ["a", "b"]),
    "keys": _call("scan_keys", ""),
    "items": _call("scan_items", ""),
    "setup": _call("setup"),
    "drop": _call("drop"),
}
WRITES = {"put", "put one", "delete", "setup", "drop"}
AFTER = {
    "put": {"a": "new", "b": "new"},
    "put one": {"a": "new", "b": "old"},
    "delete": {},
    "drop": {},
}
OLD = {"a": "old", "b": "old"}

PASSING: dict[str, Answer | Fault] = {
    "reset before": Fault("reset"),
    "reset after": Fault("reset", applied=True),
    "truncated": Fault("truncate", applied=True),
    "garbled": Fault("garble", applied=True),
    "429": Answer(429, b"slow down", (("Retry-After", "0"),)),
    "502 page": Answer(502, HTML),
    "503": Answer(503),
    "empty": Answer(200),
    "retryable code": errors(api_error("UNAVAILABLE_DATABASE")),
    "unforeseen code": errors(api_error("UNEXPECTED_SERVER_ERROR", scope="")),
}
SLOW: dict[str, Fault] = {
    "stall": Fault("stall"),
    "stall after": Fault("stall", applied=True),
    "drip": Fault("drip", applied=True),
}
# What each fault is, where it does not pass: the error, and whether the write is known not to have happened.
LASTING: dict[str, tuple[type[StoreError], bool]] = {
    "reset before": (TransportError, False),
    "reset after": (TransportError, False),
    "truncated": (BadReplyError, False),
    "garbled": (BadReplyError, False),
    "429": (BadReplyError, True),
    "502 page": (BadReplyError, False),
    "503": (BadReplyError, False),
    "empty": (BadReplyError, False),
    "retryable code": (DataAPIError, False),
    "unforeseen code": (DataAPIError, False),
    "stall": (RequestTimeoutError, False),
    "stall after": (RequestTimeoutError, False),
    "drip": (RequestTimeoutError, False),
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.002)
    monkeypatch.setattr(retry, "DELAY_MAX_S", 0.02)
    monkeypatch.setattr("langchain_kv.backends.dataapi.verbs.ADMIN_TIMEOUT_S", 0.2)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        server.plant(**OLD)
        yield server


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=sorted(OPERATIONS))
def operation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _backend(url: str, *, request_timeout_s: float = 5.0, deadline_s: float = 10.0) -> DataAPIBackend:
    return DataAPIBackend(
        url, collection="c", keyspace="k", token="t", request_timeout_s=request_timeout_s, deadline_s=deadline_s
    )


def _leaves(error: StoreError) -> list[StoreError]:
    return list(error.errors.values()) if isinstance(error, PartialWriteError) else [error]


@pytest.mark.parametrize("fault", sorted(PASSING))
def test_fault_that_passes_is_not_noticed(server: Misbehaving, operation: str, fault: str, colour: str) -> None:
    backend = _backend(server.url)
    server.faults.append(PASSING[fault])
    result = OPERATIONS[operation](backend, colour)
    backend.close()
    assert server.values() == AFTER.get(operation, OLD)
    if operation == "get":
        assert [document["value"] for document in result] == ["old", "old"]
    if operation == "keys":
        assert sorted(result) == ["a", "b"]


@pytest.mark.parametrize("fault", sorted(SLOW))
def test_request_that_hangs_is_cut_and_repeated(server: Misbehaving, operation: str, fault: str, colour: str) -> None:
    backend = _backend(server.url, request_timeout_s=0.2)
    server.faults.append(SLOW[fault])
    OPERATIONS[operation](backend, colour)
    backend.close()
    assert server.values() == AFTER.get(operation, OLD)


@pytest.mark.parametrize("fault", sorted(PASSING | SLOW))
def test_fault_that_lasts_is_told_rightly(server: Misbehaving, operation: str, fault: str, colour: str) -> None:
    backend = _backend(server.url, request_timeout_s=0.2 if fault in SLOW else 5.0, deadline_s=0.3)
    server.script = lambda request: (PASSING | SLOW)[fault]
    kind, is_refused = LASTING[fault]
    with pytest.raises(StoreError) as caught:
        OPERATIONS[operation](backend, colour)
    backend.close()
    for error in _leaves(caught.value):
        assert isinstance(error, kind | RequestTimeoutError)
        assert "tries in" in str(error) or "was sent" in str(error) or fault.startswith(("stall", "drip"))
    expected = False if operation not in WRITES or is_refused else None
    # The deadline may cut the last try of a refused write, whose outcome is then unknown.
    assert caught.value.applied in ((expected, None) if operation in WRITES else (expected,))
    if not getattr(PASSING.get(fault, SLOW.get(fault)), "applied", False):
        assert server.values() == OLD


def test_refused_connection_applied_nothing(operation: str, colour: str) -> None:
    backend = _backend(f"http://127.0.0.1:{unused_port()}", deadline_s=0.05)
    with pytest.raises(StoreError) as caught:
        OPERATIONS[operation](backend, colour)
    backend.close()
    assert all(isinstance(error, ConnectError) for error in _leaves(caught.value))
    assert caught.value.applied is False


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 415])
def test_other_refusals_are_final(server: Misbehaving, operation: str, status: int, colour: str) -> None:
    backend = _backend(server.url)
    server.script = lambda request: Answer(status)
    with pytest.raises(LimitError if status == 413 else BadReplyError) as caught:
        OPERATIONS[operation](backend, colour)
    backend.close()
    assert caught.value.applied is False
    assert len(server.requests) <= 2
    assert server.values() == OLD


def test_timeout_then_refusal_leaves_the_write_unknown(server: Misbehaving, colour: str) -> None:
    backend = _backend(server.url, request_timeout_s=0.1)
    server.faults.extend([Fault("stall", applied=True), Answer(403)])
    with pytest.raises(BadReplyError) as caught:
        OPERATIONS["put one"](backend, colour)
    backend.close()
    assert caught.value.applied is None
    assert server.values()["a"] == "new"


@pytest.mark.parametrize("fault", ["reset before", "502 page", "retryable code"])
def test_batch_that_fails_in_part_names_its_keys(server: Misbehaving, fault: str, colour: str) -> None:
    backend = _backend(server.url, deadline_s=0.3)
    records = [(f"k{n}", json.dumps({"_id": f"k{n}", "value": n}).encode()) for n in range(300)]

    def fail_third_chunk(request: Any) -> Answer | Fault | None:
        documents = request.options.get("documents", [])
        return PASSING[fault] if any(document["_id"] == "k250" for document in documents) else None

    server.script = fail_third_chunk
    with pytest.raises(PartialWriteError) as caught:
        _call("put_many", records)(backend, colour)
    backend.close()
    assert set(caught.value.written) == {f"k{n}" for n in range(200)}
    assert set(caught.value.unknown) == {f"k{n}" for n in range(200, 300)}
    assert set(server.values()) == set(caught.value.written) | set(OLD)


def test_every_second_request_failing_slows_but_does_not_fail(server: Misbehaving, colour: str) -> None:
    backend = _backend(server.url)
    turn = iter(range(10**9))
    server.script = lambda request: [None, Fault("reset", applied=True), Answer(503)][next(turn) % 3]
    records = [(f"k{n}", json.dumps({"_id": f"k{n}", "value": n}).encode()) for n in range(50)]
    _call("put_many", records)(backend, colour)
    found = _call("get_many", [f"k{n}" for n in range(50)])(backend, colour)
    backend.close()
    assert [document["value"] for document in found] == list(range(50))
