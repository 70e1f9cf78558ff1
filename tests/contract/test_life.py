"""A store's life: set-up modes on real places, copies, threads, event loops, forks."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import threading
import warnings
from typing import Any

import pytest

from langchain_kv import (
    AstraDBBaseStore,
    AstraDBByteStore,
    AstraDBError,
    AstraDBStore,
    CollectionConflictError,
    ConfigError,
    KVByteStore,
    KVStore,
    SetupMode,
    StoreClosedError,
    UnknownCollectionError,
)


def test_every_mode_ends_with_the_collection_there(place: Any, face: Any) -> None:
    for mode in (SetupMode.SYNC, SetupMode.ASYNC):
        store = face(place.store(setup_mode=mode))
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]


async def test_async_mode_in_a_loop(place: Any) -> None:
    store = place.store(AstraDBStore, setup_mode=SetupMode.ASYNC)
    await store.amset([("a", 1)])
    assert store.mget(["a"]) == [1]
    assert [key async for key in store.ayield_keys()] == ["a"]


def test_pre_delete_with_off_warns_and_deletes_nothing(place: Any, face: Any) -> None:
    store = place.store()
    face(store).mset([("a", 1)])
    with pytest.warns(UserWarning, match="nothing was deleted"):
        off = place.store(collection=store.collection.name, setup_mode=SetupMode.OFF, pre_delete_collection=True)
    assert face(off).mget(["a"]) == [1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"indexing": {"deny": ["*"]}}, r"indexing policy: \{\"deny\""),
        ({"indexing": {"allow": ["_id", "value"]}}, "indexing policy"),
        ({"indexing": {"allow": ["_id"]}, "defaultId": {"type": "uuid"}}, "defaultId"),
    ],
)
def test_a_collection_with_other_settings_is_refused(place: Any, settings: Any, says: str) -> None:
    name = place.new_name()
    place.create(name, settings)
    with pytest.raises(CollectionConflictError, match=says) as caught:
        place.store(AstraDBStore, collection=name)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AstraDBError)
    lazy = place.store(AstraDBStore, collection=name, setup_mode=SetupMode.ASYNC)
    with pytest.raises(CollectionConflictError):
        lazy.mget(["a"])
    place.store(AstraDBStore, collection=name, setup_mode=SetupMode.OFF).mget(["a"])


def test_a_collection_that_indexes_all_fields_warns_once_and_works(place: Any, face: Any) -> None:
    if place.name == "cassandra":
        pytest.skip("only the Data API can write such a collection on a cluster: refused, see tests/cluster")
    name = place.new_name()
    place.create(name, {})
    with pytest.warns(UserWarning, match="indexing turned on for all fields") as caught:
        store = place.store(AstraDBStore, collection=name)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        face(store).mset([("a", {"n": 1})])
        assert face(store).mget(["a"]) == [{"n": 1}]


def test_keyspaces_are_apart(place: Any, face: Any) -> None:
    if place.is_http:
        place.engine.create_keyspace("other_ks")
    name = place.new_name()  # the other process of the tests may be at the same
    one = place.store(collection=name)
    other = place.store(collection=name, keyspace="other_ks")
    face(one).mset([("a", 1)])
    face(other).mset([("a", 2)])
    assert (face(one).mget(["a"]), face(other).mget(["a"])) == ([1], [2])
    assert other.collection.full_name == f"other_ks.{name}"


def test_a_failed_set_up_leaves_nothing_open(place: Any) -> None:
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(ConfigError):
            place.store(collection="bad-name")
    assert threading.active_count() <= before


# -- constructors -------------------------------------------------------------------------------------------------


def test_the_first_five_arguments_may_come_by_position(place: Any) -> None:
    token = place.arguments.get("token")
    store = AstraDBStore(place.new_name(), token, place.url, None, "default_keyspace")
    store.mset([("a", 1)])
    assert store.mget(["a"]) == [1]
    store.close()


class OldClient:
    """What astrapy's AstraDB of before 2.0 shows."""

    def __init__(self, place: Any) -> None:
        self.token = place.arguments.get("token")
        self.base_url = place.url
        self.api_path = ""
        self.api_version = "v1"
        self.namespace = "default_keyspace"


def test_an_old_client_object_is_read_by_its_attributes(http_place: Any) -> None:
    name = http_place.new_name()
    for arguments in ({"astra_db_client": OldClient(http_place)}, {"async_astra_db_client": OldClient(http_place)}):
        with AstraDBByteStore(name, **arguments) as store:  # type: ignore[arg-type]
            store.mset([("a", b"1")])
            assert store.mget(["a"]) == [b"1"]
            assert store.collection.keyspace == "default_keyspace"


def test_a_client_object_and_a_token_exclude_each_other(http_place: Any) -> None:
    with pytest.raises(ValueError, match="You cannot pass 'astra_db_client'"):
        AstraDBStore("c", token="t", astra_db_client=OldClient(http_place))
    with pytest.raises(ValueError, match="base_url"):
        AstraDBStore("c", astra_db_client=object())


class Own(AstraDBBaseStore[Any]):
    def encode_value(self, value: Any) -> Any:
        return value

    def decode_value(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize("argument", ["requested_indexing_policy", "default_indexing_policy"])
def test_indexing_policies_cannot_be_given(argument: str) -> None:
    arguments: dict[str, Any] = {argument: {}}
    with pytest.raises(TypeError, match=argument):
        Own("c", api_endpoint="memory:", **arguments)


def test_the_abstract_base_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        AstraDBBaseStore("c", api_endpoint="memory:")  # type: ignore[abstract]


# -- copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KVStore, KVByteStore, AstraDBStore, AstraDBByteStore])
def test_a_store_pickles_without_its_token(place: Any, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    store = place.store(kind)
    value = b"1" if "Byte" in kind.__name__ else [1]
    store.mset([("a", value)])
    data = pickle.dumps(store)
    assert b"a-token" not in data
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "a-token-of-the-tests")
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", place.url)  # has the password of a cluster
    again = pickle.loads(data)
    assert type(again) is kind
    assert again.mget(["a"]) == [value]
    again.close()
    assert store.mget(["a"]) == [value]


def test_a_copy_of_a_closed_store_is_closed_and_a_copy_never_deletes(place: Any) -> None:
    store = place.store(pre_delete_collection=True)
    store.mset([("a", 1)])
    again = copy.deepcopy(store)
    assert again.mget(["a"]) == [1]
    again.close()
    with pytest.raises(StoreClosedError):
        copy.deepcopy(again).mget(["a"])


# -- threads, loops, processes ------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["exit", "_exit"])
def test_a_store_works_on_both_sides_of_a_fork(place: Any, how: str) -> None:
    store = place.store()
    store.mset([("parent", 1)])
    asyncio.run(store.amget(["parent"]))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if place.name == "memory":
                store.mset([("child", 2)])  # its own copy from here on
                status = 0 if store.mget(["parent", "child"]) == [1, 2] else 3
            else:
                store.mset([("child", 2)])
                asyncio.run(store.amset([("async child", 3)]))
                status = 0 if store.mget(["parent", "child", "async child"]) == [1, 2, 3] else 3
        finally:
            if how == "_exit":
                os._exit(status)
            # pytest must not go on in the child: leave as sys.exit does, through the interpreter's own end.
            import atexit

            atexit._run_exitfuncs()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    store.mset([("parent", 4)])
    assert asyncio.run(store.amget(["parent"])) == [4]
    if place.name != "memory":
        assert store.mget(["child", "async child"]) == [2, 3]


def test_off_never_creates_a_file(tmp_path: Any, face: Any) -> None:
    path = tmp_path / "kv.db"
    store = KVStore("c", f"sqlite:{path}", setup_mode=SetupMode.OFF)
    for call in (lambda: face(store).mget(["a"]), lambda: face(store).mset([("a", 1)]), lambda: face(store).keys()):
        with pytest.raises(UnknownCollectionError):
            call()
    assert list(tmp_path.iterdir()) == []
    store.close()
