"""The Data API backend's verbs, sync and async, against a small Data API on loopback: what is sent, and how."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from faults.proxy import Answer, Fault, Misbehaving, api_error, errors
from langchain_kv.backends.base import Damaged, Found, Record
from langchain_kv.backends.dataapi import replies
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.backends.dataapi.client import Pool, Reply
from langchain_kv.backends.dataapi.commands import LARGE_BYTES
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    CollectionConflictError,
    ConfigError,
    DataAPIError,
    LimitError,
    PartialWriteError,
    StoreClosedError,
    StoreError,
    UnknownCollectionError,
)
from loop_turns import counted_turns

pytestmark = pytest.mark.usefixtures("no_waiting")

TOKEN = "AstraCS:marked-token"

user: ContextVar[str] = ContextVar("user")


@contextmanager
def as_user(name: str) -> Iterator[None]:
    was = user.set(name)
    yield
    user.reset(was)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


def _backend(server: Misbehaving, **more: Any) -> DataAPIBackend:
    given: dict[str, Any] = {
        "collection": "c",
        "keyspace": "k",
        "token": TOKEN,
        "request_timeout_s": 5,
        "deadline_s": 10,
    }
    return DataAPIBackend(server.url, **{**given, **more})


class Caller:
    """Calls a backend's verbs sync or async; each asynchronous call in an event loop of its own."""

    def __init__(self, name: str, backend: DataAPIBackend) -> None:
        self.name = name
        self.backend = backend

    def __call__(self, verb: str, *arguments: Any, **named: Any) -> Any:
        is_scan = verb.startswith("scan")
        if self.name == "sync":
            result = getattr(self.backend, verb)(*arguments, **named)
            return list(result) if is_scan else result

        async def main() -> Any:
            result = getattr(self.backend, "a" + verb)(*arguments, **named)
            return [page async for page in result] if is_scan else await result

        return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def do(server: Misbehaving, mode: str) -> Iterator[Caller]:
    with_backend = Caller(mode, _backend(server))
    yield with_backend
    with_backend.backend.close()


def _records(count: int, value: Any = 1, prefix: str = "k") -> list[Record]:
    return [Record(f"{prefix}{n}", json.dumps(value).encode()) for n in range(count)]


def _keys(count: int, prefix: str = "k") -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


# -- reading ----------------------------------------------------------------------------------------------------


def test_documents_come_in_the_order_of_the_keys(server: Misbehaving, do: Caller) -> None:
    server.plant(a=1, b=[2])
    assert do("get_many", ["b", "x", "a"]) == [Found([2]), None, Found(1)]


def test_reads_go_in_chunks_of_100_a_few_at_once(server: Misbehaving, do: Caller) -> None:
    server.plant(**{key: number for number, key in enumerate(_keys(2350))})
    server.delay_s = 0.02
    assert do("get_many", _keys(2350)) == [Found(number) for number in range(2350)]
    assert [len(request.options["filter"]["_id"]["$in"]) for request in server.requests].count(100) == 23
    assert len(server.requests) == 24
    assert 4 < server.in_flight_max <= 12


def test_page_state_in_a_reply_to_keys_is_followed(server: Misbehaving, do: Caller) -> None:
    page = '{"data":{"documents":[{"_id":"a","value":1}],"nextPageState":"more"}}'
    server.faults.append(Answer(200, page.encode()))
    server.plant(b=2)
    assert do("get_many", ["a", "b"]) == [Found(1), Found(2)]
    assert server.requests[1].options["options"] == {"pageState": "more"}


def test_one_damaged_document_does_not_lose_the_others(server: Misbehaving, do: Caller) -> None:
    server.plant(a=1, b=2)
    server.documents["odd"] = '{"_id":"odd","value":1E+400}'
    server.documents["sur"] = '{"_id":"sur","value":"\\ud800"}'
    server.documents["int"] = '{"_id":"int","value":%s}' % ("7" * 40)
    found = do("get_many", ["a", "odd", "sur", "int", "b"])
    assert [found[0], found[3], found[4]] == [Found(1), Found(int("7" * 40)), Found(2)]
    assert all(isinstance(stored, Found | Damaged) for stored in found)


def test_chunked_reply_is_read(server: Misbehaving, do: Caller) -> None:
    server.plant(a=1)
    server.faults.append(Fault("chunked", applied=True))
    assert do("get_many", ["a"]) == [Found(1)]


# -- writing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("count", [1, 4])
def test_few_keys_take_one_round_trip(server: Misbehaving, do: Caller, count: int, existing: bool) -> None:
    if existing:
        server.plant(**dict.fromkeys(_keys(count), "old"))
    server.delay_s = 0.05
    do("put_many", _records(count, "new"))
    assert server.names == ["findOneAndReplace"] * count
    assert server.in_flight_max == count
    assert server.values() == dict.fromkeys(_keys(count), "new")


def test_new_keys_are_inserted_by_100(server: Misbehaving, do: Caller) -> None:
    do("put_many", _records(250))
    assert server.names == ["insertMany"] * 3
    assert len(server.documents) == 250


def test_only_keys_that_exist_are_replaced(server: Misbehaving, do: Caller) -> None:
    server.plant(k1="old", k7="old")
    do("put_many", _records(10, "new"))
    assert server.names == ["insertMany", "findOneAndReplace", "findOneAndReplace"]
    assert server.values() == dict.fromkeys(_keys(10), "new")


def test_a_first_batch_of_existing_keys_is_inserted_in_vain_and_replaced(server: Misbehaving, do: Caller) -> None:
    server.plant(**dict.fromkeys(_keys(500), "old"))
    do("put_many", _records(500, "new"))
    assert sorted(server.names) == ["findOneAndReplace"] * 500 + ["insertMany"] * 5
    assert set(server.values().values()) == {"new"}


def test_collection_whose_last_batch_existed_is_replaced_at_once(server: Misbehaving, do: Caller) -> None:
    do("put_many", _records(10, 1))
    do("put_many", _records(10, 2))
    server.requests.clear()
    do("put_many", _records(10, 3))
    assert server.names == ["findOneAndReplace"] * 10
    do("put_many", _records(10, 4, "new"))
    server.requests.clear()
    do("put_many", _records(10, 5, "newer"))
    assert server.names == ["insertMany"]


def test_writes_are_bounded_in_number(server: Misbehaving, do: Caller) -> None:
    server.plant(**dict.fromkeys(_keys(300), "old"))
    server.delay_s = 0.02
    do("put_many", _records(300, "new"))
    assert 20 < server.in_flight_max <= 48


def test_large_documents_are_split_by_bytes(server: Misbehaving, do: Caller) -> None:
    do("put_many", _records(8, "x" * 3_900_000))
    assert max(len(request.body) for request in server.requests) < 16 * 1024 * 1024
    assert len(server.documents) == 8


def test_fewer_keys_are_asked_for_where_documents_are_large_and_more_again(server: Misbehaving, do: Caller) -> None:
    large, small = _keys(10), [f"small{number:03}" for number in range(100)]
    server.plant(**dict.fromkeys(large, "x" * 1_000_000), **dict.fromkeys(small, 1))

    def asked(keys: list[str]) -> int:
        server.requests.clear()
        assert None not in do("get_many", keys)
        return len(server.requests)

    assert asked(large) == 1
    assert 3 <= asked(large) <= 5
    assert asked(small) > 3
    assert asked(small) == 1


@pytest.mark.parametrize(("size", "expected"), [(10, 2), (100_000, 1)])
async def test_the_page_after_a_large_one_is_not_fetched_ahead(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch, size: int, expected: int
) -> None:
    server.plant(**dict.fromkeys(_keys(60), "x" * size))
    backend = _backend(server)
    fetch, fetched = backend._verbs._page, []

    def counted(*args: Any) -> Any:
        fetched.append(args)
        return fetch(*args)

    monkeypatch.setattr(backend._verbs, "_page", counted)
    pages = backend.ascan("", values=True)
    first = await anext(pages)
    assert len(fetched) == expected
    keys = [key for page in [first, *[page async for page in pages]] for key, _ in page]
    assert keys == _keys(60)
    await backend.aclose()


async def test_large_replies_that_come_together_are_read_in_turns_of_their_own(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"data": {"documents": [{"_id": "a", "value": "x" * LARGE_BYTES}], "nextPageState": None}})
    read_in_turn: list[int] = []

    async def answered_at_once(*_: Any) -> Reply:
        return Reply(200, body.encode())

    def noting(*arguments: Any) -> replies.Page:
        read_in_turn.append(turns.count)
        return parse_page(*arguments)

    parse_page = replies.parse_page
    monkeypatch.setattr(Pool, "post", answered_at_once)
    monkeypatch.setattr(replies, "parse_page", noting)
    backend = _backend(server)
    async with counted_turns() as turns:
        found = await asyncio.gather(*(backend.aget_many(["a"]) for _ in range(10)))
    await backend.aclose()
    assert found == [[Found("x" * LARGE_BYTES)]] * 10
    assert len(set(read_in_turn)) == 10


def test_document_error_is_told_for_its_key_and_the_others_are_stored(server: Misbehaving, do: Caller) -> None:
    def refuse(request: Any) -> Any:
        if request.name != "insertMany":
            return None
        entry = api_error("SHRED_DOC_LIMIT_VIOLATION", scope="DOCUMENT", family="REQUEST", ids=["k2"])
        ids = [document["_id"] for document in request.options["documents"] if document["_id"] != "k2"]
        return Answer(200, json.dumps({"status": {"insertedIds": ids}, "errors": [entry]}).encode())

    server.script = refuse
    with pytest.raises(PartialWriteError) as caught:
        do("put_many", _records(6))
    assert caught.value.written == ("k0", "k1", "k3", "k4", "k5")
    assert (caught.value.unwritten, caught.value.unknown) == (("k2",), ())
    assert isinstance(caught.value.errors["k2"], LimitError)
    assert server.names == ["insertMany"]


def test_missing_collection_fails_fast_and_plainly(server: Misbehaving, do: Caller) -> None:
    server.script = lambda request: errors(api_error("UNKNOWN_COLLECTION_OR_TABLE", scope="SCHEMA", family="REQUEST"))
    with pytest.raises(UnknownCollectionError) as caught:
        do("put_many", _records(1000))
    assert caught.value.applied is False
    assert set(server.names) == {"insertMany"}
    assert len(server.names) <= 10  # those that were under way


def test_a_batch_after_one_that_existed_tries_some_keys_first(server: Misbehaving, do: Caller) -> None:
    do("put_many", _records(200))
    do("put_many", _records(200))
    assert sorted(server.names[2:]) == ["findOneAndReplace"] * 200 + ["insertMany"] * 2
    server.requests.clear()
    do("put_many", _records(200))
    assert server.names == ["insertMany"] + ["findOneAndReplace"] * 200
    server.requests.clear()
    do("put_many", _records(300, prefix="new"))
    assert server.names == ["insertMany"] * 4


def test_a_large_batch_goes_back_to_inserting_where_existing_keys_end(server: Misbehaving, do: Caller) -> None:
    server.plant(**dict.fromkeys(_keys(1500), "old"))
    do("put_many", _records(6000, "new"))
    assert set(server.values().values()) == {"new"}
    assert len(server.values()) == 6000
    assert server.names.count("findOneAndReplace") < 4000


def test_lost_upsert_is_repeated(server: Misbehaving, do: Caller) -> None:
    lost = {"data": {"document": None}, "status": {"matchedCount": 0, "modifiedCount": 0}}
    server.faults.append(Answer(200, json.dumps(lost).encode()))
    do("put_many", _records(1))
    assert server.names == ["findOneAndReplace"] * 2
    assert server.values() == {"k0": 1}


def test_passing_error_of_one_document_is_repeated_for_it_alone(server: Misbehaving, do: Caller) -> None:
    entry = api_error("TIMEOUT_WRITING_DATA", ids=["k3"])
    ids = [key for key in _keys(6) if key != "k3"]
    server.faults.append(Answer(200, json.dumps({"status": {"insertedIds": ids}, "errors": [entry]}).encode()))
    do("put_many", _records(6))
    assert server.names == ["insertMany", "findOneAndReplace"]
    assert server.values() == {"k3": 1}


def test_repeated_insert_replaces_its_own_documents(server: Misbehaving, do: Caller) -> None:
    server.faults.append(Fault("reset", applied=True))
    do("put_many", _records(6))
    assert server.values() == dict.fromkeys(_keys(6), 1)
    assert server.names == ["insertMany"] * 2 + ["findOneAndReplace"] * 6


def test_failed_batch_settles_before_it_raises(server: Misbehaving, do: Caller) -> None:
    def refuse_one(request: Any) -> Any:
        is_one = request.name == "findOneAndReplace" and request.options["filter"]["_id"] == "k0"
        return errors(api_error("SHRED_BAD_FIELD_NAME", scope="DOCUMENT", family="REQUEST")) if is_one else None

    server.script = refuse_one
    server.delay_s = 0.02
    with pytest.raises(PartialWriteError) as caught:
        do("put_many", _records(4))
    server.wait_for(lambda: server.in_flight == 0)
    assert set(server.values()) == set(caught.value.written) == {"k1", "k2", "k3"}


def test_deletes_go_by_20_at_once(server: Misbehaving, do: Caller) -> None:
    server.plant(**dict.fromkeys(_keys(105), 0))
    server.delay_s = 0.02
    do("delete_many", [*_keys(105), "missing"])
    assert server.documents == {}
    assert server.names == ["deleteMany"] * 6
    assert server.in_flight_max == 6


def test_delete_goes_on_while_there_is_more(server: Misbehaving, do: Caller) -> None:
    server.plant(a=1)
    server.faults.append(Answer(200, b'{"status":{"deletedCount":0,"moreData":true}}'))
    do("delete_many", ["a"])
    assert server.names == ["deleteMany"] * 2
    assert server.documents == {}


def test_partial_delete_names_its_keys(server: Misbehaving, do: Caller) -> None:
    refusal = errors(api_error("INVALID_DATABASE_QUERY"))
    server.script = lambda request: refusal if "k0" in request.options["filter"]["_id"]["$in"] else None
    with pytest.raises(PartialWriteError) as caught:
        do("delete_many", _keys(30))
    assert set(caught.value.unknown) == set(_keys(20))
    assert set(caught.value.written) == {f"k{n}" for n in range(20, 30)}


@pytest.mark.parametrize("verb", ["get_many", "put_many", "delete_many"])
def test_empty_batch_sends_nothing(server: Misbehaving, do: Caller, verb: str) -> None:
    assert not do(verb, [])
    assert server.connections == 0


# -- scans ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 50, 100, 120])
def test_scan_lists_each_key_once_without_values(server: Misbehaving, do: Caller, count: int) -> None:
    server.plant(**dict.fromkeys(_keys(count), "v" * 100))
    pages = do("scan", "", values=False)
    assert {stored for page in pages for _, stored in page} <= {None}
    assert sorted(key for page in pages for key, _ in page) == sorted(_keys(count))
    assert all(pages)
    assert all(
        request.options["projection"] == {"value": False, "encoding": False, "body_blob": False}
        for request in server.requests
    )


def test_empty_page_does_not_end_a_scan(server: Misbehaving, do: Caller) -> None:
    server.plant(**dict.fromkeys(_keys(120), 0))
    server.empty_pages = {0, 2}
    assert sum(len(page) for page in do("scan", "", values=False)) == 120


def test_prefix_is_checked_here(server: Misbehaving, do: Caller) -> None:
    server.plant(user1=1, user2=2, other=3)
    assert do("scan", "user", values=False) == [[("user1", None), ("user2", None)]]
    assert do("scan", "user1", values=True) == [[("user1", Found(1))]]
    assert do("scan", "absent", values=False) == []


def test_ids_that_are_not_text_are_skipped_with_one_line(
    server: Misbehaving, do: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    server.plant(**dict.fromkeys(_keys(60), 0))
    for odd in ("5", "null", '{"$uuid":"x"}', "true"):
        server.documents[("odd", odd)] = f'{{"_id":{odd},"value":1}}'
    with caplog.at_level(logging.WARNING, "langchain_kv"):
        assert sum(len(page) for page in do("scan", "", values=False)) == 60
    assert len(caplog.records) == 1


def test_scan_with_values_names_a_damaged_document(server: Misbehaving, do: Caller) -> None:
    server.plant(a=1)
    server.documents["odd"] = '{"_id":"odd","value":1E+400}'
    (page,) = do("scan", "", values=True)
    assert [key for key, _ in page] == ["a", "odd"]


def test_next_page_comes_while_the_consumer_works(server: Misbehaving) -> None:
    server.plant(**dict.fromkeys(_keys(120), 0))
    backend = _backend(server)
    pages = backend.scan("", values=False)
    next(pages)
    server.wait_for(lambda: len(server.requests) == 2)
    pages.close()
    backend.close()


async def test_abandoned_scan_leaves_no_task(server: Misbehaving) -> None:
    server.plant(**dict.fromkeys(_keys(200), 0))
    server.delay_s = 0.01
    backend = _backend(server)
    pages = backend.ascan("", values=False)
    async for _ in pages:
        break
    await pages.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await backend.aclose()


def test_scan_that_is_answered_the_same_state_for_ever_ends(server: Misbehaving, do: Caller) -> None:
    server.script = lambda request: Answer(200, b'{"data":{"documents":[],"nextPageState":"same"}}')
    with pytest.raises(BadReplyError, match="same page state"):
        do("scan", "", values=False)


def test_fault_between_pages_is_overcome(server: Misbehaving, do: Caller) -> None:
    server.plant(**dict.fromkeys(_keys(120), 0))
    server.faults.extend([None, Fault("reset"), Answer(503), None])
    assert sum(len(page) for page in do("scan", "", values=False)) == 120


def test_scan_asks_for_a_fresh_token_with_the_callers_context(server: Misbehaving, mode: str) -> None:
    server.plant(**dict.fromkeys(_keys(120), 0))
    asked: list[str] = []

    def token() -> str:
        asked.append(user.get())
        return f"t{len(asked)}"

    def refuse_old(request: Any) -> Any:
        return Answer(401) if request.options.get("options") and request.headers["token"] == "t1" else None

    server.script = refuse_old
    backend = _backend(server, token=token)
    with as_user("Ada"):
        pages = Caller(mode, backend)("scan", "", values=False)
    assert sum(len(page) for page in pages) == 120
    assert asked == ["Ada", "Ada"]
    backend.close()


# -- requests ---------------------------------------------------------------------------------------------------


def test_address_and_headers(server: Misbehaving, mode: str) -> None:
    backend = _backend(server, path_prefix="/api/json", user_agent="me/1", headers={"X-Mine": "h"})
    Caller(mode, backend)("get_many", ["a"])
    (request,) = server.requests
    assert request.path == "/api/json/v1/k/c"
    wanted = {"token": TOKEN, "user-agent": "me/1", "x-mine": "h", "content-type": "application/json"}
    assert {name: request.headers[name] for name in wanted} == wanted
    assert "cookie" not in request.headers
    backend.close()


def test_no_token_sends_no_header(server: Misbehaving, mode: str) -> None:
    backend = _backend(server, token=None)
    Caller(mode, backend)("get_many", ["a"])
    assert "token" not in server.requests[0].headers
    backend.close()


def test_connection_is_reused(server: Misbehaving) -> None:
    backend = _backend(server)
    for _ in range(5):
        backend.get_many(["a"])
    assert server.connections == 1
    backend.close()


def test_idle_connection_that_the_server_closed_is_no_error(server: Misbehaving) -> None:
    backend = _backend(server)
    for _ in range(5):
        backend.get_many(["a"])
        server.close_idle()
    backend.close()


def test_cookies_are_not_kept(server: Misbehaving) -> None:
    server.faults.append(Answer(200, b'{"data":{"documents":[]}}', (("Set-Cookie", "a=b"),)))
    backend = _backend(server)
    backend.get_many(["a"])
    backend.get_many(["a"])
    assert "cookie" not in server.requests[1].headers
    backend.close()


def test_redirect_is_not_followed(server: Misbehaving, do: Caller) -> None:
    server.faults.append(Answer(307, b"", (("Location", server.url),)))
    with pytest.raises(BadReplyError, match="redirects are not followed"):
        do("get_many", ["a"])
    assert len(server.requests) == 1


def test_header_that_http_cannot_hold_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="X-Mine"):
        DataAPIBackend("http://x", collection="c", keyspace="k", token=None, headers={"X-Mine": "a\nb"})


def test_unreadable_certificate_file_is_told(server: Misbehaving, mode: str) -> None:
    backend = _backend(server, ca_file="/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        Caller(mode, backend)("get_many", ["a"])
    backend.close()


# -- tokens -----------------------------------------------------------------------------------------------------


def test_token_source_is_asked_once_an_operation_with_the_callers_context(server: Misbehaving, mode: str) -> None:
    asked: list[str] = []
    threads: list[threading.Thread] = []

    def token() -> str:
        asked.append(user.get())
        threads.append(threading.current_thread())
        return f"t{len(asked)}"

    backend = _backend(server, token=token)
    do = Caller(mode, backend)
    with as_user("Ada"):
        do("put_many", _records(250))
    with as_user("Eve"):
        do("get_many", _keys(250))
    assert asked == ["Ada", "Eve"]
    assert threading.current_thread() not in threads  # one that waits holds up no event loop
    assert {request.headers["token"] for request in server.requests} == {"t1", "t2"}
    backend.close()


@pytest.mark.parametrize(
    ("verb", "argument"), [("get_many", ["k0"]), ("put_many", _records(200)), ("delete_many", ["k0"])]
)
def test_refused_token_is_asked_for_anew_once(server: Misbehaving, mode: str, verb: str, argument: Any) -> None:
    tokens = iter(["old", "new", "never"])
    server.script = lambda request: Answer(401) if request.headers["token"] == "old" else None
    backend = _backend(server, token=lambda: next(tokens))
    Caller(mode, backend)(verb, argument)
    assert server.requests[-1].headers["token"] == "new"
    backend.close()


def test_token_refused_twice_is_an_error(server: Misbehaving, mode: str) -> None:
    asked: list[None] = []
    server.script = lambda request: Answer(401)
    backend = _backend(server, token=lambda: asked.append(None) or "bad")
    for verb in ("get_many", "delete_many"):
        with pytest.raises(AuthError):
            Caller(mode, backend)(verb, ["a"])
    with pytest.raises(AuthError):
        Caller(mode, backend)("scan", "", values=False)
    assert len(asked) == 6
    backend.close()


def test_fixed_token_that_is_refused_is_not_tried_again(server: Misbehaving, do: Caller) -> None:
    server.script = lambda request: Answer(401)
    with pytest.raises(AuthError):
        do("get_many", ["a"])
    assert len(server.requests) == 1


def test_token_and_values_are_in_no_repr_error_or_log(
    server: Misbehaving, do: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    value = "marked-value"
    message = f"about {TOKEN} and {value}"
    replies: list[Answer | Fault] = [
        Answer(status, f"<title>{TOKEN}</title>{value}".encode()) for status in (401, 403, 404, 413, 307)
    ]
    for code, scope in (
        ("INVALID_DATABASE_QUERY", "DATABASE"),
        ("REQUEST_NOT_JSON", ""),
        ("SHRED_BAD_EJSON_VALUE", "DOCUMENT"),
    ):
        shown = f"about {TOKEN}" if scope == "DATABASE" else message
        replies.append(errors(api_error(code, scope=scope, message=shown, title=TOKEN)))
    texts = [repr(do.backend), str(do.backend)]
    for reply in replies:
        for verb, argument in (("get_many", ["a"]), ("put_many", _records(1, value)), ("delete_many", ["a"])):
            server.faults.append(reply)
            with pytest.raises(StoreError) as caught:
                do(verb, argument)
            error: BaseException | None = caught.value
            while error is not None:
                texts += [str(error), repr(error), repr(vars(error))]
                error = error.__cause__ or error.__context__
    found = "\n".join(texts) + caplog.text
    assert TOKEN not in found
    assert value not in found


# -- opening ----------------------------------------------------------------------------------------------------


def test_existing_collection_opens_by_one_request(server: Misbehaving, do: Caller) -> None:
    do("open")
    assert server.names == ["findCollections"]
    assert server.requests[0].path == "/v1/k"
    assert server.requests[0].options == {"options": {"explain": True}}


def test_missing_collection_is_created(server: Misbehaving, do: Caller) -> None:
    server.settings.clear()
    do("open")
    assert server.names == ["findCollections", "createCollection"]
    assert server.settings == {"c": {"indexing": {"allow": ["_id"]}}}


def test_clearing_drops_first(server: Misbehaving, do: Caller) -> None:
    server.plant(a=1)
    do("open", clear=True)
    assert server.names == ["deleteCollection", "findCollections", "createCollection"]
    assert server.documents == {}


def test_collection_created_meanwhile_is_looked_at_again(server: Misbehaving, do: Caller) -> None:
    conflict = errors(api_error("EXISTING_COLLECTION_DIFFERENT_SETTINGS", scope="SCHEMA", family="REQUEST"))
    server.faults.extend([Answer(200, b'{"status":{"collections":[]}}'), conflict])
    do("open")
    assert server.names == ["findCollections", "createCollection", "findCollections"]


def test_conflict_that_stays_is_raised(server: Misbehaving, do: Caller) -> None:
    server.settings.clear()
    conflict = errors(api_error("EXISTING_COLLECTION_DIFFERENT_SETTINGS", scope="SCHEMA", family="REQUEST"))
    server.faults.extend([None, conflict])
    with pytest.raises(CollectionConflictError):
        do("open")


def test_other_indexing_is_a_conflict(server: Misbehaving, do: Caller) -> None:
    server.settings["c"] = {"indexing": {"deny": ["value"]}}
    with pytest.raises(CollectionConflictError):
        do("open")


def test_collection_without_indexing_opens_with_a_warning(server: Misbehaving, do: Caller) -> None:
    server.settings["c"] = {"lexical": {"enabled": False}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do("open")
    assert [entry.category for entry in caught] == [UserWarning]


def test_fault_during_creation_is_overcome(server: Misbehaving, do: Caller) -> None:
    server.settings.clear()
    server.faults.extend([Answer(503), None, Fault("reset", applied=True)])
    do("open")
    assert server.settings == {"c": {"indexing": {"allow": ["_id"]}}}


def test_opening_in_a_missing_keyspace_says_so(server: Misbehaving, do: Caller) -> None:
    server.script = lambda request: errors(api_error("UNKNOWN_KEYSPACE", scope="SCHEMA", family="REQUEST"))
    with pytest.raises(DataAPIError, match="keyspace's name"):
        do("open")


def test_use_after_close_is_refused(server: Misbehaving, do: Caller) -> None:
    do("get_many", ["a"])
    do("close")
    do("close")
    for verb, argument in (
        ("get_many", ["a"]),
        ("get_many", []),
        ("put_many", _records(1)),
        ("delete_many", ["a"]),
        ("add_many", _records(1)),
        ("add_many", []),
        ("count", ""),
        ("clear", ""),
    ):
        with pytest.raises(StoreClosedError):
            do(verb, argument)
    for values in (False, True):
        with pytest.raises(StoreClosedError):
            do("scan", "", values=values)
    for verb in ("purge", "open"):
        with pytest.raises(StoreClosedError):
            do(verb)
