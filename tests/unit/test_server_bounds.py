"""One command's work is bounded by its size, and the server goes on answering others while it is done."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from answered import Send, sender
from bodies import row
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.limits import INDEXING_MAX_UTF16, PATH_MAX_NAMES, SORT_MAX_FIELDS
from langchain_kv.server import pacing
from langchain_kv.server.commands import table as commands
from langchain_kv.server.commands.table import answer
from langchain_kv.server.documents import stored
from langchain_kv.server.documents.ids import is_extended
from langchain_kv.server.http import running
from langchain_kv.server.query import matching
from langchain_kv.server.query.matching import equal, identity
from langchain_kv.server.update.operators import identical
from langchain_kv.values import json_text
from served import ask

KV = CollectionName("default_keyspace", "kv")
ANY = CollectionName("default_keyspace", "any")
COLLIDING = [n * (2**61 - 1) for n in range(2_000)]  # Python's hash of each is 0


@pytest.fixture
def engine() -> Iterator[MemoryEngine]:
    engine = MemoryEngine()
    engine.create_collection(KV, {"indexing": {"allow": ["_id"]}})
    engine.create_collection(ANY, {})
    yield engine
    engine.close()


@pytest.fixture
def send(engine: MemoryEngine) -> Send:
    return sender(engine, KV)


def codes(reply: Any) -> list[str]:
    return [error["errorCode"] for error in reply.get("errors", [])]


# -- comparisons ----------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 10, 100, 12, -100, 10**99, "", "a", "1", "null", "true", "missing", "number1E0"),
    *(
        Decimal("1.5"),
        Decimal("0.1"),
        Decimal("1E+2"),
        Decimal("-1E+2"),
        Decimal("1E+2147483647"),
        Decimal(1),
        Decimal(0),
    ),
    *([], [[]], [1], [1, 2], [2, 1], [12], ["1"], [None], [[1], 2], [1, [2]], ["a", "b"], ["ab"], ["1:a"]),
    *({}, {"a": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": [1]}, {"a": {"b": 1}}, [{"a": 1}], {"a": Decimal(1)}),
    *({"$date": 5}, {"$date": 5.0}, {"$uuid": "aB"}, {"$uuid": "AB"}, {"$objectId": "AB"}, {"$binary": "aB"}),
    *({"$date": 5, "b": 1}, [{"$uuid": "Ab"}]),
]


@pytest.mark.parametrize("one", VALUES, ids=repr)
def test_values_have_one_identity_if_and_only_if_they_are_equal(one: Any) -> None:
    for other in VALUES:
        assert (identity(one) == identity(other)) is equal(one, other), other
        is_same = identical(one, other)
        assert (identity(one, as_sent=True) == identity(other, as_sent=True)) is is_same, other
    assert identity(one) != identity(matching.MISSING)


def test_nobody_can_choose_values_whose_identities_collide() -> None:
    assert len(set(map(hash, COLLIDING))) == 1
    for as_sent in (False, True):
        assert len({hash(identity(number, as_sent=as_sent)) for number in COLLIDING}) == len(COLLIDING)
        assert len({hash(identity([number], as_sent=as_sent)) for number in COLLIDING}) == len(COLLIDING)


def _calls(work: Callable[[], Any]) -> int:
    """Return how many calls of Python functions a piece of work makes: a measure that no machine changes."""
    count = 0

    def note(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def _array(count: int) -> list[Any]:
    return [[n] for n in range(count)]


GROWING: dict[str, Callable[[int], Any]] = {
    "$addToSet": lambda n: {"updateOne": {"filter": {}, "update": {"$addToSet": {"f": {"$each": _array(n)}}}}},
    "$push": lambda n: {"updateOne": {"filter": {}, "update": {"$push": {"f": {"$each": _array(n), "$position": 0}}}}},
    "$set": lambda n: {"updateOne": {"filter": {}, "update": {"$set": {f"g.{k}": k for k in range(n)}}}},
    "$unset": lambda n: {"updateOne": {"filter": {}, "update": {"$unset": {f"f.{k}": k for k in range(n)}}}},
    "$all": lambda n: {"find": {"filter": {"f": {"$all": _array(n)}}}},
    "$eq": lambda n: {"find": {"filter": {"f": {"$eq": _array(n)}}}},
    "$in": lambda n: {"find": {"filter": {"f": {"$in": _array(n // 10)}}}},
    "$nin": lambda n: {"find": {"filter": {"f": {"$nin": _array(n // 10)}}}},
    "$or": lambda n: {"find": {"filter": {"$or": [{}] * n}}},
    "projection": lambda n: {"find": {"projection": {"f": {f"g{k}": 1 for k in range(n)}}}},
    "$slice": lambda n: {"find": {"projection": {f"f{k}": {"$slice": 1} for k in range(n)}}},
    "insertMany": lambda n: {"insertMany": {"documents": [{"f": _array(n // 100)}] * 100}},
}


@pytest.mark.parametrize("name", GROWING)
def test_work_grows_with_the_command_and_no_faster(send: Send, engine: MemoryEngine, name: str) -> None:
    def work(count: int) -> int:
        document = json.dumps({"_id": "a", "f": _array(count), "g": {}}).encode()
        engine.write(ANY, [row("a", document)])
        engine.write(KV, [row("a", document)])
        command = GROWING[name](count)
        path = ANY if "filter" in str(command) and "find" in command else KV
        return _calls(lambda: send(command, path))

    work(100)  # what is made once
    small, large = work(300), work(900)
    assert large < 4 * small + 500, "three times as much is to take three times as long"


@pytest.mark.parametrize("operator", ["$all", "$addToSet"])
def test_numbers_that_collide_are_told_apart(send: Send, operator: str) -> None:
    send({"insertOne": {"document": {"_id": "a", "f": COLLIDING[:1_000]}}}, KV)
    send({"insertOne": {"document": {"_id": "a", "f": COLLIDING[:1_000]}}}, ANY)
    if operator == "$all":
        for wanted, count in ((COLLIDING[:1_000], 1), (COLLIDING[:1_001], 0)):
            assert send({"countDocuments": {"filter": {"f": {"$all": wanted}}}}, ANY)["status"] == {"count": count}
    else:
        send({"updateOne": {"filter": {}, "update": {"$addToSet": {"f": {"$each": COLLIDING * 2}}}}})
        assert send({"findOne": {}})["data"]["document"]["f"] == COLLIDING


def test_add_to_set_adds_each_value_once_and_keeps_apart_what_was_sent_apart(send: Send) -> None:
    body = (
        b'{"findOneAndUpdate":{"filter":{"_id":"a"},"update":{"$addToSet":{"f":{"$each":[1,1,1.5,1.50,"1",{"a":1},{"a":1},'
        b'[],[],null,null,true]}}},"options":{"upsert":true,"returnDocument":"after"}}}'
    )
    assert b'"f":[1,1.5,"1",{"a":1},[],null,true]' in send_raw(send, body)


def send_raw(send: Send, body: bytes) -> bytes:
    return json.dumps(send(json.loads(body)), separators=(",", ":")).encode()


# -- memory ---------------------------------------------------------------------------------------------------------


def _peak(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_far_positions_are_refused_before_memory_is_taken_for_them(send: Send) -> None:
    arrays: dict[str, list[Any]] = {f"a{n}": [] for n in range(50)}
    send({"insertOne": {"document": {"_id": "a", **arrays}}})
    for position in (799_999, 1_999_999, 999_999_999):
        update = {"$set": {f"{name}.{position}": 1 for name in arrays}}
        command = {"updateOne": {"filter": {"_id": "a"}, "update": update}}
        assert codes(send(command)) == ["SHRED_DOC_LIMIT_VIOLATION"]
        assert _peak(lambda command=command: send(command)) < 40 * 2**20  # 50 arrays of 800,000 are 320 MB
    assert send({"findOne": {}})["data"]["document"] == {"_id": "a", **arrays}


def test_far_positions_of_an_upsert_are_refused_likewise(send: Send) -> None:
    condition = {"_id": "a", "a": {"$eq": []}, "a.999999999": 1}
    command = {"updateOne": {"filter": condition, "update": {"$set": {"b": 1}}, "options": {"upsert": True}}}
    assert codes(send(command, ANY)) == ["SHRED_DOC_LIMIT_VIOLATION"]


def test_an_array_is_filled_up_as_far_as_a_document_has_room(send: Send) -> None:
    send({"insertOne": {"document": {"_id": "a", "f": []}}})
    assert codes(send({"updateOne": {"filter": {"_id": "a"}, "update": {"$set": {"f.700000": 1}}}})) == []
    assert len(send({"findOne": {}})["data"]["document"]["f"]) == 700_001


def test_a_path_deeper_than_any_document_is_refused_where_it_gets_too_deep(send: Send) -> None:
    send({"insertOne": {"document": {"_id": "a"}}})
    for names, code in ((16, []), (17, ["SHRED_DOC_LIMIT_VIOLATION"]), (100, ["SHRED_DOC_LIMIT_VIOLATION"])):
        update = {"$set": {".".join([f"f{names}", *["x"] * (names - 1)]): 1}}
        assert codes(send({"updateOne": {"filter": {"_id": "a"}, "update": update}})) == code
    assert list(send({"findOne": {}})["data"]["document"]) == ["_id", "f16"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"find": {"filter": {"PATH": 1}}}, "FILTER_INVALID_EXPRESSION"),
        ({"find": {"projection": {"PATH": 1}}}, "UNSUPPORTED_PROJECTION_PARAM"),
        ({"find": {"projection": {"PATH": {"$slice": 1}}}}, "UNSUPPORTED_PROJECTION_PARAM"),
        ({"find": {"sort": {"PATH": 1}}}, "SORT_CLAUSE_PATH_INVALID"),
        ({"updateOne": {"filter": {}, "update": {"$set": {"PATH": 1}}}}, "UNSUPPORTED_UPDATE_OPERATION_PATH"),
        ({"updateOne": {"filter": {}, "update": {"$rename": {"a": "PATH"}}}}, "UNSUPPORTED_UPDATE_OPERATION_PATH"),
    ],
)
def test_a_path_of_more_names_than_any_document_has_is_refused(send: Send, command: Any, code: str) -> None:
    def with_path(path: str) -> Any:
        return json.loads(json.dumps(command).replace("PATH", path))

    assert codes(send(with_path("a" + ".a" * PATH_MAX_NAMES), ANY)) == [code]
    assert codes(send(with_path("a" + ".a" * (PATH_MAX_NAMES - 1)), ANY)) == []


def test_a_projection_takes_no_memory_for_each_path_below_a_long_name(send: Send) -> None:
    name = "x" * 100_000
    send({"insertOne": {"document": {"_id": "a", "b": 1}}})
    command = {"find": {"projection": {name: {f"f{n}": 1 for n in range(1_000)}}}}
    assert send(command)["data"]["documents"] == [{"_id": "a"}]
    assert _peak(lambda: send(command)) < 10 * 2**20  # each path written out: 100 MB


def test_a_sort_has_a_bounded_number_of_paths(send: Send) -> None:
    assert codes(send({"find": {"sort": {f"f{n}": 1 for n in range(SORT_MAX_FIELDS)}}}, ANY)) == []
    assert codes(send({"find": {"sort": {f"f{n}": 1 for n in range(SORT_MAX_FIELDS + 1)}}}, ANY)) == [
        "SORT_CLAUSE_INVALID"
    ]


@pytest.mark.parametrize("name", ["allow", "deny"])
def test_the_paths_that_every_command_reads_are_bounded(send: Send, name: str) -> None:
    paths = [f"{n:0100}" for n in range(INDEXING_MAX_UTF16 // 100)]
    for more, code in (([], []), (["x"], ["INVALID_INDEXING_DEFINITION"])):
        options = {"indexing": {name: paths + more}}
        assert codes(send({"createCollection": {"name": "c", "options": options}}, ("default_keyspace",))) == code


@pytest.mark.parametrize(
    ("definition", "document"),
    [
        ({"a": {"b": 1, "c": {"d": 1}}}, {"_id": "a", "a": {"b": 1, "c": {"d": 3}}}),
        ({"a.c": {"d": 1}}, {"_id": "a", "a": {"c": {"d": 3}}}),
        ({"a": {"b": 0, "c": {}}}, {"_id": "a", "a": {"c": {"d": 3, "e": 4}}, "f": [1, 2]}),
        ({"a": {}}, {"_id": "a", "a": {"b": 1, "c": {"d": 3, "e": 4}}, "f": [1, 2]}),
        ({"f": {"$slice": 1}, "a": 1}, {"_id": "a", "a": {"b": 1, "c": {"d": 3, "e": 4}}, "f": [1]}),
        ({"_id": 0, "f": 1}, {"f": [1, 2]}),
    ],
)
def test_definitions_inside_of_definitions_are_paths(send: Send, definition: Any, document: Any) -> None:
    send({"insertOne": {"document": {"_id": "a", "a": {"b": 1, "c": {"d": 3, "e": 4}}, "f": [1, 2]}}})
    assert send({"findOne": {"projection": definition}})["data"]["document"] == document


@pytest.mark.parametrize(
    "definition",
    [
        {"a.b": 1, "a": {"b": 1}},
        {"a": {"b": 1}, "a.b": 1},
        {"a": {"b": 1, "c": 0}},
        {"a": 1, "b": {"c": 0}},
        {"a": {"*": 1}},
        {"a": {"b": 1, "$slice": 1}},
        {"a": {"$slice": 1, "b": 1}},
        {"a": {"": 1}},
        {"a": {"b": {"$nope": 1}}},
        {"_id": {"x": 1}},
    ],
)
def test_definitions_that_lie_over_one_another_are_refused(send: Send, definition: Any) -> None:
    assert codes(send({"findOne": {"projection": definition}})) == ["UNSUPPORTED_PROJECTION_PARAM"]


# -- others are answered --------------------------------------------------------------------------------------------


class Held:
    """Holds a function up, in whichever thread it is called, until it is let go; notes these threads."""

    def __init__(self, call: Callable[..., Any], is_held: Callable[..., bool] = lambda *_: True) -> None:
        self._call, self._is_held = call, is_held
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.threads: set[threading.Thread] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._is_held(*args):
            self.threads.add(threading.current_thread())
            self.begun.set()
            assert self.go_on.wait(60)
        return self._call(*args, **kwargs)


LARGE = {"insertOne": {"document": {"_id": "large", "text": "x" * pacing.LARGE_BYTES}}}


def test_health_and_small_commands_are_answered_while_a_large_command_is_worked_on(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(commands.read_inserted, lambda body: len(body) > pacing.LARGE_BYTES)
    monkeypatch.setattr(commands, "read_inserted", held)
    with running.run_in_thread(engine, "tok") as url, ThreadPoolExecutor() as pool:
        larges = [pool.submit(ask, url, "tok", LARGE, "/v1/default_keyspace/kv") for _ in range(6)]
        assert held.begun.wait(60)
        with urllib.request.urlopen(url + "/stargate/health", timeout=60) as reply:
            assert reply.status == 200
        assert ask(url, "tok", {"findOne": {}}, "/v1/default_keyspace/kv") == {"data": {"document": None}}
        held.go_on.set()
        replies = [large.result(60) for large in larges]
    assert sorted(len(reply.get("errors", [])) for reply in replies) == [0, 1, 1, 1, 1, 1]  # type: ignore[arg-type]
    assert 1 <= len(held.threads) <= 6
    assert all(thread.daemon for thread in held.threads)  # none keeps the process from ending


def test_the_server_ends_though_a_large_command_is_worked_on(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(commands.read_inserted, lambda body: len(body) > pacing.LARGE_BYTES)
    monkeypatch.setattr(commands, "read_inserted", held)
    monkeypatch.setattr(running, "SHUTDOWN_S", 0.1)
    with ThreadPoolExecutor() as pool:
        with running.run_in_thread(engine, "tok") as url:
            large = pool.submit(ask, url, "tok", LARGE, "/v1/default_keyspace/kv")
            assert held.begun.wait(60)
        held.go_on.set()  # only now: the server has ended
        error = large.exception(60)
        assert isinstance(error, OSError)
        if isinstance(error, urllib.error.HTTPError):
            error.close()
    for thread in held.threads:
        thread.join(60)


LARGE_DOCUMENT = {"_id": "a", "n": 1, "tags": ["x" * 100] * (pacing.LARGE_BYTES // 100)}


@pytest.mark.parametrize(
    "command",
    [
        {"find": {"filter": {"tags": "y"}}},
        {"find": {"filter": {"_id": {"$in": ["a"]}, "tags": "y"}}},
        {"findOne": {"filter": {"tags": "y"}}},
        {"countDocuments": {"filter": {"tags": "y"}}},
        {"find": {"sort": {"tags": 1}}},
        {"find": {"projection": {"tags": {"$slice": 1}}}},
        {"findOne": {"projection": {"tags": {"$slice": 1}}}},
        {"updateOne": {"filter": {"_id": "a"}, "update": {"$set": {"m": 1}}}},
        {"updateOne": {"filter": {"n": 1}, "update": {"$set": {"m": 1}}}},
        {"updateMany": {"filter": {"n": 1}, "update": {"$addToSet": {"tags": "z"}}}},
        {"findOneAndUpdate": {"filter": {"_id": "a"}, "update": {"$set": {"m": 1}}, "projection": {"n": 1}}},
        {"findOneAndReplace": {"filter": {"n": 1}, "replacement": {}, "projection": {"tags": 0}}},
        {"findOneAndDelete": {"filter": {"tags": "y"}}},
        {"deleteMany": {"filter": {"tags": "y"}}},
    ],
    ids=json.dumps,
)
def test_a_large_document_is_read_beside_the_loop(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    engine.write(ANY, [row("a", json.dumps(LARGE_DOCUMENT).encode())])
    engine.create_collection(ANY, {})
    threads = set()
    field_texts = stored.field_texts

    def note(body: bytes) -> Any:
        if len(body) > pacing.LARGE_BYTES:
            threads.add(threading.current_thread())
        return field_texts(body)

    monkeypatch.setattr("langchain_kv.server.documents.stored.field_texts", note)
    monkeypatch.setattr("langchain_kv.server.query.projection.field_texts", note)
    read = json_text.read

    def note_read(body: bytes) -> Any:
        if len(body) > pacing.LARGE_BYTES:
            threads.add(threading.current_thread())
        return read(body)

    monkeypatch.setattr("langchain_kv.server.update.updating.read", note_read)
    asyncio.run(answer(engine, ANY, json.dumps(command).encode()))
    assert threads
    assert threading.current_thread() not in threads


async def test_many_small_documents_are_read_in_turns_with_others(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.write(ANY, [row(f"k{n}", b'{"_id":"k%d"}' % n) for n in range(10)])
    clock = itertools.count(step=1)  # each look at it is a second later
    monkeypatch.setattr(pacing.time, "perf_counter", lambda: next(clock))
    turns = 0
    work = asyncio.ensure_future(answer(engine, ANY, b'{"find":{"filter":{"a":1}}}'))
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    assert json.loads((await work)[1])["data"]["documents"] == []
    assert turns > 10


async def test_what_is_raised_apart_is_raised_to_its_caller() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pacing.apart(fail)


async def test_few_calls_are_apart_at_once() -> None:
    held = Held(int)
    calls = [asyncio.ensure_future(pacing.apart(held)) for _ in range(20)]
    await asyncio.sleep(0)
    assert held.begun.wait(60)
    assert len(held.threads) <= 4
    held.go_on.set()
    assert await asyncio.gather(*calls) == [0] * 20


def test_nothing_waits_for_a_loop_that_was_closed_meanwhile() -> None:
    held = Held(int)

    async def give_up() -> None:
        call = asyncio.ensure_future(pacing.apart(held))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert held.begun.wait(60)
        call.cancel()

    asyncio.run(give_up())
    held.go_on.set()
    for thread in held.threads:
        thread.join(60)
        assert not thread.is_alive()


def test_extended_values_are_what_these_tests_think_they_are() -> None:
    assert [value for value in VALUES if is_extended(value)] == VALUES[-8:-2]
