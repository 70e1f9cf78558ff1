"""What a store has beyond LangChain's interface, on every target and in both colours."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from langchain_kv import (
    AstraDBBaseStore,
    DamagedValueError,
    InvalidKeyError,
    InvalidValueError,
    KVByteStore,
    KVStore,
    Statistics,
    StoreClosedError,
    UnsupportedError,
    UsageError,
)
from langchain_kv.runtime import clock
from places import Place

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a store's method by its name: as it is, or its async twin, generators drained to lists."""

    async def run(store: Any, name: str, *args: Any, **names: Any) -> Any:
        answer = getattr(store, f"a{name}")(*args, **names)
        return [item async for item in answer] if name.startswith("yield") else await answer

    def plain(store: Any, name: str, *args: Any, **names: Any) -> Any:
        answer = getattr(store, name)(*args, **names)
        return list(answer) if name.startswith("yield") else answer

    return plain if request.param == "sync" else lambda *args, **names: asyncio.run(run(*args, **names))


class Clock:
    """A time of the test's own, in seconds from when it began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start = clock._now_ns()
        self.now_s = 0.0
        monkeypatch.setattr(clock, "_now_ns", lambda: self._start + int(self.now_s * 1e9))


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class TestExpiry:
    def test_what_has_expired_is_neither_served_nor_listed(self, place: Place, call: Call, time: Clock) -> None:
        store = place.store()
        call(store, "mset", [("a", 1), ("b", 2)], ttl_s=10)
        call(store, "mset", [("c", 3)])
        time.now_s = 9.9
        assert call(store, "mget", ["a", "b", "c"]) == [1, 2, 3]
        time.now_s = 10.1
        assert call(store, "mget", ["a", "b", "c"]) == [None, None, 3]
        assert call(store, "yield_keys") == ["c"]
        assert call(store, "yield_items") == [("c", 3)]
        assert call(store, "count") == 1

    def test_a_call_has_its_own_time_or_the_stores(self, place: Place, call: Call, time: Clock) -> None:
        store = place.store(ttl_s=10)
        call(store, "mset", [("short", 1)], ttl_s=1)
        call(store, "mset", [("for ever", 1)], ttl_s=math.inf)
        call(store, "mset", [("usual", 1)])
        call(store, "add", [("added", 1)])
        time.now_s = 5
        assert sorted(call(store, "yield_keys")) == ["added", "for ever", "usual"]
        time.now_s = 11
        assert call(store, "yield_keys") == ["for ever"]

    def test_writing_anew_takes_the_moment_away(self, place: Place, call: Call, time: Clock) -> None:
        store = place.store()
        call(store, "mset", [("a", 1)], ttl_s=10)
        call(store, "mset", [("a", 2)])
        time.now_s = 20
        assert call(store, "mget", ["a"]) == [2]

    def test_purging_removes_what_has_expired(self, place: Place, call: Call, time: Clock) -> None:
        store = place.store()
        call(store, "mset", [(f"old{number}", 1) for number in range(30)], ttl_s=10)
        call(store, "mset", [("new", 1)])
        assert call(store, "purge") == 0
        time.now_s = 11
        assert call(store, "purge") == 30
        assert place.keys(store.collection.name) == ["new"]

    def test_bytes_expire_too(self, place: Place, call: Call, time: Clock) -> None:
        store = place.store(KVByteStore)
        call(store, "mset", [("a", b"1")], ttl_s=10)
        assert call(store, "mget", ["a"]) == [b"1"]
        time.now_s = 11
        assert call(store, "mget", ["a"]) == [None]

    def test_reading_starts_the_time_anew(self, place: Place, call: Call, time: Clock) -> None:
        if place.is_http:
            with pytest.raises(UnsupportedError, match="refresh_on_read needs"):
                place.store(ttl_s=10, refresh_on_read=True)
            return
        json, raw = (place.store(kind, ttl_s=10, refresh_on_read=True) for kind in (KVStore, KVByteStore))
        call(json, "mset", [("a", {"expires_at": {"$date": 1}}), ("b", 1)])
        call(raw, "mset", [("a", b"1")])
        call(json, "mset", [("for ever", 1)], ttl_s=math.inf)
        call(json, "mset", [("long", 1)], ttl_s=100)
        for time.now_s in (9.0, 18.0, 27.0):
            assert call(json, "mget", ["a", "for ever", "long", "x"]) == [{"expires_at": {"$date": 1}}, 1, 1, None]
            assert call(raw, "mget", ["a"]) == [b"1"]
        assert call(json, "mget", ["b"]) == [None]
        time.now_s = 99
        assert call(json, "mget", ["a", "for ever", "long"]) == [None, 1, 1]
        assert call(raw, "mget", ["a"]) == [None]

    @pytest.mark.parametrize("ttl_s", [0, -1, math.nan, True, "1", -math.inf])
    @pytest.mark.parametrize("name", ["mset", "add", "update"])
    def test_a_bad_time_is_refused_before_anything_is_stored(
        self, sqlite_place: Place, call: Call, name: str, ttl_s: Any
    ) -> None:
        store = sqlite_place.store()
        arguments = ("a", lambda old: 1) if name == "update" else ([("a", 1)],)
        with pytest.raises(UsageError, match="ttl_s must be"):
            call(store, name, *arguments, ttl_s=ttl_s)
        assert call(store, "yield_keys") == []

    @pytest.mark.parametrize("ttl_s", [0, -1, math.nan, True, "1"])
    def test_a_store_refuses_a_bad_time(self, ttl_s: Any) -> None:
        with pytest.raises(UsageError, match="ttl_s must be"):
            KVStore("kv", "memory:", ttl_s=ttl_s)
        with pytest.raises(UsageError, match="needs ttl_s"):
            KVStore("kv", "memory:", refresh_on_read=True)

    def test_a_time_beyond_all_dates_is_for_ever(self, place: Place, call: Call, time: Clock) -> None:
        store = place.store()
        call(store, "mset", [("a", 1)], ttl_s=1e300)
        assert "expires_at" not in place.peek(store.collection.name, "a")


class TestNamespaces:
    def test_they_keep_apart(self, place: Place, call: Call) -> None:
        store = place.store()
        one, two, below = store.namespace("users", "1"), store.namespace("users", "2"), store.namespace("users")
        for number, each in enumerate([one, two, below]):
            call(each, "mset", [("a", number), ("b", number)])
        assert [call(each, "mget", ["a"]) for each in (one, two, below)] == [[0], [1], [2]]
        assert sorted(call(one, "yield_keys")) == ["a", "b"]
        assert sorted(call(one, "yield_items", prefix="a")) == [("a", 0)]
        call(one, "mdelete", ["a"])
        call(two, "clear")
        assert [call(each, "count") for each in (one, two, below)] == [1, 0, 2]

    def test_they_are_listed_sorted_and_once(self, place: Place, call: Call) -> None:
        store = place.store()
        call(store, "mset", [("outside", 1)])
        for labels in [("users", "2"), ("users", "1"), ("users",), ("usersand",), ("a\x1fb", "\x1e")]:
            call(store.namespace(*labels), "mset", [("k", 1), ("l", 1)])
        assert call(store, "namespaces") == [
            ("a\x1fb", "\x1e"),
            ("users",),
            ("users", "1"),
            ("users", "2"),
            ("usersand",),
        ]
        assert call(store, "namespaces", prefix=("users",)) == [("users",), ("users", "1"), ("users", "2")]
        assert call(store.namespace("users"), "namespaces") == [("1",), ("2",)]

    def test_they_nest(self, place: Place, call: Call) -> None:
        store = place.store()
        call(store.namespace("users").namespace("1"), "mset", [("a", 1)])
        assert call(store.namespace("users", "1"), "mget", ["a"]) == [1]

    def test_closing_one_closes_nothing_else_and_it_ends_with_its_parent(self, place: Place, call: Call) -> None:
        store = place.open()
        one, two = store.namespace("1"), store.namespace("2")
        call(one, "close")
        with pytest.raises(StoreClosedError):
            call(one, "mget", [])
        call(two, "mset", [("a", 1)])
        call(store, "close")
        with pytest.raises(StoreClosedError, match="of which this one is a namespace"):
            call(two, "mget", ["a"])
        with pytest.raises(StoreClosedError):
            store.namespace("3")

    def test_copies_see_the_same_and_have_a_life_of_their_own(self, sqlite_place: Place, call: Call) -> None:
        store = sqlite_place.open(ttl_s=1_000)
        users = store.namespace("users")
        call(users, "mset", [("a", 1)])
        copies = [pickle.loads(pickle.dumps(users)), copy.deepcopy(users), copy.copy(users)]
        store.close()
        for each in copies:
            assert call(each, "mget", ["a"]) == [1]
            assert repr(each) == repr(users)
            call(each, "close")

    def test_the_limit_of_a_key_counts_its_namespace(self, place: Place, call: Call) -> None:
        users = place.store().namespace("u" * 90)  # kept with two more characters
        call(users, "mset", [("k" * 7_908, 1)])
        assert call(users, "mget", ["k" * 7_908]) == [1]
        for keys in (["k" * 7_909], ["a", "k" * 7_909]):
            with pytest.raises(InvalidKeyError, match=r"limit is 7,908 .8,000, of which its namespace takes 92"):
                call(users, "mget", keys)
        with pytest.raises(InvalidKeyError, match="use shorter labels"):
            users.namespace("u" * 7_910)

    def test_one_of_a_subclass_has_its_codec_and_its_attributes(self, sqlite_place: Place, call: Call) -> None:
        class Upper(AstraDBBaseStore[str]):
            lock = None

            def encode_value(self, value: str | None) -> Any:
                return None if value is None else value.upper()

            def decode_value(self, value: Any) -> str | None:
                return None if value is None else f"{value}!"

        store = sqlite_place.store(Upper, ttl_s=1_000)
        store.lock = lock = threading.Lock()  # nothing that can be copied
        users = store.namespace("users")
        call(users, "mset", [("a", "x")])
        assert isinstance(users, Upper)
        assert users.lock is lock
        assert call(users, "mget", ["a"]) == ["X!"]
        assert call(users, "update", "a", lambda old: f"{old}?") == "X!?"
        assert call(store, "count") == 1

    @pytest.mark.parametrize("labels", [(), ("",), (1,), ("a", None), (b"a",), ("\ud800",)])
    def test_a_bad_label_is_refused(self, sqlite_place: Place, labels: Any) -> None:
        store = sqlite_place.store()
        with pytest.raises(InvalidKeyError):
            store.namespace(*labels)
        if labels:
            with pytest.raises(InvalidKeyError):
                store.namespaces(prefix=labels)

    def test_one_label_as_text_is_no_prefix(self, sqlite_place: Place, call: Call) -> None:
        with pytest.raises(InvalidKeyError, match="sequence of labels"):
            call(sqlite_place.store(), "namespaces", prefix="users")


class TestAdding:
    def test_only_what_is_absent_is_stored(self, place: Place, call: Call, time: Clock) -> None:
        store = place.store()
        call(store, "mset", [("there", 1)])
        call(store, "mset", [("expired", 1)], ttl_s=1)
        time.now_s = 2
        pairs = [("expired", 2), ("there", 2), ("new", 2), ("new", 3)]
        assert call(store, "add", pairs) == ["expired", "new"]
        assert call(store, "mget", ["expired", "there", "new"]) == [2, 1, 2]
        assert call(store, "add", pairs) == []
        assert call(store, "add", []) == []

    def test_of_sixteen_who_add_one_key_one_wins(self, place: Place, call: Call) -> None:
        store = place.store()
        barrier = threading.Barrier(16)

        def add(worker: int) -> Any:
            barrier.wait()
            return call(store, "add", [("a", worker)])

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(add, range(16)))
        (winner,) = [worker for worker, answer in enumerate(answers) if answer]
        assert call(store, "mget", ["a"]) == [winner]


class TestUpdating:
    def test_it_sees_and_changes_the_value(self, place: Place, call: Call) -> None:
        store = place.store()
        if place.is_http:
            with pytest.raises(UnsupportedError, match=r"add\(\)"):
                call(store, "update", "a", lambda old: 1)
            return
        assert call(store, "update", "a", lambda old: [old]) == [None]
        assert call(store, "update", "a", lambda old: [old]) == [[None]]
        assert call(store, "mget", ["a"]) == [[[None]]]
        assert call(store, "update", "a", lambda old: None) is None
        assert call(store, "update", "a", lambda old: None) is None
        assert call(store, "yield_keys") == []

    def test_a_value_that_expires_keeps_its_moment_unless_another_is_given(
        self, sqlite_place: Place, call: Call, time: Clock
    ) -> None:
        store = sqlite_place.store()
        call(store, "mset", [("a", 1), ("b", 1), ("c", 1)], ttl_s=10)
        time.now_s = 5
        call(store, "update", "a", lambda old: 2)
        call(store, "update", "b", lambda old: 2, ttl_s=10)
        call(store, "update", "c", lambda old: 2, ttl_s=math.inf)
        time.now_s = 12
        assert call(store, "mget", ["a", "b", "c"]) == [None, 2, 2]
        time.now_s = 16
        assert call(store, "mget", ["b", "c"]) == [None, 2]

    def test_what_it_answers_is_checked_and_what_it_raises_changes_nothing(
        self, sqlite_place: Place, call: Call
    ) -> None:
        store = sqlite_place.store()
        call(store, "mset", [("a", 1)])

        def fails(old: Any) -> Any:
            raise ZeroDivisionError

        async def coroutine(old: Any) -> Any:
            return 2

        with pytest.raises(ZeroDivisionError):
            call(store, "update", "a", fails)
        with pytest.raises(InvalidValueError, match="'a'"):
            call(store, "update", "a", lambda old: object())
        for f in (coroutine, partial(coroutine), lambda old: coroutine(1), 5, None):
            with pytest.raises(UsageError):
                call(store, "update", "a", f)
        with pytest.raises(InvalidKeyError):
            call(store, "update", "", lambda old: 2)
        assert call(store, "mget", ["a"]) == [1]

    def test_a_damaged_value_is_told_and_left(self, sqlite_place: Place, call: Call) -> None:
        store = sqlite_place.store()
        name = store.collection.name
        call(store, "mset", [("a", 1)])
        sqlite_place.plant(name, "a", "{broken")
        with pytest.raises(DamagedValueError, match="'a'"):
            call(store, "update", "a", lambda old: 2)
        with pytest.raises(DamagedValueError):
            call(store, "mget", ["a"])

    def test_no_update_is_lost(self, sqlite_place: Place, call: Call) -> None:
        store = sqlite_place.store()

        def count(_: int) -> None:
            for _ in range(10):
                call(store, "update", "n", lambda old: (old or 0) + 1)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(4)))
        assert call(store, "mget", ["n"]) == [40]


def test_keys_are_counted_and_cleared_by_prefix(place: Place, call: Call) -> None:
    store = place.store()
    call(store, "mset", [(key, 1) for key in ("a%", "a%b", "ab", "b")])
    assert [call(store, "count", prefix) for prefix in (None, "a%", "x")] == [4, 2, 0]
    call(store, "clear", "a%")
    assert sorted(call(store, "yield_keys")) == ["ab", "b"]
    call(store, "clear")
    assert call(store, "count") == 0
    call(store, "mset", [("a", 1)])  # the collection is there


def test_a_store_counts_what_it_does(place: Place, call: Call) -> None:
    store = place.store(statistics=True)
    call(store, "mset", [("a", 1), ("b", 2)])
    call(store, "mget", ["a", "x"])
    call(store, "mdelete", ["a"])
    call(store, "yield_keys")
    call(store.namespace("n"), "mset", [("a", 1)])
    assert store.statistics() == Statistics(gets=2, hits=1, puts=2, deletes=1, listed=1)
    with pytest.raises(UsageError, match="statistics=True"):
        place.store().statistics()
