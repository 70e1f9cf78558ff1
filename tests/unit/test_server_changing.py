"""Documents that another writer changes between being found and being changed or sent: what no longer matches stays."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bodies import row
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.server import pacing
from langchain_kv.server.commands.table import answer
from langchain_kv.server.update import updating

ANY = CollectionName("default_keyspace", "any")
MINE, THEIRS = b'{"_id":"a","n":1}', b'{"_id":"a","n":2}'
CHANGE = {"$set": {"mine": True}}
Send = Callable[[Any], Any]


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine: Engine = (
        MemoryEngine() if request.param == "memory" else SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")
    )
    engine.create_collection(ANY, {})
    engine.write(ANY, [row("a", MINE)])
    yield engine
    engine.close()


@pytest.fixture
def send(engine: Engine) -> Send:
    return lambda command: json.loads(asyncio.run(answer(engine, tuple(ANY), json.dumps(command).encode()))[1])


def interfere(engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let another writer change the document just before the engine is called by this name."""
    original = getattr(engine, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        engine.write(ANY, [row("a", THEIRS)])
        return original(*args, **kwargs)

    monkeypatch.setattr(engine, name, call)


@pytest.mark.parametrize("condition", [{"n": 1}, {"_id": "a", "n": 1}, {"_id": {"$in": ["a"]}, "n": 1}])
@pytest.mark.parametrize(
    ("command", "nothing"),
    [
        ({"updateOne": {"update": CHANGE}}, {"status": {"matchedCount": 0, "modifiedCount": 0}}),
        ({"updateMany": {"update": CHANGE}}, {"status": {"matchedCount": 0, "modifiedCount": 0}}),
        ({"deleteOne": {}}, {"status": {"deletedCount": 0}}),
        ({"deleteMany": {}}, {"status": {"deletedCount": 0}}),
        ({"findOneAndDelete": {}}, {"data": {"document": None}, "status": {"deletedCount": 0}}),
        (
            {"findOneAndReplace": {"replacement": {"mine": True}}},
            {"data": {"document": None}, "status": {"matchedCount": 0, "modifiedCount": 0}},
        ),
        (
            {"findOneAndUpdate": {"update": CHANGE}},
            {"data": {"document": None}, "status": {"matchedCount": 0, "modifiedCount": 0}},
        ),
    ],
)
def test_a_document_that_no_longer_matches_when_it_is_written_is_left_alone(
    send: Send,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    condition: dict[str, Any],
    command: dict[str, Any],
    nothing: Any,
) -> None:
    ((name, fields),) = command.items()
    interfere(engine, monkeypatch, "modify")
    assert send({name: {"filter": condition, **fields}}) == nothing
    assert engine.read(ANY, ["a"]) == [row("a", THEIRS)]


@pytest.mark.parametrize("condition", [{"_id": "a"}, {"n": {"$gt": 0}}])
def test_what_becomes_of_a_large_document_is_never_worked_out_while_it_is_written(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch, condition: dict[str, Any]
) -> None:
    engine.write(ANY, [row("a", large(1))])
    modify, others = engine.modify, iter([large(5), large(7)])
    is_writing, worked_out = [False], []
    read = updating.read

    def interfere(*args: Any) -> None:
        for other in others:
            engine.write(ANY, [row("a", other)])
            break
        is_writing[0] = True
        try:
            modify(*args)
        finally:
            is_writing[0] = False

    def note(body: bytes) -> Any:
        worked_out.append(is_writing[0])
        return read(body)

    monkeypatch.setattr(engine, "modify", interfere)
    monkeypatch.setattr(updating, "read", note)
    reply = send({"updateOne": {"filter": condition, "update": {"$inc": {"n": 1}}}})
    assert reply == {"status": {"matchedCount": 1, "modifiedCount": 1}}
    assert engine.read(ANY, ["a"]) == [row("a", large(8))]
    assert worked_out == [False, False, False]


def test_a_large_document_that_others_always_change_is_given_up(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.write(ANY, [row("a", large(1))])
    modify, numbers = engine.modify, itertools.count(100)

    def interfere(*args: Any) -> None:
        engine.write(ANY, [row("a", large(next(numbers)))])
        modify(*args)

    monkeypatch.setattr(engine, "modify", interfere)
    reply = send({"updateOne": {"filter": {"_id": "a"}, "update": {"$inc": {"n": 1}}}})
    assert [error["errorCode"] for error in reply["errors"]] == ["FAILED_CONCURRENT_OPERATIONS"]


def large(number: int) -> bytes:
    texts = ["x" * (pacing.LARGE_BYTES // 900)] * 900
    return json.dumps({"_id": "a", "n": number, "texts": texts}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "fields", [{"filter": {"n": 1}}, {"filter": {"_id": {"$in": ["a"]}, "n": 1}}], ids=["scan", "by id"]
)
def test_a_sorted_document_that_no_longer_matches_when_it_is_read_again_is_not_sent(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    read, calls = engine.read, []

    def read_again(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == (2 if "_id" in fields["filter"] else 1):  # by id, the first call finds it
            engine.write(ANY, [row("a", THEIRS)])
        return read(*args)

    monkeypatch.setattr(engine, "read", read_again)
    assert send({"find": {**fields, "sort": {"n": 1}}})["data"]["documents"] == []


def test_a_sorted_document_that_still_matches_is_sent_as_it_is_now(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfere(engine, monkeypatch, "read")
    assert send({"find": {"filter": {"n": {"$gt": 0}}, "sort": {"n": 1}}})["data"]["documents"] == [
        {"_id": "a", "n": 2}
    ]
