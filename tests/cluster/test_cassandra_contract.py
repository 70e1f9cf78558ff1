"""What tests/contract/test_engine_contract.py asks of every engine, as far as a cluster can promise it.

Different here: bodies are documents with their ``_id``, and neither ``ordered`` nor ``atomic_batches`` is promised.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from bodies import row
from engine_promises import check_batches, check_order
from langchain_kv.engines.base import KEEP, CollectionName, DocId, Engine
from langchain_kv.engines.pages import is_last
from langchain_kv.errors import InvalidKeyError, UnknownCollectionError, UnknownKeyspaceError, UsageError

pytestmark = pytest.mark.slow

ID_ONLY = {"indexing": {"allow": ["_id"]}}
LONE = "a\ud800"


@pytest.fixture
def engine(shared_engine: Any) -> Any:
    return shared_engine


def doc(doc_id: DocId, value: Any = 1) -> bytes:
    """Return a document with this identity, as the Data API spells it."""
    text = json.dumps(doc_id, ensure_ascii=False) if isinstance(doc_id, str) else doc_id[1:].decode()
    if isinstance(doc_id, bytes) and doc_id[0] == 5:
        text = f'{{"$date":{text}}}'
    return f'{{"_id":{text},"value":{json.dumps(value, ensure_ascii=False)}}}'.encode()


def put(engine: Engine, kv: CollectionName, **values: Any) -> None:
    engine.write(kv, [(key, doc(key, value)) for key, value in values.items()])


def everything(engine: Engine, kv: CollectionName) -> dict[DocId, Any]:
    return {doc_id: json.loads(body)["value"] for doc_id, body in engine.scan(kv, limit=100_000)}


def test_reads_in_the_order_of_the_ids_with_repeats_and_gaps(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1, b=2)
    assert engine.read(kv, ["b", "x", "a", "b"]) == [doc("b", 2), None, doc("a", 1), doc("b", 2)]
    assert engine.read(kv, ["a"]) == [doc("a", 1)]
    assert engine.read(kv, ["x"]) == [None]
    assert engine.read(kv, []) == []


@pytest.mark.parametrize("count", [49, 50, 51, 1_234])
def test_batches_of_any_size(engine: Engine, kv: CollectionName, count: int) -> None:
    documents = [(f"{number:05}", doc(f"{number:05}", number)) for number in range(count)]
    engine.write(kv, documents)
    ids = [doc_id for doc_id, _ in reversed(documents)]
    assert engine.read(kv, ids) == [body for _, body in reversed(documents)]
    assert engine.count(kv) == count
    assert engine.delete(kv, ids) == count
    assert engine.count(kv) == 0


def test_the_largest_documents_come_back(engine: Engine, kv: CollectionName) -> None:
    bodies = {key: doc(key, "x" * 3_999_900) for key in ("a", "b")}
    engine.write(kv, list(bodies.items()))
    assert engine.read(kv, ["a", "b"]) == list(bodies.values())


def test_last_of_repeated_ids_wins_over_what_was_there(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=0)
    engine.write(kv, [("a", doc("a", 1)), ("b", doc("b", 2)), ("a", doc("a", 3))])
    assert everything(engine, kv) == {"a": 3, "b": 2}


OTHERS: list[DocId] = [b"\x025", b"\x025.5", b"\x021E+2", b"\x03true", b"\x03false", b"\x04null", b"\x051700000000000"]


def test_text_and_other_ids_are_different_documents(engine: Engine, kv: CollectionName) -> None:
    ids = [*OTHERS, "5", "true", "null"]
    engine.write(kv, [(doc_id, doc(doc_id, number)) for number, doc_id in enumerate(ids)])
    assert engine.read(kv, ids) == [doc(doc_id, number) for number, doc_id in enumerate(ids)]
    assert set(engine.scan_ids(kv, limit=100)) == set(ids)
    assert engine.delete(kv, [b"\x025"]) == 1
    assert engine.read(kv, ["5", b"\x025"]) == [doc("5", ids.index("5")), None]


def test_what_no_row_can_have_as_its_key_is_absent(engine: Engine, kv: CollectionName) -> None:
    assert engine.read(kv, [b"", b"\0", b"\x02\xff", b"\x01a"]) == [None] * 4
    assert engine.delete(kv, [b"", b"\xff5"]) == 0
    with pytest.raises(InvalidKeyError):
        engine.write(kv, [(b"\x09a", b'{"_id":"a"}')])


@pytest.mark.parametrize(
    "doc_id", ["a\0b", "%_*[", "'\"", "\\", "\u00e9", "e\u0301", "\U0001f600", " ", "5", "x" * 8_000]
)
def test_any_text_is_an_id(engine: Engine, kv: CollectionName, doc_id: str) -> None:
    body = json.dumps({"_id": doc_id, "value": 1}, separators=(",", ":")).encode()
    engine.write(kv, [(doc_id, body), ("a", doc("a"))])
    assert json.loads(engine.read(kv, [doc_id])[0] or b"") == {"_id": doc_id, "value": 1}
    assert engine.scan_ids(kv, prefix=doc_id, limit=9) == [doc_id]
    assert engine.delete(kv, [doc_id]) == 1
    assert engine.read(kv, [doc_id]) == [None]


def test_delete_counts_what_existed(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1, b=2)
    assert engine.delete(kv, ["a", "a", "x"]) == 1
    assert engine.delete(kv, []) == 0
    assert everything(engine, kv) == {"b": 2}


def test_empty_batches_change_nothing(engine: Engine, kv: CollectionName) -> None:
    engine.write(kv, [])
    engine.modify(kv, [], lambda doc_id, body: b"x")
    assert everything(engine, kv) == {}


def test_a_batch_is_read_as_whole_as_the_engine_promises(engine: Engine, kv: CollectionName) -> None:
    check_batches(engine, kv, ids=60, batches=10)
    assert not engine.atomic_batches


@pytest.mark.parametrize("many", [1, 70])
def test_lone_surrogates_are_refused_and_nothing_is_written(engine: Engine, kv: CollectionName, many: int) -> None:
    ids = [f"{number}" for number in range(many)] + [LONE]
    calls = [
        lambda: engine.write(kv, [(doc_id, doc(doc_id.replace("\ud800", ""))) for doc_id in ids]),
        lambda: engine.read(kv, ids),
        lambda: engine.delete(kv, ids),
        lambda: engine.modify(kv, ids, lambda doc_id, body: b"x"),
        lambda: engine.scan_ids(kv, prefix=LONE, limit=1),
        lambda: engine.scan(kv, after=LONE, limit=1),
    ]
    for call in calls:
        with pytest.raises(InvalidKeyError, match="ud800"):
            call()
    assert everything(engine, kv) == {}


# -- modify -----------------------------------------------------------------------------------------------------------


def test_modify_inserts_replaces_removes_and_keeps(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, replace=1, remove=2, keep=3)
    seen = {}

    def change(doc_id: DocId, body: bytes | None) -> Any:
        seen[doc_id] = body
        new = {"insert": doc("insert", "new"), "replace": doc("replace", "newer"), "keep": KEEP}
        return new.get(str(doc_id))

    engine.modify(kv, ["insert", "replace", "remove", "keep", "absent"], change)
    assert seen == {
        "insert": None,
        "replace": doc("replace", 1),
        "remove": doc("remove", 2),
        "keep": doc("keep", 3),
        "absent": None,
    }
    assert everything(engine, kv) == {"insert": "new", "keep": 3, "replace": "newer"}


def test_modify_sees_its_own_earlier_changes(engine: Engine, kv: CollectionName) -> None:
    def count_up(doc_id: DocId, body: bytes | None) -> bytes:
        return doc(doc_id, (json.loads(body)["value"] if body else 0) + 1)

    engine.modify(kv, ["a", *[f"x{number}" for number in range(60)], "a", "a"], count_up)
    assert engine.read(kv, ["a", "x7"]) == [doc("a", 3), doc("x7", 1)]
    steps = iter([None, doc("a", "again")])
    engine.modify(kv, ["a", "a"], lambda doc_id, body: next(steps))
    assert engine.read(kv, ["a"]) == [doc("a", "again")]


def test_an_exception_in_a_change_is_passed_on_before_anything_is_written(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1)

    def change(doc_id: DocId, body: bytes | None) -> bytes:
        if doc_id == "last":
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "mine")
        return doc(doc_id, "changed")

    with pytest.raises(UnicodeEncodeError, match="mine"):
        engine.modify(kv, ["a", *[f"n{number}" for number in range(70)], "last"], change)
    assert everything(engine, kv) == {"a": 1}


async def test_a_change_of_a_coroutine_may_look_at_the_engine(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1, b=2)
    await engine.amodify(kv, ["a"], lambda doc_id, _: row(doc_id, engine.read(kv, ["b"])[0].replace(b'"b"', b'"a"')))
    assert engine.read(kv, ["a"]) == [doc("a", 2)]


def test_a_change_of_a_plain_call_may_not_as_it_runs_on_the_loop_thread(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1)
    with pytest.raises(UsageError, match="async method"):
        engine.modify(kv, ["a"], lambda doc_id, _: engine.read(kv, ["a"])[0])
    assert engine.read(kv, ["a"]) == [doc("a", 1)]


def test_modify_is_isolated_from_other_threads(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, n=0)
    failures: list[BaseException] = []

    def count_up() -> None:
        try:
            for _ in range(10):
                engine.modify(kv, ["n"], lambda doc_id, body: doc("n", json.loads(body or b"")["value"] + 1))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count_up) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert engine.read(kv, ["n"]) == [doc("n", 60)]


# -- scanning ---------------------------------------------------------------------------------------------------------

IDS: list[DocId] = ["A", "a", "a\0", "ab", "b", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", *OTHERS]


@pytest.mark.parametrize("prefix", ["", "k"])
@pytest.mark.parametrize("size_bytes", [1, 500, 5_000, 1_000_000])
def test_pages_end_by_their_bytes_and_join_to_the_whole(
    engine: Engine, kv: CollectionName, size_bytes: int, prefix: str
) -> None:
    ids = [f"k{number:03}" for number in range(120)]
    engine.write(kv, [(doc_id, doc(doc_id, "x" * (1 + 5 * number % 700))) for number, doc_id in enumerate(ids)])
    found: list[DocId] = []
    page: list[tuple[DocId, bytes]] = []
    while not found or not is_last(page, 500, size_bytes):
        after = found[-1] if found else None
        page = engine.scan(kv, after=after, prefix=prefix, limit=500, size_bytes=size_bytes)
        assert sum(len(body) for _, body in page[:-1]) < size_bytes
        found += [doc_id for doc_id, _ in page]
    assert sorted(map(str, found)) == ids


def test_scans_go_in_the_order_that_the_engine_promises(engine: Engine, kv: CollectionName) -> None:
    engine.write(kv, [(doc_id, doc(doc_id)) for doc_id in IDS])
    check_order(engine, kv, IDS)
    assert not engine.ordered


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a", {"a", "a\0", "ab"}),
        ("ab", {"ab"}),
        ("zz", set()),
        ("\ud7ff", {"\ud7ff"}),
        ("\U0010ffff", {"\U0010ffff"}),
        ("5", set()),
    ],
)
def test_prefixes(engine: Engine, kv: CollectionName, prefix: str, expected: set[str]) -> None:
    engine.write(kv, [(doc_id, doc(doc_id)) for doc_id in IDS])
    assert set(engine.scan_ids(kv, prefix=prefix, limit=100)) == expected
    assert {doc_id for doc_id, _ in engine.scan(kv, prefix=prefix, limit=100)} == expected


def test_a_scan_goes_on_behind_an_id_that_is_gone(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, **{f"k{number}": number for number in range(50)})
    ids = engine.scan_ids(kv, limit=100)
    engine.delete(kv, [ids[19]])
    assert engine.scan_ids(kv, after=ids[19], limit=100) == ids[20:]
    assert engine.scan_ids(kv, after=ids[18], prefix="k", limit=1) == ids[20:21]
    assert engine.scan_ids(kv, after=ids[-1], limit=100) == []


def test_limits_of_nothing_and_beyond_all_bounds(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1)
    assert engine.scan(kv, limit=0) == engine.scan_ids(kv, limit=0) == engine.scan_ids(kv, limit=-1) == []
    assert engine.count(kv, limit=0) == engine.count(kv, limit=-1) == 0
    assert engine.scan_ids(kv, limit=1 << 70) == ["a"]
    assert engine.count(kv, limit=1 << 70) == 1


def test_count_stops_at_its_limit(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, **{f"k{number}": number for number in range(10)})
    assert (engine.count(kv), engine.count(kv, limit=4), engine.count(kv, limit=99)) == (10, 4, 10)


# -- collections and keyspaces ----------------------------------------------------------------------------------------


def test_clear_keeps_the_collection_and_its_settings(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1)
    engine.clear(kv)
    assert everything(engine, kv) == {}
    assert engine.settings(kv) == ID_ONLY


def test_creating_again_answers_the_settings_in_force(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1)
    assert engine.create_collection(kv, {"indexing": {"deny": ["*"]}}) == ID_ONLY
    assert engine.create_collection(kv, {"vector": {"dimension": 3}}) == ID_ONLY
    assert everything(engine, kv) == {"a": 1}


def test_a_dropped_collection_comes_back_empty(engine: Engine, kv: CollectionName) -> None:
    put(engine, kv, a=1)
    engine.drop_collection(kv)
    with pytest.raises(UnknownCollectionError):
        engine.read(kv, ["a"])
    with pytest.raises(UnknownCollectionError):
        put(engine, kv, a=1)
    engine.create_collection(kv, {"indexing": {"deny": ["*"]}, "defaultId": {"type": "uuid"}})
    assert everything(engine, kv) == {}
    assert engine.settings(kv) == {"indexing": {"deny": ["*"]}, "defaultId": {"type": "uuid"}}
    put(engine, kv, a=1)
    assert everything(engine, kv) == {"a": 1}


def test_keyspaces_come_and_go_with_what_is_in_them(engine: Engine) -> None:
    inside = CollectionName("Other_ks", "Kv")
    engine.create_keyspace("Other_ks")
    engine.create_keyspace("Other_ks")
    assert "Other_ks" in engine.keyspaces()
    engine.create_collection(inside, ID_ONLY)
    engine.create_collection(CollectionName("Other_ks", "B"), {"indexing": {"deny": ["*"]}})
    assert engine.collections("Other_ks") == {"B": {"indexing": {"deny": ["*"]}}, "Kv": ID_ONLY}
    assert list(engine.collections("Other_ks")) == ["B", "Kv"]
    put(engine, inside, a=1)
    engine.drop_keyspace("Other_ks")
    assert "Other_ks" not in engine.keyspaces()
    with pytest.raises(UnknownKeyspaceError, match="Other_ks"):
        engine.read(inside, ["a"])
    engine.drop_keyspace("Other_ks")


@pytest.mark.parametrize("collection", [CollectionName("default_keyspace", "none"), CollectionName("nowhere", "kv")])
def test_every_method_says_what_is_unknown(engine: Engine, collection: CollectionName) -> None:
    kind = UnknownKeyspaceError if collection.keyspace == "nowhere" else UnknownCollectionError
    calls = [
        lambda: engine.read(collection, ["a"]),
        lambda: engine.read(collection, []),
        lambda: engine.write(collection, [("a", doc("a"))]),
        lambda: engine.write(collection, []),
        lambda: engine.modify(collection, ["a"], lambda doc_id, body: doc("a")),
        lambda: engine.delete(collection, ["a"]),
        lambda: engine.scan(collection, limit=1),
        lambda: engine.scan_ids(collection, limit=1),
        lambda: engine.count(collection),
        lambda: engine.clear(collection),
        lambda: engine.settings(collection),
    ]
    for call in calls:
        with pytest.raises(kind, match=collection.keyspace if kind is UnknownKeyspaceError else collection.name):
            call()
    if kind is UnknownCollectionError:
        engine.drop_collection(collection)
        return
    for refused in (
        lambda: engine.collections("nowhere"),
        lambda: engine.create_collection(collection, ID_ONLY),
        lambda: engine.drop_collection(collection),
    ):
        with pytest.raises(UnknownKeyspaceError, match="nowhere"):
            refused()


# -- the bridge, threads ----------------------------------------------------------------------------------------------


async def test_coroutines_reach_the_engine_by_its_bridge_and_by_coroutines(engine: Any, kv: CollectionName) -> None:
    keys = [str(number) for number in range(50)]
    half = [engine.bridge.write(engine.write, kv, [(key, doc(key))]) for key in keys[:25]]
    await asyncio.gather(*half, *(engine.awrite(kv, [row(key, doc(key))]) for key in keys[25:]))
    found = await asyncio.gather(*(engine.bridge.read(engine.read, kv, [key]) for key in keys))
    assert found == [[doc(key)] for key in keys]
    with pytest.raises(UnknownCollectionError):
        await engine.bridge.write(engine.write, CollectionName("default_keyspace", "none"), [])
    assert await engine.bridge.read(engine.count, kv, limit=7) == 7
    assert await engine.bridge.read(lambda: engine.settings(kv)) == ID_ONLY
    assert await engine.acount(kv, limit=7) == 7
    assert await engine.aread(kv, [keys[0]]) == [row(keys[0], doc(keys[0]))]
    await engine.aclear(kv, "1")
    assert await engine.bridge.write(engine.delete, kv, keys) == 39


def test_threads_read_and_write_together(engine: Engine, kv: CollectionName) -> None:
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(5):
                ids = [f"{worker}-{number}-{part}" for part in range(10)]
                engine.write(kv, [(doc_id, doc(doc_id)) for doc_id in ids])
                assert engine.read(kv, ids) == [doc(doc_id) for doc_id in ids]
                assert len(engine.scan_ids(kv, prefix=f"{worker}-", limit=1_000)) == 10 * (number + 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert engine.count(kv) == 300
