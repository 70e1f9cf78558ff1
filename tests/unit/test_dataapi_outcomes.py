"""What is said of each key over HTTP where something else fails later: closing, the token's source, odd answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from faults.proxy import Answer, Fault, Misbehaving, api_error, errors
from langchain_kv.backends.base import Record
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.backends.dataapi.client import Pool
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    PartialWriteError,
    StoreClosedError,
    StoreError,
    TransportError,
)

pytestmark = pytest.mark.usefixtures("no_waiting")

REFUSED = api_error("UNAUTHENTICATED_REQUEST", scope="SECURITY", family="REQUEST")


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def backend(server: Misbehaving, **more: Any) -> DataAPIBackend:
    given: dict[str, Any] = {"collection": "c", "keyspace": "k", "token": "t", "deadline_s": 5, "request_timeout_s": 2}
    return DataAPIBackend(server.url, **{**given, **more})


def call(mode: str, on: DataAPIBackend, verb: str, *arguments: Any) -> Any:
    if mode == "sync":
        return getattr(on, verb)(*arguments)
    return asyncio.run(getattr(on, "a" + verb)(*arguments))


def records(count: int) -> list[Record]:
    return [Record(f"k{number}", b"1") for number in range(count)]


def keys(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


@pytest.mark.parametrize("verb", ["put_many", "delete_many"])
def test_closing_makes_what_was_under_way_no_surer(server: Misbehaving, mode: str, verb: str) -> None:
    opened = backend(server, request_timeout_s=30, deadline_s=60)
    server.plant(k0=0)
    reached = threading.Event()

    def script(request: Any) -> Fault:
        reached.set()
        return Fault("stall", applied=True)

    server.script = script
    failures: list[StoreError] = []

    def run() -> None:
        try:
            call(mode, opened, verb, records(1) if verb == "put_many" else keys(1))
        except StoreError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert reached.wait(20)
    opened.close()
    thread.join(20)
    (failure,) = failures
    assert isinstance(failure, StoreClosedError)
    assert failure.applied is None
    assert ("k0" in server.documents) is (verb == "put_many")


class Unlucky(Exception):
    pass


@pytest.mark.parametrize("verb", ["put_many", "delete_many"])
def test_a_tokens_source_that_fails_half_way_takes_nothing_back(server: Misbehaving, mode: str, verb: str) -> None:
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        if len(asked) > 1:
            raise Unlucky("the vault is away")
        return "first"

    opened = backend(server, token=token)
    server.plant(**dict.fromkeys(keys(3), 0))
    refused_name = {"put_many": "findOneAndReplace", "delete_many": "deleteMany"}[verb]
    left = [1]

    def script(request: Any) -> Any:
        if request.name == refused_name and left[0]:
            left[0] -= 1
            return None
        return errors(REFUSED)

    server.script = script
    given = records(3) if verb == "put_many" else keys(30)
    with pytest.raises(PartialWriteError) as caught:
        call(mode, opened, verb, given)
    assert isinstance(caught.value.__cause__, Unlucky)
    assert caught.value.written
    assert all(isinstance(error, AuthError) for error in caught.value.errors.values())
    opened.close()


ODD: dict[str, list[Any]] = {
    "put_many": [
        {"status": {"insertedIds": 5}},
        {"status": {"insertedIds": []}, "errors": 5},
        {"status": 1},
    ],
    "delete_many": [{"status": []}, {"status": None}, []],
    "get_many": [{"data": {"documents": 5}}, {"data": {"documents": [7]}}, {"data": None}],
}


@pytest.mark.parametrize("verb", ODD)
@pytest.mark.parametrize("number", range(3))
def test_an_answer_of_odd_types_is_a_bad_reply(server: Misbehaving, mode: str, verb: str, number: int) -> None:
    body = json.dumps(ODD[verb][number]).encode()
    server.script = lambda request: Answer(200, body)
    opened = backend(server, deadline_s=0.3)
    with pytest.raises(BadReplyError) as caught:
        call(mode, opened, verb, records(8) if verb == "put_many" else keys(8))
    assert caught.value.applied is (False if verb == "get_many" else None)
    opened.close()


async def test_what_the_http_library_did_not_foresee_is_an_error_of_ours(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def session(self: Pool) -> Any:
        raise ArithmeticError("on purpose")

    monkeypatch.setattr(Pool, "_session", session)
    opened = backend(server, deadline_s=0.2)
    with pytest.raises(TransportError, match="ArithmeticError") as caught:
        await opened.aput_many(records(1))
    assert caught.value.applied is None
    opened.close()
