"""Vectors by CQL: the Data API's own column and index of them, and the documents nearest to one."""

from __future__ import annotations

import base64
import json
import math
import random
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any

import pytest

from conformance.replay import TOKEN, Client
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.errors import CollectionConflictError, DataAPIError
from langchain_kv.server.http.running import run_in_thread

from .conftest import new_collection

pytestmark = pytest.mark.slow

METRICS = ["cosine", "dot_product", "euclidean"]
DIMENSION = 8


def option(metric: str, dimension: int = DIMENSION) -> dict[str, Any]:
    return {"dimension": dimension, "metric": metric, "sourceModel": "other"}


def similarity(metric: str, one: list[float], other: list[float]) -> float:
    dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
    if metric == "dot_product":
        return (1 + dot) / 2
    if metric == "cosine":
        return (1 + dot / math.hypot(*one) / math.hypot(*other)) / 2
    return 1 / (1 + math.dist(one, other) ** 2)


def document(key: str, vector: Any, **fields: Any) -> bytes:
    return json.dumps({"_id": key, **fields, "$vector": vector}, separators=(",", ":")).encode()


def some_vector(chance: random.Random) -> list[float]:
    return [round(chance.uniform(-1, 1), 4) for _ in range(DIMENSION)]


class Filled:
    """A collection of documents with vectors, each with a field that says whether its number is even.

    Attributes:
        collection: which.
        metric: its metric.
        vectors: of each document, by its id.
    """

    def __init__(self, engine: Engine, metric: str, count: int) -> None:
        chance = random.Random(7)
        settings = {"indexing": {"allow": ["kind"]}, "vector": option(metric)}
        self.collection = new_collection(engine, settings)
        self.metric = metric
        self.vectors = {f"k{number}": some_vector(chance) for number in range(count)}
        engine.write(
            self.collection,
            [  # type: ignore[misc]  # Bodies adds the rest
                (key, document(key, vector, kind="even" if number % 2 == 0 else "odd", number=number))
                for number, (key, vector) in enumerate(self.vectors.items())
            ],
        )
        engine.write(self.collection, [("none", b'{"_id":"none"}'), ("null", b'{"_id":"null","$vector":null}')])  # type: ignore[list-item]

    def exact(self, vector: list[float], among: Any = lambda key: True) -> list[str]:
        keys = [key for key in self.vectors if among(key)]
        return sorted(keys, key=lambda key: -similarity(self.metric, self.vectors[key], vector))


@pytest.fixture(scope="module", params=METRICS)
def filled(request: pytest.FixtureRequest, shared_engine: Any) -> Iterator[Filled]:
    filled = Filled(shared_engine, request.param, 300)
    yield filled
    shared_engine.drop_collection(filled.collection)


def nearest(engine: Any, collection: CollectionName, vector: list[float], limit: int, **where: Any) -> list[Any]:
    """Return the id, the document and the similarity of what is found."""
    packed = struct.pack(f"<{len(vector)}f", *vector)
    if listed := where.pop("listed", None):
        found = engine.nearest_listed(collection, packed, listed, limit=limit, where=where.get("where", bool))
    else:
        found = engine.nearest(collection, packed, limit=limit, **where)
    return [(row[0], json.loads(row[1]), similarity) for row, similarity in found]


def ids(found: list[Any]) -> list[str]:
    return [doc_id for doc_id, *_ in found]


def test_the_nearest_come_first_with_their_similarity(filled: Filled, shared_engine: Any) -> None:
    chance = random.Random(1)
    hits = 0
    for _ in range(10):
        vector = some_vector(chance)
        found = nearest(shared_engine, filled.collection, vector, 10)
        assert len(found) == 10
        for doc_id, body, near in found:
            assert near == pytest.approx(similarity(filled.metric, filled.vectors[doc_id], vector), rel=1e-5)
            assert body["$vector"] == filled.vectors[doc_id]
        assert [near for *_, near in found] == sorted((near for *_, near in found), reverse=True)
        hits += len(set(ids(found)) & set(filled.exact(vector)[:10]))
    assert hits >= 95  # of 100: the index is not exact


def test_documents_without_a_vector_are_left_out(filled: Filled, shared_engine: Any) -> None:
    found = nearest(shared_engine, filled.collection, [1.0] * DIMENSION, 1_000)
    assert len(found) == len(set(ids(found))) == len(filled.vectors)


def test_a_field_is_asked_of_its_index(filled: Filled, shared_engine: Any) -> None:
    vector = [1.0, *[0.5] * (DIMENSION - 1)]
    found = nearest(shared_engine, filled.collection, vector, 20, listed=("kind", "even"))
    assert {body["kind"] for _, body, _ in found} == {"even"}
    wanted = filled.exact(vector, lambda key: int(key[1:]) % 2 == 0)[:20]
    assert len(set(ids(found)) & set(wanted)) >= 18
    assert nearest(shared_engine, filled.collection, vector, 5, listed=("kind", "none such")) == []


def test_among_some_ids(filled: Filled, shared_engine: Any) -> None:
    vector = [-1.0, *[0.25] * (DIMENSION - 1)]
    wanted = ["k7", "k200", "k299", "none", "null", "missing", "k7"]
    found = nearest(shared_engine, filled.collection, vector, 9, ids=wanted)
    assert ids(found) == filled.exact(vector, lambda key: key in wanted)
    assert ids(nearest(shared_engine, filled.collection, vector, 2, ids=wanted)) == ids(found)[:2]
    assert ids(nearest(shared_engine, filled.collection, vector, 9, ids=wanted, where=even)) == ["k200"]
    assert nearest(shared_engine, filled.collection, vector, 9, ids=[]) == []


def even(row: Any) -> bool:
    return json.loads(row[1]).get("kind") == "even"


@pytest.mark.parametrize("limit", [5, 20, 150, 400])
def test_only_those_that_are_wanted(filled: Filled, shared_engine: Any, limit: int) -> None:
    vector = [-1.0, *[0.25] * (DIMENSION - 1)]
    found = nearest(shared_engine, filled.collection, vector, limit, where=even)
    wanted = filled.exact(vector, lambda key: int(key[1:]) % 2 == 0)[:limit]
    assert len(found) == len(set(ids(found))) == len(wanted)
    assert {body["kind"] for _, body, _ in found} == {"even"}
    assert len(set(ids(found)) & set(wanted)) >= 0.9 * len(wanted)


@pytest.mark.parametrize("listed", [None, ("kind", "odd")])
@pytest.mark.parametrize("limit", [0, 2, 20, 500])
def test_what_is_beyond_the_reach_of_the_index_is_found_by_looking_through_all(
    filled: Filled, shared_engine: Any, monkeypatch: pytest.MonkeyPatch, listed: Any, limit: int
) -> None:
    monkeypatch.setattr("langchain_kv.engines.cassandra.nearest.ANN_MAX", 16)
    vector = [1.0, *[-0.5] * (DIMENSION - 1)]
    among = filled.exact(vector, lambda key: listed is None or int(key[1:]) % 2 == 1)
    last = among[-40:]
    found = nearest(shared_engine, filled.collection, vector, limit, listed=listed, where=lambda row: row[0] in last)
    assert sorted(ids(found)) == sorted(last[:limit])
    assert [near for *_, near in found] == sorted((near for *_, near in found), reverse=True)
    for doc_id, _, near in found:
        assert near == pytest.approx(similarity(filled.metric, filled.vectors[doc_id], vector), rel=1e-5)


def test_what_a_condition_raises_is_passed_on(filled: Filled, shared_engine: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        nearest(shared_engine, filled.collection, [1.0] * DIMENSION, 5, where=lambda row: bool(1 / 0))


def test_what_the_index_names_and_is_gone_makes_room_for_others(
    filled: Filled, shared_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "langchain_kv.engines.cassandra.nearest"
    reading = import_module(module).read_rows
    vector = [1.0, *[-0.5] * (DIMENSION - 1)]
    gone = set(filled.exact(vector)[:8])

    async def without_some(operation: Any, wanted: Any) -> Any:
        rows = await reading(operation, wanted)
        return [None if doc_id in gone else row for doc_id, row in zip(wanted, rows, strict=True)]

    monkeypatch.setattr(f"{module}.read_rows", without_some)
    found = nearest(shared_engine, filled.collection, vector, 5)
    assert len(found) == 5
    assert not gone & set(ids(found))


def test_a_collection_without_vectors_is_told(shared_engine: Any) -> None:
    collection = new_collection(shared_engine, {"indexing": {"deny": ["*"]}})
    with pytest.raises(DataAPIError, match="keeps no vectors") as caught:
        nearest(shared_engine, collection, [1.0], 1)
    assert caught.value.code == "VECTOR_SEARCH_NOT_SUPPORTED"
    shared_engine.drop_collection(collection)


# -- rows and tables --------------------------------------------------------------------------------------------------


@pytest.fixture
def kv(shared_engine: Any) -> Iterator[CollectionName]:
    collection = new_collection(shared_engine, {"indexing": {"allow": ["_id"]}, "vector": option("cosine", 3)})
    yield collection
    shared_engine.drop_collection(collection)


def stored(cql: Any, collection: CollectionName, key: str) -> tuple[Any, ...]:
    ((vector, existing, text),) = cql(
        f'SELECT query_vector_value, exist_keys, doc_json FROM "{collection.keyspace}"."{collection.name}"'
        " WHERE key = ?",
        ((1, key),),
    )
    return vector, set(existing or ()), text


def test_the_table_is_the_one_that_the_data_api_makes(kv: CollectionName, shared_engine: Any, cql: Any) -> None:
    where = f"WHERE keyspace_name = 'default_keyspace' AND table_name = '{kv.name}'"
    columns = dict(cql(f"SELECT column_name, type FROM system_schema.columns {where}"))
    ((comment,),) = cql(f"SELECT comment FROM system_schema.tables {where}")
    indexes = {name: dict(told) for name, told in cql(f"SELECT index_name, options FROM system_schema.indexes {where}")}
    assert len(columns) == 12
    assert columns["query_vector_value"] == "vector<float, 3>"
    assert len(indexes) == 9
    assert indexes[f"{kv.name}_query_vector_value"] == {
        "class_name": "StorageAttachedIndex",
        "similarity_function": "cosine",
        "target": "query_vector_value",
    }
    assert list(json.loads(comment)["collection"]["options"]) == [
        "indexing",
        "vector",
        "defaultId",
        "lexical",
        "rerank",
    ]
    assert shared_engine.settings(kv)["vector"] == option("cosine", 3)


def test_settings_that_the_data_api_wrote_in_capitals_are_read(
    kv: CollectionName, shared_engine: Any, cql: Any
) -> None:
    told = {"dimension": 3, "metric": "COSINE", "sourceModel": "OPENAI_V3_LARGE"}
    comment = json.dumps({"collection": {"name": kv.name, "schema_version": 2, "options": {"vector": told}}})
    cql(f"ALTER TABLE default_keyspace.\"{kv.name}\" WITH comment = '{comment}'")
    assert shared_engine.settings(kv)["vector"] == {**option("cosine", 3), "sourceModel": "openai-v3-large"}


@pytest.mark.parametrize("indexing", [{"allow": ["_id"]}, {"deny": ["*"]}, {"deny": ["b"]}, None])
@pytest.mark.parametrize("how", ["write", "insert", "replace"])
def test_a_vector_is_in_its_column_and_in_the_document(shared_engine: Any, cql: Any, indexing: Any, how: str) -> None:
    settings = {"indexing": indexing} if indexing else {}
    collection = new_collection(shared_engine, {**settings, "vector": option("cosine", 3)})
    packed = base64.b64encode(struct.pack(">3f", 0.25, -1, 0.1)).decode()
    for given in ([0.25, -1, 0.1], {"$binary": packed}):
        body = document("a", given, b=1)
        if how == "replace":
            shared_engine.write(collection, [("a", document("a", [1, 2, 3]))])
        if how == "write":
            shared_engine.write(collection, [("a", body)])
        else:
            shared_engine.modify(collection, ["a"], lambda doc_id, _, new=body: new)
        vector, existing, text = stored(cql, collection, "a")
        assert struct.pack("3f", *vector) == struct.pack("3f", 0.25, -1, 0.1)
        assert "$vector" in existing
        assert ("b" in existing) is (indexing is None)
        assert ("_id" in existing) is (indexing != {"deny": ["*"]})
        assert text == body.decode()
        assert shared_engine.read(collection, ["a"]) == [body]
        shared_engine.delete(collection, ["a"])
    shared_engine.drop_collection(collection)


def test_a_vector_that_is_taken_away_is_found_no_more(kv: CollectionName, shared_engine: Any, cql: Any) -> None:
    for number, without in enumerate((b'{"_id":"a","n":1}', b'{"_id":"a","$vector":null}', None)):
        shared_engine.write(kv, [("a", document("a", [1, 2, 3])), ("b", document("b", [3, 2, 1]))])
        assert ids(nearest(shared_engine, kv, [1, 2, 3], 9)) == ["a", "b"]
        shared_engine.modify(kv, ["a"], lambda doc_id, _, new=without: new)
        assert ids(nearest(shared_engine, kv, [1, 2, 3], 9)) == ["b"], number
        if without is not None:
            vector, existing, _ = stored(cql, kv, "a")
            assert vector is None
            assert existing == {"_id"}


def test_a_vector_that_changes_is_found_at_its_new_place(kv: CollectionName, shared_engine: Any) -> None:
    shared_engine.write(kv, [("a", document("a", [1, 0, 0])), ("b", document("b", [0, 1, 0]))])
    shared_engine.write(kv, [("a", document("a", [0, 1, 0.01]))])
    found = nearest(shared_engine, kv, [0, 1, 0.01], 9)
    assert ids(found) == ["a", "b"]
    assert found[0][2] == pytest.approx(1)


BAD: dict[str, Any] = {
    "short": [1, 2],
    "long": [1, 2, 3, 4],
    "empty": [],
    "text": "abc",
    "texts": ["1", "2", "3"],
    "object": {"a": "b"},
    "binary of a part": {"$binary": base64.b64encode(b"123").decode()},
    "binary of two": {"$binary": base64.b64encode(struct.pack(">2f", 1, 2)).decode()},
    "no base64": {"$binary": "!!!!"},
    "zero": [0, 0, 0],
    "too short to have a direction": [1e-30, 0, 0],
    "too large": [1e18, 0, 0],
    "beyond float32": [1e39, 0, 0],
    "not a number": {"$binary": base64.b64encode(struct.pack(">3f", math.nan, 1, 1)).decode()},
}


@contextmanager
def refused(match: str) -> Iterator[None]:
    with pytest.raises(DataAPIError, match=match) as caught:
        yield
    assert caught.value.code == "SHRED_BAD_VECTOR_VALUE"


@pytest.mark.parametrize("kind", BAD)
def test_what_no_index_takes_is_refused_by_name_and_nothing_is_written(
    kv: CollectionName, shared_engine: Any, kind: str
) -> None:
    with refused("vector of 'bad'"):
        shared_engine.write(kv, [("good", document("good", [1, 2, 3])), ("bad", document("bad", BAD[kind]))])
    with refused("vector of 'bad'"):
        shared_engine.modify(kv, ["bad"], lambda doc_id, _: document("bad", BAD[kind]))
    assert shared_engine.count(kv) == 0
    if isinstance(BAD[kind], list) and kind not in ("texts", "beyond float32"):
        with refused("vector looked for"):
            nearest(shared_engine, kv, BAD[kind], 1)


def test_the_largest_numbers_that_are_let_in_are_taken(shared_engine: Any) -> None:
    for metric in METRICS:
        collection = new_collection(shared_engine, {"indexing": {"deny": ["*"]}, "vector": option(metric, 3)})
        bodies = [("a", document("a", [1e17, -1e17, 1e17])), ("b", document("b", [1.1e-19, 0, 0]))]
        shared_engine.write(collection, bodies)
        assert len(nearest(shared_engine, collection, [1e17, -1e17, 1e17], 9)) == 2
        shared_engine.drop_collection(collection)


def test_a_collection_whose_vectors_a_service_makes_is_not_written(
    kv: CollectionName, shared_engine: Any, cql: Any
) -> None:
    told = {**option("cosine", 3), "service": {"provider": "openai", "modelName": "m"}}
    comment = json.dumps({"collection": {"name": kv.name, "schema_version": 2, "options": {"vector": told}}})
    cql(f"ALTER TABLE default_keyspace.\"{kv.name}\" WITH comment = '{comment}'")
    shared_engine.rows.__dict__["_tables"].clear()
    with pytest.raises(CollectionConflictError, match=r"vector\.service"):
        shared_engine.write(kv, [("a", document("a", [1, 2, 3]))])


def test_a_table_without_the_column_that_it_speaks_of_is_refused(shared_engine: Any, cql: Any) -> None:
    collection = new_collection(shared_engine, {"indexing": {"deny": ["*"]}})
    comment = json.dumps(
        {"collection": {"name": collection.name, "schema_version": 2, "options": {"vector": option("cosine")}}}
    )
    cql(f"ALTER TABLE default_keyspace.\"{collection.name}\" WITH comment = '{comment}'")
    shared_engine.rows.__dict__["_tables"].clear()
    with pytest.raises(DataAPIError, match="query_vector_value") as caught:
        shared_engine.read(collection, ["a"])
    assert caught.value.code == "CORRUPTED_COLLECTION_SCHEMA"
    cql(f'DROP TABLE default_keyspace."{collection.name}"')


# -- over HTTP -------------------------------------------------------------------------------------------------------


def test_the_local_server_searches_by_vector_on_a_cluster(shared_engine: Any, cql: Any) -> None:
    name = f"by_server_{random.getrandbits(40):x}"
    with run_in_thread(shared_engine.rows, TOKEN) as url, closing(Client(url)) as client:

        def command(sent: dict[str, Any], path: str = f"/v1/default_keyspace/{name}") -> Any:
            return client.command(path, json.dumps(sent).encode()).json

        options = {"vector": {"dimension": 2}, "indexing": {"allow": ["kind"]}}
        made = command({"createCollection": {"name": name, "options": options}}, "/v1/default_keyspace")
        assert made == {"status": {"ok": 1}}
        documents = [
            {"_id": f"k{number}", "kind": "even" if number % 2 == 0 else "odd", "$vector": [math.cos(at), math.sin(at)]}
            for number in range(60)
            for at in [number / 20]
        ]
        command({"insertMany": {"documents": [*documents[:50], {"_id": "without"}]}})
        command({"insertMany": {"documents": documents[50:]}})

        def find(filter_: Any, **options: Any) -> Any:
            sort = {"$vector": [1, 0]}
            return command({"find": {"filter": filter_, "sort": sort, "options": options}})["data"]["documents"]

        near = find({}, limit=3, includeSimilarity=True)
        assert [found["_id"] for found in near] == ["k0", "k1", "k2"]
        assert near[0] == {"_id": "k0", "kind": "even", "$similarity": 1}
        assert near[1]["$similarity"] == pytest.approx((1 + math.cos(1 / 20)) / 2, rel=1e-6)
        assert [found["_id"] for found in find({"kind": "odd"}, limit=3)] == ["k1", "k3", "k5"]
        assert [found["_id"] for found in find({"_id": {"$in": ["k9", "k4", "without"]}})] == ["k4", "k9"]
        assert len(find({})) == 60

        command({"updateOne": {"filter": {"_id": "k59"}, "update": {"$set": {"$vector": [1, 0.001]}}}})
        command({"updateOne": {"filter": {"_id": "k0"}, "update": {"$unset": {"$vector": ""}}}})
        assert [found["_id"] for found in find({}, limit=2)] == ["k59", "k1"]
        gone = command({"findOneAndDelete": {"filter": {"kind": "odd"}, "sort": {"$vector": [1, 0]}}})
        assert gone["data"]["document"]["_id"] == "k59"
        assert [found["_id"] for found in find({}, limit=1)] == ["k1"]

        zero = command({"insertOne": {"document": {"_id": "zero", "$vector": [0, 0]}}})
        assert zero["errors"][0]["errorCode"] == "INVALID_DATABASE_QUERY"
        explained = command({"findCollections": {"options": {"explain": True}}}, "/v1/default_keyspace")
        (told,) = [each for each in explained["status"]["collections"] if each["name"] == name]
        assert told["options"]["vector"] == {"dimension": 2, "metric": "cosine", "sourceModel": "other"}
        command({"deleteCollection": {"name": name}}, "/v1/default_keyspace")
