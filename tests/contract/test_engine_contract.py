"""What every engine does alike: one suite, each engine its own database."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator

import pytest

from bodies import MemoryEngine, SQLiteEngine
from engine_promises import check_batches, check_order
from langchain_kv.engines.base import KEEP, CollectionName, DocId, Engine, Row
from langchain_kv.engines.pages import is_last
from langchain_kv.errors import InvalidKeyError, UnknownCollectionError, UnknownKeyspaceError

KV = CollectionName("default_keyspace", "kv")
OTHER = CollectionName("default_keyspace", "other")
SETTINGS = {"indexing": {"allow": ["_id"]}}
LONE = "a\ud800"


@pytest.fixture(params=["memory", "sqlite", "sqlite-normal"])
def engine(request: pytest.FixtureRequest, tmp_path: os.PathLike[str]) -> Iterator[Engine]:
    made: Engine
    if request.param == "memory":
        made = MemoryEngine()
    else:
        made = SQLiteEngine(
            os.path.join(tmp_path, "kv.db"), synchronous="normal" if request.param == "sqlite-normal" else "full"
        )
    made.create_collection(KV, SETTINGS)
    yield made
    made.close()


def everything(engine: Engine, collection: CollectionName = KV) -> list[tuple[DocId, bytes]]:
    return engine.scan(collection, limit=100_000)


# -- reading and writing --------------------------------------------------------------------------------------------


def test_reads_in_the_order_of_the_ids_with_repeats_and_gaps(engine: Engine) -> None:
    engine.write(KV, [("a", b"1"), ("b", b"2")])
    assert engine.read(KV, ["b", "x", "a", "b"]) == [b"2", None, b"1", b"2"]
    assert engine.read(KV, ["a"]) == [b"1"]
    assert engine.read(KV, ["x"]) == [None]
    assert engine.read(KV, []) == []


@pytest.mark.parametrize("count", [499, 500, 501, 1_000, 2_345])
def test_batches_of_any_size(engine: Engine, count: int) -> None:
    documents = [(f"{number:05}", b"%d" % number) for number in range(count)]
    engine.write(KV, documents)
    ids = [doc_id for doc_id, _ in reversed(documents)]
    assert engine.read(KV, ids) == [body for _, body in reversed(documents)]
    assert engine.count(KV) == count
    assert engine.delete(KV, ids) == count
    assert engine.count(KV) == 0


def test_bodies_come_back_byte_for_byte(engine: Engine) -> None:
    bodies = [b"", b"\0", bytes(range(256)), b"x" * 1_000_000]
    engine.write(KV, [(str(number), body) for number, body in enumerate(bodies)])
    assert engine.read(KV, ["0", "1", "2", "3"]) == bodies


def test_write_replaces(engine: Engine) -> None:
    engine.write(KV, [("a", b"1")])
    engine.write(KV, [("a", b"2")])
    assert everything(engine) == [("a", b"2")]


def test_last_of_repeated_ids_wins(engine: Engine) -> None:
    engine.write(KV, [("a", b"1"), ("b", b"2"), ("a", b"3")])
    assert everything(engine) == [("a", b"3"), ("b", b"2")]


def test_text_and_other_ids_are_different_documents(engine: Engine) -> None:
    engine.write(KV, [("n5", b"text"), (b"n5", b"number")])
    assert engine.read(KV, ["n5", b"n5"]) == [b"text", b"number"]
    assert engine.delete(KV, [b"n5"]) == 1
    assert everything(engine) == [("n5", b"text")]


@pytest.mark.parametrize("doc_id", ["a\0b", "%_*[", "'\"", "\u00e9", "e\u0301", "\U0001f600", " ", "5", "x" * 8_000])
def test_any_text_is_an_id(engine: Engine, doc_id: str) -> None:
    engine.write(KV, [(doc_id, b"1"), ("a", b"0")])
    assert engine.read(KV, [doc_id]) == [b"1"]
    assert doc_id in engine.scan_ids(KV, limit=9)
    assert engine.scan_ids(KV, prefix=doc_id, limit=9) == [doc_id]
    assert engine.delete(KV, [doc_id]) == 1
    assert engine.read(KV, [doc_id]) == [None]


def test_delete_counts_what_existed(engine: Engine) -> None:
    engine.write(KV, [("a", b"1"), ("b", b"2")])
    assert engine.delete(KV, ["a", "a", "x"]) == 1
    assert engine.delete(KV, []) == 0
    assert engine.read(KV, ["a", "b"]) == [None, b"2"]


def test_empty_batches_change_nothing(engine: Engine) -> None:
    engine.write(KV, [])
    engine.modify(KV, [], lambda doc_id, body: b"x")
    assert everything(engine) == []


def test_a_batch_is_read_as_whole_as_the_engine_promises(engine: Engine) -> None:
    check_batches(engine, KV, ids=600, batches=30)  # more ids than one statement takes


@pytest.mark.parametrize("many", [1, 700])
def test_lone_surrogates_are_refused_and_nothing_is_written(engine: Engine, many: int) -> None:
    ids = [f"{number}" for number in range(many)] + [LONE]
    with pytest.raises(InvalidKeyError, match="ud800"):
        engine.write(KV, [(doc_id, b"1") for doc_id in ids])
    with pytest.raises(InvalidKeyError):
        engine.read(KV, ids)
    with pytest.raises(InvalidKeyError):
        engine.delete(KV, ids)
    with pytest.raises(InvalidKeyError):
        engine.modify(KV, ids, lambda doc_id, body: b"x")
    with pytest.raises(InvalidKeyError):
        engine.scan_ids(KV, prefix=LONE, limit=1)
    with pytest.raises(InvalidKeyError):
        engine.scan(KV, after=LONE, limit=1)
    with pytest.raises(InvalidKeyError):
        engine.scan_ids(KV, prefix=LONE, limit=1, now_ms=1)
    with pytest.raises(InvalidKeyError):
        engine.clear(KV, LONE)
    assert everything(engine) == []


# -- modify ---------------------------------------------------------------------------------------------------------


def test_modify_inserts_replaces_removes_and_keeps(engine: Engine) -> None:
    engine.write(KV, [("replace", b"1"), ("remove", b"2"), ("keep", b"3")])
    seen = {}

    def change(doc_id: DocId, body: bytes | None) -> object:
        seen[doc_id] = body
        return {"insert": b"new", "replace": b"newer", "remove": None, "keep": KEEP, "absent": None}[str(doc_id)]

    engine.modify(KV, ["insert", "replace", "remove", "keep", "absent"], change)  # type: ignore[arg-type]
    assert seen == {"insert": None, "replace": b"1", "remove": b"2", "keep": b"3", "absent": None}
    assert everything(engine) == [("insert", b"new"), ("keep", b"3"), ("replace", b"newer")]


@pytest.mark.parametrize("between", [0, 600])
def test_modify_sees_its_own_earlier_changes(engine: Engine, between: int) -> None:
    ids = ["a", *[f"x{number}" for number in range(between)], "a", "a"]
    engine.modify(KV, ids, lambda doc_id, body: (body or b"") + b"1")
    assert engine.read(KV, ["a"]) == [b"111"]
    steps = iter([None, b"again"])
    engine.modify(KV, ["a", "a"], lambda doc_id, body: next(steps))
    assert engine.read(KV, ["a"]) == [b"again"]


@pytest.mark.parametrize("before", [1, 700])
def test_an_exception_in_a_change_undoes_all_and_is_passed_on(engine: Engine, before: int) -> None:
    engine.write(KV, [("a", b"1")])

    def change(doc_id: DocId, body: bytes | None) -> bytes:
        if doc_id == "last":
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "mine")
        return b"changed"

    assert engine.atomic_batches
    with pytest.raises(UnicodeEncodeError, match="mine"):
        engine.modify(KV, ["a", *[f"n{number}" for number in range(before)], "last"], change)
    assert everything(engine) == [("a", b"1")]
    engine.write(KV, [("b", b"2")])
    assert engine.read(KV, ["a", "b"]) == [b"1", b"2"]


def test_a_change_may_look_at_the_engine(engine: Engine) -> None:
    engine.write(KV, [("a", b"1"), ("b", b"2")])
    engine.modify(KV, ["a"], lambda doc_id, body: engine.read(KV, ["b"])[0])
    assert engine.read(KV, ["a"]) == [b"2"]


def test_modify_is_isolated_from_other_threads(engine: Engine) -> None:
    engine.write(KV, [("n", b"0")])

    def count_up() -> None:
        for _ in range(25):
            engine.modify(KV, ["n"], lambda doc_id, body: b"%d" % (int(body or b"") + 1))

    threads = [threading.Thread(target=count_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.read(KV, ["n"]) == [b"200"]


# -- scanning -------------------------------------------------------------------------------------------------------

ORDERED: list[DocId] = ["", "A", "a", "a\0", "ab", "b", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
ORDERED += [b"", b"\0", b"a", b"n5", b"\xff"]


def test_scans_go_in_the_order_that_the_engine_promises(engine: Engine) -> None:
    engine.write(KV, [(doc_id, b"x") for doc_id in reversed(ORDERED)])
    check_order(engine, KV, ORDERED)


def test_ordered_is_text_by_code_point_then_the_others(engine: Engine) -> None:
    engine.write(KV, [(doc_id, b"x") for doc_id in reversed(ORDERED)])
    assert engine.ordered
    assert engine.scan_ids(KV, limit=100) == ORDERED


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a", ["a", "a\0", "ab"]),
        ("ab", ["ab"]),
        ("zz", []),
        ("\ud7ff", ["\ud7ff"]),
        ("\U0010ffff", ["\U0010ffff"]),
        ("\uffff", ["\uffff"]),
        ("a\U0010ffff", []),
    ],
)
def test_prefixes(engine: Engine, prefix: str, expected: list[str]) -> None:
    engine.write(KV, [(doc_id, b"x") for doc_id in ORDERED])
    assert engine.scan_ids(KV, prefix=prefix, limit=100) == expected
    assert [doc_id for doc_id, _ in engine.scan(KV, prefix=prefix, limit=100)] == expected


def test_prefix_and_after_together(engine: Engine) -> None:
    engine.write(KV, [(doc_id, b"x") for doc_id in ["a", "p", "p1", "p2", "q"]] + [(b"p", b"x")])
    assert engine.scan_ids(KV, prefix="p", after="p1", limit=9) == ["p2"]
    assert engine.scan_ids(KV, prefix="p", after="a", limit=9) == ["p", "p1", "p2"]
    assert engine.scan_ids(KV, prefix="p", after="p", limit=1) == ["p1"]
    assert engine.scan_ids(KV, prefix="p", after="q", limit=9) == []
    assert engine.scan_ids(KV, prefix="p", after=b"a", limit=9) == []
    assert engine.scan_ids(KV, after="q", limit=9) == [b"p"]
    assert engine.scan_ids(KV, after="nowhere", limit=1) == ["p"]


@pytest.mark.parametrize("size_bytes", [1, 10, 25, 1_000])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_end_by_their_bytes_and_join_to_the_whole(engine: Engine, limit: int, size_bytes: int) -> None:
    sizes = [1, 1, 1, 1, 30, 1, 9, 10, 0, 0, 5, 200, 1, 1, 1]
    documents = [(f"{number:02}", b"x" * size) for number, size in enumerate(sizes)]
    engine.write(KV, documents)
    found: list[tuple[DocId, bytes]] = []
    page: list[tuple[DocId, bytes]] = []
    while not found or not is_last(page, limit, size_bytes):
        page = engine.scan(KV, after=found[-1][0] if found else None, limit=limit, size_bytes=size_bytes)
        assert sum(len(body) for _, body in page[:-1]) < size_bytes
        assert len(page) <= limit
        found += page
    assert found == documents


def test_a_page_is_not_cut_short_of_its_bytes(engine: Engine) -> None:
    engine.write(KV, [(f"{number:02}", b"x" * 10) for number in range(20)])
    assert len(engine.scan(KV, limit=100, size_bytes=100)) == 10
    assert len(engine.scan(KV, limit=100, size_bytes=101)) == 11
    assert len(engine.scan(KV, prefix="0", limit=100, size_bytes=55)) == 6
    assert len(engine.scan(KV, limit=100)) == 20


def test_a_limit_of_nothing(engine: Engine) -> None:
    engine.write(KV, [("a", b"x")])
    assert engine.scan(KV, limit=0) == engine.scan_ids(KV, limit=0) == engine.scan_ids(KV, limit=-1) == []
    assert engine.count(KV, limit=0) == engine.count(KV, limit=-1) == 0


def test_a_limit_beyond_all_bounds(engine: Engine) -> None:
    engine.write(KV, [("a", b"x")])
    assert engine.scan_ids(KV, limit=1 << 70) == ["a"]
    assert engine.count(KV, limit=1 << 70) == 1


def test_count_stops_at_its_limit(engine: Engine) -> None:
    engine.write(KV, [(str(number), b"x") for number in range(10)])
    assert (engine.count(KV), engine.count(KV, limit=4), engine.count(KV, limit=99)) == (10, 4, 10)


def test_writes_between_pages_disturb_no_other_id(engine: Engine) -> None:
    engine.write(KV, [(f"k{number:03}", b"x") for number in range(100)])
    found: list[DocId] = []
    after = None
    while page := engine.scan_ids(KV, after=after, limit=10):
        found += page
        after = page[-1]
        engine.delete(KV, [page[0]])
        engine.write(KV, [(f"a{len(found)}", b"new"), (str(after), b"changed")])
    assert found == [f"k{number:03}" for number in range(100)]


# -- raw values, and rows that expire -------------------------------------------------------------------------------

ROWS: list[Row] = [
    ("a", b'{"_id":"a"}', False, None),
    ("b", b"{", True, None),
    ("c", b"", True, 2_000),
    ("d", b"\0\1", True, -1),
    ("e", b'{"_id":"e"}', False, 2**62),
    (b"n5", b'{"_id":5}', False, 0),
]
IDS = [row[0] for row in ROWS]


def test_rows_come_back_whole_by_every_way(engine: Engine) -> None:
    rows = engine.rows
    rows.write(KV, ROWS)
    assert rows.read(KV, IDS) == ROWS
    assert [rows.read(KV, [doc_id])[0] for doc_id in IDS] == ROWS
    assert rows.read_with_settings(KV, IDS) == (SETTINGS, ROWS)
    assert rows.scan(KV, limit=9) == ROWS
    assert [row for doc_id in [None, *IDS] for row in rows.scan(KV, after=doc_id, limit=1)] == ROWS
    seen: list[Row | None] = []

    def change(doc_id: DocId, row: Row | None) -> Row | None:
        seen.append(row)
        return row

    rows.modify(KV, [*IDS, "absent"], change)
    assert seen == [*ROWS, None]
    assert rows.scan(KV, limit=9) == ROWS


@pytest.mark.parametrize("by", ["write", "write of several", "modify"])
def test_a_new_row_takes_nothing_of_the_old_one(by: str, engine: Engine) -> None:
    rows = engine.rows
    pairs = list(itertools.product(ROWS, ROWS))
    old: list[Row] = [(f"{place:02}", *pair[0][1:]) for place, pair in enumerate(pairs)]
    new: dict[DocId, Row] = {f"{place:02}": (f"{place:02}", *pair[1][1:]) for place, pair in enumerate(pairs)}
    rows.write(KV, old)
    if by == "modify":
        rows.modify(KV, list(new), lambda doc_id, _: new[doc_id])
    elif by == "write":
        for row in new.values():
            rows.write(KV, [row])
    else:
        rows.write(KV, list(new.values()))
    assert rows.scan(KV, limit=99) == list(new.values())
    alive = [doc_id for doc_id, row in new.items() if row[3] is None or row[3] > 1_000]
    assert rows.scan_ids(KV, limit=99, now_ms=1_000) == alive
    assert rows.purge(KV, now_ms=1_000, limit=99) == len(new) - len(alive)
    assert rows.scan_ids(KV, limit=99) == alive


def test_what_has_expired_is_a_row_and_is_listed_on_demand_only(engine: Engine) -> None:
    engine.rows.write(KV, ROWS)
    assert engine.count(KV) == 6
    assert engine.scan_ids(KV, limit=9) == IDS
    for now_ms, alive in ((-2, IDS), (-1, ["a", "b", "c", "e", b"n5"]), (1_999, [*"abce"]), (2_000, [*"abe"])):
        assert engine.scan_ids(KV, limit=9, now_ms=now_ms) == alive
        assert engine.scan_ids(KV, after="a", limit=9, now_ms=now_ms) == alive[1:]
    assert engine.scan_ids(KV, prefix="c", limit=9, now_ms=2_000) == []
    assert engine.scan_ids(KV, limit=9, now_ms=2**62) == ["a", "b"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_what_has_not_expired_are_full_and_join_to_the_whole(engine: Engine, limit: int) -> None:
    engine.rows.write(KV, [(f"{number:03}", b"1", False, 1 if number % 7 else None) for number in range(100)])
    alive = [f"{number:03}" for number in range(0, 100, 7)]
    found: list[DocId] = []
    while page := engine.scan_ids(KV, after=found[-1] if found else None, limit=limit, now_ms=1):
        assert len(page) == min(limit, len(alive) - len(found))
        found += page
    assert found == alive


@pytest.mark.parametrize("limit", [0, 1, 3, 100, 10**30])
def test_a_purge_removes_what_has_expired_up_to_its_limit(engine: Engine, limit: int) -> None:
    engine.rows.write(KV, [(f"{number}", b"1", bool(number % 2), number or None) for number in range(10)])
    engine.rows.write(KV, [(b"n1", b"1", False, 5)])
    assert engine.purge(KV, now_ms=5, limit=limit) == min(limit, 6)
    assert engine.count(KV) == 11 - min(limit, 6)
    assert {"0", "6", "7", "8", "9"} <= set(engine.scan_ids(KV, limit=99))
    assert engine.purge(KV, now_ms=0, limit=99) == 0
    assert engine.purge(KV, now_ms=5, limit=99) == 6 - min(limit, 6)
    assert engine.scan_ids(KV, limit=99) == ["0", "6", "7", "8", "9"]


@pytest.mark.parametrize("prefix", ["a", "a\U0010ffff", "\U0010ffff", "%", "b_"])
def test_clearing_a_prefix_leaves_the_others(engine: Engine, prefix: str) -> None:
    others: list[DocId] = ["", "A", "Aa", "`", "bb", "c", b"a", b"n5"]
    own = [prefix, f"{prefix}\0", f"{prefix}b", f"{prefix}\U0010ffff"]
    engine.write(KV, [(doc_id, b"1") for doc_id in (*others, *own)])
    engine.rows.write(KV, [(f"{prefix}expires", b"1", True, 1)])
    engine.clear(KV, prefix)
    assert engine.scan_ids(KV, limit=99) == others
    assert engine.purge(KV, now_ms=1, limit=9) == 0
    assert engine.settings(KV) == SETTINGS
    engine.clear(KV, "absent")
    assert engine.scan_ids(KV, limit=99) == others


# -- collections and keyspaces --------------------------------------------------------------------------------------


def test_clear_keeps_the_collection_and_its_settings(engine: Engine) -> None:
    engine.write(KV, [("a", b"1"), (b"b", b"2")])
    engine.clear(KV)
    assert everything(engine) == []
    assert engine.settings(KV) == SETTINGS
    engine.write(KV, [("a", b"3")])
    assert everything(engine) == [("a", b"3")]


def test_creating_again_answers_the_settings_in_force(engine: Engine) -> None:
    engine.write(KV, [("a", b"1")])
    assert engine.create_collection(KV, {"vector": {"dimension": 3}}) == SETTINGS
    assert engine.read(KV, ["a"]) == [b"1"]


def test_answered_settings_are_the_callers_own(engine: Engine) -> None:
    engine.settings(KV)["indexing"]["allow"].append("changed")
    assert engine.settings(KV) == SETTINGS


def test_collections_are_listed_by_name(engine: Engine) -> None:
    engine.create_collection(OTHER, {"a": "é\ud800"})
    engine.create_collection(CollectionName("default_keyspace", "B"), {})
    assert list(engine.collections("default_keyspace").items()) == [
        ("B", {}),
        ("kv", SETTINGS),
        ("other", {"a": "é\ud800"}),
    ]


def test_collections_are_apart(engine: Engine) -> None:
    elsewhere = CollectionName("ks", "kv")
    engine.create_keyspace("ks")
    for collection in (OTHER, elsewhere):
        engine.create_collection(collection, {})
        engine.write(collection, [("a", collection.keyspace.encode())])
    engine.write(KV, [("a", b"mine")])
    engine.drop_collection(OTHER)
    assert everything(engine) == [("a", b"mine")]
    assert everything(engine, elsewhere) == [("a", b"ks")]


def test_a_dropped_collection_comes_back_empty(engine: Engine) -> None:
    engine.write(KV, [("a", b"1")])
    engine.read(KV, ["a"])
    engine.drop_collection(KV)
    with pytest.raises(UnknownCollectionError):
        engine.read(KV, ["a"])
    engine.create_collection(OTHER, {})
    engine.create_collection(KV, {"new": True})
    assert everything(engine) == []
    assert engine.settings(KV) == {"new": True}


def test_dropping_what_is_missing(engine: Engine) -> None:
    engine.drop_collection(OTHER)
    engine.drop_keyspace("nowhere")
    with pytest.raises(UnknownKeyspaceError, match="nowhere"):
        engine.drop_collection(CollectionName("nowhere", "kv"))


def test_keyspaces_come_and_go_with_what_is_in_them(engine: Engine) -> None:
    inside = CollectionName("ks", "kv")
    assert engine.keyspaces() == ["default_keyspace"]
    engine.create_keyspace("ks")
    engine.create_keyspace("ks")
    engine.create_keyspace("A")
    assert engine.keyspaces() == ["A", "default_keyspace", "ks"]
    engine.create_collection(inside, {})
    engine.write(inside, [("a", b"1")])
    engine.drop_keyspace("ks")
    assert engine.keyspaces() == ["A", "default_keyspace"]
    engine.create_keyspace("ks")
    assert engine.collections("ks") == {}
    engine.drop_keyspace("default_keyspace")
    assert engine.keyspaces() == ["A", "ks"]


@pytest.mark.parametrize("collection", [OTHER, CollectionName("nowhere", "kv")])
def test_every_method_says_what_is_unknown(engine: Engine, collection: CollectionName) -> None:
    kind = UnknownCollectionError if collection is OTHER else UnknownKeyspaceError
    calls = [
        lambda: engine.read(collection, ["a"]),
        lambda: engine.read(collection, []),
        lambda: engine.write(collection, [("a", b"1")]),
        lambda: engine.write(collection, []),
        lambda: engine.modify(collection, ["a"], lambda doc_id, body: b"1"),
        lambda: engine.delete(collection, ["a"]),
        lambda: engine.scan(collection, limit=1),
        lambda: engine.scan_ids(collection, limit=1),
        lambda: engine.count(collection),
        lambda: engine.clear(collection),
        lambda: engine.clear(collection, "a"),
        lambda: engine.purge(collection, now_ms=1, limit=1),
        lambda: engine.settings(collection),
    ]
    for call in calls:
        with pytest.raises(kind, match=collection.name if collection is OTHER else collection.keyspace):
            call()
    if collection is not OTHER:
        for refused in (
            lambda: engine.collections("nowhere"),
            lambda: engine.create_collection(collection, {}),
        ):
            with pytest.raises(UnknownKeyspaceError, match="nowhere"):
                refused()


# -- the bridge, threads, life --------------------------------------------------------------------------------------


async def test_coroutines_reach_the_engine_by_its_bridge(engine: Engine) -> None:
    await asyncio.gather(*(engine.bridge.write(engine.write, KV, [(str(n), b"%d" % n)]) for n in range(50)))
    found = await asyncio.gather(*(engine.bridge.read(engine.read, KV, [str(n)]) for n in range(50)))
    assert found == [[b"%d" % n] for n in range(50)]
    with pytest.raises(UnknownCollectionError):
        await engine.bridge.write(engine.write, OTHER, [])
    assert await engine.bridge.read(engine.count, KV, limit=7) == 7


def test_threads_read_and_write_together(engine: Engine) -> None:
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(20):
                ids = [f"{worker}-{number}-{part}" for part in range(10)]
                engine.write(KV, [(doc_id, doc_id.encode()) for doc_id in ids])
                assert engine.read(KV, ids) == [doc_id.encode() for doc_id in ids]
                assert len(engine.scan_ids(KV, prefix=f"{worker}-", limit=1_000)) == 10 * (number + 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert engine.count(KV) == 1_600


def test_closing_twice_is_closing_once(engine: Engine) -> None:
    engine.close()
    engine.close()
