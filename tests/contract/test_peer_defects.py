"""The defects that were found in the classes this package replaces, each by its number, and what is right instead.

A: wrong results and lost data. B: errors hidden or misleading. C: limits and gaps. docs/migration.md lists them.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from faults.proxy import Answer, Fault, Misbehaving, api_error, errors
from langchain_kv import (
    AstraDBByteStore,
    AstraDBStore,
    DamagedValueError,
    DataAPIError,
    InvalidKeyError,
    KVStore,
    PartialWriteError,
    SetupMode,
    SetupPendingError,
    StoreError,
    UnknownCollectionError,
)

TOKEN = "token-of-the-tests"


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as running:
        yield running


@pytest.fixture
def opened(server: Misbehaving, face: Any) -> Iterator[Any]:
    """A store's face on the server, and the requests of its set-up forgotten."""
    stores = []

    def open_store(kind: Any = AstraDBStore, **arguments: Any) -> Any:
        store = kind("c", token=TOKEN, api_endpoint=server.url, **{"deadline_s": 5.0, **arguments})
        stores.append(store)
        server.requests.clear()
        return face(store)

    yield open_store
    for store in stores:
        store.close()


PAIRS = [(f"k{n}", n) for n in range(200)]


# -- A: wrong results and lost data -------------------------------------------------------------------------------


def test_a1_of_a_repeated_key_the_last_value_is_stored(opened: Any, server: Misbehaving) -> None:
    store = opened()
    for value in (0, 10):  # a new key, then an existing one
        store.mset([("a", value + n) for n in range(10)])
        assert server.values() == {"a": value + 9}


def test_a2_every_key_of_a_large_delete_is_removed(opened: Any, server: Misbehaving) -> None:
    server.plant(**dict(PAIRS))
    opened().mdelete([key for key, _ in PAIRS])
    assert server.documents == {}


def test_a3_an_empty_page_in_the_middle_ends_no_listing(opened: Any, server: Misbehaving) -> None:
    server.plant(**dict(PAIRS))
    server.empty_pages = {0, 2}
    store = opened()
    assert sorted(store.keys()) == sorted(key for key, _ in PAIRS)
    assert sorted(store.items()) == sorted(PAIRS)


def test_a4_a_failed_chunk_is_sent_again(opened: Any, server: Misbehaving) -> None:
    server.plant(k0="old")
    store = opened()
    server.faults.extend([None, Answer(503)])
    store.mset(PAIRS)
    assert server.values() == dict(PAIRS)


def test_a4_a_chunk_that_keeps_failing_is_told_by_keys(opened: Any, server: Misbehaving) -> None:
    store = opened(deadline_s=0.3)
    server.script = lambda request: Answer(503) if b'"k150"' in request.body else None
    with pytest.raises(PartialWriteError) as caught:
        store.mset(PAIRS)
    error = caught.value
    assert set(error.written) == set(server.values())
    assert "k150" in error.unknown
    assert set(error.written) | set(error.unwritten) | set(error.unknown) == {key for key, _ in PAIRS}
    assert isinstance(error, ValueError)


def test_a5_nothing_goes_on_writing_after_an_error(server: Misbehaving) -> None:
    async def main() -> None:
        async with AstraDBStore("c", token=TOKEN, api_endpoint=server.url, deadline_s=0.3) as store:
            refused = errors(api_error("SHRED_BAD_FIELD_NAME", scope="DOCUMENT", family="REQUEST"))
            server.script = lambda request: refused if b'"k0"' in request.body else None
            before = asyncio.all_tasks()
            with pytest.raises(StoreError):
                await store.amset([(f"k{n}", n) for n in range(2000)])
            assert asyncio.all_tasks() == before
            stored = len(server.documents)
            server.wait_for(lambda: server.in_flight == 0)
            await asyncio.sleep(0.05)
            assert len(server.documents) == stored

    asyncio.run(main())


@pytest.mark.parametrize(
    "value", [{"$date": 1700000000000}, {"$uuid": "x"}, {"$binary": "AQ=="}, [{"$objectId": "x"}], {"a": {"$date": 1}}]
)
def test_a6_values_that_look_like_extended_json_stay_what_they_are(opened: Any, value: Any) -> None:
    store = opened()
    store.mset([("a", value)])
    assert store.mget(["a"]) == [value]


def test_a7_a_generator_of_keys_is_read_once(opened: Any, server: Misbehaving) -> None:
    server.plant(a=1)
    assert opened().mget(key for key in ["a", "b"]) == [1, None]


def test_a8_neither_a_cancelled_waiter_nor_a_failure_poisons_a_store(server: Misbehaving) -> None:
    async def main() -> None:
        server.faults.append(Fault("stall"))

        async def make() -> AstraDBStore:
            where = {"token": TOKEN, "api_endpoint": server.url}
            return AstraDBStore("c", setup_mode=SetupMode.ASYNC, request_timeout_s=0.5, **where)

        store = await make()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(store.amget(["a"]), 0.05)
        assert await store.amget(["a"]) == [None]  # the set-up went on, by itself
        await store.aclose()
        refused = errors(api_error("UNAUTHORIZED_ACCESS", scope="SECURITY", family="REQUEST"))
        server.script = lambda request: refused if request.name == "findCollections" else None
        store = await make()
        with pytest.raises(DataAPIError):
            await store.amget(["a"])
        server.script = lambda request: None
        assert await store.amget(["a"]) == [None]
        await store.aclose()

    asyncio.run(main())


# -- B: errors hidden or misleading -------------------------------------------------------------------------------


def test_b1_a_refused_document_is_an_error_with_its_code_and_key(opened: Any, server: Misbehaving) -> None:
    def refuse(request: Any) -> Answer | None:
        if b'"k7"' not in request.body:
            return None
        kept = [document["_id"] for document in request.options["documents"] if document["_id"] != "k7"]
        error = api_error("SHRED_DOC_LIMIT_VIOLATION", scope="DOCUMENT", family="REQUEST", ids=["k7"])
        return Answer(200, json.dumps({"status": {"insertedIds": kept}, "errors": [error]}).encode())

    server.script = refuse
    with pytest.raises(PartialWriteError, match="k7") as caught:
        opened().mset(PAIRS[:20])
    assert caught.value.unwritten == ("k7",)
    assert caught.value.errors["k7"].code == "SHRED_DOC_LIMIT_VIOLATION"  # type: ignore[attr-defined]
    assert "findOneAndReplace" not in server.names


def test_b2_a_key_deleted_in_between_is_stored_all_the_same(opened: Any, server: Misbehaving) -> None:
    store = opened()
    server.plant(**dict(PAIRS[:20]))

    def delete_between(request: Any) -> None:
        if request.name == "findOneAndReplace":
            server.documents.pop(request.options["filter"]["_id"], None)

    server.script = delete_between
    store.mset([(key, [value]) for key, value in PAIRS[:20]])
    assert server.values() == {key: [value] for key, value in PAIRS[:20]}


def test_b3_a_refused_command_is_not_followed_by_replaces(opened: Any, server: Misbehaving) -> None:
    store = opened(setup_mode="OFF")  # right after a set-up such an answer is passing
    server.script = lambda request: errors(api_error("UNKNOWN_COLLECTION_OR_TABLE", scope="SCHEMA", family="REQUEST"))
    with pytest.raises(UnknownCollectionError):
        store.mset([(f"k{n}", n) for n in range(500)])
    assert len(server.requests) <= 5
    assert set(server.names) == {"insertMany"}


def test_b4_nothing_is_logged_as_a_warning_or_by_the_root_logger(
    opened: Any, server: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        store = opened()
        server.script = lambda request: errors(api_error("SHRED_BAD_FIELD_NAME", scope="DOCUMENT", family="REQUEST"))
        with pytest.raises(StoreError):
            store.mset([("a", 1)])
    ours = [record for record in caplog.records if record.name == "root" or record.name.startswith("langchain_kv")]
    assert [record for record in ours if record.name == "root" or record.levelno >= logging.WARNING] == []


def test_b5_a_wrong_environment_is_a_clear_error(server: Misbehaving) -> None:
    with pytest.raises(ValueError, match="environment='nowhere' is not known: it is one of prod"):
        AstraDBStore("c", token=TOKEN, api_endpoint=server.url, environment="nowhere")


def test_b6_nothing_false_is_logged_of_the_keyspace(server: Misbehaving, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        AstraDBStore("c", token=TOKEN, api_endpoint=server.url, namespace="ks").close()
    assert "keyspace" not in caplog.text


# -- C: limits and gaps -------------------------------------------------------------------------------------------


def test_c1_mget_takes_any_number_of_keys(opened: Any, server: Misbehaving) -> None:
    server.plant(**dict(PAIRS))
    keys = [f"k{n % 150}" for n in range(1000)]
    assert opened().mget(keys) == [n % 150 for n in range(1000)]
    assert [len(request.options["filter"]["_id"]["$in"]) for request in server.requests] == [100, 50]


def test_c2_mdelete_takes_any_number_of_keys_at_once(opened: Any, server: Misbehaving) -> None:
    server.plant(**dict(PAIRS))
    server.delay_s = 0.02
    opened().mdelete([key for key, _ in PAIRS[:101]])
    assert len(server.documents) == 99
    sizes = sorted(len(request.options["filter"]["_id"]["$in"]) for request in server.requests)
    assert sizes == [1, 20, 20, 20, 20, 20]
    assert server.in_flight_max > 1


@pytest.mark.slow
def test_c3_a_large_load_has_no_budget_for_the_whole(opened: Any, server: Misbehaving) -> None:
    store = opened(deadline_s=0.5, request_timeout_s=0.5)
    server.delay_s = 0.1
    pairs = [(f"k{n}", n) for n in range(10_000)]
    store.mset(pairs)  # a hundred requests of 0.1 s, ten at a time
    store.mdelete([key for key, _ in pairs])
    assert server.documents == {}


@pytest.mark.slow
def test_c4_requests_are_split_by_size_too(opened: Any, server: Misbehaving) -> None:
    store = opened(AstraDBByteStore)
    store.mset([(f"k{n}", bytes(1_000_000)) for n in range(30)])
    assert len(server.documents) == 30
    assert max(len(request.body) for request in server.requests) < 20 * 1024 * 1024


@pytest.mark.slow
def test_c5_overwriting_many_keys_asks_once_for_each(opened: Any, server: Misbehaving) -> None:
    pairs = [(f"k{n}", n) for n in range(3000)]
    server.plant(**dict(pairs))
    opened().mset([(key, [value]) for key, value in pairs])
    replaced = [request.options["filter"]["_id"] for request in server.requests if request.name == "findOneAndReplace"]
    assert sorted(replaced) == sorted(key for key, _ in pairs)
    assert len(server.requests) <= len(pairs) + 10  # the inserts that were on their way before one was answered


def test_c6_listing_keys_ships_no_values(opened: Any, server: Misbehaving) -> None:
    server.plant(**dict(PAIRS))
    assert len(opened().keys("k1")) == 111
    assert {json.dumps(request.options["projection"]) for request in server.requests} == {
        '{"value": false, "encoding": false, "body_blob": false}'
    }


def test_c7_overwriting_ships_no_old_value(opened: Any, server: Misbehaving) -> None:
    server.plant(a="old", b="old")
    opened().mset([("a", 1), ("b", 2)])
    assert {json.dumps(request.options["projection"]) for request in server.requests} == {'{"value": false}'}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset"),
        Fault("reset", applied=True),
        Answer(429),
        Answer(502),
        Answer(503),
        Fault("truncate", applied=True),
    ],
)
def test_c8_passing_faults_are_absorbed(opened: Any, server: Misbehaving, fault: Any) -> None:
    store = opened()
    calls = {
        lambda: store.mset([("a", 1), ("b", 2)]): None,
        lambda: store.mget(["a", "b"]): [1, 2],
        lambda: sorted(store.keys()): ["a", "b"],
        lambda: store.mdelete(["a"]): None,
    }
    for call, result in calls.items():
        server.faults.append(fault)
        assert call() == result
    assert list(server.documents) == ["b"]


def test_c9_empty_batches_send_nothing(opened: Any, server: Misbehaving) -> None:
    store = opened()
    store.mget([])
    store.mset([])
    store.mdelete([])
    assert server.requests == []


def test_c10_none_reads_as_missing_and_is_listed(opened: Any) -> None:
    store = opened()
    store.mset([("n", None)])
    assert (store.mget(["n"]), store.keys()) == ([None], ["n"])


def test_c11_keys_of_other_types_are_refused_and_those_of_others_skipped(opened: Any, server: Misbehaving) -> None:
    store = opened()
    for key in (1, None, b"a", ""):
        with pytest.raises(InvalidKeyError):
            store.mset([(key, 1)])
    server.documents = {"a": '{"_id":"a","value":1}', 5: '{"_id":5,"value":1}', "u": '{"_id":{"$uuid":"u"},"value":1}'}
    assert store.keys("a") == ["a"]
    assert store.keys() == ["a"]


def test_c12_values_are_checked_before_the_first_request(opened: Any, server: Misbehaving) -> None:
    store = opened()
    for value, kind in ((float("nan"), ValueError), ({1, 2}, TypeError), ({1: 2}, TypeError)):
        with pytest.raises(kind, match="'k199'"):
            store.mset([*PAIRS[:199], ("k199", value)])
    assert server.requests == []
    store.mset([("t", (1, 2)), ("s", "\ud800")])
    assert store.mget(["t", "s"]) == [[1, 2], "\ud800"]


@pytest.mark.parametrize("value", [{"$ref": 1}, {"": 1}, [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]])
def test_c13_json_that_the_data_api_refuses_is_kept(opened: Any, value: Any) -> None:
    store = opened()
    store.mset([("a", value)])
    assert store.mget(["a"]) == [value]


def test_c14_a_key_that_is_too_long_is_refused_with_the_limit(opened: Any, server: Misbehaving) -> None:
    with pytest.raises(InvalidKeyError, match="8,000"):
        opened().mget(["x" * 8001])
    assert server.requests == []


def test_c15_base64_is_read_strictly_and_the_key_is_named(opened: Any, server: Misbehaving) -> None:
    store = opened(AstraDBByteStore)
    server.plant(a="AQ==", junk="A Q==", number=5)
    assert store.mget(["a"]) == [b"\x01"]
    with pytest.raises(DamagedValueError, match="'junk'") as caught:
        store.mget(["a", "junk", "number"])
    assert set(caught.value.errors) == {"junk", "number"}


def test_c16_calls_start_no_threads_of_their_own(opened: Any, server: Misbehaving) -> None:
    store = opened()
    store.mset(PAIRS[:10])
    before = threading.active_count()
    seen = []
    server.script = lambda request: seen.append(threading.active_count())
    store.mset([(key, [value]) for key, value in PAIRS])
    store.mget([key for key, _ in PAIRS])
    assert max(seen) <= before


def test_c17_stores_share_connections_and_survive_idle_ones_that_close(opened: Any, server: Misbehaving) -> None:
    stores = [opened() for _ in range(3)]
    server.plant(a=1)
    before = server.connections
    for store in stores:
        assert store.mget(["a"]) == [1]
    assert server.connections - before <= 1
    server.close_idle()
    for store in stores:
        assert store.mget(["a"]) == [1]


def test_c18_event_loops_pickling_and_copies(server: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    server.plant(a=1)
    store = AstraDBStore("c", token=TOKEN, api_endpoint=server.url)
    for _ in range(3):
        assert asyncio.run(store.amget(["a"])) == [1]
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", TOKEN)
    for other in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
        assert other.mget(["a"]) == [1]
        other.close()
    lazy = AstraDBStore("c", token=TOKEN, api_endpoint=server.url, setup_mode=SetupMode.ASYNC)  # no loop, and no error
    assert lazy.mget(["a"]) == [1]
    lazy.close()
    store.close()


def test_c19_a_token_provider_is_asked_for_each_operation(server: Misbehaving) -> None:
    class Provider:
        asked = 0

        def get_token(self) -> str:
            Provider.asked += 1
            return f"token-{Provider.asked}"

    with KVStore("c", server.url, token=Provider()) as plain:
        server.requests.clear()
        plain.mget(["a"])
        plain.mget(["a"])
    tokens = [request.headers["token"] for request in server.requests]
    assert len(set(tokens)) == 2


def test_c20_sync_use_after_an_async_constructor_waits_or_says_why(server: Misbehaving) -> None:
    server.delay_s = 0.05

    async def on_the_loop() -> None:
        store = AstraDBStore("c", token=TOKEN, api_endpoint=server.url, setup_mode=SetupMode.ASYNC)
        with pytest.raises(SetupPendingError) as caught:
            store.mget(["a"])
        assert isinstance(caught.value, ValueError)
        assert await asyncio.to_thread(store.mget, ["a"]) == [None]
        await store.aclose()

    asyncio.run(on_the_loop())
    with pytest.warns(UserWarning, match="nothing was deleted"):
        off = AstraDBStore(
            "c", token=TOKEN, api_endpoint=server.url, setup_mode=SetupMode.OFF, pre_delete_collection=True
        )
    off.close()
    assert "deleteCollection" not in server.names
