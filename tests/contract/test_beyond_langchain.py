"""What a store has beyond LangChain's interface, where the shipped contract does not say it."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import sqlite3
import threading
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from langchain_kv import (
    AstraDBBaseStore,
    DamagedValueError,
    InvalidKeyError,
    InvalidValueError,
    KVStore,
    Statistics,
    UnsupportedError,
    UsageError,
)
from places import Place


class TestExpiry:
    @pytest.mark.parametrize("ttl_s", [0, -1, math.nan, True, "1", -math.inf])
    @pytest.mark.parametrize("name", ["mset", "add", "update"])
    def test_a_bad_time_is_refused_before_anything_is_stored(
        self, sqlite_place: Place, face: Any, name: str, ttl_s: Any
    ) -> None:
        store = sqlite_place.store()
        arguments = ("a", lambda old: 1) if name == "update" else ([("a", 1)],)
        with pytest.raises(UsageError, match="ttl_s must be"):
            getattr(face(store), name)(*arguments, ttl_s=ttl_s)
        assert face(store).keys() == []

    @pytest.mark.parametrize("ttl_s", [0, -1, math.nan, True, "1"])
    def test_a_store_refuses_a_bad_time(self, ttl_s: Any) -> None:
        with pytest.raises(UsageError, match="ttl_s must be"):
            KVStore("kv", "memory:", ttl_s=ttl_s)
        with pytest.raises(UsageError, match="needs ttl_s"):
            KVStore("kv", "memory:", refresh_on_read=True)

    def test_what_was_read_is_answered_also_where_it_cannot_be_refreshed(
        self, sqlite_place: Place, face: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = sqlite_place.store(ttl_s=100, refresh_on_read=True, deadline_s=0.1)
        path = sqlite_place.url.removeprefix("sqlite:")
        face(store).mset([("marked", 1)], ttl_s=50)
        before = sqlite_place.peek(store.collection.name, "marked")
        caplog.set_level(logging.DEBUG, "langchain_kv")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert face(store).mget(["marked", "x"]) == [1, None]
        assert sqlite_place.peek(store.collection.name, "marked") == before
        assert "What was read does not live longer: writing that failed (EngineBusyError)" in caplog.text
        assert "marked" not in caplog.text
        assert face(store).mget(["marked"]) == [1]
        assert sqlite_place.peek(store.collection.name, "marked") != before

    def test_a_time_beyond_all_dates_is_for_ever(self, place: Place, face: Any) -> None:
        store = place.store()
        face(store).mset([("a", 1)], ttl_s=1e300)
        assert "expires_at" not in place.peek(store.collection.name, "a")


class TestNamespaces:
    def test_copies_see_the_same_and_have_a_life_of_their_own(self, sqlite_place: Place, face: Any) -> None:
        store = sqlite_place.open(ttl_s=1_000)
        users = store.namespace("users")
        face(users).mset([("a", 1)])
        copies = [pickle.loads(pickle.dumps(users)), copy.deepcopy(users), copy.copy(users)]
        store.close()
        for each in copies:
            assert face(each).mget(["a"]) == [1]
            assert repr(each) == repr(users)
            face(each).close()

    def test_the_limit_of_a_key_counts_its_namespace(self, place: Place, face: Any) -> None:
        users = place.store().namespace("u" * 90)  # kept with two more characters
        face(users).mset([("k" * 7_908, 1)])
        assert face(users).mget(["k" * 7_908]) == [1]
        for keys in (["k" * 7_909], ["a", "k" * 7_909]):
            with pytest.raises(InvalidKeyError, match=r"limit is 7,908 .*without the labels of a namespace"):
                face(users).mget(keys)
        with pytest.raises(InvalidKeyError, match="use shorter labels"):
            users.namespace("u" * 7_910)

    def test_one_of_a_subclass_has_its_codec_and_its_attributes(self, sqlite_place: Place, face: Any) -> None:
        class Upper(AstraDBBaseStore[str]):
            lock = None

            def encode_value(self, value: str | None) -> Any:
                return None if value is None else value.upper()

            def decode_value(self, value: Any) -> str | None:
                return None if value is None else f"{value}!"

        store = sqlite_place.store(Upper, ttl_s=1_000)
        store.lock = lock = threading.Lock()  # nothing that can be copied
        users = store.namespace("users")
        face(users).mset([("a", "x")])
        assert isinstance(users, Upper)
        assert users.lock is lock
        assert face(users).mget(["a"]) == ["X!"]
        assert face(users).update("a", lambda old: f"{old}?") == "X!?"
        assert face(store).count() == 1

    @pytest.mark.parametrize("labels", [(), ("",), (1,), ("a", None), (b"a",), ("\ud800",)])
    def test_a_bad_label_is_refused(self, sqlite_place: Place, labels: Any) -> None:
        store = sqlite_place.store()
        with pytest.raises(InvalidKeyError):
            store.namespace(*labels)
        if labels:
            with pytest.raises(InvalidKeyError):
                store.namespaces(prefix=labels)

    def test_one_label_as_text_is_no_prefix(self, sqlite_place: Place, face: Any) -> None:
        with pytest.raises(InvalidKeyError, match="sequence of labels"):
            face(sqlite_place.store()).namespaces(prefix="users")


class TestUpdating:
    def test_where_it_is_not_there_the_error_says_what_is(self, http_place: Place, face: Any) -> None:
        with pytest.raises(UnsupportedError, match=r"add\(\)"):
            face(http_place.store()).update("a", lambda old: 1)
        with pytest.raises(UnsupportedError, match="refresh_on_read needs"):
            http_place.store(ttl_s=10, refresh_on_read=True)

    def test_what_it_is_given_and_what_it_answers_is_checked(self, sqlite_place: Place, face: Any) -> None:
        store = sqlite_place.store()
        face(store).mset([("a", 1)])

        async def coroutine(old: Any) -> Any:
            return 2

        with pytest.raises(InvalidValueError, match="'a'"):
            face(store).update("a", lambda old: object())
        for f in (coroutine, partial(coroutine), lambda old: coroutine(1), 5, None):
            with pytest.raises(UsageError):
                face(store).update("a", f)
        with pytest.raises(InvalidKeyError):
            face(store).update("", lambda old: 2)
        assert face(store).mget(["a"]) == [1]

    def test_a_damaged_value_is_told_and_left(self, sqlite_place: Place, face: Any) -> None:
        store = sqlite_place.store()
        name = store.collection.name
        face(store).mset([("a", 1)])
        sqlite_place.plant(name, "a", "{broken")
        with pytest.raises(DamagedValueError, match="'a'"):
            face(store).update("a", lambda old: 2)
        with pytest.raises(DamagedValueError):
            face(store).mget(["a"])


def test_a_store_counts_what_it_does(place: Place, face: Any) -> None:
    store = place.store(statistics=True)
    face(store).mset([("a", 1), ("b", 2)])
    face(store).mget(["a", "x"])
    face(store).mdelete(["a"])
    face(store).keys()
    face(store.namespace("n")).mset([("a", 1)])
    assert store.statistics() == Statistics(gets=2, hits=1, puts=2, deletes=1, listed=1)
    with pytest.raises(UsageError, match="statistics=True"):
        place.store().statistics()
