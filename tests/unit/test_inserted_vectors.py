"""Vectors of inserts are read by a way of their own: what is kept, sent and refused is as if there were none."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import struct
from array import array
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from langchain_kv.engines import vectors
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.errors import DataAPIError
from langchain_kv.server.commands import table
from langchain_kv.server.commands.table import answer
from langchain_kv.server.documents.inserted import Numbers, read_inserted
from langchain_kv.values.json_text import NESTING_MAX, read, write

COLLECTION = CollectionName("default_keyspace", "v")
_OWN_IDS = rb'"id":"[-0-9a-f]{36}"'  # each error has one
Outcome = tuple[int, bytes, list[bytes]]
NUMBERS = [
    "0.25",
    "-0.25",
    "7",
    "-7",
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1.0",
    "10",
    "10.50",
    "100.0",
    "1e-7",
    "1E-7",
    "1e5",
    "-2.50e10",
    "1.2e+3",
    "0e5",
    "0.000001",
    "-0.000001",
    "0.0000001",
    "0.00000012",
    "10.000000123",
    "123456789012345678901234567890",
    "3.4e38",
]


def carried_out(body: bytes, *, has_vectors: bool = True) -> Outcome:
    """Return the answer to an insert, and what is kept."""
    engine = MemoryEngine()
    engine.create_collection(COLLECTION, {"vector": {"dimension": 3, "metric": "cosine"}} if has_vectors else {})
    status, reply = asyncio.run(answer(engine, tuple(COLLECTION), body))
    kept = [row[1] for row in engine.read(COLLECTION, ["1", "2", "3"]) if row is not None]
    engine.close()
    return status, re.sub(_OWN_IDS, b"", reply), kept


def plainly(body: bytes, monkeypatch: pytest.MonkeyPatch, *, has_vectors: bool = True) -> Outcome:
    """Return the same where every body is read as those of other commands are."""
    with monkeypatch.context() as patch:
        patch.setattr(table, "read_inserted", read)
        return carried_out(body, has_vectors=has_vectors)


def insert_of(vector: str, rest: str = "") -> bytes:
    return f'{{"insertOne": {{"document": {{"_id": "1", "$vector": {vector}{rest}}}}}}}'.encode()


def vector_in(body: bytes) -> Any:
    return read_inserted(body)["insertOne"]["document"]["$vector"]


def test_no_number_of_an_inserted_vector_becomes_a_decimal() -> None:
    vector = vector_in(insert_of("[0.1, 2, -3.50e2]"))
    assert (type(vector), vector, vector.text) == (Numbers, [0.1, 2.0, -350.0], b"[0.1,2,-3.5E+2]")
    assert {type(number) for number in vector} == {float}
    many = b'\n{ "insertMany" :{"documents":[{"$vector":[1.5]},{"a":1.5,"$vector" : [ 2.5 ] }]}}'
    first, second = read_inserted(many)["insertMany"]["documents"]
    assert (first["$vector"].text, second["$vector"].text, type(second["a"])) == (b"[1.5]", b"[2.5]", Decimal)


@pytest.mark.parametrize("spelling", NUMBERS)
def test_every_spelling_is_kept_as_that_of_any_number(spelling: str) -> None:
    for numbers in ([spelling], [spelling, "0.5"], ["0.5", spelling, "0.5"], [spelling] * 3):
        text = f"[{' , '.join(numbers)}]"
        vector = vector_in(insert_of(text))
        assert (type(vector), vector.text) == (Numbers, write(read(text.encode())))
        assert vector == [float(one) for one in numbers]


def test_random_vectors_are_kept_and_answered_as_if_read_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(2**32)
    chosen = random.Random(seed)
    for _ in range(300):
        others = [repr(chosen.uniform(-1, 1) * 10 ** chosen.randint(-9, 9)) for _ in range(9)]
        numbers = chosen.sample([*NUMBERS, *others], chosen.choice((2, 3, 3, 3)))
        body = insert_of(f"[{chosen.choice((',', ', ')).join(numbers)}]", ', "text": "a"')
        assert carried_out(body) == plainly(body, monkeypatch), (seed, body)


@pytest.mark.parametrize(
    "body",
    [
        insert_of("[1, 2]"),
        insert_of("[]"),
        insert_of("[ ]"),
        insert_of("[1, 2, 1e39]"),
        insert_of("[1, 2, 1e400]"),
        insert_of("[1, 2, 1e99999999999]"),
        insert_of(f"[1, 2, {'1' * 101}]"),
        insert_of(f"[1, 2, 0.{'1' * 100}]"),
        insert_of(f"[1, 2, 0.{'1' * 99}]"),
        insert_of("[1, 2, 03]"),
        insert_of("[1, 2 3]"),
        insert_of("[1, 2, 3"),
        insert_of("[1, 2, [3]]"),
        insert_of('[1, 2, "3"]'),
        insert_of('[1, 2, "]"]'),
        insert_of("[1, 2, true]"),
        insert_of("[1, 2, null]"),
        insert_of("[1, 2, NaN]"),
        insert_of("NaN"),
        insert_of("null"),
        insert_of('{"$binary": [1, 2, 3]}'),
        insert_of("[1, 2, 3]", ', "a": NaN'),
        insert_of("[1, 2, 3]", ', "a": -Infinity'),
        insert_of("[1, 2, 3]", ', "a": Infinity'),
        insert_of("[1, 2, 3]", ', "a": "NaN"'),
        insert_of("[1, 2, 3]", ', "a": "\\"$vector\\": [1, 2, 3], "'),
        insert_of("[1, 2, 3]", ', "a\\"$vector": [100.0]'),
        insert_of("[1, 2, 3]", ', "a\\\\"$vector": [100.0]'),
        insert_of("[1, 2, 3]", ', "a": {"$vector": [1, 2, 3]}'),
        insert_of("[1, 2, 3]", ', "a": ["$vector", [1, 2, 3]]'),
        insert_of("[1, 2, 3]", ', "$vector": [1, 2, 3]'),
        insert_of("[1, 2, 3]", ', "a": '),
        insert_of("[1, 2, 3]", ', "a": "é"'),
        insert_of("[1, 2, 3]", ', "a": "é"').decode().encode("latin-1"),
        insert_of("[1, 2, 3]") + b', "$vector": [1, 2, 3]',
        insert_of("[1, 2, 3]", ', "a": ' + "[" * (NESTING_MAX - 3) + "]" * (NESTING_MAX - 3)),
        insert_of("[1, 2, 3]", ', "a": ' + '{"$vector":' * (NESTING_MAX - 3) + "[1]" + "}" * (NESTING_MAX - 3)),
        b'{"insertOne": {"document": {"_id": {"$vector": [1.50]}}}}',
        b'{"insertOne": {"document": [{"$vector": [1.50]}]}}',
        b'{"insertOne": {"document": {"_id": "1"}, "options": {"$vector": [1.50]}}}',
        b'{"insertOne": {"$vector": [1, 2, 3]}}',
        b'{"insertOne": {"document": {"_id": "1"}}, "$vector": [1, 2, 3]}',
        b'{"insertMany": {"documents": {"$vector": [1, 2, 3]}}}',
        b'{"insertMany": {"documents": [{"_id": "1", "$vector": [1, 2, 3.0]}, {"_id": "2", "$vector": [1, 2]},'
        b' {"_id": "3", "$vector": [4, 5.50, 6]}], "options": {"returnDocumentResponses": true}}}',
        b'\xef\xbb\xbf{"insertOne": {"document": {"_id": "1", "$vector": [1, 2, 3.0]}}}',
    ],
)
def test_whatever_is_said_of_a_body_is_said_of_it_as_it_came(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for has_vectors in (True, False):
        assert carried_out(body, has_vectors=has_vectors) == plainly(body, monkeypatch, has_vectors=has_vectors)


def test_other_commands_are_read_as_ever() -> None:
    body = b'{"findOneAndReplace": {"replacement": {"$vector": [1.0, 2.5]}}}'
    vector = read_inserted(body)["findOneAndReplace"]["replacement"]["$vector"]
    assert (vector, type(vector), type(vector[1])) == ([1, Decimal("2.5")], list, Decimal)
    with pytest.raises(DataAPIError, match="NaN is not a JSON value"):
        read_inserted(b'{"find": {"sort": {"$vector": [NaN]}}}')


# -- what is found by -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling", [*(each for each in NUMBERS if float(each) < 1e17), "12345678901234567", "9.9e16", "binary"]
)
def test_the_vector_that_is_found_is_that_of_the_text_that_is_kept(spelling: str, tmp_path: Path) -> None:
    vector = '{"$binary": "PczMzUAAAADBIAAA"}' if spelling == "binary" else f"[{spelling}, 0.1, {spelling}]"
    body = insert_of(vector, ', "text": "a"')
    engine = SQLiteEngine(str(tmp_path / "kv.db"))
    engine.create_collection(COLLECTION, {"vector": {"dimension": 3, "metric": "cosine"}})
    assert b"errors" not in asyncio.run(answer(engine, tuple(COLLECTION), body))[1]
    (row,) = engine.read(COLLECTION, ["1"])
    engine.close()
    with closing(sqlite3.connect(tmp_path / "kv.db")) as connection:
        kept = connection.execute("SELECT vector FROM vectors_1").fetchone()[0]
    assert row is not None
    assert kept == vectors.vector_of(row[1]) != b""


def test_a_vector_is_handed_over_once_and_for_its_own_body_only() -> None:
    body, other = b'{"$vector":[1,2]}', b'{"$vector":[1,3]}'
    vectors.hand_over(body, b"made of it")
    assert vectors.vector_of(other) == struct.pack("<2f", 1, 3)
    assert vectors.vector_of(bytes(bytearray(body))) == b"made of it"
    assert vectors.vector_of(body) == struct.pack("<2f", 1, 2)


def test_few_vectors_wait_for_bodies_that_are_never_stored() -> None:
    for number in range(1_000):
        vectors.hand_over(b'{"$vector":[%d]}' % number, b"1234")
    assert len(vectors._handed) <= 128
    assert vectors.vector_of(b'{"$vector":[999]}') == b"1234"
    vectors._handed.clear()


def test_refused_inserts_of_large_documents_leave_little_behind() -> None:
    engine = MemoryEngine()
    engine.create_collection(COLLECTION, {"vector": {"dimension": 3, "metric": "cosine"}, "indexing": {"deny": ["*"]}})
    for number in range(20):
        body = insert_of("[1, 2, 3]", f', "text": "{number}{"x" * 1_000_000}"')
        assert (b"DOCUMENT_ALREADY_EXISTS" in asyncio.run(answer(engine, tuple(COLLECTION), body))[1]) == (number > 0)
    assert len(engine.nearest(COLLECTION, vectors.packed([1, 2, 3]), limit=9)) == 1
    engine.close()
    waiting_bytes = sum(map(len, vectors._handed))
    assert waiting_bytes < 16 * 1024**2


@pytest.mark.parametrize(
    "numbers",
    [
        [0.1, 10**400],
        [Decimal("0.1"), 10**400],
        [Decimal("0.1"), 10**39],
        [10**39],
        [1e39],
        [-1e39, 0.1],
        [3.4028235677973366e38],
        [Decimal("1e400")],
        [float("inf")],
        [float("nan"), 1],
        [float("inf"), float("-inf")],
    ],
)
def test_numbers_that_are_no_float32_are_refused(numbers: list[Any]) -> None:
    with pytest.raises(ValueError, match="beyond the range of float32"):
        vectors.packed(numbers)


@pytest.mark.parametrize("numbers", [[True], [None], ["1"], [[1]], [0.5, {}]])
def test_what_is_no_number_is_no_element_of_a_vector(numbers: list[Any]) -> None:
    with pytest.raises(ValueError, match="no number"):
        vectors.packed(numbers)


def test_every_finite_number_is_rounded_to_a_float32() -> None:
    numbers = [0, 1, -7, 2**24 + 1, 10**30, 0.1, Decimal("0.1"), 3.4028234663852886e38, 1e-46, Decimal("1e-400")]
    floats = [float(number) for number in numbers]
    assert vectors.packed(numbers) == array("f", floats).tobytes()
    assert vectors.packed([0.1] * 1536) == array("f", [0.1] * 1536).tobytes()
