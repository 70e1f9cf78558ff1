"""The same random commands of the Data API on every engine give the same answers."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.server.commands.table import answer

COMMANDS = int(os.environ.get("LCKV_MODEL_COMMANDS", "5000"))
PATHS = ["_id", "a", "a.b", "tags", "tags.0", "n", "value"]


def value(chance: random.Random, depth: int = 0) -> Any:
    kinds = ["number", "text", "flag", "null", "date"] + ["list", "object"] * (depth < 2)
    match chance.choice(kinds):
        case "number":
            return chance.choice([0, 1, 2, -1, 1.5, 2.0, 10**20])
        case "text":
            return chance.choice(["", "a", "b", "\u00e9", "z\U0001f600"])
        case "flag":
            return chance.random() < 0.5
        case "null":
            return None
        case "date":
            return {"$date": chance.randrange(3)}
        case "list":
            return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
        case _:
            return {name: value(chance, depth + 1) for name in chance.sample(["a", "b", "n"], chance.randrange(3))}


def an_id(chance: random.Random) -> Any:
    return chance.choice([*(f"k{n}" for n in range(60)), 1, 2.5, True, None, {"$date": 1}])


def document(chance: random.Random) -> dict[str, Any]:
    fields = {name: value(chance) for name in chance.sample(["a", "tags", "n", "value"], chance.randrange(5))}
    return {"_id": an_id(chance), **fields}


def condition(chance: random.Random) -> dict[str, Any]:
    choice = chance.randrange(8)
    if choice == 0:
        return {}
    if choice < 4:
        return {"_id": an_id(chance)} if choice < 3 else {"_id": {"$in": [an_id(chance) for _ in range(5)]}}
    path = chance.choice(PATHS[1:])
    if choice == 4:
        return {path: value(chance)}
    if choice == 5:
        return {path: {chance.choice(["$gt", "$gte", "$lt", "$lte"]): chance.choice([1, "a", {"$date": 1}])}}
    if choice == 6:
        return {path: {"$exists": chance.random() < 0.5}}
    return {chance.choice(["$and", "$or"]): [{path: {"$ne": value(chance, 2)}}, {"n": {"$in": [1, 2, "a"]}}]}


def update(chance: random.Random) -> dict[str, Any]:
    path = chance.choice(PATHS[1:])
    operations = [("$set", value(chance)), ("$unset", ""), ("$inc", 1), ("$mul", 2), ("$min", 1), ("$max", 2)]
    operations += [("$push", value(chance)), ("$pop", 1), ("$addToSet", value(chance)), ("$rename", "other")]
    operator, operand = chance.choice(operations)
    return {operator: {path: operand}}


def command(chance: random.Random) -> dict[str, Any]:
    # Sorts by _id leave nothing to the order in which an engine keeps documents.
    sort = {chance.choice(["n", "a"]): chance.choice([1, -1]), "_id": 1}
    one = {"filter": condition(chance), "sort": sort}
    # An id that the server makes up differs from engine to engine, and with it the order of documents.
    names_id = not isinstance(one["filter"].get("_id", {}), dict)
    flags = {"upsert": names_id and chance.random() < 0.5}
    match chance.randrange(12):
        case 0 | 1:
            return {"insertOne": {"document": document(chance)}}
        case 2:
            documents = [document(chance) for _ in range(chance.randrange(1, 8))]
            return {"insertMany": {"documents": documents, "options": {"ordered": True}}}
        case 3 | 4:
            return {"find": {"filter": condition(chance)}}
        case 5:
            return {"find": {**one, "options": {"limit": 7, "skip": chance.randrange(3)}}}
        case 6:
            return {"findOneAndReplace": {**one, "replacement": {"value": value(chance)}, "options": flags}}
        case 7:
            return {"updateOne": {**one, "update": update(chance), "options": flags}}
        case 8:
            return {"findOneAndUpdate": {**one, "update": update(chance), "projection": {"n": True}}}
        case 9:
            return {"updateMany": {"filter": condition(chance), "update": update(chance)}}
        case 10:
            return {"deleteMany": {"filter": {**condition(chance), "n": chance.choice([1, 2])}}}
        case _:
            return {"countDocuments": {"filter": condition(chance)}}


def comparable(reply: Any) -> Any:
    """Return the reply without the ids of its errors."""
    if isinstance(reply, dict):
        return {name: comparable(below) for name, below in reply.items() if name != "id"}
    return [comparable(below) for below in reply] if isinstance(reply, list) else reply


@pytest.mark.slow
def test_memory_and_sqlite_answer_random_commands_alike(tmp_path: Path) -> None:
    seed = int(os.environ.get("LCKV_MODEL_SEED", random.randrange(2**32)))
    print("LCKV_MODEL_SEED", seed)
    chance = random.Random(seed)
    engines: list[Engine] = [MemoryEngine(), SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")]
    for engine in engines:
        engine.create_collection(CollectionName("default_keyspace", "c"), {})
    succeeded = 0

    async def run() -> None:
        nonlocal succeeded
        for number in range(COMMANDS):
            sent = command(chance)
            body = json.dumps(sent).encode()
            replies = [await answer(engine, ("default_keyspace", "c"), body) for engine in engines]
            first, second = ((status, comparable(json.loads(text))) for status, text in replies)
            assert first == second, (seed, number, sent)
            succeeded += "errors" not in first[1]

    asyncio.run(run())
    for engine in engines:
        engine.close()
    assert succeeded > COMMANDS / 2, "most of the commands are meant to be carried out"
