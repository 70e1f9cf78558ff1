"""What a store promises beyond LangChain's interface, as tests: the other half of ``StoreContract``."""

from __future__ import annotations

import asyncio
import copy
import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from langchain_kv.errors import StoreClosedError, UnsupportedError
from langchain_kv.stores.base import KVByteStore, KVStore
from langchain_kv.stores.setup import SetupMode
from langchain_kv.testing.contract import Clock, Contract, Opened, StoreFace

__all__ = ["ExtendedContract"]


class ExtendedContract(Contract):
    """Tests of expiry, namespaces, adding and updating, and of a store's life, by the fixtures of ``StoreContract``."""

    # -- expiry -------------------------------------------------------------------------------------------------------

    def test_what_has_expired_is_neither_served_nor_listed(self, face: StoreFace, time: Clock) -> None:
        face.mset([("a", 1), ("b", {"$odd": {"": 2}})], ttl_s=10)
        face.mset([("c", 3)])
        time.now_s = 9.9
        assert face.mget(["a", "b", "c"]) == [1, {"$odd": {"": 2}}, 3]
        time.now_s = 10.1
        assert face.mget(["a", "b", "c"]) == [None, None, 3]
        assert face.keys() == ["c"]
        assert face.items() == [("c", 3)]
        assert face.count() == 1

    def test_bytes_expire_too(self, blobs: StoreFace, time: Clock) -> None:
        blobs.mset([("a", b"1")], ttl_s=10)
        assert blobs.mget(["a"]) == [b"1"]
        time.now_s = 11
        assert blobs.mget(["a"]) == [None]

    def test_a_call_has_its_own_time_or_the_stores(self, opened: Opened, time: Clock) -> None:
        face = opened(ttl_s=10)
        face.mset([("short", 1)], ttl_s=1)
        face.mset([("for ever", 1)], ttl_s=math.inf)
        face.mset([("beyond all dates", 1)], ttl_s=1e300)
        face.mset([("usual", 1)])
        time.now_s = 5
        assert face.keys() == ["beyond all dates", "for ever", "usual"]
        time.now_s = 11
        assert face.keys() == ["beyond all dates", "for ever"]

    def test_writing_anew_takes_the_moment_away(self, face: StoreFace, time: Clock) -> None:
        face.mset([("a", 1)], ttl_s=10)
        face.mset([("a", 2)])
        time.now_s = 20
        assert face.mget(["a"]) == [2]

    @pytest.mark.parametrize(
        ("kind", "value"), [(KVStore, {"expires_at": {"$date": 1}}), (KVByteStore, b"1")], ids=["JSON", "bytes"]
    )
    def test_reading_starts_the_time_anew(self, opened: Opened, time: Clock, kind: type[Any], value: Any) -> None:
        with self._supported(self.updates):
            face = opened(kind, ttl_s=10, refresh_on_read=True)
            face.mset([("a", value), ("b", value)])
            face.mset([("for ever", value)], ttl_s=math.inf)
            face.mset([("long", value)], ttl_s=100)
            for time.now_s in (9.0, 18.0, 27.0):
                assert face.mget(["a", "for ever", "long", "x"]) == [value, value, value, None]
            assert face.mget(["b"]) == [None]
            time.now_s = 99
            assert face.mget(["a", "for ever", "long"]) == [None, value, value]

    # -- namespaces ---------------------------------------------------------------------------------------------------

    def test_namespaces_keep_apart(self, face: StoreFace) -> None:
        one, two, below = face.namespace("users", "1"), face.namespace("users", "2"), face.namespace("users")
        for number, each in enumerate([one, two, below]):
            each.mset([("a", number), ("b", number)])
        assert [each.mget(["a"]) for each in (one, two, below)] == [[0], [1], [2]]
        assert one.keys() == ["a", "b"]
        assert one.items("a") == [("a", 0)]
        one.mdelete(["a"])
        two.clear()
        assert [each.count() for each in (one, two, below)] == [1, 0, 2]

    def test_namespaces_are_listed_sorted_and_once(self, face: StoreFace) -> None:
        face.mset([("outside", 1)])
        for labels in [("users", "2"), ("users", "1"), ("users",), ("usersand",), ("a\x1fb", "\x1e")]:
            face.namespace(*labels).mset([("k", 1), ("l", 1)])
        users = [("users",), ("users", "1"), ("users", "2")]
        assert face.namespaces() == [("a\x1fb", "\x1e"), *users, ("usersand",)]
        assert face.namespaces(prefix=("users",)) == users
        assert face.namespace("users").namespaces() == [("1",), ("2",)]

    def test_namespaces_nest(self, face: StoreFace) -> None:
        face.namespace("users").namespace("1").mset([("a", 1)])
        assert face.namespace("users", "1").mget(["a"]) == [1]

    def test_a_namespace_closes_nothing_else_and_ends_with_its_parent(self, face: StoreFace) -> None:
        one, two = face.namespace("1"), face.namespace("2")
        one.close()
        with pytest.raises(StoreClosedError):
            one.mget([])
        two.mset([("a", 1)])
        face.close()
        with pytest.raises(StoreClosedError, match="of which this one is a namespace"):
            two.mget(["a"])
        with pytest.raises(StoreClosedError):
            face.namespace("3")

    # -- adding -------------------------------------------------------------------------------------------------------

    def test_only_what_is_absent_is_added(self, face: StoreFace, time: Clock) -> None:
        face.mset([("there", 1)])
        face.mset([("expired", 1), ("odd", {"$": 1})], ttl_s=1)
        time.now_s = 2
        pairs = [("expired", 2), ("odd", 2), ("there", 2), ("new", 2), ("new", 3)]
        with self._supported(self.adds):
            assert face.add(pairs) == ["expired", "odd", "new"]
            assert face.mget(["expired", "odd", "there", "new"]) == [2, 2, 1, 2]
            assert face.add(pairs) == []
            assert face.add([]) == []

    def test_what_is_added_expires(self, opened: Opened, time: Clock) -> None:
        face = opened(ttl_s=10)
        with self._supported(self.adds):
            face.add([("a", 1)])
            face.add([("b", 1)], ttl_s=20)
            time.now_s = 11
            assert face.keys() == ["b"]

    def test_of_sixteen_who_add_one_key_one_wins(self, face: StoreFace) -> None:
        barrier = Barrier(16)

        def add(worker: int) -> Any:
            barrier.wait()
            return StoreFace(face.target, face.is_async).add([("a", worker)])

        with self._supported(self.adds), ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(add, range(16)))
            assert answers.count(["a"]) == 1
            assert face.mget(["a"]) == [answers.index(["a"])]

    # -- updating -----------------------------------------------------------------------------------------------------

    def test_an_update_sees_and_changes_the_value(self, face: StoreFace) -> None:
        with self._supported(self.updates):
            assert face.update("a", lambda old: [old]) == [None]
            assert face.update("a", lambda old: [old]) == [[None]]
            assert face.mget(["a"]) == [[[None]]]
            assert face.update("a", lambda old: None) is None
            assert face.update("a", lambda old: None) is None
            assert face.keys() == []

    def test_an_update_keeps_the_moment_unless_another_is_given(self, face: StoreFace, time: Clock) -> None:
        face.mset([("a", 1), ("b", 1), ("c", 1)], ttl_s=10)
        time.now_s = 5
        with self._supported(self.updates):
            face.update("a", lambda old: 2)
            face.update("b", lambda old: 2, ttl_s=10)
            face.update("c", lambda old: 2, ttl_s=math.inf)
            time.now_s = 12
            assert face.mget(["a", "b", "c"]) == [None, 2, 2]
            time.now_s = 16
            assert face.mget(["b", "c"]) == [None, 2]

    def test_what_an_update_raises_changes_nothing(self, face: StoreFace) -> None:
        face.mset([("a", 1)])

        def fails(old: Any) -> Any:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError if self.updates else UnsupportedError):
            face.update("a", fails)
        assert face.mget(["a"]) == [1]

    def test_no_update_is_lost(self, face: StoreFace) -> None:
        def increment(_: int) -> None:
            for _ in range(10):
                StoreFace(face.target, face.is_async).update("n", lambda old: (old or 0) + 1)

        with self._supported(self.updates), ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, range(4)))
            assert face.mget(["n"]) == [40]

    # -- all the keys -------------------------------------------------------------------------------------------------

    def test_keys_are_counted_and_cleared_by_prefix(self, face: StoreFace) -> None:
        face.mset([(key, 1) for key in ("a%", "a%b", "ab", "b")])
        assert [face.count(prefix) for prefix in (None, "a%", "x")] == [4, 2, 0]
        face.clear("a%")
        assert face.keys() == ["ab", "b"]
        face.clear()
        assert face.count() == 0
        face.mset([("a", 1)])  # the collection is there
        assert face.keys() == ["a"]

    # -- life ---------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", SetupMode)
    def test_another_store_sees_the_values_that_are_there(
        self, opened: Opened, face: StoreFace, mode: SetupMode
    ) -> None:
        face.mset([("a", 1)])
        assert opened(setup_mode=mode).mget(["a"]) == [1]

    @pytest.mark.parametrize("mode", [SetupMode.SYNC, SetupMode.ASYNC])
    def test_pre_delete_empties_the_collection_first(self, opened: Opened, face: StoreFace, mode: SetupMode) -> None:
        face.mset([("a", 1)])
        again = opened(setup_mode=mode, pre_delete_collection=True)
        assert again.mget(["a"]) == [None]
        again.mset([("a", 2)])
        assert again.mget(["a"]) == [2]

    def test_a_closed_store_says_so(self, face: StoreFace) -> None:
        face.close()
        face.close()
        calls = [(verb, [[("a", 1)]]) for verb in ("mset", "add")] + [(verb, [["a"]]) for verb in ("mget", "mdelete")]
        calls += [(verb, []) for verb in ("keys", "items", "count", "clear", "purge", "namespaces")]
        for verb, arguments in calls:
            with pytest.raises(StoreClosedError):
                getattr(face, verb)(*arguments)

    def test_closing_one_store_leaves_another_alone(self, opened: Opened, face: StoreFace) -> None:
        other = opened()
        face.mset([("a", 1)])
        other.mset([("a", 2)])
        face.close()
        assert other.mget(["a"]) == [2]

    def test_a_store_is_a_context_manager_both_ways(self, face: StoreFace, opened: Opened) -> None:
        with face.target as store:
            store.mset([("a", 1)])

        async def use() -> Any:
            async with opened().target as other:
                assert await other.amget(["a"]) == [1]
            return other

        for ended in (store, asyncio.run(use())):
            with pytest.raises(StoreClosedError):
                ended.mget(["a"])

    def test_a_copy_lives_and_closes_apart(self, face: StoreFace) -> None:
        face.mset([("a", 1)])
        for copied in (copy.copy(face.target), copy.deepcopy(face.target)):
            other = StoreFace(copied, face.is_async)
            assert other.mget(["a"]) == [1]
            other.close()
            with pytest.raises(StoreClosedError):
                other.mget(["a"])
        assert face.mget(["a"]) == [1]

    def test_event_loops_may_follow_each_other(self, face: StoreFace) -> None:
        for n in range(3):
            asyncio.run(face.target.amset([("a", n)]))
            assert asyncio.run(face.target.amget(["a"])) == [n]
        assert face.mget(["a"]) == [2]

    def test_a_plain_call_works_in_a_running_loop(self, opened: Opened) -> None:
        async def main() -> None:
            store = opened().target
            store.mset([("a", 1)])
            assert store.mget(["a"]) == [1]
            assert await store.amget(["a"]) == [1]

        asyncio.run(main())

    def test_threads_share_a_store_with_a_loop_each_or_none(self, face: StoreFace) -> None:
        async def in_a_loop(name: str) -> None:
            for n in range(20):
                await asyncio.gather(*(face.target.amset([(f"{name}{m}", n)]) for m in range(5)))
                assert await face.target.amget([f"{name}{m}" for m in range(5)]) == [n] * 5

        def in_none(name: str) -> None:
            for n in range(20):
                face.target.mset([(name, n)])
                assert face.target.mget([name]) == [n]

        with ThreadPoolExecutor(3) as pool:
            for thread in [*(pool.submit(asyncio.run, in_a_loop(name)) for name in "ab"), pool.submit(in_none, "c")]:
                thread.result()
